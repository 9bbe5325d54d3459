"""Who the neighbours are, and whether they live.

A child says hello with the ranks it stands for and is then in; a child scheduler reports the engines of its subtree as
they come and go. Death is learnt from whoever watches the process (`LinkDown`), at once. Schedulers also beat, because
between hosts nobody watches: three missed beats and a scheduler is lost. Engines never beat: one that computes for an
hour without answering is alive as long as its process is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hiersched.core.replacements import Replacements
from hiersched.kernels import bitset
from hiersched.limits import LOST_AFTER_S
from hiersched.protocol.messages import NO_RANK

Link = bytes


@dataclass(slots=True, eq=False)
class Neighbour:
    """A child or a client. below: the engines of a child scheduler's subtree, a bit set of ranks.

    range: all ranks that a child scheduler answers for; those of the leaf for guests lie anywhere, and more are added.
    least: none of its ranks is below.
    """

    link: Link
    role: str
    uuid: str
    first: int
    last: int
    pid: int
    below: int = 0
    heard_s: float = 0.0
    load: float = 0.0  # tasks in flight, in engines' worth; kept by dispatch
    width: int = 0  # engines behind it, for dispatch
    turn: int = 0  # when dispatch chose it last, in turns
    tasks: set[int] = field(default_factory=set)  # task ids in flight there
    results_heard: int = 0  # messages of results that came over this link
    unacknowledged: int = 0  # answers that the root has taken in and not acknowledged
    completed: int = 0  # calls and tasks that an engine has answered
    climbed: bool = False  # it came from a lost scheduler, and has not said yet who is left below it
    range: int = field(init=False, default=0)
    least: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.least = self.first if self.first != NO_RANK else 0
        if self.role == "scheduler":
            self.range = bitset.of_range(self.first, self.last)

    @property
    def members(self) -> int:
        """The engines now reachable through it, a bit set of ranks. An engine's own is made when asked for."""
        return 1 << self.first if self.role == "engine" else self.below

    @property
    def reach(self) -> int:
        """The ranks it answers for, whether or not they are there now: who is gone is for a child scheduler to report,
        which may still hold its answer.
        """
        return 1 << self.first if self.role == "engine" else self.range

    def covers(self, rank: int) -> bool:
        """Whether it answers for this rank."""
        return self.first <= rank < self.last or (self.first == NO_RANK and rank >= 0 and self.range >> rank & 1 == 1)


class Membership:
    """Children and clients of one scheduler, by link."""

    def __init__(self) -> None:
        self.children: dict[Link, Neighbour] = {}
        self.clients: dict[Link, Neighbour] = {}
        self.members = 0  # all engines reachable
        self.replacements = Replacements()
        self._parent_heard_s = 0.0

    # --- who is there ---

    def add_child(self, child: Neighbour) -> int:
        """Take a child in. The engines that joined with it; those of an orphan had never left."""
        self.children[child.link] = child
        members = child.members
        child.width = members.bit_count()
        joined = members & ~self.members
        self.members |= members
        return joined

    def change(self, child: Neighbour, joined: int, left: int) -> tuple[int, int]:
        """A child scheduler's engines went and came, in this order. The (joined, left) that are news here."""
        left &= child.members
        stayed = child.members & ~left
        joined &= child.range & ~stayed
        child.below = stayed | joined
        child.width = child.below.bit_count()
        self.members = self.members & ~left | joined
        return joined, left

    def remove_child(self, link: Link) -> Neighbour | None:
        """Forget a child and all it stood for; None if it is not known."""
        child = self.children.pop(link, None)
        if child is not None:
            self.members &= ~child.members
        return child

    def has_range(self, first: int, last: int) -> Neighbour | None:
        """The child that already stands for a rank of [first, last)."""
        for child in self.children.values():
            if child.first < last and first < child.last:
                return child
            if child.first == NO_RANK and (first == NO_RANK or child.range & bitset.of_range(first, last)):
                return child
        return None

    # --- whether they live ---

    def heard_parent(self, now: float) -> None:
        """Something came from the parent."""
        self._parent_heard_s = now

    def parent_is_lost(self, now: float) -> bool:
        """The parent has missed its beats."""
        return now - self._parent_heard_s > LOST_AFTER_S

    def schedulers(self) -> Iterator[Neighbour]:
        """The children that are schedulers."""
        return (child for child in self.children.values() if child.role == "scheduler")

    def silent(self, now: float) -> list[Neighbour]:
        """Child schedulers that have missed their beats."""
        return [child for child in self.schedulers() if now - child.heard_s > LOST_AFTER_S]
