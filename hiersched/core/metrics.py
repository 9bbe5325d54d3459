"""Counters that merge upward, level by level."""

from __future__ import annotations

from collections import Counter

Level = tuple[int, int, dict[str, int], dict[str, int]]  # level, schedulers, totals, maxima of any one scheduler


def merge(tables: list[list[Level]]) -> list[Level]:
    """Tables of several subtrees as one: schedulers and totals add up, maxima are of any one scheduler."""
    merged: dict[int, tuple[int, Counter[str], dict[str, int]]] = {}
    for table in tables:
        for level, schedulers, totals, maxima in table:
            known, total, highest = merged.get(level, (0, Counter[str](), {}))
            total.update(totals)
            for name, value in maxima.items():
                highest[name] = max(value, highest.get(name, value))
            merged[level] = (known + schedulers, total, highest)
    return [(level, known, dict(total), highest) for level, (known, total, highest) in sorted(merged.items())]
