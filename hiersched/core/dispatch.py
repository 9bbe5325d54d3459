"""Which child gets the next task, and how many at a time.

Credit is counted in engines: a child with 32 engines has 32 to give. A task that runs for d seconds takes
d / (d + WINDOW_S) of an engine, so short ones are sent ahead in batches worth about WINDOW_S of work and no engine
waits a round trip between them. A child takes tasks while it has any credit left; what takes nearly a whole engine
counts as all of it, so that long tasks travel alone. d is learnt per function: mean plus four mean deviations (as TCP's
timer, Jacobson 1988), so that one function with uneven durations is not sent far ahead. A function never seen counts as
long.

The same rule holds at every level, so a scheduler is handed hardly more long tasks than it has engines: what waits,
waits at the root, where any engine can take it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace

from hiersched.core.membership import Neighbour
from hiersched.limits import FUNCTIONS_CACHED_MAX, WINDOW_S, WINDOW_TASKS_MAX
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Digest, Result, Task, TaskId

Link = bytes

_GAIN = 0.25  # of a new measurement in the mean
_DEVIATIONS = 4
_FULL = 1e-9
_WHOLE = 0.9  # of an engine: a task that takes more is alone on it, from 9 * WINDOW_S on


class Pace:
    """How long one function runs: running mean and mean deviation, seconds."""

    __slots__ = ("_deviation_s", "_mean_s", "weight")

    def __init__(self) -> None:
        self._mean_s = -1.0
        self._deviation_s = 0.0
        self.weight = 1.0

    def learn(self, duration_s: float) -> None:
        """Take in the mean duration of a batch."""
        if self._mean_s < 0.0:
            self._mean_s = duration_s
            self._deviation_s = duration_s / 2
        else:
            error = duration_s - self._mean_s
            self._mean_s += _GAIN * error
            self._deviation_s += _GAIN * (abs(error) - self._deviation_s)
        bound_s = self._mean_s + _DEVIATIONS * self._deviation_s
        share = bound_s / (bound_s + WINDOW_S)
        self.weight = max(share, 1 / WINDOW_TASKS_MAX) if share < _WHOLE else 1.0


@dataclass(slots=True, eq=False)
class Flight:
    """A task this scheduler has taken on. child: where it is now, None while it waits here."""

    task: Task
    frames: Sequence[Frame]
    owner: Link
    child: Neighbour | None = None
    weight: float = 1.0


class Dispatcher:
    """The tasks of one scheduler: those that wait and those in flight."""

    def __init__(self) -> None:
        self.flights: dict[TaskId, Flight] = {}
        self._queue: OrderedDict[TaskId, Flight] = OrderedDict()  # oldest first
        self._paces: OrderedDict[Digest, Pace] = OrderedDict()

    def __len__(self) -> int:
        """Tasks that wait here."""
        return len(self._queue)

    def submit(self, tasks: Sequence[Task], frames: Sequence[Frame], owner: Link) -> None:
        """Take on a batch. A task id already here is a duplicate and ignored."""
        start = 0
        for task in tasks:
            end = start + task.frames
            if task.id not in self.flights:
                flight = Flight(task, frames[start:end], owner)
                self.flights[task.id] = flight
                self._queue[task.id] = flight
            start = end

    def assign(self, children: Iterable[Neighbour]) -> list[tuple[Neighbour, list[Flight]]]:
        """Hand out waiting tasks, oldest first, each to the child with the least load per engine, while any has credit.

        The batch for each child that gets some.
        """
        queue = self._queue
        ready = [
            (child.load / child.width, child.first, child) for child in children if child.load < child.width - _FULL
        ]
        if not queue or not ready:
            return []
        heapify(ready)
        batches: dict[Link, tuple[Neighbour, list[Flight]]] = {}
        while queue and ready:
            child = ready[0][2]
            _, flight = queue.popitem(last=False)
            flight.child = child
            flight.weight = self._pace(flight.task.function).weight
            child.load += flight.weight
            child.tasks.add(flight.task.id)
            batch = batches.get(child.link)
            if batch is None:
                batches[child.link] = (child, [flight])
            else:
                batch[1].append(flight)
            if child.load < child.width - _FULL:
                heapreplace(ready, (child.load / child.width, child.first, child))
            else:
                heappop(ready)
        return list(batches.values())

    def settle(self, child: Neighbour, results: Sequence[Result]) -> list[Flight | None]:
        """Results came from a child: give back its credit and learn the durations.

        The flight of each result, in order; None for a task that the child did not hold.
        """
        settled: list[Flight | None] = []
        spent: dict[Digest, list[int]] = {}
        for result in results:
            flight = self.flights.get(result.id)
            if flight is None or flight.child is not child:
                settled.append(None)
                continue
            del self.flights[result.id]
            self._release(child, flight)
            settled.append(flight)
            if not result.code:
                spent.setdefault(flight.task.function, []).append(result.duration_us)
        for function, durations_us in spent.items():
            self._pace(function).learn(sum(durations_us) / len(durations_us) / 1e6)
        return settled

    def requeue(self, flight: Flight) -> None:
        """A task that surely did not run goes back to the head of the queue."""
        flight.child = None
        self.flights[flight.task.id] = flight
        self._queue[flight.task.id] = flight
        self._queue.move_to_end(flight.task.id, last=False)

    def lose(self, child: Neighbour) -> list[Flight]:
        """A child is gone: the tasks it held, taken out."""
        lost = [self.flights.pop(task_id) for task_id in sorted(child.tasks)]
        child.tasks.clear()
        child.load = 0.0
        return lost

    def drain(self) -> list[Flight]:
        """Take out all tasks that wait."""
        waiting = list(self._queue.values())
        self._queue.clear()
        for flight in waiting:
            del self.flights[flight.task.id]
        return waiting

    def cancel(self, ids: Iterable[TaskId], owner: Link) -> tuple[list[Flight], dict[Link, list[TaskId]]]:
        """Withdraw tasks of an owner. (those that waited here, taken out; those further down, by child)."""
        withdrawn: list[Flight] = []
        further: dict[Link, list[TaskId]] = {}
        for task_id in ids:
            flight = self.flights.get(task_id)
            if flight is None or flight.owner != owner:
                continue
            if flight.child is None:
                del self.flights[task_id], self._queue[task_id]
                withdrawn.append(flight)
            else:
                further.setdefault(flight.child.link, []).append(task_id)
        return withdrawn, further

    def owned_by(self, owner: Link) -> list[TaskId]:
        """The ids of an owner's tasks."""
        return [task_id for task_id, flight in self.flights.items() if flight.owner == owner]

    def _release(self, child: Neighbour, flight: Flight) -> None:
        child.tasks.discard(flight.task.id)
        child.load = child.load - flight.weight if child.tasks else 0.0  # no rounding error outlives the last task

    def _pace(self, function: Digest) -> Pace:
        pace = self._paces.get(function)
        if pace is None:
            pace = self._paces[function] = Pace()
            if len(self._paces) > FUNCTIONS_CACHED_MAX:
                self._paces.popitem(last=False)
        return pace
