"""Which child gets the next task, and how many at a time.

Credit is counted in engines: a child with 32 engines has 32 to give. A task that runs for d seconds takes
d / (d + WINDOW_S) of an engine (core.pace), so short ones are sent ahead in batches worth about WINDOW_S of work and no
engine waits a round trip between them. A child takes tasks while it has any credit left; what takes nearly a whole
engine counts as all of it, so that long tasks travel alone. The same rule holds at every level, so a scheduler gets
hardly more long tasks than it has engines: what waits, waits at the root, where any engine can take it. Of children
that are equally free the one is chosen that was not for longest, so that single tasks go round.

Tasks that may run on few of a scheduler's engines have the credit of those alone (`Share`): however many wait for one
engine, the others' credit is for whoever else waits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from heapq import heapify, heappop, heapreplace
from operator import attrgetter

from hiersched.core.membership import Neighbour
from hiersched.core.pace import Paces
from hiersched.core.queues import ANY, Flight, Line, Link, Queues, Standing, standing_of
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import NO_RANK, RAISED, Digest, Result, Task, TaskId, Try

NOBODY: Link = b"\0"  # owns the tasks of clients that have gone; no client can have this name

_FULL = 1e-9

Batches = dict[Link, tuple[Neighbour, list[Flight]]]


class Dispatcher:
    """The tasks of one scheduler: those that wait and those in flight."""

    def __init__(self) -> None:
        self.flights: dict[TaskId, Flight] = {}
        self._queues = Queues()
        self._paces = Paces()
        self._shares: dict[tuple[Neighbour, int], Share] = {}
        self._number = 0
        self._turn = 0

    def __len__(self) -> int:
        """Tasks that wait here."""
        return len(self._queues)

    # --- tasks come ---------------------------------------------------------------------------------------------------

    def submit(self, tasks: Sequence[Task], frames: Sequence[Frame], owner: Link) -> None:
        """Take on a batch. A task id already here is a duplicate and ignored."""
        flights, plain = self.flights, self._queues.plain.flights
        number = self._number
        start = 0
        for task in tasks:
            end = start + task.frames
            task_id = task.id
            if task_id not in flights:
                number += 1
                flight = Flight(task, frames[start:end] if task.frames else (), owner, number)
                flights[task_id] = flight
                if task.terms is None:
                    plain[task_id] = flight
                else:
                    flight.standing = standing_of(task.terms)
                    flight.task = _without_terms(task)
                    self._queues.add(flight)
            start = end
        self._number = number

    def put_back(self, flights: Sequence[Flight], alive: int = ANY) -> None:
        """Tasks that are to run after all wait again, in this order and before all others of their kind.

        alive: the ranks of all engines, so that a task goes back to one that failed it only if it must.
        """
        for flight in flights:
            flight.child = None
            self.flights[flight.task.id] = flight
        self._queues.put_back(flights, alive)

    # --- they go down -------------------------------------------------------------------------------------------------

    def assign(self, children: Iterable[Neighbour], epoch: int = 0) -> list[tuple[Neighbour, list[Flight]]]:
        """Hand out waiting tasks, oldest first, each to the child with the least load per engine, while any has credit.

        The batch for each child that gets some. epoch: the present one of replacements.
        """
        ready = [child for child in children if child.load < child.width - _FULL]
        queues = self._queues
        if not ready or not len(queues):
            return []
        lines = queues.able(_members(ready)) if queues.lines else []
        batches = self._assign_lines(lines, ready, epoch) if lines else self._assign_plain(ready, epoch)
        return list(batches.values())

    def _assign_plain(self, ready: list[Neighbour], epoch: int) -> Batches:
        queue = self._queues.plain.flights
        heap = [(child.load / child.width, child.turn, child.first, child) for child in ready]
        heapify(heap)
        batches: Batches = {}
        turn = self._turn
        function: Digest | None = None
        weight = 1.0
        while queue and heap:
            child = heap[0][3]
            turn += 1
            child.turn = turn
            task_id, flight = queue.popitem(last=False)
            if flight.task.function != function:
                function = flight.task.function
                weight = self._paces.of(function).weight
            flight.child = child
            flight.epoch = epoch
            flight.weight = weight
            child.load += weight
            child.tasks.add(task_id)
            batch = batches.get(child.link)
            if batch is None:
                batches[child.link] = (child, [flight])
            else:
                batch[1].append(flight)
            if child.load < child.width - _FULL:
                heapreplace(heap, (child.load / child.width, turn, child.first, child))
            else:
                heappop(heap)
        self._turn = turn
        return batches

    def _assign_lines(self, lines: list[Line], ready: list[Neighbour], epoch: int) -> Batches:
        """The same for tasks that ask for something, together with those that do not."""
        if self._queues.plain.flights:
            lines = [*lines, self._queues.plain]
        heads = [(line.rank, line) for line in lines]
        heapify(heads)
        openings = _Openings(ready, self._shares)
        batches: Batches = {}
        while heads:
            line = heads[0][1]
            flight = line.head
            child = openings.child_for(flight, line.allowed)
            if child is None:  # nobody who may run this line's tasks has credit left
                heappop(heads)
                continue
            self._queues.remove(flight)
            flight.weight = self._paces.of(flight.task.function).weight
            self._turn += 1
            child.turn = self._turn
            flight.epoch = epoch
            self._board(flight, child)
            batches.setdefault(child.link, (child, []))[1].append(flight)
            if line.flights:
                heapreplace(heads, (line.rank, line))
            else:
                heappop(heads)
        return batches

    # --- they end -----------------------------------------------------------------------------------------------------

    def settle(self, child: Neighbour, results: Sequence[Result]) -> list[Flight | None]:
        """Results came from a child: give back its credit and learn the durations.

        The flight of each result, in order; None for a task that the child did not hold, or for an earlier try of it.
        """
        settled: list[Flight | None] = []
        spent: dict[Digest, list[int]] = {}
        flights = self.flights
        for result in results:
            flight = flights.get(result.id)
            if flight is None or flight.child is not child or flight.task.attempt != result.attempt:
                settled.append(None)
                continue
            del flights[result.id]
            self._leave(flight, child)
            settled.append(flight)
            if not result.code or result.code == RAISED:
                spent.setdefault(flight.task.function, []).append(result.duration_us)
        for function, durations_us in spent.items():
            self._paces.of(function).learn(sum(durations_us) / len(durations_us) / 1e6)
        return settled

    def lose(self, child: Neighbour) -> list[Flight]:
        """A child is gone: the tasks it held, taken out, oldest first."""
        lost = sorted([self.flights.pop(task_id) for task_id in child.tasks], key=attrgetter("number"))
        for flight in lost:
            self._leave(flight, child)
        return lost

    def stranded(self, alive: int) -> list[Flight]:
        """Take out the waiting tasks that no engine may run. alive: the ranks of all engines."""
        stranded = self._queues.stranded(alive)
        for flight in stranded:
            del self.flights[flight.task.id]
        return stranded

    def cancel(
        self, ids: Iterable[TaskId], owner: Link, *, running: bool = False
    ) -> tuple[list[Flight], dict[Neighbour, list[TaskId]]]:
        """Withdraw tasks of an owner. (those that waited here, taken out; those further down, by child)."""
        withdrawn: list[Flight] = []
        further: dict[Neighbour, list[TaskId]] = {}
        for task_id in ids:
            flight = self.flights.get(task_id)
            if flight is None or flight.owner != owner:
                continue
            if flight.child is None:
                del self.flights[task_id]
                self._queues.remove(flight)
                withdrawn.append(flight)
            else:
                if flight.standing is None:
                    flight.standing = Standing()
                flight.standing.withdrawn = True
                flight.standing.interrupted |= running
                further.setdefault(flight.child, []).append(task_id)
        return withdrawn, further

    # --- they change hands --------------------------------------------------------------------------------------------

    def move(self, tries: Iterable[Try], lost: Neighbour, child: Neighbour) -> list[Flight]:
        """Of these tasks, those in flight at `lost` are in flight at `child` from now on."""
        moved = []
        for task_id, attempt in tries:
            flight = self.flights.get(task_id)
            if flight is not None and flight.child is lost and flight.task.attempt == attempt:
                self._leave(flight, lost)
                self._board(flight, child)
                moved.append(flight)
        return moved

    def disown(self, owner: Link) -> None:
        """Nobody wants to know how the tasks of an owner end."""
        for flight in self.flights.values():
            if flight.owner == owner:
                flight.owner = NOBODY

    def owned_by(self, owner: Link) -> list[TaskId]:
        """The ids of an owner's tasks."""
        return [task_id for task_id, flight in self.flights.items() if flight.owner == owner]

    def _board(self, flight: Flight, child: Neighbour) -> None:
        flight.child = child
        child.load += flight.weight
        child.tasks.add(flight.task.id)
        standing = flight.standing
        if standing is not None and standing.allowed != ANY and child.role == "scheduler":
            share = self._shares.setdefault((child, standing.allowed), Share())
            share.load += flight.weight
            share.tasks += 1

    def _leave(self, flight: Flight, child: Neighbour) -> None:
        child.tasks.discard(flight.task.id)
        child.load = child.load - flight.weight if child.tasks else 0.0  # no rounding error outlives the last task
        if flight.standing is not None:
            share = self._shares.get((child, flight.standing.allowed))
            if share is not None:
                share.load -= flight.weight
                share.tasks -= 1
                if not share.tasks:
                    del self._shares[child, flight.standing.allowed]


class Share:
    """What a child scheduler has of the tasks that may run on the same few engines. load: in engines' worth."""

    __slots__ = ("load", "tasks")

    def __init__(self) -> None:
        self.load = 0.0
        self.tasks = 0


class _Openings:
    """The children with credit while tasks are handed out, so that their loads only grow."""

    def __init__(self, ready: list[Neighbour], shares: dict[tuple[Neighbour, int], Share]) -> None:
        self._children = sorted(ready, key=attrgetter("first"))
        self._firsts = [child.first for child in self._children]
        self._members = [child.members for child in self._children]
        self._shares = shares
        self._heaps: dict[int, list[tuple[float, int, int]]] = {}  # by allowed ranks: (load, turn, place)

    def child_for(self, flight: Flight, allowed: int) -> Neighbour | None:
        """Where a task goes that may run on `allowed`: to its hint if it can, else to the least load; None: nowhere."""
        hint = -1 if flight.standing is None else flight.standing.hint
        if hint >= 0 and allowed >> hint & 1:
            place = self._place_of(hint)
            if place >= 0 and self._is_open(place, allowed):
                return self._children[place]
        return self._least(allowed)

    def _place_of(self, rank: int) -> int:
        """The place of the child that has this rank; -1: none. The leaf for guests comes last."""
        members = self._members
        place = bisect_right(self._firsts, rank) - 1
        if place >= 0 and members[place] >> rank & 1:
            return place
        last = len(members) - 1
        return last if last >= 0 and self._firsts[last] == NO_RANK and members[last] >> rank & 1 else -1

    def _least(self, allowed: int) -> Neighbour | None:
        heap = self._heaps.get(allowed)
        if heap is None:
            heap = self._heaps[allowed] = self._heap_of(allowed)
        while heap:
            load, turn, place = heap[0]
            child = self._children[place]
            load_now = child.load / child.width
            if not self._is_open(place, allowed):
                heappop(heap)
            elif load_now > load or child.turn > turn:
                heapreplace(heap, (load_now, child.turn, place))
            else:
                return child
        return None

    def _heap_of(self, allowed: int) -> list[tuple[float, int, int]]:
        if allowed > 0 and not allowed & (allowed - 1):  # one rank: no need to look at all children
            place = self._place_of(allowed.bit_length() - 1)
            places: Iterable[int] = (place,) if place >= 0 else ()
        else:
            places = [place for place, members in enumerate(self._members) if members & allowed]
        children = self._children
        heap = [(children[place].load / children[place].width, children[place].turn, place) for place in places]
        heapify(heap)
        return heap

    def _is_open(self, place: int, allowed: int) -> bool:
        child = self._children[place]
        if child.load >= child.width - _FULL:
            return False
        share = self._shares.get((child, allowed)) if allowed != ANY else None
        return share is None or share.load < (self._members[place] & allowed).bit_count() - _FULL


def _members(children: list[Neighbour]) -> int:
    members = 0
    for child in children:
        members |= child.members
    return members


def _without_terms(task: Task) -> Task:
    """The task as an engine gets it."""
    return Task(task.id, task.function, task.needs, task.payload, task.frames, None, task.given, task.attempt)
