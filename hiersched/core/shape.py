"""The shape of a tree: how many children the schedulers of each level have.

A uniform tree over u leaves is a list of widths: the root has w1 children, each of those w2, and so on. A cluster's
tree is uniform twice: from the root down to the hosts' heads, and from each head down to the leaves of its host. So
(fanout, leaf_engines) and the hosts' slots determine it, and its cost depends on hosts by kind, not one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from operator import mul
from typing import NamedTuple


class Site(NamedTuple):
    """Hosts that are alike. slots: engines of each. cores: CPUs its processes share. hosts: how many."""

    slots: int
    cores: int
    hosts: int


class HostShape(NamedTuple):
    """Hosts with equal trees. widths: children per scheduler, from a host's head down to above its leaves."""

    widths: tuple[int, ...]
    sites: Sequence[Site]

    @property
    def schedulers(self) -> int:
        """Schedulers on one such host, its head included."""
        level = total = 1
        for width in self.widths:
            level *= width
            total += level
        return total


class TreeShape(NamedTuple):
    """All that a prediction depends on.

    upper: children per scheduler from the root down to above the hosts' heads; empty if the root is itself the head of
    the only host. hosts: those with engines. root: the root's host alone, which may have no slots.
    """

    upper: tuple[int, ...]
    hosts: Sequence[HostShape]
    root: HostShape


@lru_cache(maxsize=65_536)
def widths_over(units: int, fanout: int) -> tuple[int, ...]:
    """Children per node, level by level from the top, of a uniform tree with at least `units` leaves.

    No node has more than `fanout` children; there are as few levels as that allows, and then as few nodes. Every
    width is at least 2. The product is at most 2 * units - 2, so that with two or more engines to a leaf, no leaf is
    empty. More units never give fewer nodes.
    """
    levels, reach = 0, 1
    while reach < units:
        levels, reach = levels + 1, reach * fanout
    widths = []
    for _ in range(levels):
        reach //= fanout
        widths.append(-(-units // reach))
        units = -(-units // widths[-1])
    return tuple(widths)


def host_widths(slots: int, fanout: int, leaf_engines: int) -> tuple[int, ...]:
    """The widths on a host, whose leaves have at most `leaf_engines`; empty if its head is its only leaf."""
    return widths_over(-(-slots // leaf_engines), fanout)


def host_shapes(sites: Sequence[Site], fanout: int, leaf_engines: int) -> list[HostShape]:
    """`sites`, put together where their trees are equal."""
    alike: dict[tuple[int, ...], list[Site]] = {}
    for site in sites:
        alike.setdefault(host_widths(site.slots, fanout, leaf_engines), []).append(site)
    return [HostShape(widths, members) for widths, members in alike.items()]


def upper_widths(hosts: int, fanout: int) -> tuple[int, ...]:
    """The widths above the heads of `hosts`, for a root that is none of these heads."""
    return widths_over(hosts, fanout) or (1,)


def group_count(hosts: int, upper: tuple[int, ...]) -> int:
    """Schedulers between the root and the heads of `hosts`. A group of one host is no group: it is that host's head."""
    groups = 0
    for parts in accumulate(upper[:-1], mul):
        size, larger = divmod(hosts, parts)
        groups += parts if size > 1 else larger
    return groups


def merged(sites: Sequence[Site], sites_max: int) -> Sequence[Site]:
    """At most `sites_max` kinds of hosts that stand for `sites`, which come by rising slots.

    Neighbours become their mean; the largest stays, for the slowest host decides the latency.
    """
    if len(sites) <= sites_max:
        return sites
    *smaller, largest = sites
    step = -(-len(smaller) // (sites_max - 1))
    parts = [smaller[start : start + step] for start in range(0, len(smaller), step)]
    return [*(_mean(part) for part in parts), largest]


def _mean(sites: Sequence[Site]) -> Site:
    count = sum(site.hosts for site in sites)
    slots = sum(site.slots * site.hosts for site in sites)
    return Site(-(-slots // count), min(site.cores for site in sites), count)


def part(first: int, last: int, parts: int, place: int) -> tuple[int, int]:
    """Part number `place` of [first, last) split evenly: sizes differ by one at most."""
    size = last - first
    return first + size * place // parts, first + size * (place + 1) // parts


def part_of(first: int, last: int, parts: int, item: int) -> int:
    """The number of the part that holds `item`."""
    return ((item - first + 1) * parts - 1) // (last - first)


def head_level(place: int, hosts: int, upper: tuple[int, ...]) -> int:
    """The level of the head of host number `place` of `hosts`: len(upper), or less if a group had only that host."""
    first, last, level = 0, hosts, 0
    for width in upper:
        parts = min(width, last - first)
        first, last = part(first, last, parts, part_of(first, last, parts, place))
        level += 1
        if last - first == 1:
            break
    return level
