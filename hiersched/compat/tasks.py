"""The task channel: load-balanced calls of old clients, with all that they may ask for.

Dependencies name tasks by the ids of old clients, whichever of them submitted those: all are tasks of one session here.
"""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from hiersched.compat.calls import packed_apply
from hiersched.compat.contents import Content, plain_error
from hiersched.compat.desk import Desk, Engine, Errand
from hiersched.compat.wire import Message
from hiersched.data.outcomes import Outcome, lost_outcome
from hiersched.errors import (
    DependencyError,
    EngineLost,
    HierschedError,
    ProtocolError,
    RemoteError,
    UnknownEngine,
    UserError,
)
from hiersched.kernels import bitset
from hiersched.limits import DEPENDENCIES_MAX, RETRIES_MAX
from hiersched.protocol import messages as m

_PLAIN = m.Terms()


class _TaskErrand(Errand):
    """A task on its way. Old clients expect that it never runs twice on one engine: one that has failed on all there
    are waits for another as long as it may, and has failed in vain then. Here it does not wait.
    """

    __slots__ = ("waits",)

    def __init__(self, desk: Desk, message: Message) -> None:
        super().__init__(desk, message, channel="task", path=message.idents[:1], engine=None)
        self.waits = False  # if it fails

    def answer(self, content: Content, outcome: Outcome, engine: Engine | None) -> None:
        """Tell the client, and the books."""
        if self.waits and isinstance(outcome.error, (RemoteError, EngineLost)):
            text = f"it has failed on every engine that it may run on, the last time with {outcome.error}"
            super().answer(plain_error("TaskTimeout", text), lost_outcome(outcome.error), None)
        else:
            super().answer(content, outcome, engine)


class _Invalid(DependencyError):
    """A dependency on a task that never was."""


class Tasks:
    """Requests to whichever engine is free."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take(self, message: Message) -> None:
        """A request has come: idents are its client; none: it is submitted again, and nobody waits for the answer."""
        if message.msg_type != "apply_request":
            raise ProtocolError(f"a task is a call, not {message.msg_type!r}")
        desk = self._desk
        desk.books.asked(message, queue="task")
        errand = _TaskErrand(desk, message)
        try:
            terms = self._terms(message)
            spare = (bitset.from_wire(terms.targets).bit_count() or len(desk.roster)) - 1
            if terms.retries > spare:
                errand.waits = terms.timeout_s > 0
                terms = replace(terms, retries=max(0, spare))
            pending = desk.exchange.submit(packed_apply(message), None if terms == _PLAIN else terms)
        except (ProtocolError, UnknownEngine, UserError, DependencyError) as error:
            self._refuse(errand, error)
            return
        desk.exchange.ids.name_task(message.msg_id, pending.id)
        errand.begin(pending)

    def _refuse(self, errand: Errand, error: HierschedError) -> None:
        name = "InvalidDependency" if isinstance(error, _Invalid) else type(error).__name__
        if isinstance(error, UnknownEngine):
            name = "ImpossibleDependency"
        errand.answer(plain_error(name, str(error)), lost_outcome(error), None)

    def _terms(self, message: Message) -> m.Terms:
        """What a task asks for. Raises DependencyError, UnknownEngine, UserError, ProtocolError."""
        asked = message.metadata
        targets = 0
        wanted = asked.get("targets") or []
        if not isinstance(wanted, list):
            raise ProtocolError(f"the targets of a task are a list of engines' uuids, not {type(wanted).__name__}")
        for uuid in wanted:
            rank = self._desk.roster.rank_of(str(uuid))
            if rank is not None:
                targets |= 1 << rank
        if wanted and not targets:
            raise UnknownEngine("none of the engines that it may run on is there any more")
        return m.Terms(
            targets=bitset.to_wire(targets),
            retries=min(RETRIES_MAX, _number(asked, "retries", int)),
            after=self._dependency(asked.get("after"), message.msg_id),
            follow=self._dependency(asked.get("follow"), message.msg_id),
            timeout_s=_number(asked, "timeout", float),
        )

    def _dependency(self, named: Any, own: str) -> m.Dependency | None:
        """A dependency as old clients write it: ids, or a dict with ids and what counts."""
        rules: dict[str, bool] = {"all": True, "success": True, "failure": False}
        if isinstance(named, dict):
            rules = {rule: bool(named.get(rule, usual)) for rule, usual in rules.items()}
            named = named.get("dependencies")
        if isinstance(named, str):
            named = [named]
        if not named:
            return None
        if not isinstance(named, (list, tuple)):
            raise ProtocolError(f"a dependency is a list of ids, not {type(named).__name__}")
        if len(named) > DEPENDENCIES_MAX:
            raise UserError(f"a task can wait for {DEPENDENCIES_MAX} others, not for {len(named)}")
        tasks = []
        for msg_id in dict.fromkeys(map(str, named)):
            task = self._desk.exchange.ids.task_of(msg_id)
            if task is None or msg_id == own:
                raise _Invalid(f"there is no task {msg_id} to wait for")
            tasks.append(task)
        return m.Dependency(tasks, **rules)


def _number(asked: dict[str, Any], name: str, kind: type) -> Any:
    """A number that may be missing. Raises ProtocolError for what is none, or negative."""
    try:
        found = kind(asked.get(name) or 0)
    except (TypeError, ValueError, OverflowError):
        raise ProtocolError(f"{name} is a number, not {asked.get(name)!r}") from None
    if not 0 <= found < float("inf"):
        raise ProtocolError(f"{name} is at least 0, and finite, not {found}")
    return found
