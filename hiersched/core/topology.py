"""The tree: how large, and who is whose child.

`plan_tree` chooses two numbers, the fanout and the engines of a leaf; hosts, slots and those two determine the whole
tree. Ranks run through the hosts in order. Above, the hosts that have engines are split into contiguous groups, level
by level, until a part is one host: there a head scheduler takes over and splits the host's ranks down to leaves. So a
message crosses to a host once, and each scheduler finds its own children from (plan, its ranks) alone: `children_of`.

Splits are uniform (the schedulers of a level have equally many children) and even (siblings differ by one). What they
cost is predicted by costs.py; the two numbers are those of least cost.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import msgspec

from hiersched.core.costs import ORDINARY, Costs, cheapest, predict
from hiersched.core.shape import (
    HostShape,
    Site,
    TreeShape,
    head_level,
    host_shapes,
    host_widths,
    merged,
    part,
    part_of,
    upper_widths,
)
from hiersched.errors import Bug, PlanError
from hiersched.limits import ENGINES_MAX, FANOUT_MAX, LEAF_ENGINES_MAX

FANOUT_MIN = 2
LEAF_ENGINES_MIN = 2  # a leaf of one engine would only forward
_REPLAN_ABOVE = 1.25  # times the cost of a fresh plan: a running tree that costs no more is left alone
_SITES_SEARCHED_MAX = 16  # kinds of hosts the search looks at; what it finds is predicted with all


class Host(msgspec.Struct, frozen=True):
    """A machine. slots: engines it runs. cores: CPUs that its processes share.

    Raises PlanError if it has no name, negative slots or no core.
    """

    name: str
    slots: int
    cores: int

    def __post_init__(self) -> None:
        if not self.name or self.slots < 0 or self.cores < 1:
            raise PlanError(f"{self!r}: a host needs a name, 0 or more slots and 1 or more cores")


class TreePlan(msgspec.Struct, frozen=True):
    """A tree of schedulers over n engines, of ranks 0..n-1 or, of a tree added to another, from a later rank on.

    hosts: the root's host, then the other hosts with engines. first_ranks: (hosts + 1,) first rank of each host, then
    the one after the last. fanout: child schedulers of one scheduler, leaf_engines: engines of one leaf, at most both.
    depth: levels of schedulers, the root's included. schedulers: all of them. children_max: of the busiest scheduler.
    Predicted, from the request with `message_bytes` of payload in the root's hand to all replies in it: span_s, work_s,
    the longest chain of steps and the busiest host's CPU time over its cores, of a no-op on all engines; call_s, a
    no-op on one engine; level_s, what each level adds to the span, root first.
    """

    hosts: tuple[Host, ...]
    first_ranks: tuple[int, ...]
    fanout: int
    leaf_engines: int
    depth: int
    schedulers: int
    children_max: int
    span_s: float
    work_s: float
    call_s: float
    level_s: tuple[float, ...]
    costs: Costs
    message_bytes: int

    @property
    def engines(self) -> int:
        """Number of engines, n."""
        return self.first_ranks[-1] - self.first_ranks[0]

    @property
    def latency_s(self) -> float:
        """Predicted time of a no-op on all engines."""
        return max(self.span_s, self.work_s)

    @property
    def cost_s(self) -> float:
        """What the plan minimises: both latencies, and the price of every scheduler beside the root."""
        return self.latency_s + self.call_s + self.costs.process_s * (self.schedulers - 1)

    @property
    def messages_max(self) -> int:
        """Messages the busiest scheduler sends and receives for one collective: all children's, and its parent's."""
        return 2 * (self.children_max + 1)


class Child(msgspec.Struct, frozen=True):
    """A child to be: an engine of rank `first`, or the scheduler of ranks [first, last). The root's level is 0.

    birth: of an engine that replaces another, a number that no other of its rank has.
    """

    kind: Literal["engine", "scheduler"]
    first: int
    last: int
    host: str
    level: int
    birth: int = 0


class Level(msgspec.Struct, frozen=True):
    """All schedulers at one distance from the root.

    fanout_min, fanout_max: children of one, engines or schedulers. messages_max: sent and received by one for one
    collective. time_s: what the level adds to the span of a no-op on all engines.
    """

    level: int
    schedulers: int
    fanout_min: int
    fanout_max: int
    messages_max: int
    time_s: float


# --- the size of the tree ---------------------------------------------------------------------------------------------


def plan_tree(
    hosts: Sequence[Host],
    costs: Costs = ORDINARY,
    *,
    fanout: int | None = None,
    leaf_engines: int | None = None,
    message_bytes: int = 1024,
    first_rank: int = 0,
) -> TreePlan:
    """The cheapest tree over the slots of `hosts`, whose first runs the root (it may have no slots).

    fanout, leaf_engines: fix a number that would else be chosen. message_bytes: typical payload of a request.
    first_rank: of its engines. Raises PlanError if there is no slot, a host is listed twice, a number is out of bounds.
    """
    hosts = _checked(hosts, message_bytes, first_rank)
    fanouts = _range("fanout", fanout, FANOUT_MIN, FANOUT_MAX)
    leaves = _range("leaf_engines", leaf_engines, LEAF_ENGINES_MIN, LEAF_ENGINES_MAX)
    sites = _sites(hosts)
    few = merged(sites, _SITES_SEARCHED_MAX)

    def cost_s(fanout: int, leaf_engines: int) -> float:
        return predict(_shape(hosts[0], few, fanout, leaf_engines), costs, message_bytes).cost_s(costs)

    fanout, leaf_engines = cheapest(cost_s, fanouts, leaves, few)
    prediction = predict(_shape(hosts[0], sites, fanout, leaf_engines), costs, message_bytes)
    return TreePlan(
        hosts=hosts,
        first_ranks=tuple(accumulate((host.slots for host in hosts), initial=first_rank)),
        fanout=fanout,
        leaf_engines=leaf_engines,
        depth=_depth(hosts, fanout, leaf_engines),
        schedulers=prediction.schedulers,
        children_max=prediction.children_max,
        span_s=prediction.span_s,
        work_s=prediction.work_s,
        call_s=prediction.call_s,
        level_s=prediction.level_s,
        costs=costs,
        message_bytes=message_bytes,
    )


def replan(
    plan: TreePlan,
    hosts: Sequence[Host],
    costs: Costs,
    *,
    fanout: int | None = None,
    leaf_engines: int | None = None,
) -> TreePlan | None:
    """None while the running tree is still good for `hosts`, whose slots may have changed; else a fresh plan.

    Good: it has a scheduler on every host with engines, no leaf has outgrown its bound, and it costs at most a quarter
    more than the fresh plan would, so that a cluster whose engines come and go does not rebuild its tree each time.
    fanout, leaf_engines: as the plan was made with. Raises PlanError as `plan_tree` does, but not for no slot at all:
    any tree is good for no engine.
    """
    if not any(host.slots for host in hosts):
        return None
    size, first = plan.message_bytes, plan.first_ranks[0]
    fresh = plan_tree(hosts, costs, fanout=fanout, leaf_engines=leaf_engines, message_bytes=size, first_rank=first)
    shape = _running_shape(plan, hosts)
    good = shape is not None and predict(shape, costs, size).cost_s(costs) <= _REPLAN_ABOVE * fresh.cost_s
    return None if good else fresh


def _checked(hosts: Sequence[Host], message_bytes: int, first_rank: int) -> tuple[Host, ...]:
    """The root's host and the others with slots. Raises PlanError for what no tree can satisfy."""
    engines = sum(host.slots for host in hosts)
    if engines == 0:
        raise PlanError("no host has a slot, so there is nothing to plan: give at least one engine")
    if first_rank + engines > ENGINES_MAX:
        raise PlanError(f"{first_rank + engines} engines are more than the {ENGINES_MAX} of one cluster")
    name, times = Counter(host.name for host in hosts).most_common(1)[0]
    if times > 1:
        raise PlanError(f"host {name!r} is listed {times} times: list it once, with all its slots")
    if message_bytes < 0 or first_rank < 0:
        raise PlanError(f"message_bytes is {message_bytes}, first_rank is {first_rank}: give 0 or more")
    return (hosts[0], *(host for host in hosts[1:] if host.slots))


def _range(name: str, fixed: int | None, least: int, most: int) -> Sequence[int]:
    """The values to choose from. Raises PlanError for a fixed value out of bounds."""
    if fixed is None:
        return range(least, most + 1)
    if not least <= fixed <= most:
        raise PlanError(f"{name} is {fixed}: give {least} to {most}")
    return (fixed,)


def _depth(hosts: tuple[Host, ...], fanout: int, leaf_engines: int) -> int:
    """Levels of schedulers: the deepest host's own, and those above its head."""
    busy = [host.slots for host in hosts if host.slots]
    below = {slots: len(host_widths(slots, fanout, leaf_engines)) for slots in set(busy)}
    if len(busy) == 1 and hosts[0].slots:
        return 1 + below[busy[0]]
    upper = upper_widths(len(busy), fanout)
    if len(busy) >= 2 * math.prod(upper[:-1]):  # no group of one host, so all heads are on one level
        return 1 + len(upper) + max(below.values())
    return 1 + max(head_level(place, len(busy), upper) + below[slots] for place, slots in enumerate(busy))


def _sites(hosts: tuple[Host, ...]) -> list[Site]:
    """Hosts by slots, fewest first. Of hosts with equal slots, the one with the fewest cores is the slowest."""
    cores: dict[int, list[int]] = defaultdict(list)
    for host in hosts:
        if host.slots:
            cores[host.slots].append(host.cores)
    return [Site(slots, min(alike), len(alike)) for slots, alike in sorted(cores.items())]


def _shape(root: Host, sites: Sequence[Site], fanout: int, leaf_engines: int) -> TreeShape:
    """The tree that (fanout, leaf_engines) determine over `sites`. root: the root's host."""
    count = sum(site.hosts for site in sites)
    return TreeShape(
        upper=() if count == 1 and root.slots else upper_widths(count, fanout),
        hosts=host_shapes(sites, fanout, leaf_engines),
        root=HostShape(host_widths(root.slots, fanout, leaf_engines), [Site(root.slots, root.cores, 1)]),
    )


def _running_shape(plan: TreePlan, hosts: Sequence[Host]) -> TreeShape | None:
    """The plan's tree with the slots that its hosts have now; None if it cannot hold them within the bounds."""
    now = {host.name: host for host in hosts}
    served = {host.name for host in plan.hosts if host.slots}
    if plan.hosts[0].name != hosts[0].name or any(host.slots and host.name not in served for host in hosts):
        return None
    alike: dict[tuple[int, ...], Counter[tuple[int, int]]] = defaultdict(Counter)
    for host in plan.hosts:
        widths = host_widths(host.slots, plan.fanout, plan.leaf_engines)
        current = now.get(host.name, Host(host.name, 0, host.cores))
        if current.slots > LEAF_ENGINES_MAX * math.prod(widths):
            return None
        if host.slots:
            alike[widths][current.slots, current.cores] += 1
    root = plan.hosts[0]
    return TreeShape(
        upper=() if len(served) == 1 and root.slots else upper_widths(len(served), plan.fanout),
        hosts=[HostShape(widths, [Site(*key, n) for key, n in members.items()]) for widths, members in alike.items()],
        root=HostShape(
            host_widths(root.slots, plan.fanout, plan.leaf_engines), [Site(hosts[0].slots, hosts[0].cores, 1)]
        ),
    )


# --- who is whose child -----------------------------------------------------------------------------------------------


class _Scheduler(NamedTuple):
    """A scheduler's place. It covers hosts [host, hosts_end) of the plan and ranks [first, last).

    groups: its children split hosts, not ranks. widths: children per node from here down, on hosts or ranks.
    """

    level: int
    host: int
    hosts_end: int
    first: int
    last: int
    groups: bool
    widths: tuple[int, ...]


def children_of(plan: TreePlan, first: int, last: int, *, level: int | None = None) -> list[Child]:
    """Children of the scheduler that covers ranks [first, last), in the order of their ranks. The root covers all.

    level: the scheduler's own; needed only where the root has one child, which then covers the same ranks (engines
    on one host that is not the root's). Raises Bug if the plan has no such scheduler.
    """
    return _children(plan, _find(plan, first, last, level))


def route(plan: TreePlan, rank: int) -> list[Child]:
    """The path from the root, which it leaves out, to the engine of `rank`, which comes last.

    Raises Bug if the plan has no such rank.
    """
    node, path = _root(plan), []
    if not node.first <= rank < node.last:
        raise Bug(f"rank {rank} of engines [{node.first}, {node.last})")
    while node.groups or node.widths:
        node = _below(plan, node, rank)
        path.append(_scheduler_child(plan, node))
    path.append(Child("engine", rank, rank + 1, plan.hosts[node.host].name, node.level + 1))
    return path


def levels(plan: TreePlan) -> list[Level]:
    """What each level of schedulers looks like, root first."""
    nodes, rows = [_root(plan)], []
    while nodes:
        widths = [_width(node) for node in nodes]
        level = nodes[0].level
        time_s = plan.level_s[level] if level < len(plan.level_s) else 0.0
        rows.append(Level(level, len(nodes), min(widths), max(widths), 2 * (max(widths) + 1), time_s))
        nodes = [child for node in nodes for child in _schedulers_below(plan, node)]
    return rows


def _root(plan: TreePlan) -> _Scheduler:
    start = 0 if plan.hosts[0].slots else 1
    hosts = len(plan.hosts) - start
    if hosts == 1 and start == 0:
        return _head(plan, 0, level=0)
    first, last = plan.first_ranks[0], plan.first_ranks[-1]
    return _Scheduler(0, start, len(plan.hosts), first, last, True, upper_widths(hosts, plan.fanout))


def _head(plan: TreePlan, host: int, level: int) -> _Scheduler:
    widths = host_widths(plan.hosts[host].slots, plan.fanout, plan.leaf_engines)
    first, last = plan.first_ranks[host], plan.first_ranks[host + 1]
    return _Scheduler(level, host, host + 1, first, last, False, widths)


def _find(plan: TreePlan, first: int, last: int, level: int | None) -> _Scheduler:
    node = _root(plan)
    while (node.first, node.last) != (first, last) or (level is not None and node.level != level):
        if not node.first <= first < last <= node.last or not (node.groups or node.widths):
            raise Bug(f"no scheduler of this plan covers ranks [{first}, {last})")
        node = _below(plan, node, first)
    return node


def _width(node: _Scheduler) -> int:
    """Number of children."""
    if node.groups:
        return min(node.widths[0], node.hosts_end - node.host)
    return node.widths[0] if node.widths else node.last - node.first


def _child(plan: TreePlan, node: _Scheduler, place: int) -> _Scheduler:
    """The scheduler that is child number `place` of `node`."""
    width, level = _width(node), node.level + 1
    if not node.groups:
        first, last = part(node.first, node.last, width, place)
        return _Scheduler(level, node.host, node.hosts_end, first, last, False, node.widths[1:])
    host, end = part(node.host, node.hosts_end, width, place)
    if end - host == 1:
        return _head(plan, host, level)
    first, last = plan.first_ranks[host], plan.first_ranks[end]
    return _Scheduler(level, host, end, first, last, True, node.widths[1:])


def _below(plan: TreePlan, node: _Scheduler, rank: int) -> _Scheduler:
    """The child scheduler of `node` that covers `rank`."""
    if node.groups:
        host = bisect_right(plan.first_ranks, rank) - 1
        return _child(plan, node, part_of(node.host, node.hosts_end, _width(node), host))
    return _child(plan, node, part_of(node.first, node.last, _width(node), rank))


def _schedulers_below(plan: TreePlan, node: _Scheduler) -> Iterator[_Scheduler]:
    if node.groups or node.widths:
        for place in range(_width(node)):
            yield _child(plan, node, place)


def _children(plan: TreePlan, node: _Scheduler) -> list[Child]:
    if node.groups or node.widths:
        return [_scheduler_child(plan, child) for child in _schedulers_below(plan, node)]
    name, level = plan.hosts[node.host].name, node.level + 1
    return [Child("engine", rank, rank + 1, name, level) for rank in range(node.first, node.last)]


def _scheduler_child(plan: TreePlan, node: _Scheduler) -> Child:
    """A group's scheduler runs on the first host of the group."""
    return Child("scheduler", node.first, node.last, plan.hosts[node.host].name, node.level)
