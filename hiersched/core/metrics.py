"""Counters of one scheduler that merge upward, level by level."""

from __future__ import annotations

from collections import Counter

Level = tuple[
    int, int, dict[str, int], dict[str, int]
]  # level, schedulers, totals, maxima


class Metrics:
    """What one scheduler has counted since it started."""

    def __init__(self, level: int) -> None:
        self.level = level
        self.counts: Counter[str] = Counter()

    def levels(self) -> list[Level]:
        """This scheduler alone, as a table of levels."""
        counts = dict(self.counts)
        return [(self.level, 1, counts, dict(counts))]


def merge(tables: list[list[Level]]) -> list[Level]:
    """Tables of several subtrees as one: schedulers and totals add up, maxima are of any one scheduler."""
    merged: dict[int, tuple[int, Counter[str], Counter[str]]] = {}
    for table in tables:
        for level, schedulers, totals, maxima in table:
            known, total, maximum = merged.get(
                level, (0, Counter[str](), Counter[str]())
            )
            total.update(totals)
            maximum |= Counter(maxima)
            merged[level] = (known + schedulers, total, maximum)
    return [
        (level, count, dict(total), dict(top))
        for level, (count, total, top) in sorted(merged.items())
    ]
