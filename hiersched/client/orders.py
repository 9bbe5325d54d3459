"""What a client asks of the root beside calls: about engines, queues, counters, and why a task has not ended.

Each question is one message, and so is its answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from hiersched.core.metrics import Level
from hiersched.kernels import bitset
from hiersched.protocol import messages as m

Ask = Callable[[Callable[[m.TaskId], m.Message]], Any]  # takes what makes the question of its id; gives the answer


@dataclass(frozen=True)
class Explanation:
    """Why a task or call has not ended.

    state: 'dependency', 'waiting', 'sent', 'running', 'unknown'; here in the client 'held' and 'done'. engines: those
    that it is about. label: the user's, of the task.
    """

    state: str
    text: str
    engines: tuple[int, ...] = ()
    label: str | None = None

    def __str__(self) -> str:
        whose = "" if self.label is None else f"{self.label!r} "
        return f"{whose}{self.state}: {self.text}"


@dataclass(frozen=True)
class Queues:
    """What engines have to do. unassigned: tasks that no engine was given yet, of all clients."""

    engines: list[m.Queue]
    unassigned: int


class Orders:
    """ask: sends a question and waits for its answer; raises TimeoutError if none comes."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def order(self, targets: Iterable[int], verb: Literal["signal", "stop", "restart"], number: int = 0) -> list[int]:
        """Do something about the processes of these engines; for which of them it was carried out."""
        ranks = bitset.to_wire(bitset.of_ranks(targets))
        executed: m.Executed = self._ask(lambda request: m.Order(request, ranks, verb, number))
        return bitset.ranks_of(bitset.from_wire(executed.ranks))

    def grow(self, engines: int) -> list[int]:
        """Start so many engines more; the ranks of those to come, none if there is no room."""
        executed: m.Executed = self._ask(lambda request: m.Grow(request, engines))
        return bitset.ranks_of(bitset.from_wire(executed.ranks))

    def queues(self, targets: Iterable[int]) -> Queues:
        """What these engines have to do, by rank."""
        ranks = bitset.to_wire(bitset.of_ranks(targets))
        census: m.Census = self._ask(lambda request: m.Survey(request, ranks))
        waiting = sum(totals.get("tasks_waiting", 0) for _, _, totals, _ in census.levels)
        return Queues(sorted(census.queues, key=lambda queue: queue.rank), waiting)

    def survey(self) -> list[Level]:
        """The counters of all schedulers, merged by level."""
        census: m.Census = self._ask(m.Survey)
        return census.levels

    def why(self, task: m.TaskId) -> Explanation:
        """Why a task or call that was sent has not ended."""
        because: m.Because = self._ask(lambda request: m.Why(request, task))
        return Explanation(because.state, because.text, tuple(bitset.ranks_of(bitset.from_wire(because.ranks))))
