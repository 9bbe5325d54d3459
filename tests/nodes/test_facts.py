"""Whom a process climbs to when those above it are gone."""

from __future__ import annotations

import pytest

from hiersched.core.effects import link_of
from hiersched.core.topology import Child, Host, TreePlan, children_of, plan_tree
from hiersched.nodes.facts import ClusterFacts

ROOT = b"scheduler-0-0-8"
PLAN = plan_tree([Host("here", 8, 2)], fanout=2, leaf_engines=2)  # two levels of schedulers below the root
LATER = plan_tree([Host("here", 8, 2)], fanout=2, leaf_engines=2, first_rank=100)


def facts(plan: TreePlan) -> ClusterFacts:
    return ClusterFacts("mine", "key", "/sockets", plan, root=ROOT)


@pytest.mark.parametrize(("plan", "offset"), [(PLAN, 0), (LATER, 100)])
def test_above_a_process_are_the_schedulers_of_its_plan_and_the_root(plan: TreePlan, offset: int) -> None:
    own = facts(plan)
    middle = children_of(plan, offset, offset + 8, level=0)[1]
    leaf = children_of(plan, middle.first, middle.last, level=1)[0]
    engine = children_of(plan, leaf.first, leaf.last, level=2)[1]
    at_root, at_middle, at_leaf = own.address(ROOT), own.address(link_of(middle)), own.address(link_of(leaf))
    assert at_leaf == f"ipc:///sockets/scheduler-2-{offset + 4}-{offset + 6}"
    assert own.ancestors(engine, at_leaf) == [at_middle, at_root]
    assert own.ancestors(leaf, at_middle) == [at_root]
    assert own.ancestors(middle, at_root) == []


def test_a_process_started_by_who_took_its_scheduler_s_place_has_those_above_that_one() -> None:
    own = facts(PLAN)
    engine = Child("engine", 5, 6, "here", 3)
    assert own.ancestors(engine, own.address(b"scheduler-1-4-8")) == [own.address(ROOT)]
    assert own.ancestors(engine, own.address(ROOT)) == []


def test_whom_the_root_starts_needs_no_plan() -> None:
    """An engine of a tree added later that is started again."""
    own = facts(PLAN)
    assert own.ancestors(Child("engine", 104, 105, "here", 3), own.address(ROOT)) == []
