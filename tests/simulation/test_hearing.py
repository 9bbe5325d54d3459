"""What a client checks in what it hears."""

from __future__ import annotations

import pytest

from hiersched.errors import Bug
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.simulation.hearing import Listener, answers_in, check_reports
from hiersched.simulation.payload import Answer, Argument, pack_answer, pack_said
from hiersched.simulation.requests import Request


def wire(*ranks: int) -> m.Ranks:
    return bitset.to_wire(bitset.of_ranks(ranks))


def answer(rank: int) -> bytes:
    return pack_answer(Answer(42, rank, 0), 0)


def call(*, reports: tuple[int, ...]) -> Request:
    request = Request([0, 1, 2], [Argument(0.0, report=rank in reports) for rank in range(3)])
    request.begin([42], 0.0)
    return request


def reply(*reports: m.Ranks) -> m.Reply:
    sizes = [len(answer(rank)) for rank in range(3)]
    return m.Reply(42, [m.Chunk(wire(0, 1, 2), sizes, 1)], [], [m.Report(ranks) for ranks in reports])


def report(rank: int = 0, *, own: bool = False) -> bytes:
    return pack_said(42, 0, rank=rank, own=own)


JOINED = b"".join(answer(rank) for rank in range(3))


def test_joined_answers_are_taken_apart():
    assert [found.rank for found in answers_in(reply(), [JOINED])] == [0, 1, 2]


def test_an_answer_of_another_rank_is_a_bug():
    swapped = b"".join(answer(rank) for rank in (1, 0, 2))
    with pytest.raises(Bug, match="engine 0"):
        list(answers_in(reply(), [swapped]))


def test_equal_reports_come_as_one_and_own_ones_each():
    check_reports(call(reports=(0, 2)), reply(wire(0, 2)), [JOINED, report()])
    check_reports(call(reports=(0, 2)), reply(wire(0), wire(2)), [JOINED, report(0, own=True), report(2, own=True)])


@pytest.mark.parametrize(
    ("listed", "frames"),
    [
        ([wire(0)], [report()]),
        ([wire(0, 1, 2)], [report()]),
        ([wire(0, 2), wire(2)], [report(), report()]),
        ([wire(0, 2)], [report(0, own=True)]),
        ([wire(0, 2)], [pack_said(41, 0, rank=0, own=False)]),
    ],
)
def test_a_report_too_few_too_many_or_of_others_is_a_bug(listed: list[m.Ranks], frames: list[bytes]):
    with pytest.raises(Bug, match="report"):
        check_reports(call(reports=(0, 2)), reply(*listed), [JOINED, *frames])


def piece(place: int, rank: int = 0, *, own: bool = False) -> bytes:
    return pack_said(42, place, rank=rank, own=own)


def test_pieces_come_in_order_and_some_may_be_lost():
    listener = Listener()
    listener.hear(42, 0b11, piece(1), again=False)
    listener.hear(42, 0b01, piece(3), again=False)
    assert listener.pieces == {(42, 0): 3, (42, 1): 1}


def test_a_piece_that_comes_twice_or_too_late_is_a_bug():
    listener = Listener()
    listener.hear(42, 1, piece(2), again=False)
    for place in (1, 2):
        with pytest.raises(Bug, match="comes after"):
            listener.hear(42, 1, piece(place), again=False)


def test_code_that_runs_again_prints_again():
    listener = Listener()
    listener.hear(42, 1, piece(2), again=True)
    listener.hear(42, 1, piece(1), again=True)
    assert listener.pieces == {(42, 0): 1}


def test_a_piece_of_another_engine_or_request_is_a_bug():
    listener = Listener()
    with pytest.raises(Bug, match="output of engines 1"):
        listener.hear(42, 0b10, piece(1, rank=0, own=True), again=False)
    with pytest.raises(Bug, match="for 43"):
        listener.hear(43, 0b01, piece(1), again=False)
