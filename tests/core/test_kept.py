"""Answers are kept until the root has them, within bounds; what is not kept any more leaves a note that it is lost."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.kept import Kept
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from tests.core.transcript import answer, joined, loss, over_the_wire, ranks, result


def batch(*numbers: int, payload: bytes = b"value") -> m.Results:
    """Results of these tasks."""
    return m.Results([m.Result(number, 0, 1, 0, payload, 0) for number in numbers])


def numbers(kept: Kept) -> list[m.TaskId]:
    """The calls and tasks whose answers are kept."""
    return [number for number, _ in kept.tries()]


def again(kept: Kept) -> list[tuple[m.Message, Sequence[bytes]]]:
    """What a new parent gets, as it arrives there."""
    return [over_the_wire(message, frames) for message, frames in kept.again()]


@pytest.fixture
def kept() -> Kept:
    return Kept()


def test_what_was_answered_is_sent_again_in_the_order_it_was(kept):
    kept.add_results(batch(1, 2))
    kept.add_results(m.Results([result(3, 0, frames=1)]), [b"three"])
    kept.add_reply(answer(9, 0), [b"nine"])
    assert again(kept) == [
        (batch(1, 2), []),
        (m.Results([result(3, 0, frames=1)]), [b"three"]),
        (answer(9, 0), [b"nine"]),
    ]
    assert sorted(numbers(kept)) == [1, 2, 3, 9]


def test_the_answer_to_an_earlier_try_is_told_from_that_to_a_later_one(kept):
    for attempt in range(2):
        kept.add_results(m.Results([m.Result(5, 0, 1, m.RAISED, b"failed", 0, attempt)]))
    assert kept.tries() == [(5, 0), (5, 1)]


def test_what_the_root_has_is_kept_no_longer(kept):
    for number in range(5):
        kept.add_results(batch(number))
    kept.add_reply(answer(9, 0), [b"nine"])
    kept.on_ack(m.Ack(3, []))
    assert numbers(kept) == [9, 3, 4]
    kept.on_ack(m.Ack(3, [9, 77]))
    kept.on_ack(m.Ack(5, []))
    assert (numbers(kept), kept.held, kept.bytes) == ([], 0, 0)


def test_batches_are_counted_from_one_again_over_a_new_link(kept):
    for number in range(4):
        kept.add_results(batch(number))
    kept.on_ack(m.Ack(2, []))
    assert len(again(kept)) == kept.results_sent == 2
    kept.add_results(batch(4))
    kept.on_ack(m.Ack(1, []))
    assert numbers(kept) == [3, 4]


def test_a_call_that_was_answered_in_parts_is_kept_until_all_of_it_is_there(kept):
    kept.add_reply(joined(9, {0: 4, 1: 3}), [b"zeroone"])
    kept.add_reply(answer(9, 2), [b"two"])
    assert numbers(kept) == [9]
    assert again(kept) == [(joined(9, {0: 4, 1: 3}), [b"zeroone"]), (answer(9, 2), [b"two"])]
    kept.on_ack(m.Ack(0, [9]))
    assert (kept.held, kept.bytes) == (0, 0)


def test_what_did_not_run_and_may_elsewhere_is_not_kept_but_counted(kept):
    elsewhere = [m.Result(1, 0, 0, code, b"not here", 0) for code in (m.ENGINE_UNKNOWN, m.UNMET)]
    kept.add_results(m.Results([elsewhere[0], result(2, 0, frames=1), elsewhere[1]]), [b"two"])
    kept.add_results(m.Results(elsewhere))
    assert (numbers(kept), kept.results_sent) == ([2], 2)
    assert again(kept) == [(m.Results([result(2, 0, frames=1)]), [b"two"]), (m.Results([]), [])]
    kept.on_ack(m.Ack(1, []))
    assert numbers(kept) == []


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_oldest_results_shrink_to_a_note():
    kept = Kept(bytes_max=250)
    for number in range(3):
        kept.add_results(batch(number, payload=bytes(100)))
    (lost, _), *others = again(kept)
    assert [(each.id, each.code) for each in lost.results] == [(0, m.ANSWER_LOST)]
    assert b"lost" in lost.results[0].payload
    assert [message for message, _ in others] == [batch(1, payload=bytes(100)), batch(2, payload=bytes(100))]
    assert (kept.bytes, numbers(kept)) == (200, [0, 1, 2])


def test_a_result_without_a_value_has_nothing_to_lose():
    kept = Kept(bytes_max=10)
    cancelled = m.Result(1, 0, 0, m.CANCELLED, b"cancelled before it started", 0)
    kept.add_results(m.Results([cancelled]))
    kept.add_results(batch(2))
    (first, _), _ = again(kept)
    assert first.results == [cancelled]


def test_the_oldest_replies_shrink_and_say_for_whom_they_were():
    kept = Kept(bytes_max=150)
    kept.add_reply(joined(8, {0: 60, 1: 40}, loss(m.ENGINE_LOST, "killed", 2)), [bytes(100)])
    kept.add_reply(answer(9, 0), [bytes(100)])
    (first, frames), (second, _) = again(kept)
    assert frames == []
    assert first.losses[0] == loss(m.ENGINE_LOST, "killed", 2)
    assert (first.losses[1].ranks, first.losses[1].code) == (ranks(0, 1), m.ANSWER_LOST)
    assert second == answer(9, 0)


def test_the_newest_answer_is_kept_however_large_it_is():
    kept = Kept(bytes_max=10)
    kept.add_results(batch(1, payload=bytes(100)))
    assert again(kept) == [(batch(1, payload=bytes(100)), [])]
    kept.add_reply(answer(9, 0), [bytes(1000)])
    assert again(kept)[-1] == (answer(9, 0), [bytes(1000)])


def test_a_note_is_forgotten_like_what_it_stands_for():
    kept = Kept(bytes_max=10)
    kept.add_reply(answer(8, 0), [bytes(100)])
    kept.add_reply(answer(9, 0), [bytes(100)])
    kept.add_results(batch(1, payload=bytes(100)))
    kept.add_results(batch(2, payload=bytes(100)))
    kept.on_ack(m.Ack(1, [8]))
    assert numbers(kept) == [9, 2]
    kept.on_ack(m.Ack(2, [9]))
    assert (kept.held, kept.bytes) == (0, 0)


steps = st.one_of(
    st.tuples(st.just("results"), st.integers(0, 60), st.integers(0, 2)),
    st.tuples(st.just("reply"), st.integers(0, 60), st.integers(0, 9)),
    st.tuples(st.just("acks"), st.integers(0, 5), st.integers(0, 9)),
    st.tuples(st.just("climbs"), st.just(0), st.just(0)),
)


@given(st.lists(steps, max_size=40))
def test_whatever_happens_what_is_not_acknowledged_is_kept_or_said_to_be_lost_within_the_bound(story):
    kept = Kept(bytes_max=100)
    tasks: list[int] = []  # batches, of one task each, that the root does not have
    calls: dict[int, int] = {}  # ranks that have answered them
    for number, (verb, size, other) in enumerate([*story, ("climbs", 0, 0)]):
        if verb == "results":
            kept.add_results(m.Results([m.Result(number, 0, 1, 0, b"", other)]), [bytes(size)] * other)
            tasks.append(number)
        elif verb == "reply":
            kept.add_reply(answer(-1 - other, number), [bytes(size)])
            calls[-1 - other] = calls.get(-1 - other, 0) | 1 << number
        elif verb == "acks":
            kept.on_ack(m.Ack(kept.results_sent - len(tasks) + min(size, len(tasks)), [-1 - other]))
            del tasks[:size]
            calls.pop(-1 - other, None)
        else:
            sent = again(kept)
            assert [
                each.id for message, _ in sent if isinstance(message, m.Results) for each in message.results
            ] == tasks
            assert answered_in(sent) == calls
            assert kept.bytes == sum(len(frame) for _, frames in sent for frame in frames)
            full = [type(message) for message, frames in sent if any(frames)]
            assert kept.bytes <= 100 or (full.count(m.Results) <= 1 and len(numbers(kept)) >= 1)
        assert sorted(numbers(kept)) == sorted([*calls, *tasks])


def answered_in(sent: list[tuple[m.Message, Sequence[bytes]]]) -> dict[int, int]:
    """The ranks that are spoken for in the replies to each call; none of them twice."""
    found: dict[int, int] = {}
    for message, _ in sent:
        for part in (*message.chunks, *message.losses) if isinstance(message, m.Reply) else ():
            those = bitset.from_wire(part.ranks)
            assert not found.get(message.request, 0) & those
            found[message.request] = found.get(message.request, 0) | those
    return found
