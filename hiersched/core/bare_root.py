"""The plan of a cluster that starts without engines: a root that waits to be told to grow."""

from __future__ import annotations

from hiersched.core.costs import ORDINARY, Costs
from hiersched.core.topology import FANOUT_MIN, LEAF_ENGINES_MIN, Host, TreePlan


def bare_root(host: Host, costs: Costs = ORDINARY) -> TreePlan:
    """A root on `host`, whose slots do not count, and nothing below it."""
    return TreePlan(
        hosts=(Host(host.name, 0, host.cores),),
        first_ranks=(0, 0),
        fanout=FANOUT_MIN,
        leaf_engines=LEAF_ENGINES_MIN,
        depth=1,
        schedulers=1,
        children_max=0,
        span_s=0.0,
        work_s=0.0,
        call_s=0.0,
        level_s=(0.0,),
        costs=costs,
        message_bytes=0,
    )
