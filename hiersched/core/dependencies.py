"""Which tasks of a client wait for which others; at the root, which sees every result.

Conditions (core.conditions) listen to the tasks that they name. Whenever one ends it is told (`on_ended`): a task whose
conditions are all met is then `ready`; one with a condition that can be met no more has `failed`, and may make others
fail that wait for it. What has ended before is looked up among the client's answers, or the client says how it ended. A
task that nobody here knows is not waited for: it would never end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from hiersched.core.answers import Answers
from hiersched.core.conditions import SEEN_TO_FAIL, Blocked, Condition, conditions_of, misfit_text, named_by
from hiersched.core.wording import name_of, tasks_text
from hiersched.limits import DEPENDENCIES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

_NEVER_S = float("inf")
_STALE_MAX = 64  # deadlines of tasks that wait no more; above, and above their equal in others, they are dropped


class Ready(NamedTuple):
    """A task that waits for nothing any more, without the terms that it waited for. follows: ranks it has to run on."""

    task: m.Task
    frames: Sequence[Frame]
    follows: int


class Failed(NamedTuple):
    """A task that will never run: a code of a result, and why."""

    task: m.TaskId
    code: int
    text: str


class Dependencies:
    """The tasks of one client that wait for others. is_open: whether a task has been taken on and has not ended.

    ready, failed: what has become of them, until somebody takes them over.
    """

    def __init__(self, answers: Answers, is_open: Callable[[m.TaskId], bool]) -> None:
        self.blocked: dict[m.TaskId, Blocked] = {}
        self.ready: list[Ready] = []
        self.failed: list[Failed] = []
        self._answers = answers
        self._ended = answers.look_up()
        self._is_open = is_open
        self._listeners: dict[m.TaskId, dict[Condition, None]] = {}
        self._deadlines: list[tuple[float, int, Blocked]] = []
        self._timed = 0  # tasks that have one
        self._serial = 0

    def add(self, task: m.Task, frames: Sequence[Frame], now: float) -> None:
        """A task that names others in its terms: it waits, or is ready or has failed at once."""
        assert task.terms is not None
        terms = task.terms
        refusal = _refusal(task.id, terms)
        if refusal is not None:
            self.failed.append(refusal)
            return
        blocked = self.blocked[task.id] = Blocked(task, frames, terms)
        known = {seen: _as_seen(seen, ok, rank) for seen, ok, rank in terms.known} if terms.known else None
        blocked.conditions = conditions_of(blocked)
        blocked.open = len(blocked.conditions) + 1  # so that it is not ready before all have begun
        for condition in blocked.conditions:
            self._begin(condition, known)
            if blocked.over:
                return
        blocked.open -= 1
        if not blocked.open:
            self._release(blocked)
        elif 0.0 < terms.timeout_s < _NEVER_S:
            self._set_deadline(blocked, now + terms.timeout_s)

    def on_ended(self, result: m.Result, size: int) -> None:
        """A task has ended; `size` bytes of frames came with its result."""
        listeners = self._listeners.pop(result.id, ())
        for condition in listeners:
            if not condition.blocked.over:
                self._hear(condition, result, size)
        for condition in listeners:  # a task may listen with more than one
            if not (condition.blocked.over or condition.blocked.open):
                self._release(condition.blocked)

    def take(self) -> tuple[list[Ready], list[Failed]]:
        """Those that have become ready and that have failed."""
        taken = self.ready, self.failed
        self.ready, self.failed = [], []
        return taken

    def withdraw(self, ids: Iterable[m.TaskId]) -> list[m.Task]:
        """Those of these tasks that waited here, and do no more."""
        withdrawn = []
        for task in ids:
            blocked = self.blocked.get(task)
            if blocked is not None:
                self._drop(blocked)
                withdrawn.append(blocked.task)
        return withdrawn

    def why(self, task: m.TaskId) -> str | None:
        """What a task waits for; None if it does not wait here."""
        blocked = self.blocked.get(task)
        if blocked is None:
            return None
        unmet = [condition for condition in blocked.conditions if not condition.met]
        return "; ".join(
            condition.text([other for other in condition.tasks if condition in self._listeners.get(other, ())])
            for condition in unmet
        )

    # --- conditions ---------------------------------------------------------------------------------------------------

    def _begin(self, condition: Condition, known: dict[m.TaskId, m.Result] | None) -> None:
        """Tell a condition what has ended, and let it listen to what has not."""
        ended, blocked, listeners = self._ended, condition.blocked, self._listeners
        unknown = []
        for task in condition.tasks:
            result = ended.get(task)
            if result is None and known is not None:
                result = known.get(task)
            if result is not None:
                self._hear(condition, result, self._answers.size_of(task))
                if blocked.over:
                    return
            elif task in listeners:
                listeners[task][condition] = None
            elif task in self.blocked or self._is_open(task):
                listeners[task] = {condition: None}
            else:
                unknown.append(task)
        if unknown:
            self._fail(blocked, m.DEPENDENCY, _unknown_text(unknown))

    def _hear(self, condition: Condition, result: m.Result, size: int) -> None:
        why_not = condition.hear(result, size)
        if why_not is not None:
            self._fail(condition.blocked, m.DEPENDENCY, why_not)

    def _release(self, blocked: Blocked) -> None:
        self._drop(blocked)
        follows = blocked.follows
        task = blocked.released(follows)
        if task is None:
            self.failed.append(Failed(blocked.task.id, m.DEPENDENCY, misfit_text(blocked)))
        else:
            self.ready.append(Ready(task, blocked.frames, follows))

    def _fail(self, blocked: Blocked, code: int, text: str) -> None:
        self._drop(blocked)
        self.failed.append(Failed(blocked.task.id, code, text))

    def _drop(self, blocked: Blocked) -> None:
        """A task waits no more: nothing listens for it."""
        blocked.over = True
        self._timed -= blocked.timed
        del self.blocked[blocked.task.id]
        for condition in blocked.conditions:
            for task in condition.tasks if condition.left else ():
                others = self._listeners.get(task)
                if others is not None:
                    others.pop(condition, None)
                    if not others:
                        del self._listeners[task]

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def next_deadline_s(self) -> float:
        """When a task has waited as long as it may; infinite if there is none."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][2].over:
            heappop(deadlines)
        return deadlines[0][0] if deadlines else _NEVER_S

    def on_time(self, now: float) -> None:
        """Tasks that have waited as long as they may have failed."""
        while self.next_deadline_s <= now:
            blocked = heappop(self._deadlines)[2]
            waited_for = self.why(blocked.task.id)
            text = f"its timeout of {blocked.terms.timeout_s:g} s is over, and {waited_for}"
            self._fail(blocked, m.TIMED_OUT, text)

    def _set_deadline(self, blocked: Blocked, time_s: float) -> None:
        self._serial += 1
        self._timed += 1
        blocked.timed = True
        heappush(self._deadlines, (time_s, self._serial, blocked))
        if len(self._deadlines) > 2 * self._timed + _STALE_MAX:
            self._deadlines = [entry for entry in self._deadlines if not entry[2].over]
            heapify(self._deadlines)


def _refusal(task: m.TaskId, terms: m.Terms) -> Failed | None:
    """Why a task cannot even wait; None if it can."""
    named = named_by(terms)
    if len(named) > DEPENDENCIES_MAX:
        return Failed(task, m.REFUSED, f"it names {len(named)} tasks to wait for, and may name {DEPENDENCIES_MAX}")
    if task in named:
        return Failed(task, m.DEPENDENCY, f"task {name_of(task)} depends on itself")
    if min(named, default=0) < 0:
        return Failed(task, m.DEPENDENCY, _unknown_text([other for other in named if other < 0]))
    for asked in (terms.after, terms.follow):
        if asked is not None and asked.tasks and not (asked.success or asked.failure):
            text = f"this task waits for {tasks_text(asked.tasks)} to end, in neither success nor failure"
            return Failed(task, m.DEPENDENCY, text)
    return None


def _unknown_text(unknown: Sequence[m.TaskId]) -> str:
    return (
        f"this task depends on {tasks_text(unknown)}, of which nothing is known here: never submitted, "
        "or ended and forgotten"
    )


def _as_seen(task: m.TaskId, ok: bool, rank: int) -> m.Result:
    """The result of a task, as far as its client tells. The client holds the value, and who needs it asks for it."""
    return m.Result(task, rank, 0, 0 if ok else SEEN_TO_FAIL, b"", 0)
