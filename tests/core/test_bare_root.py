"""A cluster may start without engines."""

from __future__ import annotations

from hiersched.core.bare_root import bare_root
from hiersched.core.topology import Host, children_of, levels


def test_a_bare_root_has_a_level_and_no_children():
    plan = bare_root(Host("a", 8, 4))
    assert (plan.engines, plan.schedulers, plan.depth) == (0, 1, 1)
    assert plan.hosts == (Host("a", 0, 4),)
    assert children_of(plan, 0, 0, level=0) == []
    (root,) = levels(plan)
    assert (root.schedulers, root.fanout_max) == (1, 0)
    assert plan.latency_s == 0.0
