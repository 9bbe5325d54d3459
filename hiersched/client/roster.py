"""Which engines there are, as the root tells, and as answers tell before it does."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable

from hiersched.kernels import bitset
from hiersched.protocol.messages import Members


class Roster:
    """The engines of a cluster. failed_starts: those that were to start and did not, and why."""

    def __init__(self) -> None:
        self.failed_starts: dict[int, str] = {}
        self._members = 0
        self._forgotten = 0
        self._arrivals: Counter[int] = Counter()
        self._arrived_s: dict[int, float] = {}  # the last time, since the epoch
        self._ids: list[int] | None = None

    def __len__(self) -> int:
        return self._members.bit_count()

    def ids(self) -> list[int]:
        """Ranks of the engines that are there, ascending. The list is not the caller's to change."""
        if self._ids is None:
            self._ids = bitset.ranks_of(self._members)
        return self._ids

    def arrivals(self, ranks: Iterable[int]) -> int:
        """How often engines of these ranks have joined while we were here: more, when one was replaced."""
        return sum(self._arrivals[rank] for rank in ranks)

    def begin(self, members: int) -> None:
        """These are there when the session begins."""
        self._members |= members
        self._ids = None

    def on_members(self, news: Members) -> None:
        """Engines left, then others joined."""
        joined, left = bitset.from_wire(news.joined), bitset.from_wire(news.left)
        for rank in bitset.ranks_of(left & ~self._members & ~self._forgotten):
            self.failed_starts[rank] = news.reason
        came = bitset.ranks_of(joined)
        self._arrivals.update(came)
        self._arrived_s.update(dict.fromkeys(came, time.time()))
        self._forgotten &= ~left
        self._members = (self._members & ~left) | joined
        self._ids = None

    def forget(self, ranks: int, asked_s: float) -> None:
        """An answer tells that these engines are gone. The news of it may come later; who reads this one knows now.

        asked_s: when the call was made. Those that have come since are others in their place.
        """
        for rank in bitset.ranks_of(ranks):
            if self._arrived_s.get(rank, 0.0) >= asked_s:
                ranks ^= 1 << rank
        self._forgotten |= self._members & ranks
        self._members &= ~ranks
        self._ids = None
