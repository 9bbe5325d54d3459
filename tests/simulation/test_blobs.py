"""Blobs go down each edge once; what was dropped is asked for again; what is nowhere is said to be lost."""

from __future__ import annotations

from collections import Counter

from hiersched.limits import BLOB_ENGINE_BYTES_MAX, BLOB_STORE_BYTES_MAX, BLOB_TIMEOUT_S, MIB
from hiersched.protocol.messages import Blob, Want
from hiersched.simulation.cluster import Setup, World
from hiersched.simulation.payload import Argument, digest_of
from hiersched.simulation.requests import Request
from tests.simulation.recorder import Recorder

FUNCTION = {digest_of(1): 1_000}
ONE_HOST = Setup(slots_per_host=1_000)


def tree_of_24(seed: int) -> World:
    return World(engines=24, fanout=2, leaf_engines=4, seed=seed, setup=ONE_HOST)


def call(world: World, blobs: dict[bytes, int]) -> Request:
    """A call on all engines that needs these blobs, run to its end."""
    reply = world.submit(world.living(), [Argument(0.0)], blobs=blobs)
    world.run_until(reply.done)
    return reply


def test_a_blob_goes_down_each_edge_once_and_never_again():
    world = tree_of_24(seed=1)
    recorder = Recorder(world)
    assert call(world, FUNCTION).errors == {}
    edges = Counter((node, link) for node, link, _ in recorder.of(Blob))
    assert edges == Counter((node, link) for node in world.schedulers() for link in node.children)
    assert call(world, FUNCTION).errors == {}
    assert len(recorder.of(Blob)) == len(edges)
    assert recorder.of(Want) == []
    world.settle()


def test_what_an_engine_dropped_it_asks_for_and_its_scheduler_still_has():
    world = tree_of_24(seed=2)
    large = {digest_of(number): BLOB_ENGINE_BYTES_MAX // 2 + 1 for number in (2, 3)}
    recorder = Recorder(world)
    for digest, size in [*large.items(), *large.items()]:
        assert call(world, {**FUNCTION, digest: size}).errors == {}
    assert recorder.of(Want) == []
    leaves = world.schedulers(world.plan.depth - 1)
    sent = Counter((link, message.digest) for node, link, message in recorder.of(Blob) if node in leaves)
    assert {sent[b"engine-%d" % rank, digest] for rank in range(24) for digest in large} == {2}
    world.settle()


def test_what_every_scheduler_dropped_comes_from_the_client_again():
    world = tree_of_24(seed=3)
    large = {digest_of(number): BLOB_STORE_BYTES_MAX // 2 + 1 for number in (2, 3)}
    recorder = Recorder(world)
    for digest, size in [*large.items(), *large.items()]:
        assert call(world, {**FUNCTION, digest: size}).errors == {}
    asked = [message for node, _, message in recorder.of(Want) if node is world.root]
    assert [want.digests for want in asked] == [[digest_of(2)], [digest_of(3)]]
    assert max(Counter((node, link) for node, link, _ in recorder.of(Want)).values()) == 2
    world.settle()


def test_tasks_that_need_more_than_an_engine_holds_take_turns():
    world = tree_of_24(seed=4)
    blobs = [{**FUNCTION, digest_of(number): 100 * MIB} for number in range(2, 8)]
    batches = [world.submit_tasks([Argument(0.01)] * 40, blobs=needs) for needs in blobs]
    world.run_until(lambda: all(tasks.done() for tasks in batches))
    assert not any(tasks.errors for tasks in batches)
    world.settle()


def test_no_engine_waits_for_the_data_of_a_client_that_left():
    world = tree_of_24(seed=5)
    other = world.add_client()
    world.run_until(lambda: other.session)
    theirs, evictor = {**FUNCTION, digest_of(2): 900 * MIB}, {**FUNCTION, digest_of(3): 900 * MIB}
    first = world.submit(range(24), [Argument(0.0)], blobs=theirs, client=other)
    world.run_until(first.done)
    assert call(world, evictor).errors == {}
    recorder = Recorder(world)
    world.submit(range(24), [Argument(0.0)], blobs=theirs, client=other)
    world.run_until(lambda: any(node is world.root for node, _, _ in recorder.of(Want)))
    world.end(other)
    world.run_for(0.1)
    reply = world.submit_to_all(run_s=0.0)
    world.run_until(reply.done)
    assert reply.errors == {}
    assert reply.took_s < 1.0
    world.settle()


def test_when_the_client_asked_for_a_blob_leaves_another_that_names_it_is_asked():
    world = tree_of_24(seed=6)
    other = world.add_client()
    world.run_until(lambda: other.session)
    shared, evictor = {digest_of(2): 900 * MIB}, {digest_of(3): 900 * MIB}
    for needs in (shared, evictor):
        assert call(world, {**FUNCTION, **needs}).errors == {}
    recorder = Recorder(world)
    world.submit(range(24), [Argument(0.0)], blobs={**FUNCTION, **shared}, client=other)
    world.run_until(lambda: recorder.of(Want))
    reply = world.submit(range(24), [Argument(0.0)], blobs={**FUNCTION, **shared})
    other.leave()
    world.run_until(reply.done)
    assert reply.errors == {}
    assert reply.took_s < BLOB_TIMEOUT_S
    world.settle()
