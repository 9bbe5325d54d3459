"""Answers are gathered into one reply; each rank counts once, by its answer or by its loss."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.collectives import Gather, coalesce
from hiersched.kernels import bitset
from hiersched.limits import COALESCE_BYTES_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import answer, joined, loss, ranks

ASKER = b"asker"
ALL = -1  # a child with every rank


def answers_in(chunks: Sequence[m.Chunk], frames: Sequence[bytes]) -> dict[int, bytes]:
    """Each rank's answer: its part of the chunk's frame, or its frames joined. No rank may answer twice."""
    found: dict[int, bytes] = {}
    rest = list(frames)
    for chunk in chunks:
        piece, rest = b"".join(rest[: chunk.frames]), rest[chunk.frames :]
        for rank, size in zip(bitset.ranks_of(bitset.from_wire(chunk.ranks)), chunk.sizes or [len(piece)], strict=True):
            assert rank not in found
            found[rank], piece = piece[:size], piece[size:]
    assert not rest
    return found


# --- joining small answers --------------------------------------------------------------------------------------------

sizes = st.sampled_from([0, 1, 7, COALESCE_BYTES_MAX, COALESCE_BYTES_MAX + 1])


@given(st.dictionaries(st.integers(0, 200), st.lists(sizes, min_size=1, max_size=2), max_size=12))
def test_joining_keeps_every_answer_with_its_rank(sizes_of):
    values = {rank: [bytes([rank]) * size for size in sizes] for rank, sizes in sizes_of.items()}
    single = [(m.Chunk(ranks(rank), [], len(frames)), frames) for rank, frames in values.items()]
    chunks, frames = coalesce(single)
    assert answers_in(chunks, frames) == {rank: b"".join(frames) for rank, frames in values.items()}
    assert sum(bool(chunk.sizes) for chunk in chunks) <= 1
    assert coalesce(list(zip(chunks, split_of(chunks, frames), strict=True))) == (chunks, frames)


def split_of(chunks: Sequence[m.Chunk], frames: Sequence[bytes]) -> list[list[bytes]]:
    """The frames of each chunk."""
    rest = iter(frames)
    return [[next(rest) for _ in range(chunk.frames)] for chunk in chunks]


def test_nothing_to_join_is_nothing():
    assert coalesce([]) == ([], [])


# --- gathering --------------------------------------------------------------------------------------------------------


def test_the_only_reply_is_passed_on_as_it_is():
    gather = Gather()
    gather.begin(1, ASKER, 0b1110)
    reply, frames = joined(1, {1: 1, 2: 1}, loss(m.ENGINE_LOST, "killed", 3)), [b"ab"]
    asker, passed, passed_frames = gather.answer(reply, frames, ALL)
    assert (asker, passed, passed_frames) == (ASKER, reply, frames)
    assert passed_frames is frames
    assert not gather.open


def test_a_request_waits_for_every_target():
    gather = Gather()
    gather.begin(1, ASKER, 0b111)
    assert gather.answer(answer(1, 0), [b"zero"], 0b001) is None
    assert gather.lose(1, 0b010, m.ENGINE_LOST, "killed") is None
    _, reply, frames = gather.answer(answer(1, 2), [b"two"], 0b100)
    assert reply == joined(1, {0: 4, 2: 3}, loss(m.ENGINE_LOST, "killed", 1))
    assert frames == [b"zerotwo"]


def test_losses_for_the_same_reason_are_told_as_one():
    gather = Gather()
    gather.begin(1, ASKER, 0b1111)
    gather.lose(1, 0b0001, m.ENGINE_LOST, "killed")
    gather.lose(1, 0b0010, m.ENGINE_LOST, "out of memory")
    _, reply, _ = gather.lose(1, 0b1100, m.ENGINE_LOST, "killed")
    assert reply.losses == [
        loss(m.ENGINE_LOST, "killed", 0, 2, 3),
        loss(m.ENGINE_LOST, "out of memory", 1),
    ]


def test_what_is_lost_is_lost_to_every_request_that_waits_for_it():
    gather = Gather()
    gather.begin(1, ASKER, 0b011)
    gather.begin(2, b"other", 0b010)
    gather.begin(3, ASKER, 0b100)
    finished = gather.lose_everywhere(0b010, m.ENGINE_LOST, "killed")
    assert [(asker, reply.request) for asker, reply, _ in finished] == [(b"other", 2)]
    assert set(gather.open) == {1, 3}


def test_a_rank_that_has_answered_cannot_be_lost():
    gather = Gather()
    gather.begin(1, ASKER, 0b11)
    gather.answer(answer(1, 0), [b"zero"], ALL)
    assert gather.lose(1, 0b01, m.ENGINE_LOST, "killed") is None
    _, reply, _ = gather.answer(answer(1, 1), [b"one"], ALL)
    assert reply.losses == []


def test_nobody_waits_for_a_request_whose_asker_is_gone():
    gather = Gather()
    gather.begin(1, ASKER, 0b1)
    gather.begin(2, b"other", 0b1)
    gather.forget(ASKER)
    assert gather.answer(answer(1, 0), [b"zero"], ALL) is None
    assert gather.lose(1, 0b1, m.ENGINE_LOST, "killed") is None
    assert (set(gather.open), gather.late) == ({2}, 1)


@st.composite
def stories(draw: st.DrawFn) -> tuple[int, list[tuple[str, int]]]:
    """(targets, what happens): groups of ranks answer together or are lost, some of them more than once."""
    groups = st.sets(st.integers(0, 9), min_size=1).map(bitset.of_ranks)
    events = draw(st.lists(st.tuples(st.sampled_from(["answer", "loss"]), groups), max_size=8))
    targets = draw(groups)
    return targets, [*events, (draw(st.sampled_from(["answer", "loss"])), targets)]


@given(stories())
def test_every_request_ends_once_and_every_target_is_in_its_reply_once(story):
    targets, events = story
    gather = Gather()
    gather.begin(1, ASKER, targets)
    finished, answered, lost = [], 0, 0
    for kind, group in events:
        owed = group & targets & ~(answered | lost)
        if kind == "answer":
            found = bitset.ranks_of(group)
            finished.append(gather.answer(joined(1, dict.fromkeys(found, 1)), [bytes(found)], ALL))
            answered |= owed
        else:
            finished.append(gather.lose(1, group, m.ENGINE_LOST, "killed"))
            lost |= owed
    ((_, reply, frames),) = [done for done in finished if done is not None]
    assert answers_in(reply.chunks, frames) == {rank: bytes([rank]) for rank in bitset.ranks_of(answered)}
    assert [bitset.from_wire(part.ranks) for part in reply.losses] == ([lost] if lost else [])
    assert not gather.open
