"""Engines in the place of others of their rank, and since when that is known here.

What an engine had answered may be lost together with its scheduler. If the engine itself had ended before, nobody can
tell whether it had: what was sent while its replacement was not known here yet is in doubt. What was sent later was
never its own. Time is counted in replacements (`epoch`).
"""

from __future__ import annotations

from collections.abc import Iterable

from hiersched.core.topology import Child
from hiersched.kernels import bitset
from hiersched.protocol.messages import Rank

ALWAYS = float("inf")


class Replacements:
    """epoch: how many replacements have become known."""

    def __init__(self) -> None:
        self.epoch = 0
        self._births: dict[Rank, int] = {}
        self._since: dict[Rank, int] = {}  # epochs

    def note(self, births: Iterable[tuple[Rank, int]]) -> int:
        """These engines are there: (rank, birth). The ranks of which that is news, a bit set."""
        news = 0
        for rank, birth in births:
            if self._births.get(rank) != birth:
                self.epoch += 1
                self._births[rank], self._since[rank] = birth, self.epoch
                news |= 1 << rank
        return news

    def among(self, ranks: int) -> list[tuple[Rank, int]]:
        """(rank, birth) of those of these ranks that are in the place of others."""
        if not self._births:
            return []
        return [(rank, self._births[rank]) for rank in bitset.ranks_of(ranks) if rank in self._births]

    def doubtful_before(self, child: Child) -> float:
        """What was sent before this epoch to a scheduler now lost may have been run by a predecessor of its child."""
        if not child.birth:
            return 0
        return self._since[child.first] if self._births.get(child.first) == child.birth else ALWAYS
