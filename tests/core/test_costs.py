"""What trees are predicted to cost, against a clock that is moved by hand."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.costs import Costs, fan_s, predict
from hiersched.core.shape import HostShape, Site, TreeShape
from hiersched.errors import PlanError

microseconds = st.integers(0, 500)


def one_host(slots: int, *widths: int, cores: int = 1_000_000) -> TreeShape:
    """A tree on one host; with so many cores that only the chain of steps counts."""
    host = HostShape(widths, [Site(slots, cores, 1)])
    return TreeShape((), [host], host)


def played_fan(children: int, turnaround: int, send: int, receive: int) -> int:
    """The time of a fan, found by playing it: send to each child, then handle replies as they come."""
    now, replies = 0, []
    for _ in range(children):
        now += send
        replies.append(now + turnaround)
    for arrived in replies:
        now = max(now, arrived) + receive
    return now


@given(st.integers(1, 64), microseconds, microseconds, microseconds)
def test_the_formula_of_a_fan_is_what_playing_it_gives(children, turnaround, send, receive):
    assert fan_s(children, turnaround, send, receive) == played_fan(children, turnaround, send, receive)


def test_one_engine_costs_a_send_two_hops_the_engine_and_a_receive():
    costs = Costs()
    prediction = predict(one_host(1), costs, message_bytes=0)
    expected = costs.send_s + 2 * costs.hop_s + costs.engine_s + costs.receive_s
    assert prediction.span_s == pytest.approx(expected + costs.result_s)
    assert prediction.call_s == pytest.approx(expected)
    assert prediction.schedulers == 1


def test_each_level_of_schedulers_lengthens_a_call_on_one_engine_by_two_hops():
    costs = Costs()
    flat, deep = (predict(one_host(64, *widths), costs, 0).call_s for widths in ((), (4,)))
    assert deep - flat == pytest.approx(2 * (costs.hop_s + costs.send_s + costs.receive_s))


def test_a_tree_beats_the_root_alone_on_many_cores_and_loses_on_few():
    costs = Costs()

    def cost_s(cores: int, *widths: int) -> float:
        return predict(one_host(64, *widths, cores=cores), costs, 1024).cost_s(costs)

    assert cost_s(64, 4) < cost_s(64)
    assert cost_s(2, 4) > cost_s(2)


def test_few_cores_are_the_limit_where_many_processes_share_them():
    costs = Costs()
    prediction = predict(one_host(64, cores=2), costs, 0)
    each = costs.engine_s + costs.send_s + costs.receive_s + costs.result_s
    assert prediction.latency_s == prediction.work_s
    assert prediction.work_s == pytest.approx((64 * each + 2 * costs.wake_s) / 2)


def test_the_levels_and_the_engine_add_up_to_the_span():
    costs = Costs()
    on_hosts = HostShape((5, 5), [Site(512, 64, 30)])
    for shape in (one_host(4096, 16, 8), TreeShape((6, 5), [on_hosts], on_hosts._replace(sites=[Site(512, 64, 1)]))):
        prediction = predict(shape, costs, 1024)
        assert sum(prediction.level_s) + costs.engine_s == pytest.approx(prediction.span_s)
        assert len(prediction.level_s) == len(shape.upper) + len(shape.hosts[0].widths) + 1


@given(st.sampled_from(Costs.__struct_fields__), st.floats(1e-6, 1e-3))
def test_a_higher_cost_never_makes_a_tree_cheaper(name, added_s):
    on_hosts = HostShape((4,), [Site(100, 4, 20)])
    shape = TreeShape((5, 4), [on_hosts], on_hosts._replace(sites=[Site(100, 4, 1)]))
    lower = Costs()
    higher = msgspec.structs.replace(lower, **{name: getattr(lower, name) + added_s})
    assert predict(shape, higher, 1024).cost_s(higher) >= predict(shape, lower, 1024).cost_s(lower)


@pytest.mark.parametrize("value", [-1e-6, math.nan, math.inf])
def test_a_cost_that_is_no_time_is_refused_by_name(value):
    with pytest.raises(PlanError, match="hop_s"):
        Costs(hop_s=value)
