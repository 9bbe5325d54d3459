"""How many items of a map travel together, and how many such chunks are out at a time.

Guided self-scheduling (Polychronopoulos and Kuck, 1987) between bounds learnt from the engines' own clocks. While
nothing is known, items travel alone. Then a chunk aims at MAP_CHUNK_S of work, which makes the cost of sending it
small. It is at most half an even share of what is left, so that engines finish together, but not below MAP_CHUNK_S_MIN
of work, where there is nothing left to even out. It grows by a bounded factor over the largest chunk measured, since
one cheap item says little about the next thousand. Recent chunks count most, large ones more than small ones. Pure.
"""

from __future__ import annotations

from hiersched.limits import (
    MAP_CHUNK_GROWTH_MAX,
    MAP_CHUNK_ITEMS_MAX,
    MAP_CHUNK_S,
    MAP_CHUNK_S_MIN,
    MAP_CHUNKS_OUTSTANDING_MAX,
    MAP_CHUNKS_PER_ENGINE_MAX,
)

_KEPT = 0.5  # of what earlier chunks weigh, when another is measured
_ITEM_S_MIN = 1e-9  # below what a clock can tell


class ChunkSizer:
    """The chunk sizes of one map.

    items_fixed: a size the user chose, used throughout; items_max: upper bound of every chunk. chunks_max: how many
    chunks the user wants out at most; None: a few for each engine, or as many as may be if the user chose their size.
    """

    __slots__ = ("_chunks_max", "_fixed", "_items", "_largest", "_max", "_seconds")

    def __init__(
        self,
        items_fixed: int | None = None,
        *,
        items_max: int = MAP_CHUNK_ITEMS_MAX,
        chunks_max: int | None = None,
    ) -> None:
        for name, count in (("chunksize", items_fixed), ("max_outstanding", chunks_max)):
            if count is not None and not hasattr(count, "__index__"):
                raise TypeError(f"{name} must be a whole number, not {count!r}")
            if count is not None and count < 1:
                raise ValueError(f"{name} must be at least 1, not {count}")
        self._fixed = items_fixed
        self._chunks_max = chunks_max
        self._max = items_max
        self._items = 0.0
        self._seconds = 0.0
        self._largest = 0

    @property
    def adaptive(self) -> bool:
        """Whether sizes are learnt, and not chosen by the user."""
        return self._fixed is None

    @property
    def item_s(self) -> float:
        """Running time of one item, seconds; 0.0 while nothing was measured."""
        return max(self._seconds / self._items, _ITEM_S_MIN) if self._items else 0.0

    def learn(self, items: int, seconds: float) -> None:
        """Take in that a chunk of `items` ran for `seconds` on its engine."""
        self._items = self._items * _KEPT + items
        self._seconds = self._seconds * _KEPT + max(seconds, 0.0)
        self._largest = max(self._largest, items)

    def chunks_out_max(self, engines: int) -> int:
        """How many chunks may be out at a time."""
        if self._chunks_max is not None:
            return min(self._chunks_max, MAP_CHUNKS_OUTSTANDING_MAX)
        return engines * MAP_CHUNKS_PER_ENGINE_MAX if self.adaptive else MAP_CHUNKS_OUTSTANDING_MAX

    def next_items(self, engines: int, remaining: int | None = None) -> int:
        """Items of the next chunk, at least 1. remaining: items not yet sent, None where nobody knows."""
        if self._fixed is not None:
            return self._fixed
        if not self._items:
            return 1
        item_s = self.item_s
        bound = min(self._largest * MAP_CHUNK_GROWTH_MAX, self._max)
        items = MAP_CHUNK_S / item_s
        if remaining is not None:
            share = remaining / (2 * max(engines, 1))
            items = min(items, max(share, MAP_CHUNK_S_MIN / item_s), remaining)
        return max(1, int(min(items, bound)))
