"""What code prints comes while it runs, in order, merged where it is equal; what it reports comes with its answer."""

from __future__ import annotations

import pytest

from hiersched.limits import OUTPUT_FLUSH_S
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument
from tests.simulation.recorder import Recorder

ONE_HOST = Setup(slots_per_host=1_000)


def tree_of_64(seed: int) -> World:
    return World(engines=64, fanout=4, leaf_engines=4, seed=seed, setup=ONE_HOST)


@pytest.mark.parametrize("own", [True, False])
def test_all_pieces_of_all_engines_come_in_order_before_the_reply(own: bool):
    world = tree_of_64(seed=1)
    call = world.submit(range(64), [Argument(2.0, pieces=10, own=own)])
    world.run_until(call.done)
    request = call.ids[0]
    assert world.client.heard.pieces == {(request, rank): 10 for rank in range(64)}
    world.settle()


def test_output_is_seen_while_the_code_runs():
    world = tree_of_64(seed=2)
    call = world.submit(range(64), [Argument(10.0, pieces=1)])
    world.run_until(lambda: len(world.client.heard.pieces) == 64)
    assert world.now_s < 5.0 + 2 * world.plan.depth * OUTPUT_FLUSH_S
    assert not call.done()
    world.run_until(call.done)
    world.settle()


def test_equal_pieces_of_all_engines_reach_the_client_as_one():
    world = tree_of_64(seed=3)
    recorder = Recorder(world)
    call = world.submit(range(64), [Argument(2.0, pieces=3)])
    world.run_until(call.done)
    to_client = [message for node, _, message in recorder.of(m.Outputs) if node is world.root]
    assert sum(len(message.pieces) for message in to_client) == 3
    world.settle()


def test_pieces_of_different_engines_share_messages():
    world = tree_of_64(seed=4)
    recorder = Recorder(world)
    call = world.submit(range(64), [Argument(2.0, pieces=3, own=True)])
    world.run_until(call.done)
    assert sum(node is world.root for node, _, _ in recorder.of(m.Outputs)) <= 6
    world.settle()


def test_tasks_print_as_well():
    world = tree_of_64(seed=5)
    tasks = world.submit_tasks([Argument(0.3, token=place, pieces=2, own=True) for place in range(200)])
    world.run_until(tasks.done)
    assert sorted(world.client.heard.pieces.values()) == [2] * 200
    world.settle()


@pytest.mark.parametrize(("own", "reports"), [(False, 1), (True, 64)])
def test_equal_reports_become_one_on_the_way(own: bool, reports: int):
    world = tree_of_64(seed=6)
    recorder = Recorder(world)
    call = world.submit(range(64), [Argument(0.01, report=True, own=own)])
    world.run_until(call.done)
    to_client = [message for node, _, message in recorder.of(m.Reply) if node is world.root]
    assert sum(len(reply.reports) for reply in to_client) == reports
    world.settle()


def test_only_some_engines_report():
    world = tree_of_64(seed=7)
    call = world.submit(range(64), [Argument(0.01, token=rank, report=rank % 3 == 0) for rank in range(64)])
    world.run_until(call.done)
    assert call.errors == {}
    world.settle()


def test_answers_that_are_there_do_not_wait_for_the_last():
    world = tree_of_64(seed=8)
    world.slow(5, 50.0)
    call = world.submit_to_all(run_s=0.1)
    world.run_for(2.0)
    assert sum(answer is not None for answer in call.results) == 63
    world.run_until(call.done)
    assert call.errors == {}
    world.settle()
