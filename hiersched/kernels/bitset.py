"""Sets of ranks as bits of one Python integer.

A target set must be split over the children of a scheduler, counted, united and sent on. Python's integers do all of
this in C: `&`, `|`, `~`, `bit_count`. To take in, split and send on the targets of a call costs a leaf some tens of
microseconds and a root over 100,000 engines a third of a millisecond. A compiled kernel is no faster
(docs/decisions/0004-rank-sets-are-integers.md).

On the wire a set is `(offset, bits)`: the bytes that hold set bits, little-endian, and how many zero bytes precede
them. One rank costs one byte wherever it is, and a full set costs an eighth of a byte per rank.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

_FEW_RANKS = 16  # below this, walking the bits beats unpacking them


def of_range(first: int, last: int) -> int:
    """The ranks first..last-1."""
    return (1 << last) - (1 << first) if last > first else 0


def of_ranks(ranks: Iterable[int]) -> int:
    """The set of these ranks, in any order, repeats allowed. Raises ValueError for a negative one."""
    listed = list(ranks)
    if not listed:
        return 0
    if len(listed) <= _FEW_RANKS:
        bits = 0
        for rank in listed:
            bits |= 1 << rank
        return bits
    places = np.asarray(listed)
    if places.min() < 0:
        raise ValueError("a rank is never negative")
    flags = np.zeros(places.max() + 1, dtype=np.uint8)
    flags[places] = 1
    return int.from_bytes(np.packbits(flags, bitorder="little").tobytes(), "little")


def ranks_of(bits: int) -> list[int]:
    """The ranks in the set, ascending."""
    if bits.bit_count() <= _FEW_RANKS:
        ranks = []
        while bits:
            lowest = bits & -bits
            ranks.append(lowest.bit_length() - 1)
            bits ^= lowest
        return ranks
    skipped = ((bits & -bits).bit_length() - 1) & ~7
    bits >>= skipped
    raw = np.frombuffer(bits.to_bytes((bits.bit_length() + 7) // 8, "little"), dtype=np.uint8)
    found: list[int] = (np.flatnonzero(np.unpackbits(raw, bitorder="little")) + skipped).tolist()
    return found


def first_of(bits: int) -> int:
    """The lowest rank in the set; -1 if it is empty."""
    return (bits & -bits).bit_length() - 1


def to_wire(bits: int, least: int = 0) -> tuple[int, bytes]:
    """(zero bytes skipped, the remaining bytes, little-endian). least: no rank is below it; knowing it saves time."""
    if not bits:
        return 0, b""
    surely = least >> 3
    bits >>= surely << 3
    offset = ((bits & -bits).bit_length() - 1) >> 3
    bits >>= offset << 3
    return surely + offset, bits.to_bytes((bits.bit_length() + 7) >> 3, "little")


def from_wire(wire: tuple[int, bytes]) -> int:
    """The set that `to_wire` gave."""
    return int.from_bytes(wire[1], "little") << (wire[0] << 3)


def runs_of(bits: int) -> list[tuple[int, int]]:
    """The set as ascending runs (first, last), last excluded."""
    runs = []
    base = 0
    while bits:
        zeros = (bits & -bits).bit_length() - 1
        bits >>= zeros
        ones = (~bits & (bits + 1)).bit_length() - 1
        bits >>= ones
        runs.append((base + zeros, base + zeros + ones))
        base += zeros + ones
    return runs


def text_of(bits: int) -> str:
    """The set for people: `0-62,64`."""
    return ",".join(str(first) if last == first + 1 else f"{first}-{last - 1}" for first, last in runs_of(bits))
