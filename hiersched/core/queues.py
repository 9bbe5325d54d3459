"""Tasks that wait, in lines.

Most tasks ask for nothing: they stand in the plain line, where the oldest is taken and nothing else looked at. Those
with a priority, a hint or engines of their own stand in lines by (priority, ranks they may run on). Whoever hands out
looks at lines, never at single tasks: what nobody may run now holds up nobody behind it, however many of its kind wait.
Of the lines that can go on, that of the highest priority does, and within a priority the one with the oldest task.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from hiersched.core.membership import Neighbour
from hiersched.kernels import bitset
from hiersched.limits import RETRIES_MAX
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Result, Task, TaskId, Terms

Link = bytes

ANY = -1  # the bit set of all ranks, those to come included


@dataclass(slots=True, eq=False)
class Standing:
    """What a task asks for, and what has become of it so far.

    allowed: ranks that it may run on, since it was last lined up. avoided: ranks that failed it; ruled_out: those that
    lack what it depends on. withdrawn: nobody wants it to start any more; interrupted: nor to go on. failure: how it
    failed last.
    """

    priority: int = 0
    targets: int = ANY
    hint: int = -1
    retries: int = 0
    allowed: int = ANY
    avoided: int = 0
    ruled_out: int = 0
    withdrawn: bool = False
    interrupted: bool = False
    failure: tuple[Result, Sequence[Frame]] | None = None

    def choose(self, alive: int) -> int:
        """Set `allowed` to the ranks it may run on: those that failed it only if no other one is alive."""
        possible = self.targets & ~self.ruled_out
        others = possible & ~self.avoided
        self.allowed = others if others & alive else possible
        return self.allowed


def standing_of(terms: Terms) -> Standing | None:
    """What is kept of a task's terms; None if it asks for nothing."""
    targets = bitset.from_wire(terms.targets) or ANY
    if targets == ANY and terms.hint < 0 and not terms.priority and not terms.retries:
        return None
    return Standing(terms.priority, targets, terms.hint, min(terms.retries, RETRIES_MAX), targets)


@dataclass(slots=True, eq=False)
class Flight:
    """A task that a scheduler has taken on. number: in the order of coming; child: where it is, None while it waits;
    weight: of the task there, in engines; epoch: of replacements, when it went there; standing: None for one that asks
    for nothing.
    """

    task: Task
    frames: Sequence[Frame]
    owner: Link
    number: int
    child: Neighbour | None = None
    standing: Standing | None = None
    epoch: int = 0
    weight: float = field(init=False, repr=False)


class Line:
    """Waiting tasks of one priority that may run on the same ranks, oldest first."""

    __slots__ = ("allowed", "flights", "priority")

    def __init__(self, priority: int, allowed: int) -> None:
        self.priority = priority
        self.allowed = allowed
        self.flights: OrderedDict[TaskId, Flight] = OrderedDict()

    @property
    def head(self) -> Flight:
        """The oldest task."""
        return next(iter(self.flights.values()))

    @property
    def rank(self) -> tuple[int, int]:
        """Lines go on in this order. No two have the same."""
        return -self.priority, self.head.number


class Queues:
    """The tasks that wait at one scheduler. plain: those that ask for nothing."""

    def __init__(self) -> None:
        self.plain = Line(0, ANY)
        self.lines: dict[tuple[int, int], Line] = {}
        self._lined = 0  # tasks in them
        self._alive = ANY  # all of them have an engine among these,
        self._unsure = False  # but for new ones

    def __len__(self) -> int:
        return len(self.plain.flights) + self._lined

    def add(self, flight: Flight) -> None:
        """A task waits, behind the others."""
        self._line_for(flight).flights[flight.task.id] = flight

    def put_back(self, flights: Sequence[Flight], alive: int) -> None:
        """Tasks wait again, before the others. alive: the ranks of all engines."""
        for flight in reversed(flights):
            if flight.standing is not None:
                flight.standing.choose(alive)
            line = self._line_for(flight)
            line.flights[flight.task.id] = flight
            line.flights.move_to_end(flight.task.id, last=False)

    def remove(self, flight: Flight) -> None:
        """A task waits no more."""
        key = _key_of(flight)
        if key is None:
            del self.plain.flights[flight.task.id]
            return
        line = self.lines[key]
        del line.flights[flight.task.id]
        self._lined -= 1
        if not line.flights:
            del self.lines[key]

    def able(self, ranks: int) -> list[Line]:
        """The lines, besides the plain one, that engines of these ranks may serve."""
        return [line for line in self.lines.values() if line.allowed & ranks]

    def stranded(self, alive: int) -> list[Flight]:
        """Take out the tasks that no engine of `alive` may run. Those left with engines that failed them move."""
        found: list[Flight] = []
        if not alive and self.plain.flights:
            found.extend(self.plain.flights.values())
            self.plain.flights.clear()
        if self._unsure or alive != self._alive:
            self._unsure, self._alive = False, alive
            dead = [line for line in self.lines.values() if not line.allowed & alive]
            for flight in [flight for line in dead for flight in line.flights.values()]:
                self.remove(flight)
                if flight.standing is not None and flight.standing.choose(alive) & alive:
                    self.add(flight)
                else:
                    found.append(flight)
        return found

    def _line_for(self, flight: Flight) -> Line:
        key = _key_of(flight)
        if key is None:
            return self.plain
        self._lined += 1
        line = self.lines.get(key)
        if line is None:
            line = self.lines[key] = Line(*key)
            self._unsure = True
        return line


def _key_of(flight: Flight) -> tuple[int, int] | None:
    """The line in which a task stands; None: the plain one."""
    standing = flight.standing
    if standing is None or (standing.allowed == ANY and not standing.priority and standing.hint < 0):
        return None
    return standing.priority, standing.allowed
