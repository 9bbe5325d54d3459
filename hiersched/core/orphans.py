"""Children of a lost scheduler, until they have said hello here.

An orphan lives, so its engines stay members and what they owe stays owed. With its hello it says what it holds. When
the last orphan of a lost scheduler has spoken, or is gone, it is known what nobody holds (docs/decisions/0008).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hiersched.core.effects import Link, link_of
from hiersched.core.membership import Neighbour
from hiersched.core.topology import Child
from hiersched.kernels import bitset


@dataclass(slots=True, eq=False)
class Estate:
    """What a lost scheduler leaves. sure: none of its engines was lost with it, so what nobody holds never ran."""

    lost: Neighbour
    reason: str
    sure: bool
    awaited: set[Link] = field(default_factory=set)


class Orphans:
    """The orphans that one scheduler waits for. ranks: of their engines."""

    def __init__(self) -> None:
        self.ranks = 0
        self._orphans: dict[Link, tuple[Child, Estate, int]] = {}

    def __len__(self) -> int:
        return len(self._orphans)

    def __contains__(self, link: Link) -> bool:
        return link in self._orphans

    def admit(self, lost: Neighbour, orphans: Sequence[Child], reason: str) -> Estate:
        """Wait for the children of a lost scheduler. Those of its engines that are below none of them are lost too."""
        covered = 0
        estate = Estate(lost, reason, sure=True)
        for child in orphans:
            ranks = lost.members & bitset.of_range(child.first, child.last)
            link = link_of(child)
            self._orphans[link] = (child, estate, ranks)
            estate.awaited.add(link)
            covered |= ranks
        self.ranks |= covered
        estate.sure = covered == lost.members  # whom it had reported as gone, it had settled before
        return estate

    def links_of(self, ranks: int) -> list[tuple[Link, int]]:
        """The orphans that these ranks are below, each with its share of them."""
        return [(link, ranks & own) for link, (_, _, own) in self._orphans.items() if ranks & own]

    def arrive(self, link: Link) -> tuple[Estate, int]:
        """An orphan says hello. What it comes from, and its engines."""
        return self._leave(link)

    def lose(self, link: Link) -> tuple[Estate, int]:
        """An orphan is gone before it said hello. What it comes from, and its engines."""
        estate, ranks = self._leave(link)
        estate.sure = False
        return estate, ranks

    def _leave(self, link: Link) -> tuple[Estate, int]:
        _, estate, ranks = self._orphans.pop(link)
        estate.awaited.discard(link)
        self.ranks &= ~ranks
        return estate, ranks
