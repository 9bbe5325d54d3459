"""Calls go down split over the children, and every one of them ends with exactly one reply."""

from __future__ import annotations

from hiersched.core.effects import DOORBELL, PARENT, Close, LinkDown, Received, Signal
from hiersched.kernels import bitset
from hiersched.limits import COALESCE_BYTES_MAX, PARTIAL_REPLY_S, REQUESTS_OPEN_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import FUNCTION, answer, call, joined, loss, ranks

GONE = "there is no such engine"


# --- down -------------------------------------------------------------------------------------------------------------


def test_each_engine_gets_what_all_share(root):
    client = root.client()
    first, second, third = root.engines(0, 1, 2)
    root.says(client)
    root.hears(client, call(1, 0, 2), b"shared")
    for engine in (first, third):
        ((sent, frame),) = root.says(engine)
        assert (sent.request, sent.function, frame) == (1, FUNCTION, b"shared")
    assert root.says(second) == []


def test_each_scheduler_gets_the_targets_that_are_its_own(root):
    low, high = root.scheduler(0, 4), root.scheduler(4, 8)
    client = root.client()
    root.hears(client, call(1, 0, 3, 5), b"shared")
    assert root.says(low) == [(call(1, 0, 3), b"shared")]
    assert root.says(high) == [(call(1, 5), b"shared")]


def test_each_target_gets_the_part_that_is_its_own(root):
    (engine,), low = root.engines(7), root.scheduler(0, 4)
    client = root.client()
    parts = [m.Part(1, []), m.Part(0, [b"x" * 16]), m.Part(2, [])]
    root.hears(client, call(1, 0, 3, 7, parts=parts), b"for 0", b"for 7", b"and more")
    assert root.says(low) == [(call(1, 0, 3, parts=parts[:2]), b"for 0")]
    assert root.says(engine) == [(call(1, 7, parts=parts[2:]), b"for 7", b"and more")]


def test_a_call_from_the_parent_is_answered_to_the_parent(leaf):
    (engine,) = leaf.engines(4)
    leaf.says(PARENT)
    leaf.hears(PARENT, call(1, 4), b"shared")
    assert len(leaf.says(engine)) == 1
    leaf.hears(engine, answer(1, 4), b"four")
    assert leaf.says(PARENT) == [(answer(1, 4), b"four")]


# --- up ---------------------------------------------------------------------------------------------------------------


def called(root, request, *targets):
    """A client whose call is on its way to these targets."""
    client = root.client()
    root.hears(client, call(request, *targets), b"shared")
    for rank in targets:
        root.says(b"engine-%d" % rank)
    return client


def test_the_answers_come_in_one_reply_in_the_order_of_the_targets(root):
    engines = root.engines(0, 1, 2)
    client = called(root, 1, 0, 1, 2)
    for rank, value in ((2, b"two"), (0, b"zero")):
        root.hears(engines[rank], answer(1, rank), value)
        assert root.says(client) == []
    root.hears(engines[1], answer(1, 1), b"one")
    assert root.says(client) == [(joined(1, {0: 4, 1: 3, 2: 3}), b"zeroonetwo")]


def test_a_large_answer_and_one_in_several_frames_keep_their_frames(root):
    engines = root.engines(0, 1, 2)
    client = called(root, 1, 0, 1, 2)
    large = bytes(COALESCE_BYTES_MAX + 1)
    root.hears(engines[0], answer(1, 0), large)
    root.hears(engines[1], answer(1, 1, frames=2), b"one", b"and a half")
    root.hears(engines[2], answer(1, 2), b"two")
    ((reply, *frames),) = root.says(client)
    assert [chunk.ranks for chunk in reply.chunks] == [ranks(0), ranks(1), ranks(2)]
    assert frames == [large, b"one", b"and a half", b"two"]


def test_replies_of_schedulers_are_passed_on_as_one(root):
    low, high = root.scheduler(0, 4), root.scheduler(4, 8)
    client = root.client()
    root.hears(client, call(1, *range(8)), b"shared")
    assert len(root.says(low)) == len(root.says(high)) == 1
    root.hears(high, joined(1, dict.fromkeys(range(4, 8), 1)), b"4567")
    root.hears(low, joined(1, dict.fromkeys(range(4), 1)), b"0123")
    ((reply, *frames),) = root.says(client)
    assert [chunk.ranks for chunk in reply.chunks] == [ranks(4, 5, 6, 7), ranks(0, 1, 2, 3)]
    assert frames == [b"4567", b"0123"]


# --- who cannot answer ------------------------------------------------------------------------------------------------


def test_nobody_waits_for_an_engine_that_is_not_there(root):
    (engine,) = root.engines(0)
    client = called(root, 1, 0, 5)
    root.hears(engine, answer(1, 0), b"zero")
    assert root.says(client) == [(joined(1, {0: 4}, loss(m.ENGINE_UNKNOWN, GONE, 5)), b"zero")]


def test_a_call_on_nobody_who_is_there_ends_at_once(root):
    client = called(root, 1, 5)
    assert root.says(client) == [joined(1, {}, loss(m.ENGINE_UNKNOWN, GONE, 5))]


def test_a_call_ends_when_an_engine_dies_and_keeps_what_others_answered(root):
    engines = root.engines(0, 1)
    client = called(root, 1, 0, 1)
    root.hears(engines[0], answer(1, 0), b"zero")
    root.happens(LinkDown(engines[1], "killed by signal 9"))
    assert root.says(client) == [(joined(1, {0: 4}, loss(m.ENGINE_LOST, "killed by signal 9", 1)), b"zero")]
    assert root.does() == [Close(engines[1])]
    root.drains()
    assert root.says(client) == [m.Members(ranks(), ranks(1), "killed by signal 9")]


def test_all_engines_of_a_scheduler_are_lost_with_it(root):
    low = root.scheduler(0, 4)
    (engine,) = root.engines(7)
    client = called(root, 1, 0, 1, 7)
    assert len(root.says(low)) == 1
    root.happens(LinkDown(low, "its host is down"))
    root.hears(engine, answer(1, 7), b"seven")
    assert root.says(client) == [(joined(1, {7: 5}, loss(m.ENGINE_LOST, "its host is down", 0, 1)), b"seven")]
    assert root.does() == [Close(low)]
    root.drains()
    assert root.says(client) == [m.Members(ranks(), ranks(0, 1, 2, 3), "its host is down")]


def test_what_an_engine_answered_below_outlives_it(root):
    low = root.scheduler(0, 4)
    client = called(root, 1, 0, 1, 2)
    root.says(low)
    root.hears(low, m.Members(ranks(), ranks(0), "killed"))
    root.hears(low, joined(1, {0: 4, 1: 3, 2: 3}), b"zeroonetwo")
    assert root.says(client)[-1] == (joined(1, {0: 4, 1: 3, 2: 3}), b"zeroonetwo")
    root.drains()
    assert root.says(client) == [m.Members(ranks(), ranks(0), "killed")]


def test_losses_reported_from_below_are_passed_on(root):
    low = root.scheduler(0, 4)
    (engine,) = root.engines(7)
    client = called(root, 1, 0, 1, 7)
    root.says(low)
    root.hears(low, joined(1, {1: 3}, loss(m.BLOB_LOST, "data is gone", 0)), b"one")
    root.hears(engine, answer(1, 7), b"seven")
    ((reply, *frames),) = root.says(client)
    assert reply.losses == [loss(m.BLOB_LOST, "data is gone", 0)]
    assert sorted(frames) == [b"one", b"seven"]


# --- some take long ---------------------------------------------------------------------------------------------------


def test_what_others_answered_does_not_wait_for_the_slowest(root):
    engines = root.engines(0, 1, 2)
    client = called(root, 1, 0, 1, 2)
    root.hears(engines[1], answer(1, 1), b"one")
    root.passes(PARTIAL_REPLY_S / 2)
    root.hears(engines[0], answer(1, 0), b"zero")
    assert root.says(client) == []
    root.passes(PARTIAL_REPLY_S / 2)
    assert root.says(client) == [(joined(1, {0: 4, 1: 3}), b"zeroone")]
    root.passes(100.0)
    assert root.says(client) == []
    root.hears(engines[2], answer(1, 2), b"two")
    assert root.says(client) == [(answer(1, 2), b"two")]


def test_that_an_engine_was_lost_is_told_while_others_run(root):
    engines = root.engines(0, 1)
    client = called(root, 1, 0, 1)
    root.loses(engines[0])
    root.passes(PARTIAL_REPLY_S)
    assert root.says(client) == [
        joined(1, {}, loss(m.ENGINE_LOST, "killed", 0)),
        m.Members(ranks(), ranks(0), "killed"),
    ]
    assert root.does() == [Close(engines[0])]


def test_what_took_long_below_does_not_wait_long_again(root):
    low, high = root.scheduler(0, 4), root.scheduler(4, 8)
    client = root.client()
    root.hears(client, call(1, 0, 1, 4))
    root.hears(low, answer(1, 0), b"zero")
    root.passes(PARTIAL_REPLY_S)
    root.hears(low, answer(1, 1), b"one")
    root.hears(high, answer(1, 4), b"four")
    assert root.says(client) == [(joined(1, {0: 4}), b"zero"), (joined(1, {1: 3, 4: 4}), b"onefour")]
    root.says(low), root.says(high)


# --- answers that nobody waits for ------------------------------------------------------------------------------------


def test_a_second_answer_of_an_engine_is_late(root):
    engines = root.engines(0, 1)
    client = called(root, 1, 0, 1)
    root.hears(engines[0], answer(1, 0), b"first")
    root.hears(engines[0], answer(1, 0), b"again")
    root.hears(engines[1], answer(1, 1), b"one")
    root.hears(engines[1], answer(1, 1), b"again")
    assert root.says(client) == [(joined(1, {0: 5, 1: 3}), b"firstone")]
    assert root.counts(client, "late") == 2


def test_no_engine_answers_for_another(root):
    engines = root.engines(0, 1)
    client = called(root, 1, 0, 1)
    root.hears(engines[0], joined(1, {0: 1, 1: 1}), b"ab")
    assert root.says(client) == []
    root.hears(engines[1], answer(1, 1), b"one")
    ((reply, *frames),) = root.says(client)
    assert [chunk.ranks for chunk in reply.chunks] == [ranks(0), ranks(1)]
    assert frames == [b"a", b"one"]


def test_an_answer_to_no_call_is_late(root):
    (engine,) = root.engines(0)
    client = root.client()
    root.hears(engine, answer(99, 0), b"zero")
    assert root.counts(client, "late") == 1


def test_nobody_hears_the_reply_of_a_client_that_has_gone(root):
    (engine,) = root.engines(0)
    client = called(root, 1, 0)
    root.hears(client, m.Bye("done"))
    assert root.says(engine) == [m.Cancel([1], running=True)]
    root.hears(engine, answer(1, 0), b"zero")
    assert root.does() == [Signal([engine], DOORBELL), Close(client)]
    other = root.client(b"other")
    assert (root.counts(other, "late"), root.counts(other, "requests_open")) == (1, 0)


# --- calls that are refused -------------------------------------------------------------------------------------------


def test_a_call_on_nobody_is_refused(root):
    client = root.client()
    root.hears(client, call(1))
    assert root.says(client) == [joined(1, {}, loss(m.REFUSED, "a call needs a target"))]


def test_a_call_with_too_few_parts_is_refused(root):
    root.engines(0, 1)
    client = root.client()
    root.hears(client, call(1, 0, 1, parts=[m.Part(1, [])]), b"for 0")
    assert root.says(client) == [joined(1, {}, loss(m.REFUSED, "a call must bring one part per target", 0, 1))]


def test_a_request_id_that_is_in_use_is_refused_and_the_first_call_goes_on(root):
    (engine,) = root.engines(0)
    client = called(root, 1, 0)
    other = root.client(b"other")
    root.hears(other, call(1, 0), b"shared")
    assert root.says(other) == [joined(1, {}, loss(m.REFUSED, "a request of this id is open already", 0))]
    root.hears(engine, answer(1, 0), b"zero")
    assert root.says(client) == [(answer(1, 0), b"zero")]


def test_so_many_calls_are_open_and_no_more(root):
    (engine,) = root.engines(0)
    client = root.client()
    once = call(0, 0)
    for request in range(REQUESTS_OPEN_MAX):
        one = m.Call(request, once.targets, once.lane, once.function, once.needs, once.parts)
        root.core.handle(Received(client, one), root.now_s)
    root.hears(client, call(REQUESTS_OPEN_MAX, 0))
    (refused,) = root.says(client)
    assert refused.losses[0].code == m.REFUSED
    root.hears(engine, answer(7, 0), b"zero")
    root.hears(client, call(7, 0))
    assert root.says(client) == [(answer(7, 0), b"zero")]
    assert root.says(engine) == [call(7, 0)]


# --- a cell -----------------------------------------------------------------------------------------------------------


def test_a_cell_needs_no_function(leaf):
    (engine,) = leaf.engines(4)
    leaf.says(PARENT)
    cell = m.Call(1, bitset.to_wire(1 << 4), m.CELL_LANE, m.NO_FUNCTION, [], [])
    leaf.hears(PARENT, cell, b"1 + 1")
    assert leaf.says(engine) == [(cell, b"1 + 1")]
    leaf.hears(engine, answer(1, 4), b"2")
    assert leaf.says(PARENT) == [(answer(1, 4), b"2")]
