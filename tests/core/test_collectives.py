"""Answers are gathered into one reply, or into few if some take long; each rank counts once, by answer or loss."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.collectives import Gather, OpenRequest, coalesce
from hiersched.kernels import bitset
from hiersched.limits import COALESCE_BYTES_MAX, PARTIAL_REPLY_S
from hiersched.protocol import messages as m
from tests.core.transcript import answer, call, joined, loss, over_the_wire, ranks

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


def begin(gather: Gather, request: int, asker: bytes, targets: int) -> OpenRequest:
    """A call on these targets is open."""
    return gather.begin(call(request, *bitset.ranks_of(targets)), [b"shared"], asker, targets)


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
    begin(gather, 1, ASKER, 0b1110)
    reply, frames = joined(1, {1: 1, 2: 1}, loss(m.ENGINE_LOST, "killed", 3)), [b"ab"]
    asker, passed, passed_frames = gather.answer(reply, frames, ALL, 0.0)
    assert (asker, passed, passed_frames) == (ASKER, reply, frames)
    assert passed_frames is frames
    assert not gather.open


def test_a_request_waits_for_every_target():
    gather = Gather()
    begin(gather, 1, ASKER, 0b111)
    assert gather.answer(answer(1, 0), [b"zero"], 0b001, 0.0) is None
    assert gather.lose(1, 0b010, m.ENGINE_LOST, "killed", 0.0) is None
    _, reply, frames = gather.answer(answer(1, 2), [b"two"], 0b100, 0.0)
    assert reply == joined(1, {0: 4, 2: 3}, loss(m.ENGINE_LOST, "killed", 1))
    assert frames == [b"zerotwo"]


def test_losses_for_the_same_reason_are_told_as_one():
    gather = Gather()
    begin(gather, 1, ASKER, 0b1111)
    gather.lose(1, 0b0001, m.ENGINE_LOST, "killed", 0.0)
    gather.lose(1, 0b0010, m.ENGINE_LOST, "out of memory", 0.0)
    _, reply, _ = gather.lose(1, 0b1100, m.ENGINE_LOST, "killed", 0.0)
    assert reply.losses == [
        loss(m.ENGINE_LOST, "killed", 0, 2, 3),
        loss(m.ENGINE_LOST, "out of memory", 1),
    ]


def test_what_is_lost_is_lost_to_every_request_that_waits_for_it():
    gather = Gather()
    begin(gather, 1, ASKER, 0b011)
    begin(gather, 2, b"other", 0b010)
    begin(gather, 3, ASKER, 0b100)
    finished = gather.lose_everywhere(0b010, m.ENGINE_LOST, "killed", 0.0)
    assert [(asker, reply.request) for asker, reply, _ in finished] == [(b"other", 2)]
    assert set(gather.open) == {1, 3}


def test_a_rank_that_has_answered_cannot_be_lost():
    gather = Gather()
    begin(gather, 1, ASKER, 0b11)
    gather.answer(answer(1, 0), [b"zero"], ALL, 0.0)
    assert gather.lose(1, 0b01, m.ENGINE_LOST, "killed", 0.0) is None
    _, reply, _ = gather.answer(answer(1, 1), [b"one"], ALL, 0.0)
    assert reply.losses == []


def test_nobody_waits_for_a_request_whose_asker_is_gone():
    gather = Gather()
    begin(gather, 1, ASKER, 0b1)
    begin(gather, 2, b"other", 0b1)
    gather.forget(ASKER)
    assert gather.answer(answer(1, 0), [b"zero"], ALL, 0.0) is None
    assert gather.lose(1, 0b1, m.ENGINE_LOST, "killed", 0.0) is None
    assert (set(gather.open), gather.late) == ({2}, 1)


def test_who_owes_an_answer_is_known():
    gather = Gather()
    begin(gather, 1, ASKER, 0b110)
    begin(gather, 2, ASKER, 0b010)
    gather.answer(answer(1, 1), [b"one"], ALL, 0.0)
    assert (gather.owes(1, 0b010), gather.owes(1, 0b111), gather.owes(99, ALL)) == (False, True, False)
    assert gather.owed_by([0, 1, 2]) == {1: 1, 2: 1}


# --- some take long ---------------------------------------------------------------------------------------------------


def test_what_has_waited_goes_ahead_and_the_rest_follows():
    gather = Gather()
    begin(gather, 1, ASKER, 0b1111)
    assert gather.due_s == float("inf")
    gather.answer(answer(1, 2), [b"two"], ALL, 10.0)
    gather.lose(1, 0b0001, m.ENGINE_LOST, "killed", 10.05)
    assert gather.due_s == 10.0 + PARTIAL_REPLY_S
    assert gather.overdue(10.0 + PARTIAL_REPLY_S / 2) == []
    ((asker, reply, frames),) = gather.overdue(10.0 + PARTIAL_REPLY_S)
    assert (asker, reply, frames) == (ASKER, joined(1, {2: 3}, loss(m.ENGINE_LOST, "killed", 0)), [b"two"])
    assert gather.due_s == float("inf")
    assert gather.answer(answer(1, 1), [b"one"], ALL, 20.0) is None
    _, reply, frames = gather.answer(answer(1, 3), [b"three"], ALL, 20.0)
    assert (reply, frames) == (joined(1, {1: 3, 3: 5}), [b"onethree"])
    assert gather.overdue(30.0) == []


def test_the_last_answer_alone_is_passed_on_as_it_is():
    gather = Gather()
    begin(gather, 1, ASKER, 0b11)
    gather.answer(answer(1, 0), [b"zero"], ALL, 0.0)
    gather.overdue(1.0)
    reply, frames = answer(1, 1), [b"one"]
    assert gather.answer(reply, frames, ALL, 2.0) == (ASKER, reply, frames)
    assert not gather.open


def test_what_nobody_has_answered_is_not_told():
    gather = Gather()
    begin(gather, 1, ASKER, 0b11)
    gather.answer(answer(1, 7), [b"seven"], ALL, 0.0)
    gather.lose(1, 0b100, m.ENGINE_LOST, "killed", 0.0)
    assert gather.due_s == float("inf")
    assert gather.overdue(100.0) == []


def test_a_request_that_has_ended_is_not_waited_for():
    gather = Gather()
    for request, targets in ((1, 0b11), (2, 0b11)):
        begin(gather, request, ASKER, targets)
        gather.answer(answer(request, 0), [b"zero"], ALL, float(request))
    gather.answer(answer(1, 1), [b"one"], ALL, 1.0)
    assert gather.overdue(1.0) == []
    assert gather.due_s == 2.0 + PARTIAL_REPLY_S


def test_each_request_waits_for_itself():
    gather = Gather()
    for request, now in ((1, 0.0), (2, 0.06)):
        begin(gather, request, ASKER, 0b11)
        gather.answer(answer(request, 0), [b"zero"], ALL, now)
    assert [reply.request for _, reply, _ in gather.overdue(PARTIAL_REPLY_S)] == [1]
    assert [reply.request for _, reply, _ in gather.overdue(0.06 + PARTIAL_REPLY_S)] == [2]


# --- what answers have in common --------------------------------------------------------------------------------------

reported = st.lists(
    st.tuples(st.sets(st.integers(0, 9), min_size=1), st.lists(st.sampled_from([b"", b"error", b"text"]), max_size=2)),
    max_size=8,
)


@given(reported, st.booleans())
def test_equal_reports_become_one_and_every_rank_keeps_its_own(groups, in_two_levels):
    gather, targets = Gather(), 0b11_1111_1111
    begin(gather, 1, ASKER, targets)
    expected: dict[int, set[bytes]] = {}
    done = []
    for those, texts in [*groups, (set(range(10)), [])]:
        reports = [m.Report(ranks(*those)) for _ in texts]
        reply = m.Reply(1, joined(1, dict.fromkeys(sorted(those), 0)).chunks, [], reports)
        fresh = those - expected.keys()
        expected.update((rank, set(texts)) for rank in fresh)
        done.append(gather.answer(*over_the_wire(reply, [b"", *texts]), ALL, 0.0))
        if in_two_levels:
            done += gather.overdue(1.0)
    found: dict[int, set[bytes]] = {rank: set() for rank in range(10)}
    told = 0
    for _, reply, frames in [finished for finished in done if finished is not None]:
        assert len(frames) == len(reply.chunks) + len(reply.reports)
        for report, text in zip(reply.reports, frames[len(reply.chunks) :], strict=True):
            told += 1
            for rank in bitset.ranks_of(bitset.from_wire(report.ranks)):
                found[rank].add(text)
    assert found == expected
    assert in_two_levels or told <= 3 or len(done) == 1


def test_a_large_report_is_not_compared():
    gather = Gather()
    begin(gather, 1, ASKER, 0b11)
    large = memoryview(bytes(10))
    for rank in (0, 1):
        reply = m.Reply(1, answer(1, rank).chunks, [], [m.Report(ranks(rank))])
        finished = gather.answer(reply, [b"x", large], ALL, 0.0)
    _, reply, frames = finished
    assert [report.ranks for report in reply.reports] == [ranks(0), ranks(1)]
    assert frames == [b"xx", large, large]


# --- all together -----------------------------------------------------------------------------------------------------


@st.composite
def stories(draw: st.DrawFn) -> tuple[int, list[tuple[str, int]]]:
    """(targets, what happens): groups of ranks answer together or are lost, some more than once; time passes."""
    groups = st.sets(st.integers(0, 9), min_size=1).map(bitset.of_ranks)
    events = draw(st.lists(st.tuples(st.sampled_from(["answer", "loss", "time"]), groups), max_size=8))
    targets = draw(groups)
    return targets, [*events, (draw(st.sampled_from(["answer", "loss"])), targets)]


@given(stories())
def test_every_request_ends_once_and_every_target_is_in_its_replies_once(story):
    targets, events = story
    gather = Gather()
    begin(gather, 1, ASKER, targets)
    finished, answered, lost = [], 0, 0
    for number, (kind, group) in enumerate(events):
        owed = group & targets & ~(answered | lost)
        if kind == "time":
            finished += gather.overdue(number + PARTIAL_REPLY_S)
        elif kind == "answer":
            found = bitset.ranks_of(group)
            reply = joined(1, dict.fromkeys(found, 1))
            finished.append(gather.answer(reply, [bytes(found)], ALL, float(number)))
            answered |= owed
        else:
            finished.append(gather.lose(1, group, m.ENGINE_LOST, "killed", float(number)))
            lost |= owed
    replies = [(reply, frames) for _, reply, frames in (done for done in finished if done is not None)]
    chunks = [chunk for reply, _ in replies for chunk in reply.chunks]
    frames = [frame for _, theirs in replies for frame in theirs]
    assert answers_in(chunks, frames) == {rank: bytes([rank]) for rank in bitset.ranks_of(answered)}
    told = [bitset.from_wire(part.ranks) for reply, _ in replies for part in reply.losses]
    assert (sum(told), len(told)) == (lost, len(told)) and sum(map(int.bit_count, told)) == lost.bit_count()
    assert len(replies) <= 1 + sum(kind == "time" for kind, _ in events)
    assert not gather.open
