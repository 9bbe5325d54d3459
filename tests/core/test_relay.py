"""Live output waits a moment, is merged where no engine's order suffers, and goes to whoever asked for the request."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.effects import DOORBELL, PARENT, Close, Signal
from hiersched.core.relay import OutputRelay
from hiersched.kernels import bitset
from hiersched.limits import OUTPUT_FLUSH_S, OUTPUT_WAITING_BYTES_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import Transcript, answer, call, joined, outputs, ranks, result, task
from tests.hellos import held

ALL = -1  # a child with every rank


def pieces(words: m.Outputs, *frames: bytes) -> list[tuple[int, list[int], bytes]]:
    """(request, ranks, text) of each piece."""
    return [
        (piece.request, bitset.ranks_of(bitset.from_wire(piece.ranks)), bytes(frame))
        for piece, frame in zip(words.pieces, frames, strict=True)
    ]


# --- merging ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sent() -> list[tuple[int, list[int], bytes]]:
    """All pieces that have gone on."""
    return []


@pytest.fixture
def relay(sent) -> OutputRelay:
    return OutputRelay(lambda request: (PARENT, -1), lambda owner, words, frames: sent.extend(pieces(words, *frames)))


def say(relay: OutputRelay, rank: int, text: bytes, request: int = 1) -> None:
    """An engine prints."""
    words, frame = outputs(request, text, rank)
    relay.on_outputs(1 << rank, words, [frame], 0.0)


def test_what_all_engines_print_goes_up_once(relay, sent):
    for rank in range(100):
        say(relay, rank, b"hello\n")
    relay.flush()
    assert sent == [(1, list(range(100)), b"hello\n")]


def test_engines_that_print_the_same_lines_at_different_paces_are_still_merged(relay, sent):
    for rank, text in ((0, b"one"), (0, b"two"), (1, b"one"), (2, b"one"), (1, b"two"), (2, b"two")):
        say(relay, rank, text)
    relay.flush()
    assert sent == [(1, [0, 1, 2], b"one"), (1, [0, 1, 2], b"two")]


def test_no_piece_overtakes_another_of_its_engine(relay, sent):
    for rank, text in ((0, b"one"), (1, b"other"), (1, b"one"), (0, b"one")):
        say(relay, rank, text)
    relay.flush()
    assert sent == [(1, [0], b"one"), (1, [1], b"other"), (1, [0, 1], b"one")]


def test_the_same_text_of_another_request_is_another_piece(relay, sent):
    say(relay, 0, b"hello", request=1)
    say(relay, 1, b"hello", request=2)
    relay.flush()
    assert sent == [(1, [0], b"hello"), (2, [1], b"hello")]


def test_an_engine_prints_for_no_other(relay, sent):
    words, frame = outputs(1, b"hello", 0, 1)
    relay.on_outputs(0b01, words, [frame], 0.0)
    relay.on_outputs(0b100, words, [frame], 0.0)
    relay.flush()
    assert sent == [(1, [0], b"hello")]


said = st.lists(
    st.tuples(st.sets(st.integers(0, 5), min_size=1), st.sampled_from([b"a", b"b", b""]), st.integers(1, 2)),
    max_size=30,
)


@given(said, st.sets(st.integers(0, 30)))
def test_each_engine_is_heard_in_full_and_in_order_whatever_is_merged(talk, flushes):
    sent: list[tuple[int, list[int], bytes]] = []
    relay = OutputRelay(lambda request: (PARENT, -1), lambda owner, words, frames: sent.extend(pieces(words, *frames)))
    expected = defaultdict(list)
    for number, (those, text, request) in enumerate(talk):
        words, frame = outputs(request, text, *those)
        relay.on_outputs(ALL, words, [frame], 0.0)
        for rank in those:
            expected[rank].append((request, text))
        if number in flushes:
            relay.flush()
    relay.flush()
    heard = defaultdict(list)
    for request, those, text in sent:
        for rank in those:
            heard[rank].append((request, text))
    assert heard == expected
    assert len(sent) <= len(talk)
    assert len(relay) == 0


@given(st.lists(st.sampled_from([b"a", b"b", b"c"]), max_size=6), st.randoms(use_true_random=False))
def test_engines_that_say_the_same_are_merged_into_one_voice_however_they_interleave(lines, random):
    sent: list[tuple[int, list[int], bytes]] = []
    relay = OutputRelay(lambda request: (PARENT, -1), lambda owner, words, frames: sent.extend(pieces(words, *frames)))
    turns = [rank for rank in range(4) for _ in lines]
    random.shuffle(turns)
    spoken = [0] * 4
    for rank in turns:
        say(relay, rank, lines[spoken[rank]] + b"%d" % spoken[rank])
        spoken[rank] += 1
    relay.flush()
    assert sent == [(1, [0, 1, 2, 3], line + b"%d" % number) for number, line in enumerate(lines)]


# --- when, and to whom ------------------------------------------------------------------------------------------------


def printing(scheduler: Transcript, asker: bytes) -> bytes:
    """An engine that runs call 1 and has printed."""
    (engine,) = scheduler.engines(4)
    scheduler.says(asker)
    scheduler.hears(asker, call(1, 4))
    assert len(scheduler.says(engine)) == 1
    words, text = outputs(1, b"working", 4)
    scheduler.hears(engine, words, text)
    return engine


def test_output_waits_for_more_and_then_goes_up(leaf):
    printing(leaf, PARENT)
    assert leaf.says(PARENT) == []
    leaf.passes(OUTPUT_FLUSH_S)
    assert leaf.says(PARENT) == [outputs(1, b"working", 4)]


def test_the_output_of_a_call_goes_before_its_reply(root):
    client = root.client()
    engine = printing(root, client)
    root.hears(engine, answer(1, 4), b"four")
    assert root.says(client) == [outputs(1, b"working", 4), (answer(1, 4), b"four")]


def test_the_output_of_a_task_goes_before_its_result(root):
    (engine,), client = root.engines(0), root.client()
    root.hears(client, m.Tasks([task(7)]))
    root.drains()
    assert len(root.says(engine)) == 1
    words, text = outputs(7, b"working", 0)
    root.hears(engine, words, text)
    root.hears(engine, m.Results([result(7, 0)]))
    root.drains()
    assert root.says(client) == [outputs(7, b"working", 0), m.Results([result(7, 0)])]


def test_each_client_hears_the_output_of_its_own_requests(root):
    engines = root.engines(0, 1)
    first, second = root.client(b"first"), root.client(b"second")
    root.hears(first, call(1, 0))
    root.hears(second, call(2, 1))
    for engine, request, rank in ((engines[0], 1, 0), (engines[1], 2, 1)):
        assert len(root.says(engine)) == 1
        words, text = outputs(request, b"mine", rank)
        root.hears(engine, words, text)
    root.passes(OUTPUT_FLUSH_S)
    assert root.says(first) == [outputs(1, b"mine", 0)]
    assert root.says(second) == [outputs(2, b"mine", 1)]


def test_what_nobody_asked_for_is_dropped(root):
    client = root.client()
    engine = printing(root, client)
    words, text = outputs(99, b"dreaming", 4)
    root.hears(engine, words, text)
    root.passes(OUTPUT_FLUSH_S)
    assert root.says(client) == [outputs(1, b"working", 4)]


def test_a_client_that_has_gone_hears_no_output(root):
    client = root.client()
    engine = printing(root, client)
    root.hears(client, m.Bye("done"))
    words, text = outputs(1, b"still working", 4)
    root.hears(engine, words, text)
    root.passes(OUTPUT_FLUSH_S)
    assert root.says(engine) == [m.Cancel([1], running=True)]
    assert root.does() == [Signal([engine], DOORBELL), Close(client)]


def test_an_engine_that_has_answered_says_no_more(root):
    client = root.client()
    first, second = root.engines(4, 5)
    root.says(client)
    root.hears(client, call(1, 4, 5))
    assert len(root.says(first)) == len(root.says(second)) == 1
    root.hears(first, answer(1, 4), b"four")
    for rank, engine in ((4, first), (5, second)):
        words, text = outputs(1, b"working", rank)
        root.hears(engine, words, text)
    root.passes(OUTPUT_FLUSH_S)
    assert root.says(client) == [outputs(1, b"working", 5)]
    root.hears(second, answer(1, 5), b"five")
    assert len(root.says(client)) == 1


def test_so_much_output_waits_and_no_more(leaf):
    engine = printing(leaf, PARENT)
    words, text = outputs(1, bytes(OUTPUT_WAITING_BYTES_MAX), 4)
    leaf.hears(engine, words, text)
    ((all_words, *texts),) = leaf.says(PARENT)
    assert [text for _, _, text in pieces(all_words, *texts)] == [b"working", bytes(OUTPUT_WAITING_BYTES_MAX)]
    leaf.passes(OUTPUT_FLUSH_S)


def test_a_scheduler_that_climbs_takes_what_waits_along(leaf):
    leaf.welcomed(keep=True)
    printing(leaf, PARENT)
    assert held(leaf.climbs()) == [1]
    assert leaf.says(PARENT) == [
        m.Members(ranks(4), ranks(5, 6, 7), "it left meanwhile"),
        outputs(1, b"working", 4),
    ]


def test_pieces_are_merged_on_every_level(leaf):
    engines = leaf.engines(4, 5)
    leaf.says(PARENT)
    leaf.hears(PARENT, call(1, 4, 5))
    for rank, engine in zip((4, 5), engines, strict=True):
        assert len(leaf.says(engine)) == 1
        words, text = outputs(1, b"hello", rank)
        leaf.hears(engine, words, text)
        leaf.hears(engine, answer(1, rank), b"x")
    assert leaf.says(PARENT) == [outputs(1, b"hello", 4, 5), (joined(1, {4: 1, 5: 1}), b"xx")]
