"""The processes of a tree of cores (tree.py): schedulers, which are real, and engines, which are made up."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from hiersched.core.effects import LinkDown, link_of
from hiersched.core.kept import Kept
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child, TreePlan
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from tests.core.transcript import CLUSTER, KEY

Words = tuple[m.Message, Sequence[Frame]]


@dataclass(eq=False)
class Process:
    """Anything that runs. above: whom it can climb to, the nearest first. starter: whose child it is to the nursery.

    buried: its end has been noticed. orphaned: it has been told so, and has not looked yet. inbox: from its parent.
    """

    child: Child
    above: list[Scheduler]
    starter: Scheduler | None
    parent: Scheduler | None = None
    alive: bool = True
    buried: bool = False
    orphaned: bool = False
    inbox: deque[Words] = field(default_factory=deque)

    @property
    def link(self) -> bytes:
        """Its name."""
        return link_of(self.child)


class Scheduler(Process):
    """A real core. heard: what is on its way here from below, by link; news: word of ends; stirred: since `Drained`."""

    def __init__(self, child: Child, starter: Scheduler | None, *, plan: TreePlan, restarts: bool) -> None:
        super().__init__(child, [] if starter is None else [starter, *starter.above], starter)
        self.core = SchedulerCore(Place(CLUSTER, KEY, child.level, child.first, child.last, True, restarts), plan)
        self.heard: dict[bytes, deque[Words]] = {}
        self.news: deque[LinkDown] = deque()
        self.wake_s = float("inf")
        self.stirred = False


class Engine(Process):
    """Runs what it is given, in order, when it is told to `run`. What it says is what these methods give.

    todo: given and not run. runs: what it has run, as calls or task numbers. acked: what it has been told the root has.
    """

    def __init__(self, child: Child, starter: Scheduler) -> None:
        super().__init__(child, [starter, *starter.above], starter)
        self.todo: deque[m.Call | m.Task] = deque()
        self.runs: list[m.Call | m.Task] = []
        self.acked: list[m.TaskId] = []
        self._kept: Kept | None = None

    @property
    def rank(self) -> int:
        """Its number."""
        return self.child.first

    @property
    def keeps(self) -> list[m.TaskId]:
        """The calls and tasks whose answers it keeps."""
        return [] if self._kept is None else [number for number, _ in self._kept.tries()]

    @property
    def holds(self) -> list[m.Try]:
        """All that it has been given and of which the root may not know the end."""
        return [*([] if self._kept is None else self._kept.tries()), *map(m.try_of, self.todo)]

    def hears(self, message: m.Message) -> list[Words]:
        """A message of its parent."""
        match message:
            case m.Welcome():
                self._kept = (self._kept or Kept()) if message.facts["keep"] else None
            case m.Call():
                self.todo.append(message)
            case m.Tasks():
                self.todo.extend(message.tasks)
            case m.Cancel():
                return self._withdraw(set(message.tasks))
            case m.Ack():
                before = Counter(self.keeps)
                assert self._kept is not None
                self._kept.on_ack(message)
                self.acked += before - Counter(self.keeps)
            case _:
                raise AssertionError(f"engine {self.rank} is told {message}")
        return []

    def run(self, count: int) -> list[Words]:
        """Run the next so many; tasks answer in one batch."""
        answers, results = [], []
        for _ in range(min(count, len(self.todo))):
            item = self.todo.popleft()
            self.runs.append(item)
            if isinstance(item, m.Call):
                chunk = m.Chunk(bitset.to_wire(1 << self.rank), [], 1)
                value = b"%d by %d" % (item.request, self.rank)
                answers.append(self._answer(m.Reply(item.request, [chunk], []), [value]))
            else:
                results.append(m.Result(item.id, self.rank, 1_000_000, 0, b"%d" % item.id, 0, item.attempt))
        return [*answers, self._answer(m.Results(results))] if results else answers

    def again(self) -> list[Words]:
        """To a new parent: all answers that it keeps."""
        return [] if self._kept is None else list(self._kept.again())

    def _withdraw(self, ids: set[m.TaskId]) -> list[Words]:
        answers = []
        for item in [item for item in self.todo if number_of(item) in ids]:
            self.todo.remove(item)
            if isinstance(item, m.Call):
                loss = m.Loss(bitset.to_wire(1 << self.rank), m.CANCELLED, "cancelled before it started")
                answers.append(self._answer(m.Reply(item.request, [], [loss])))
            else:
                result = m.Result(item.id, self.rank, 0, m.CANCELLED, b"cancelled before it started", 0)
                answers.append(self._answer(m.Results([result])))
        return answers

    def _answer(self, message: m.Reply | m.Results, frames: Sequence[Frame] = ()) -> Words:
        if self._kept is not None:
            if isinstance(message, m.Reply):
                self._kept.add_reply(message, frames)
            else:
                self._kept.add_results(message, frames)
        return message, frames


def number_of(item: m.Call | m.Task) -> m.TaskId:
    """The id of a call or task."""
    return item.request if isinstance(item, m.Call) else item.id
