"""Children of a lost scheduler, until they have said hello here.

An orphan lives, so its engines stay members and what they owe stays owed. With its hello it says what it holds. When
the last orphan of a lost scheduler has spoken, or is gone, it is known what nobody holds (docs/decisions/0008). An
orphan that is a scheduler may be lost as well: then those that it leaves are awaited in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiersched.core.effects import Link, link_of
from hiersched.core.membership import Neighbour
from hiersched.core.replacements import ALWAYS, Replacements
from hiersched.core.topology import Child
from hiersched.kernels import bitset


@dataclass(slots=True, eq=False)
class Estate:
    """What a lost scheduler leaves. doubtful_before: what nobody holds and was sent before this epoch may have run, on
    an engine that was lost; what was sent later never did.

    gone: its engines that were lost, not to be reported before what they owe is settled. Or else, if this scheduler
    is lost in between, whoever comes after would take them for settled.
    """

    lost: Neighbour
    reason: str
    doubtful_before: float = 0
    gone: int = 0
    awaited: set[Link] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class _Orphan:
    """One that is awaited. members: its engines."""

    child: Child
    estate: Estate
    members: int


class Orphans:
    """The orphans that one scheduler waits for. ranks: of their engines."""

    def __init__(self, replacements: Replacements) -> None:
        self.ranks = 0
        self.replacements = replacements
        self._orphans: dict[Link, _Orphan] = {}

    def __len__(self) -> int:
        return len(self._orphans)

    def __contains__(self, link: Link) -> bool:
        return link in self._orphans

    def links(self) -> list[Link]:
        """All that are awaited."""
        return list(self._orphans)

    def holder_of(self, first: int, last: int) -> Child | None:
        """The orphan that stands for a rank of [first, last), if one does."""
        for orphan in self._orphans.values():
            if orphan.child.first < last and first < orphan.child.last:
                return orphan.child
        return None

    def admit(self, lost: Neighbour, orphans: Sequence[Child], reason: str) -> tuple[Estate, int]:
        """Wait for the children of a lost scheduler. Its estate, and the ranks that none of them answers for."""
        estate = Estate(lost, reason)
        return estate, self._inherit(estate, orphans, lost.members, lost.reach)

    def arrive(self, link: Link) -> tuple[Estate, int]:
        """An orphan says hello. What it comes from, and its engines."""
        orphan = self._leave(link)
        return orphan.estate, orphan.members

    def lose(self, link: Link, orphans: Sequence[Child] = ()) -> tuple[Estate, int]:
        """An orphan is gone before it said hello. What it comes from, and the ranks that nobody answers for now.

        orphans: its own, which are awaited from now on.
        """
        orphan = self._leave(link)
        reach = bitset.of_range(orphan.child.first, orphan.child.last)
        return orphan.estate, self._inherit(orphan.estate, orphans, orphan.members, reach)

    def _inherit(self, estate: Estate, orphans: Sequence[Child], members: int, reach: int) -> int:
        """Await these in the place of one that had these members and this reach. The ranks that are below none."""
        left = reach
        for child in orphans:
            own = bitset.of_range(child.first, child.last)
            link = link_of(child)
            self._orphans[link] = _Orphan(child, estate, members & own)
            estate.doubtful_before = max(estate.doubtful_before, self.replacements.doubtful_before(child))
            estate.awaited.add(link)
            left &= ~own
        self.ranks |= members & ~left
        if members & left or not orphans:  # whom it had reported as gone, it had settled before
            estate.doubtful_before = ALWAYS
        return left

    def _leave(self, link: Link) -> _Orphan:
        orphan = self._orphans.pop(link)
        orphan.estate.awaited.discard(link)
        self.ranks &= ~orphan.members
        return orphan
