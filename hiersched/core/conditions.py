"""What one task waits for: its conditions, and what they have gathered for it so far.

A condition names tasks of which all, or any, have to end in success, in failure, or either way. There are three kinds.
The results of inputs are arguments: small ones are gathered here, large ones are named, and the task had best run where
the largest is. What is followed says where the task may run: where all of those ran, or any. Of others only the end
counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiersched.core.queues import ANY
from hiersched.core.wording import ending_text, engines_text, name_of, tasks_text
from hiersched.kernels import bitset
from hiersched.limits import ENGINES_MAX, GIVEN_BYTES_MAX, RESULT_GIVEN_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

INPUT, AFTER, FOLLOW = range(3)
SEEN_TO_FAIL = -1  # in the place of a result's code: the client has seen it fail, and does not say how

_RAN = frozenset({0, SEEN_TO_FAIL, m.RAISED, m.ENGINE_LOST, m.ANSWER_LOST, m.INTERRUPTED})
_NO_TARGETS: m.Ranks = (0, b"")


@dataclass(slots=True, eq=False)
class Blocked:
    """A task that waits. open: its conditions that are not met; over: it waits no more; timed: it has a deadline."""

    task: m.Task
    frames: Sequence[Frame]
    terms: m.Terms
    conditions: list[Condition] = field(default_factory=list)
    open: int = 0
    over: bool = False
    timed: bool = False
    _given: list[tuple[m.TaskId, bytes]] = field(default_factory=list)
    _given_bytes: int = 0
    _needs: list[m.Digest] = field(default_factory=list)
    _hint: int = -1
    _hint_bytes: int = -1

    def take_result(self, result: m.Result, size: int) -> None:
        """One of its arguments is there, with `size` bytes besides its payload. The client may have given it itself."""
        task, payload = result.id, result.payload
        if any(task == given for given, _ in self.task.given):
            return
        fits = len(payload) <= RESULT_GIVEN_BYTES_MAX and self._given_bytes + len(payload) <= GIVEN_BYTES_MAX
        if payload and not result.frames and fits:
            self._given.append((task, payload))
            self._given_bytes += len(payload)
            return
        digest = m.result_digest(task)
        if digest not in self.task.needs:
            self._needs.append(digest)
        if size + len(payload) > self._hint_bytes:
            self._hint, self._hint_bytes = result.rank, size + len(payload)

    @property
    def follows(self) -> int:
        """The ranks that it has to run on to follow others."""
        ranks = ANY
        for condition in self.conditions:
            if condition.kind == FOLLOW:
                ranks &= condition.ranks
        return ranks

    def released(self, follows: int) -> m.Task | None:
        """The task with its arguments, and what is left of its terms. None if it may not run where it has to."""
        task, terms = self.task, self.terms
        targets = terms.targets
        if follows != ANY:
            allowed = (bitset.from_wire(targets) or ANY) & follows
            if not allowed:
                return None
            targets = bitset.to_wire(allowed)
        hint = terms.hint if terms.hint >= 0 else self._hint
        left = None
        if targets != _NO_TARGETS or hint >= 0 or terms.priority or terms.retries:
            left = m.Terms(targets, hint, terms.priority, terms.retries)
        needs = [*task.needs, *self._needs] if self._needs else task.needs
        given = [*task.given, *self._given] if self._given else task.given
        return m.Task(task.id, task.function, needs, task.payload, task.frames, left, given)


class Condition:
    """Tasks that have to end as asked. left: those that have not ended; ranks: where to run, to follow them."""

    __slots__ = ("asked", "blocked", "kind", "left", "met", "ranks", "tasks")

    def __init__(self, blocked: Blocked, kind: int, asked: m.Dependency) -> None:
        self.blocked = blocked
        self.kind = kind
        self.asked = asked
        self.tasks = list(dict.fromkeys(asked.tasks))
        self.left = len(self.tasks)
        self.met = False
        self.ranks = ANY if asked.all else 0

    def hear(self, result: m.Result, size: int) -> str | None:
        """One of the tasks has ended. Why the condition can be met no more; None if it is, or still can be."""
        asked = self.asked
        self.left -= 1
        counts = asked.failure if result.code else asked.success
        if counts and self.kind == INPUT:
            self.blocked.take_result(result, size)
        elif counts and self.kind == FOLLOW:
            counts = self._follow(result)
        if asked.all:
            if not counts or not self.ranks:
                return self._why_not(result, counts=counts)
            met = not self.left
        else:
            if not (counts or self.met or self.left):
                return self._why_not(result, counts=False)
            met = counts
        if met and not self.met:
            self.met = True
            self.blocked.open -= 1
        return None

    def _follow(self, result: m.Result) -> bool:
        """Whether it ran somewhere: that is where to go."""
        if result.code not in _RAN or not 0 <= result.rank < ENGINES_MAX:
            return False
        rank = 1 << result.rank
        self.ranks = self.ranks & rank if self.asked.all else self.ranks | rank
        return True

    def _why_not(self, last: m.Result, *, counts: bool) -> str:
        those = tasks_text(self.tasks)
        if counts:
            return f"{those} ran on different engines, and this task has to run where all of them did"
        if self.asked.all or len(self.tasks) == 1:
            role = "takes its result" if self.kind == INPUT else f"{self._waits} it {self._wanted}"
            return f"task {name_of(last.id)} {ending_text(last.code)}, and this task {role}"
        return f"{those} have ended, and this task {self._waits} one of them {self._wanted}"

    @property
    def _waits(self) -> str:
        return "has to run where" if self.kind == FOLLOW else "waits for"

    @property
    def _wanted(self) -> str:
        asked = self.asked
        if self.kind == FOLLOW:
            return "ran" if asked.failure and asked.success else "succeeded" if asked.success else "failed"
        return "to end" if asked.failure and asked.success else "to succeed" if asked.success else "to fail"

    def text(self, waited_for: Sequence[m.TaskId]) -> str:
        """What is waited for, of which these tasks have not ended."""
        those = tasks_text(waited_for)
        if self.kind == INPUT:
            return f"it takes the result of {those}"
        one_of = "" if self.asked.all or len(waited_for) == 1 else "one of "
        return f"it {self._waits} {one_of}{those} {self._wanted}"


def conditions_of(blocked: Blocked) -> list[Condition]:
    """The conditions of a task."""
    terms = blocked.terms
    conditions = []
    if terms.inputs:
        conditions.append(Condition(blocked, INPUT, m.Dependency(terms.inputs)))
    if terms.after is not None and terms.after.tasks:
        conditions.append(Condition(blocked, AFTER, terms.after))
    if terms.follow is not None and terms.follow.tasks:
        conditions.append(Condition(blocked, FOLLOW, terms.follow))
    return conditions


def depends(terms: m.Terms) -> bool:
    """Whether a task waits for others."""
    return bool(terms.inputs or terms.after is not None or terms.follow is not None)


def named_by(terms: m.Terms) -> list[m.TaskId]:
    """All tasks that it waits for, with repeats."""
    named = terms.inputs
    for asked in (terms.after, terms.follow):
        if asked is not None:
            named = named + asked.tasks
    return named


def misfit_text(blocked: Blocked) -> str:
    """Why a task may not run where it has to."""
    own = bitset.from_wire(blocked.terms.targets)
    return (
        f"this task has to run on {engines_text(blocked.follows)}, to follow others, and may run on "
        f"{engines_text(own)} only"
    )
