"""Acknowledgements: what a scheduler or engine is told that the root has, the root has; and it is told at last."""

from __future__ import annotations

import pytest

from hiersched.core.effects import PARENT, Close, LinkDown, Started
from hiersched.limits import ACK_BYTES_MAX, ACK_MESSAGES_MAX, BEAT_PERIOD_S
from hiersched.protocol import messages as m
from tests.core.transcript import Transcript, answer, call, engine_child, joined, ranks, result, task
from tests.hellos import held


def acks(words: list[object]) -> list[m.Ack]:
    """The acknowledgements among what was said."""
    return [word for word in words if isinstance(word, m.Ack)]


# --- at the root ------------------------------------------------------------------------------------------------------


@pytest.fixture
def low(root) -> bytes:
    """A child scheduler of the root, with engines 0 to 3; the client has tasks there."""
    root.happens(Started())
    assert len(root.does()) == 1
    low = root.scheduler(0, 4)
    client = root.client()
    root.hears(client, m.Tasks([task(number) for number in range(4)]))
    root.drains()
    assert len(root.says(low)) == 1
    return low


def test_the_root_acknowledges_with_its_beat(root, low):
    root.hears(low, m.Results([result(0, 0)]))
    root.hears(low, m.Results([result(1, 1), result(2, 2)]))
    root.drains()
    assert root.says(low) == []
    root.passes(BEAT_PERIOD_S)
    assert root.says(low) == [m.Ack(2, [])]
    assert len(root.says(b"client")) == 1


def test_the_root_acknowledges_early_when_much_has_come_in(root, low):
    for _ in range(ACK_MESSAGES_MAX - 1):
        root.hears(low, m.Results([]))
        root.drains()
    assert root.says(low) == []
    root.hears(low, m.Results([]))
    root.drains()
    assert root.says(low) == [m.Ack(ACK_MESSAGES_MAX, [])]


@pytest.mark.parametrize("inline", [True, False])
def test_the_root_acknowledges_early_when_large_answers_have_come_in(root, low, inline):
    large = bytes(ACK_BYTES_MAX)
    ended = m.Result(0, 0, 1, 0, large if inline else b"", 0 if inline else 1)
    root.hears(low, m.Results([ended]), *([] if inline else [large]))
    root.drains()
    assert root.says(low) == [m.Ack(1, [])]
    assert len(root.says(b"client")) == 1


def test_the_root_acknowledges_a_call_when_all_of_it_is_there(root, low):
    client = b"client"
    root.hears(client, call(9, 0, 1, 2))
    assert len(root.says(low)) == 1
    root.hears(low, joined(9, {0: 4, 1: 3}), b"zeroone")
    root.passes(BEAT_PERIOD_S)
    assert root.says(low) == []
    root.hears(low, answer(9, 2), b"two")
    root.passes(BEAT_PERIOD_S)
    assert root.says(low) == [m.Ack(0, [9])]
    assert root.says(client) == [(joined(9, {0: 4, 1: 3}), b"zeroone"), (answer(9, 2), b"two")]


def test_what_nobody_waits_for_any_more_is_acknowledged_too(root, low):
    root.hears(b"client", call(9, 0))
    root.hears(b"client", m.Bye("done"))
    root.hears(low, answer(9, 0), b"zero")
    root.passes(BEAT_PERIOD_S)
    assert acks(root.says(low)) == [m.Ack(0, [9])]
    assert root.does() == [Close(b"client")]


def test_engines_of_the_root_need_no_acknowledgement(root):
    (engine,), client = root.engines(0), root.client()
    for number in range(2 * ACK_MESSAGES_MAX):
        root.hears(client, call(number, 0))
        root.hears(engine, answer(number, 0), b"zero")
    assert acks(root.says(engine)) == []
    assert len(root.says(client)) == 2 * ACK_MESSAGES_MAX
    assert root.core.receipts.leftovers() == 0


# --- in between -------------------------------------------------------------------------------------------------------


@pytest.fixture
def middle(leaf) -> Transcript:
    """A scheduler of engines 4 and 5, deep below the root, that has tasks 0 to 3 and has handed two of them out."""
    leaf.welcomed(keep=True)
    leaf.engines(4, 5)
    leaf.hears(PARENT, m.Tasks([task(number) for number in range(4)]))
    leaf.drains()
    leaf.says(PARENT), leaf.says(b"engine-4"), leaf.says(b"engine-5")
    return leaf


def ends(leaf: Transcript, number: int, rank: int) -> None:
    """An engine ends a task, alone in a batch that goes up at once."""
    leaf.hears(b"engine-%d" % rank, m.Results([result(number, rank)]))
    leaf.drains()
    assert leaf.says(PARENT) == [m.Results([result(number, rank)])]


def test_each_child_is_told_in_its_own_count(middle):
    ends(middle, 0, 4)
    ends(middle, 1, 5)
    ends(middle, 2, 4)
    middle.says(b"engine-4"), middle.says(b"engine-5")
    middle.hears(PARENT, m.Ack(2, []))
    assert middle.says(b"engine-4") == middle.says(b"engine-5") == [m.Ack(1, [])]
    middle.hears(PARENT, m.Ack(3, []))
    assert middle.says(b"engine-4") == [m.Ack(2, [])]
    assert middle.core.receipts.leftovers() == 0


def test_what_goes_up_in_several_batches_is_there_when_the_last_of_them_is(middle):
    large = bytes(3 * 1024 * 1024)
    both = [m.Result(0, 4, 1, 0, large, 0), m.Result(1, 5, 1, 0, large, 0)]
    middle.hears(b"engine-4", m.Results(both[:1]))
    middle.hears(b"engine-5", m.Results(both[1:]))
    middle.drains()
    assert [[each.id for each in batch.results] for batch in middle.says(PARENT)] == [[0], [1]]
    middle.says(b"engine-4"), middle.says(b"engine-5")
    middle.hears(PARENT, m.Ack(1, []))
    assert middle.says(b"engine-5") == []
    middle.hears(PARENT, m.Ack(2, []))
    assert middle.says(b"engine-4") == middle.says(b"engine-5") == [m.Ack(1, [])]


def test_those_who_answered_a_call_are_told(middle):
    middle.hears(PARENT, call(9, 5))
    middle.says(b"engine-5")
    middle.hears(b"engine-5", answer(9, 5), b"five")
    assert middle.says(PARENT) == [(answer(9, 5), b"five")]
    middle.hears(PARENT, m.Ack(0, [9]))
    assert middle.says(b"engine-5") == [m.Ack(0, [9])]
    assert middle.says(b"engine-4") == []


def test_an_engine_that_came_again_is_not_told_what_its_predecessor_sent(middle):
    ends(middle, 0, 4)
    middle.says(b"engine-4")
    middle.loses(b"engine-4")
    (another,) = middle.engines(4, birth=1)
    middle.says(b"engine-4"), middle.says(another), middle.says(PARENT), middle.does()
    middle.hears(PARENT, m.Ack(1, []))
    assert middle.says(another) == middle.says(b"engine-4") == []


# --- after a climb ----------------------------------------------------------------------------------------------------


def test_what_the_root_may_not_have_goes_to_the_new_parent_and_is_counted_anew(middle):
    ends(middle, 0, 4)
    ends(middle, 1, 5)
    middle.says(b"engine-4"), middle.says(b"engine-5")
    middle.hears(PARENT, m.Ack(1, []))
    assert middle.says(b"engine-4") == [m.Ack(1, [])]
    assert sorted(held(middle.climbs())) == [1, 2, 3]
    assert middle.says(PARENT) == [
        m.Members(ranks(4, 5), ranks(6, 7), "it left meanwhile"),
        m.Results([result(1, 5)]),
    ]
    middle.hears(PARENT, m.Ack(1, []))
    assert middle.says(b"engine-5") == [m.Ack(1, [])]
    assert middle.core.receipts.leftovers() == 0


def test_directly_under_the_root_nothing_is_kept(middle):
    ends(middle, 0, 4)
    middle.welcomed(keep=False)
    ends(middle, 2, 4)
    middle.says(b"engine-4"), middle.says(b"engine-5")
    assert middle.core.receipts.kept.held == 0
    middle.hears(PARENT, m.Ack(2, []))
    assert middle.says(b"engine-4") == [m.Ack(2, [])]


def test_a_task_that_could_not_run_here_is_no_answer_that_comes_again(middle):
    middle.loses(b"engine-4"), middle.loses(b"engine-5")
    middle.drains()
    assert [one.code for one in middle.says(PARENT)[0].results] == [m.ENGINE_LOST] * 2 + [m.ENGINE_UNKNOWN] * 2
    assert len(middle.does()) == 2
    assert sorted(held(middle.climbs())) == [0, 1]
    assert [one.id for one in middle.says(PARENT)[1].results] == [0, 1]


def adopting(middle: Transcript) -> bytes:
    """An engine that was below another scheduler, comes here and keeps answers that went up long ago."""
    middle.core.handle(LinkDown(b"scheduler-2-6-8", "killed", [engine_child(6), engine_child(7)]), 0.0)
    return middle.adopted(engine_child(6), 77, 99)


def test_results_that_come_again_are_acknowledged_if_the_root_has_all(middle):
    engine = adopting(middle)
    middle.drains()
    middle.says(PARENT)
    middle.hears(engine, m.Results([result(77, 6)]))
    middle.drains()
    assert acks(middle.says(engine)) == [m.Ack(1, [])]
    assert middle.says(PARENT) == []


def test_results_that_come_again_are_acknowledged_with_what_went_up_last(middle):
    engine = adopting(middle)
    middle.drains()
    middle.says(PARENT)
    middle.hears(b"engine-4", m.Results([result(0, 4)]))
    middle.drains()
    middle.hears(engine, m.Results([result(77, 6)]))
    middle.drains()
    assert acks(middle.says(engine)) == []
    assert len(middle.says(PARENT)) == 1
    middle.hears(PARENT, m.Ack(1, []))
    assert middle.says(engine) == [m.Ack(1, [])]
    assert acks(middle.says(b"engine-4")) == [m.Ack(1, [])]
    middle.says(b"engine-5")


def test_a_reply_that_comes_again_is_acknowledged_if_the_root_has_it(middle):
    engine = adopting(middle)
    middle.hears(engine, answer(99, 6), b"six")
    assert acks(middle.says(engine)) == [m.Ack(0, [99])]
    middle.drains()
    middle.says(PARENT), middle.says(engine)
