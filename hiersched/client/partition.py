"""How a sequence is split over engines, and put together again.

Two ways, by ipyparallel's keys: 'b' gives each engine one contiguous block, 'r' deals items out in turn. Parts differ
by at most one item. Splitting keeps the type of what can be sliced (an array gives arrays); joining concatenates arrays
and chains sequences, and a part that is neither (a flattened scalar) counts as one item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice, pairwise, zip_longest
from typing import Any, Protocol

import numpy as np

_SLICEABLE = (list, tuple, range, str, bytes, bytearray, np.ndarray)
_MISSING = object()


class Distribution(Protocol):
    """A way to split and to join."""

    def split(self, items: Any, parts: int) -> list[Any]:
        """`parts` shares of the sequence `items`, some empty where there are fewer items than parts."""
        ...

    def join(self, parts: Sequence[Any]) -> Any:
        """The sequence whose shares these are: an array of array shares, else a list."""
        ...


class Blocks:
    """One contiguous block each; the first blocks are one item longer where it does not come out even."""

    def split(self, items: Any, parts: int) -> list[Any]:
        """Blocks of `items`, in order."""
        items = rows(items)
        size, longer = divmod(len(items), parts)
        cuts = [index * size + min(index, longer) for index in range(parts + 1)]
        return [items[low:high] for low, high in pairwise(cuts)]

    def join(self, parts: Sequence[Any]) -> Any:
        """The blocks one after the other."""
        if _all_arrays(parts):
            return np.concatenate(parts)
        return [item for part in parts for item in items_of(part)]


class RoundRobin:
    """Item i goes to part i modulo the number of parts."""

    def split(self, items: Any, parts: int) -> list[Any]:
        """Strides of `items`."""
        items = rows(items)
        return [items[index::parts] for index in range(parts)]

    def join(self, parts: Sequence[Any]) -> Any:
        """The strides interleaved."""
        if _all_arrays(parts):
            total = sum(len(part) for part in parts)
            joined = np.empty((total, *parts[0].shape[1:]), dtype=np.result_type(*parts))
            for index, part in enumerate(parts):
                joined[index :: len(parts)] = part
            return joined
        turns = zip_longest(*map(items_of, parts), fillvalue=_MISSING)
        return [item for turn in turns for item in turn if item is not _MISSING]


DISTRIBUTIONS: dict[str, Distribution] = {"b": Blocks(), "r": RoundRobin()}


def distribution(key: str) -> Distribution:
    """The distribution named `key`. Raises ValueError naming the known ones."""
    try:
        return DISTRIBUTIONS[key]
    except KeyError:
        raise ValueError(f"dist must be one of {', '.join(map(repr, DISTRIBUTIONS))}, not {key!r}") from None


def rows(items: Any) -> Any:
    """`items` as something whose slices are shares of it: itself, its rows by position, or a list of what it gives."""
    if isinstance(items, _SLICEABLE):
        return items
    by_position = getattr(items, "iloc", None)  # of pandas, whose own slices may go by label
    return by_position if by_position is not None and hasattr(items, "__len__") else list(items)


def columns(sequences: Sequence[Iterable[Any]]) -> tuple[list[Any], int]:
    """The arguments of a map as sequences of one length, and that length: the shortest's, as `map` has it.

    Iterators are read no further than that, so an endless one may stand beside a sized one.
    """
    if not sequences:
        raise TypeError("map needs at least one sequence")
    lengths = [len(sequence) for sequence in sequences if hasattr(sequence, "__len__")]  # type: ignore[arg-type]
    if not lengths:
        taken = list(zip(*sequences, strict=False))
        return ([list(column) for column in zip(*taken, strict=True)] or [[] for _ in sequences]), len(taken)
    count = min(lengths)
    cut = [_head(sequence, count) for sequence in sequences]
    shortest = min(map(len, cut))
    if shortest < count:
        cut = [column[:shortest] for column in cut]
    return cut, shortest


def _head(sequence: Iterable[Any], count: int) -> Any:
    """The first `count` items of `sequence`, sliceable."""
    if isinstance(sequence, _SLICEABLE):
        return sequence if len(sequence) == count else sequence[:count]
    return list(islice(sequence, count))


def _all_arrays(parts: Sequence[Any]) -> bool:
    return bool(parts) and all(isinstance(part, np.ndarray) and part.ndim for part in parts)


def items_of(part: Any) -> Iterable[Any]:
    """The items of a share; a share that is no sequence is one item."""
    return part if isinstance(part, (list, tuple, range, np.ndarray)) else (part,)
