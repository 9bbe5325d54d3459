"""What should a set of ranks be: one Python integer, numpy words, or numpy words in a compiled kernel?

A scheduler splits the targets of each call over its children, counts and unites them, and writes and reads them on the
wire. All three keep one bit per rank. Ours is the integer of kernels/bitset.py; the others are the best we could write
with arrays of 64-bit words. Times are CPU times, since nothing here waits. What follows from them is written in
docs/decisions/0004-rank-sets-are-integers.md.
"""

import statistics
import subprocess
import sys
import time
import timeit
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.command import Options, main
from benchmarks.report import Case, Report
from hiersched.kernels import bitset

OURS = "hiersched"
CHILDREN = 64
RANKS = (64, 1_000, 100_000)
BUDGET_S = 0.02  # of one sample
Words = NDArray[np.uint64]
Wire = tuple[int, bytes]


class Sets(Protocol):
    """One way to keep sets of ranks. `of` and `members` make its operands from integers, outside the clock."""

    def of(self, bits: int, ranks: int) -> Any:
        """The set `bits` among ranks 0..ranks-1."""

    def members(self, ranges: Sequence[tuple[int, int]], ranks: int) -> Any:
        """What each child stands for, all of [first, last)."""

    def split(self, targets: Any, members: Any) -> list[tuple[int, Any]]:
        """(child, its share) for each child that has any of the targets."""

    def count(self, a: Any) -> int:
        """The number of ranks."""

    def union(self, a: Any, b: Any) -> Any:
        """The ranks in either."""

    def to_wire(self, a: Any, least: int = 0) -> Wire:
        """(zero bytes skipped, the remaining bytes). least: no rank is below it."""

    def from_wire(self, wire: Wire, ranks: int) -> Any:
        """The set that `to_wire` gave."""


class Integers:
    """One Python integer."""

    def of(self, bits: int, ranks: int) -> int:
        return bits

    def members(self, ranges: Sequence[tuple[int, int]], ranks: int) -> list[int]:
        return [bitset.of_range(first, last) for first, last in ranges]

    def split(self, targets: int, members: list[int]) -> list[tuple[int, int]]:
        shares = []
        for child, mask in enumerate(members):
            share = targets & mask
            if share:
                shares.append((child, share))
                targets ^= share
        return shares

    def count(self, a: int) -> int:
        return a.bit_count()

    def union(self, a: int, b: int) -> int:
        return a | b

    def to_wire(self, a: int, least: int = 0) -> Wire:
        return bitset.to_wire(a, least)

    def from_wire(self, wire: Wire, ranks: int) -> int:
        return bitset.from_wire(wire)


class Arrays:
    """(words,) uint64, worked on by numpy; all children's members are one (children, words) array."""

    def of(self, bits: int, ranks: int) -> Words:
        return np.frombuffer(bits.to_bytes(8 * _words(ranks), "little"), dtype=np.uint64)

    def members(self, ranges: Sequence[tuple[int, int]], ranks: int) -> Any:
        return np.stack([self.of(bitset.of_range(first, last), ranks) for first, last in ranges])

    def split(self, targets: Words, members: Any) -> list[tuple[int, Words]]:
        shares = members & targets
        return [(child, shares[child]) for child in shares.any(axis=1).nonzero()[0].tolist()]

    def count(self, a: Words) -> int:
        return int(np.bitwise_count(a).sum())

    def union(self, a: Words, b: Words) -> Words:
        return a | b

    def to_wire(self, a: Words, least: int = 0) -> Wire:
        start = least // 64
        used = a[start:].nonzero()[0]
        if not len(used):
            return 0, b""
        first, last = start + int(used[0]), start + int(used[-1]) + 1
        return 8 * first, a[first:last].tobytes()

    def from_wire(self, wire: Wire, ranks: int) -> Words:
        words = np.zeros(_words(ranks), dtype=np.uint64)
        words.view(np.uint8)[wire[0] : wire[0] + len(wire[1])] = np.frombuffer(wire[1], dtype=np.uint8)
        return words


class Kernels(Arrays):
    """The same words, worked on by numba. A child's share is only looked for where the child has members."""

    def members(self, ranges: Sequence[tuple[int, int]], ranks: int) -> Any:
        masks = super().members(ranges, ranks)
        firsts = np.array([first // 64 for first, _ in ranges])
        lasts = np.array([_words(last) for _, last in ranges])
        return masks, firsts, lasts

    def split(self, targets: Words, members: Any) -> list[tuple[int, Words]]:
        shares = np.zeros_like(members[0])
        found = _split(targets, *members, shares)
        return [(child, shares[child]) for child in found.nonzero()[0].tolist()]

    def count(self, a: Words) -> int:
        return _count(a)  # type: ignore[no-any-return]

    def union(self, a: Words, b: Words) -> Words:
        return _union(a, b)  # type: ignore[no-any-return]

    def to_wire(self, a: Words, least: int = 0) -> Wire:
        first, last = _used(a, least // 64)
        return 8 * first, a[first:last].tobytes()


@numba.njit
def _split(targets: Words, masks: Any, firsts: Any, lasts: Any, shares: Any) -> Any:
    found = np.zeros(len(masks), dtype=np.bool_)
    for child in range(len(masks)):
        for word in range(firsts[child], lasts[child]):
            share = targets[word] & masks[child, word]
            shares[child, word] = share
            found[child] |= share != 0
    return found


@numba.njit
def _count(a: Words) -> int:
    total = 0
    for word in a:
        while word:
            word &= word - np.uint64(1)
            total += 1
    return total


@numba.njit
def _union(a: Words, b: Words) -> Words:
    return a | b


@numba.njit
def _used(a: Words, first: int) -> tuple[int, int]:
    last = len(a)
    while first < last and a[first] == 0:
        first += 1
    while last > first and a[last - 1] == 0:
        last -= 1
    return first, last


@numba.njit
def _nothing(a: Words, b: Words, c: Words) -> None:
    return None


def _words(ranks: int) -> int:
    return -(-ranks // 64)


WAYS: dict[str, Sets] = {OURS: Integers(), "numpy words": Arrays(), "numba kernel": Kernels()}


def rank_sets(options: Options) -> Report:
    """Medians of each operation on a set of all ranks, split over 64 children that share the ranks evenly."""
    report = Report("rank_sets", "Sets of ranks; ours is a Python integer")
    rounds = 5 if options.quick else 25
    for ranks in RANKS:
        operations = {name: _operations(way, ranks) for name, way in WAYS.items()}
        for case in operations[OURS]:
            samples: dict[str, list[float]] = {name: [] for name in WAYS}
            for _ in range(rounds):
                for name in WAYS:
                    samples[name].append(_seconds(operations[name][case]))
            peers = [name for name in WAYS if name != OURS]
            report.rows.append(Case(case, "us", 1e6).row(ranks, ours=OURS, peers=peers, races=[samples]))
    report.notes.extend(_price_of_kernels())
    return report


def _operations(way: Sets, ranks: int) -> dict[str, Callable[[], Any]]:
    """What is measured, by its name in the tables."""
    everyone = bitset.of_range(0, ranks)
    ranges = [(child * ranks // CHILDREN, (child + 1) * ranks // CHILDREN) for child in range(CHILDREN)]
    targets, members = way.of(everyone, ranks), way.members(ranges, ranks)
    even, odd = (way.of(everyone & int.from_bytes(byte * (ranks // 8 + 1)), ranks) for byte in (b"\x55", b"\xaa"))
    wire = way.to_wire(targets)
    shares = way.split(targets, members)
    assert [child for child, _ in shares] == list(range(CHILDREN))
    assert sum(way.count(share) for _, share in shares) == way.count(way.union(even, odd)) == ranks
    assert way.count(way.from_wire(wire, ranks)) == ranks
    return {
        "split over 64 children": lambda: way.split(targets, members),
        "count": lambda: way.count(targets),
        "union": lambda: way.union(even, odd),
        "to the wire": lambda: way.to_wire(targets),
        "64 shares to the wire": lambda: [way.to_wire(share, ranges[child][0]) for child, share in shares],
        "from the wire": lambda: way.from_wire(wire, ranks),
    }


def _seconds(action: Callable[[], Any]) -> float:
    """Seconds of one call, from as many as fit into the budget."""
    timer = timeit.Timer(action, timer=time.process_time)
    number = max(1, min(10_000, int(BUDGET_S / max(timer.timeit(5) / 5, 1e-6))))
    return timer.timeit(number) / number


def _price_of_kernels() -> list[str]:
    """What kernels cost before they have done anything."""
    words = np.zeros(1, dtype=np.uint64)
    _nothing(words, words, words)
    call_us = statistics.median(_seconds(lambda: _nothing(words, words, words)) for _ in range(9)) * 1e6
    begin = time.process_time()
    numba.njit(_union.py_func)(words, words)
    compile_s = time.process_time() - begin
    import_s, import_mb = _import_of_numba()
    return [
        f"a kernel that does nothing with three arrays: {call_us:.2g} us a call",
        f"compiling one small kernel: {compile_s:.2g} s",
        f"importing numba into a process that has numpy: {import_s:.2g} s and {import_mb:.0f} MB",
    ]


def _import_of_numba() -> tuple[float, float]:
    """(seconds, 10^6 bytes) that `import numba` adds to a fresh process with numpy; the median of three."""
    program = (
        "import numpy, psutil, time; size = lambda: psutil.Process().memory_info().rss;"
        "before, begin = size(), time.process_time(); import numba;"
        "print(time.process_time() - begin, (size() - before) / 1e6)"
    )
    runs = [subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True) for _ in "123"]
    seconds, megabytes = zip(*[map(float, run.stdout.split()) for run in runs], strict=True)
    return statistics.median(seconds), statistics.median(megabytes)


if __name__ == "__main__":
    main([rank_sets])
