"""Down: a target set split over the children that reach it.

The ranks of a child follow each other, so that whose a rank is takes a bisection; those of the leaf for guests
(enrolment.py) lie anywhere, and it is asked last.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from hiersched.core.membership import Neighbour
from hiersched.protocol.messages import NO_RANK


class Router:
    """Which child leads to which rank. Children's ranks never overlap."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._children: list[Neighbour] = []
        self._fresh: Iterable[Neighbour] | None = None  # not yet sorted: a tree that grows has no time for that

    def rebuild(self, children: Iterable[Neighbour]) -> None:
        """Take these children, in any order, in the place of the former ones. They are read when next needed."""
        self._fresh = children

    def _sort(self, children: Iterable[Neighbour]) -> None:
        self._children = sorted(children, key=lambda child: child.first)
        self._firsts = [child.first for child in self._children]
        self._fresh = None

    def child_of(self, rank: int) -> Neighbour | None:
        """The child whose subtree holds `rank`; None if it is not there now."""
        if self._fresh is not None:
            self._sort(self._fresh)
        place = bisect_right(self._firsts, rank) - 1
        if place >= 0:
            child = self._children[place]
            if child.members >> rank & 1:
                return child
        if rank >= 0 and self._firsts and self._firsts[-1] == NO_RANK and self._children[-1].members >> rank & 1:
            return self._children[-1]
        return None

    def split(self, targets: int) -> tuple[list[tuple[Neighbour, int]], int]:
        """([(child, its share of the targets)], the targets nobody has)."""
        if not targets & (targets - 1):  # a single target is the common case
            child = self.child_of(targets.bit_length() - 1)
            return ([(child, targets)], 0) if child is not None else ([], targets)
        if self._fresh is not None:
            self._sort(self._fresh)
        shares = []
        for child in self._children:
            share = targets & child.members
            if share:
                shares.append((child, share))
                targets ^= share
        return shares, targets
