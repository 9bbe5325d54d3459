"""What tasks of a session wait for, and what the client tells the root about it.

The root decides when and where a task may run, but forgets how a task ended as soon as the client has seen it. So right
before a task is sent it is bound: of the tasks it names, those that have ended are told to the root, small results that
it takes ride along, and large ones are named, so that whoever needs one can ask; the engine that has it is the hint. A
task whose dependencies have all succeeded is an ordinary task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from msgspec.structs import replace

from hiersched.client.names import name_of, request_of
from hiersched.client.pending import Pending
from hiersched.client.requests import Requests
from hiersched.client.supplies import Supplies
from hiersched.data.outcomes import original_of
from hiersched.data.serialize import PackedCall, pack_result
from hiersched.errors import UnknownDependency, UnknownTask, UserError
from hiersched.limits import DEPENDENCIES_MAX, RESULT_GIVEN_BYTES_MAX
from hiersched.protocol import messages as m

Known = tuple[m.TaskId, bool, int]  # a task that has ended: whether it succeeded, and where it ran

_NOTHING = m.Terms()


class Bindings:
    """The dependencies of one session's tasks. Used under the session's lock."""

    def __init__(self, table: Requests, supplies: Supplies) -> None:
        self._find = table.find
        self._ledger = table.ledger
        self._supplies = supplies

    # --- when a task is made ------------------------------------------------------------------------------------------

    def dependency(self, named: Any, *, all: bool, success: bool, failure: bool) -> tuple[m.Dependency, list[Known]]:
        """A dependency on these AsyncResults, futures or ids; and those of its tasks that have ended.

        Raises UnknownDependency for a task that never was, is of another session, or ended too long ago; UserError for
        a call on engines that has not ended, and for too many tasks.
        """
        try:
            tasks = list(dict.fromkeys(task for item in _listed(named) for task in self._tasks_of(item)))
            if len(tasks) > DEPENDENCIES_MAX:
                raise UserError(f"a task can wait for {DEPENDENCIES_MAX} others, not for {len(tasks)}")
            for task in tasks:
                self.check(task)
        except UnknownTask as error:
            raise UnknownDependency(str(error)) from None
        return m.Dependency(tasks, all, success, failure), self._known(tasks)

    def _tasks_of(self, item: Any) -> list[m.TaskId]:
        if isinstance(item, int):
            return [item]
        if isinstance(item, str):
            return [request_of(item)]
        if not hasattr(item, "requests"):
            raise TypeError(f"a task is named by its AsyncResult or id, not by {item!r}")
        return [pending.id for pending in item.requests()]

    def check(self, task: m.TaskId) -> None:
        """Raise UnknownTask or UserError for what a task cannot wait for."""
        pending = self._find(task)
        if pending is not None and not pending.complete and pending.targets:
            raise UserError(
                f"{name_of(task)} is a call on engines {list(pending.targets)} that has not ended: tasks wait for "
                "load-balanced tasks only; wait for it first"
            )
        if pending is None and self._ledger.end_of(task) is None:
            raise UnknownTask(self._ledger.why_unknown(task))

    def begin(self, pending: Pending, packed: PackedCall, terms: m.Terms | None) -> None:
        """Note what a new task asks for. What it takes is held until it ends."""
        if packed.inputs:
            given = {task for task, _ in packed.given}
            pending.inputs = tuple(self._input(task) for task in packed.inputs if task not in given)
        pending.terms = _NOTHING if terms is None else terms

    def _input(self, task: m.TaskId) -> Pending:
        self.check(task)
        pending = self._find(task)
        if pending is None:
            raise UnknownTask(
                f"the result of task {name_of(task)} is an argument and was dropped: nobody has held its future"
            )
        return pending

    def at_hand(self, packed: PackedCall) -> PackedCall:
        """A call on engines, which does not wait: the results it takes are among its blobs.

        Raises UserError for one that has not ended, the error of one that failed.
        """
        blobs = dict(packed.blobs)
        given = dict(packed.given)
        for task in packed.inputs:
            digest = m.result_digest(task)
            if task in given:
                blobs[digest] = pack_result([given[task]])
            elif digest not in blobs:
                source = self._input(task)
                if not source.complete:
                    raise UserError(
                        f"the result of task {name_of(task)} is an argument and not there yet: calls on engines do "
                        "not wait for tasks; wait for it, or use a load-balanced view"
                    )
                blobs[digest] = pack_result(source.outcomes[0].own_frames())
        return replace(packed, blobs=blobs, inputs=(), given=[])

    # --- when it is sent ----------------------------------------------------------------------------------------------

    def bind(self, pending: Pending, task: m.Task) -> m.Task:
        """The task as it is sent, with all that is known by now about what it waits for."""
        terms = pending.terms
        assert terms is not None, "only a task that asks for something is bound"
        after = self._without_met(terms.after)
        waited = [*(after.tasks if after else ()), *(terms.follow.tasks if terms.follow else ())]
        known = self._known(waited)
        inputs: list[m.TaskId] = []
        needs, given, hint = list(task.needs), list(task.given), terms.hint
        for source in pending.inputs:
            outcome = source.outcomes[0]
            small = small_result(source)
            if small is not None:
                given.append((source.id, small))
                continue
            self._supplies.promise(pending, m.result_digest(source.id), partial(_packed_result, source))
            if outcome is None or not outcome.ok:
                inputs.append(source.id)
                known += self._known([source.id])
            else:
                needs.append(m.result_digest(source.id))
                hint = outcome.engine_id if hint < 0 else hint
        own = replace(terms, after=after, inputs=inputs, known=known, hint=hint)
        return replace(task, needs=needs, given=given, terms=None if own == _NOTHING else own)

    def _without_met(self, after: m.Dependency | None) -> m.Dependency | None:
        """A dependency without what it need not wait for any more; None if it is met."""
        if after is None or not after.tasks:
            return None
        met = {task for task, ok, _ in self._known(after.tasks) if (after.success if ok else after.failure)}
        if not met:
            return after
        if not after.all:
            return None
        left = [task for task in after.tasks if task not in met]
        return replace(after, tasks=left) if left else None

    def _known(self, tasks: Iterable[m.TaskId]) -> list[Known]:
        ends = ((task, self._ledger.end_of(task)) for task in tasks)
        return [(task, *end) for task, end in ends if end is not None]

    # --- when it has failed -------------------------------------------------------------------------------------------

    def cause_of(self, pending: Pending) -> BaseException | None:
        """Why a task did not run: the error of the first task it waited for that failed and is still known."""
        terms = pending.terms
        waited: list[m.TaskId] = []
        for dependency in (terms.after, terms.follow) if terms is not None else ():
            waited += dependency.tasks if dependency is not None else ()
        sources = [*pending.inputs, *(found for found in map(self._find, waited) if found is not None)]
        for source in sources:
            for outcome in source.outcomes:
                if outcome is not None and outcome.error is not None:
                    return original_of(outcome.error)
        return None


def small_result(pending: Pending) -> bytes | None:
    """The outcome's only frame of a task that has succeeded, if it is small enough to ride along."""
    outcome = pending.outcomes[0]
    if outcome is None or not outcome.ok:
        return None
    frames = outcome.own_frames()
    if len(frames) > 1 or len(frames[0]) > RESULT_GIVEN_BYTES_MAX:
        return None
    return bytes(frames[0])


def _packed_result(pending: Pending) -> bytes | None:
    """The blob that a task's result is, once it has succeeded."""
    outcome = pending.outcomes[0]
    return pack_result(outcome.own_frames()) if outcome is not None and outcome.ok else None


def _listed(named: Any) -> Sequence[Any]:
    return list(named) if isinstance(named, (list, tuple, set, frozenset)) else [named]
