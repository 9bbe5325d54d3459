"""How long calls take on a tree of a given shape, and what the tree costs.

A node with c children sends c requests one after the other (s seconds each) and handles c replies one after the other
(r each). The reply to the i-th request waits in its queue t after that send, so the last reply has been handled after

    F(c, t) = max(s + t + c r,  c s + t + r,  c (s + r))

whichever is the slow part: handling, sending, or a node that never rests. Nested from the leaves to the root, this
gives the span of a no-op on all engines. The processes of a host share its cores, so that no-op also takes at least
the CPU time of everything the busiest host does for it, over its cores (the span law and the work law of Brent 1974):
the latency is the greater of the two. A tree costs this latency, plus that of a call on one engine, which every level
lengthens, plus a price for each scheduler beside the root. docs/decisions/0002-size-of-the-tree.md says what follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from hiersched.core.shape import HostShape, Site, TreeShape, group_count
from hiersched.errors import PlanError


class Costs(msgspec.Struct, frozen=True):
    """What messages and processes cost, in seconds. The defaults: pyzmq over ipc on an ordinary machine.

    Raises PlanError for a value that is negative or not finite.
    """

    send_s: float = 6e-6  # a scheduler's time to send one message
    receive_s: float = 20e-6  # a scheduler's time to receive and handle one message
    hop_s: float = 60e-6  # from the end of a send until the receiver, asleep before, begins to handle it
    network_s: float = 50e-6  # what a hop between hosts adds to that
    byte_s: float = 0.4e-9  # each byte of a message, per hop
    result_s: float = 0.05e-6  # each engine's result in a joined reply, per scheduler that it passes
    engine_s: float = 60e-6  # CPU time of an engine: wake up, decode, answer
    wake_s: float = 40e-6  # CPU time to wake up a scheduler
    process_s: float = 20e-6  # a price: the latency one is willing to pay to save one scheduler process

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise PlanError(f"Costs.{name} is {value}: give a time in seconds, 0 or more")


ORDINARY = Costs()


class Prediction(NamedTuple):
    """Predicted times, from the request in the root's hand to all replies in it.

    span_s, work_s: of a no-op on all engines, the longest chain of dependent steps, and CPU time over cores of the
    busiest host. call_s: a no-op on one engine, the deepest. level_s: what each level of schedulers, root first, adds
    to the span; the engine's own time is the rest. children_max: of the busiest scheduler.
    """

    span_s: float
    work_s: float
    call_s: float
    level_s: tuple[float, ...]
    schedulers: int
    children_max: int

    @property
    def latency_s(self) -> float:
        """A no-op on all engines: neither the span nor the work can be beaten."""
        return max(self.span_s, self.work_s)

    def cost_s(self, costs: Costs) -> float:
        """What a plan minimises."""
        return self.latency_s + self.call_s + costs.process_s * (self.schedulers - 1)


def fan_s(children: int, turnaround_s: float, send_s: float, receive_s: float) -> float:
    """From the first of `children` sends to the last reply handled: F of the module's text.

    turnaround_s: from the end of a send until its reply waits in the queue.
    """
    return max(
        send_s + turnaround_s + children * receive_s,
        children * send_s + turnaround_s + receive_s,
        children * (send_s + receive_s),
    )


def predict(shape: TreeShape, costs: Costs, message_bytes: int) -> Prediction:
    """The prediction for requests with `message_bytes` of payload."""
    send_s = costs.send_s + message_bytes * costs.byte_s
    times = max((_host_times(host, costs, send_s) for host in shape.hosts), key=lambda times: times[-1])
    hosts = schedulers = depth = 0
    children_max = max(shape.upper, default=0)
    for host in shape.hosts:
        count = sum(site.hosts for site in host.sites)
        hosts += count
        schedulers += count * host.schedulers
        depth = max(depth, len(host.widths))
        children_max = max(children_max, _leaf_engines(host), *host.widths)
    call_s = send_s + 2 * costs.hop_s + costs.engine_s + costs.receive_s
    call_s += depth * _exchange_s(costs, send_s, costs.hop_s)
    if shape.upper:
        schedulers += 1 + group_count(hosts, shape.upper)
        call_s += len(shape.upper) * _exchange_s(costs, send_s, costs.hop_s + costs.network_s)
        times = times + _upper_times(times[-1], shape, costs, send_s)
    level_s = [after - before for before, after in zip([costs.engine_s, *times], times, strict=False)]
    work_s = _work_s(shape, costs, send_s)
    return Prediction(times[-1], work_s, call_s, tuple(reversed(level_s)), schedulers, children_max)


def _leaf_engines(host: HostShape) -> int:
    """Engines of the largest leaf."""
    return -(-max(site.slots for site in host.sites) // math.prod(host.widths))


def cheapest(
    cost_s: Callable[[int, int], float], fanouts: Sequence[int], leaves: Sequence[int], sites: Sequence[Site]
) -> tuple[int, int]:
    """(fanout, leaf_engines) of least `cost_s` for `sites`, by rising slots; among equals, the least numbers.

    For a leaf size and a number of levels the sum of the widths is least if all are equal, so fanouts that are roots
    of the number of leaves, or of hosts, come close. The best such pair is then improved in one number at a time.
    """

    def scan(pairs: Iterable[tuple[int, int]]) -> tuple[float, int, int]:
        return min((cost_s(fanout, leaf), leaf, fanout) for fanout, leaf in pairs)

    heads = _even_fanouts(sum(site.hosts for site in sites), fanouts)
    best = scan((k, leaf) for leaf in leaves for k in heads | _even_fanouts(-(-sites[-1].slots // leaf), fanouts))
    while True:
        wider = scan((fanout, best[1]) for fanout in fanouts)
        better = scan((wider[2], leaf) for leaf in leaves)
        if better >= best:
            return best[2], best[1]
        best = better


def _even_fanouts(units: int, fanouts: Sequence[int]) -> set[int]:
    """Those of `fanouts` that give the levels of a tree over `units` equal widths, for each number of levels.

    Below 4 a wider tree of fewer levels is always better, as a level costs more than a child does.
    """
    roots = [units]
    while roots[-1] >= 4:
        roots.append(math.ceil(units ** (1 / (len(roots) + 1))))
    return {min(max(root, fanouts[0]), fanouts[-1]) for root in roots}


def _exchange_s(costs: Costs, send_s: float, hop_s: float) -> float:
    """A request down one level of schedulers and its reply up."""
    return send_s + costs.send_s + 2 * (hop_s + costs.receive_s)


def _host_times(host: HostShape, costs: Costs, send_s: float) -> list[float]:
    """From a scheduler's having the request to its having all replies: at a leaf, above it, ..., at the host's head."""
    engines = _leaf_engines(host)
    times = [fan_s(engines, 2 * costs.hop_s + costs.engine_s, send_s, costs.receive_s + costs.result_s)]
    between_s = 2 * costs.hop_s + costs.receive_s + costs.send_s
    for width in reversed(host.widths):
        times.append(fan_s(width, between_s + times[-1], send_s, costs.receive_s + engines * costs.result_s))
        engines *= width
    return times


def _upper_times(head_s: float, shape: TreeShape, costs: Costs, send_s: float) -> list[float]:
    """The same above the hosts, up to the root. head_s: at the head of the slowest host."""
    engines = _engines(shape)
    parts = math.prod(shape.upper)
    times = [head_s]
    between_s = 2 * (costs.hop_s + costs.network_s) + costs.receive_s + costs.send_s
    for width in reversed(shape.upper):
        results_s = -(-engines // parts) * costs.result_s
        times.append(fan_s(width, between_s + times[-1], send_s, costs.receive_s + results_s))
        parts //= width
    return times[1:]


def _engines(shape: TreeShape) -> int:
    return sum(site.hosts * site.slots for host in shape.hosts for site in host.sites)


def _work_s(shape: TreeShape, costs: Costs, send_s: float) -> float:
    """CPU time over cores of the busiest host, for a no-op on all engines.

    A host is charged for one scheduler of each level above the heads, as the first host of a group carries that
    group's scheduler; only the root's host is charged for the root.
    """
    groups_s, root_s = _upper_work_s(shape, costs, send_s) if shape.upper else (0.0, 0.0)
    (root,) = shape.root.sites
    if root.slots:
        schedulers_s, engine_s = _host_work_s(shape.root, costs, send_s)
        root_s += groups_s + schedulers_s + root.slots * engine_s
    busiest_s = root_s / root.cores
    for host in shape.hosts:
        schedulers_s, engine_s = _host_work_s(host, costs, send_s)
        schedulers_s += groups_s
        busiest_s = max(busiest_s, *((schedulers_s + site.slots * engine_s) / site.cores for site in host.sites))
    return busiest_s


def _host_work_s(host: HostShape, costs: Costs, send_s: float) -> tuple[float, float]:
    """CPU time of one host: of all its schedulers, from its head down; and of each engine, with its leaf's part."""
    pair_s = send_s + costs.receive_s
    schedulers = host.schedulers
    schedulers_s = schedulers * 2 * costs.wake_s + (schedulers - 1) * 2 * pair_s
    return schedulers_s, costs.engine_s + pair_s + (len(host.widths) + 1) * costs.result_s


def _upper_work_s(shape: TreeShape, costs: Costs, send_s: float) -> tuple[float, float]:
    """CPU time of one scheduler of each level above the heads, and of the root."""
    pair_s = send_s + costs.receive_s
    engines = _engines(shape)
    root_s = shape.upper[0] * pair_s + 2 * costs.wake_s + engines * costs.result_s
    groups_s = pair_s  # the head's own exchange with its parent
    for above, width in zip(shape.upper, shape.upper[1:], strict=False):
        engines = -(-engines // above)
        groups_s += (width + 1) * pair_s + 2 * costs.wake_s + engines * costs.result_s
    return groups_s, root_s
