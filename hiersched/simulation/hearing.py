"""What a simulated client hears besides outcomes, and what must hold for it.

Each engine's pieces of output come in their order, none twice, and none after its answer. With an answer comes the
report that was asked for, and no other. Equal ones of several engines have become one on the way: each names its ranks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hiersched.errors import Bug
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames
from hiersched.simulation.payload import Answer, unpack_answer, unpack_said
from hiersched.simulation.requests import Request


def answers_in(reply: m.Reply, frames: Sequence[Frame]) -> Iterator[Answer]:
    """The answers of all ranks that answer, joined ones taken apart. Raises Bug if one is not its rank's."""
    pieces = split_frames([chunk.frames for chunk in reply.chunks], frames)
    for chunk, piece in zip(reply.chunks, pieces, strict=True):
        ranks = bitset.ranks_of(bitset.from_wire(chunk.ranks))
        start, body = 0, piece[0]
        for rank, size in zip(ranks, chunk.sizes or [len(body)], strict=True):
            own = memoryview(body)[start : start + size] if chunk.sizes else body
            answer = unpack_answer(own)
            if answer.rank != rank:
                raise Bug(f"what is said to be from engine {rank} is {answer}")
            start += size
            yield answer


def check_reports(request: Request, reply: m.Reply, frames: Sequence[Frame]) -> None:
    """Raises Bug unless each rank that answers here brings the report it was asked for, and no other does."""
    reported = 0
    for report, frame in zip(reply.reports, frames[len(frames) - len(reply.reports) :], strict=True):
        ranks = bitset.from_wire(report.ranks)
        said = unpack_said(frame)
        own = said.rank >= 0
        if said.request != reply.request or said.place or (own and ranks != 1 << said.rank) or ranks & reported:
            raise Bug(f"{said} is reported for engines {bitset.text_of(ranks)} in the reply to {reply.request}")
        reported |= ranks
    answered = 0
    for chunk in reply.chunks:
        answered |= bitset.from_wire(chunk.ranks)
    wanted = bitset.of_ranks(rank for rank in bitset.ranks_of(answered) if request.argument_of(rank).report)
    if reported != wanted:
        raise Bug(f"reports of {bitset.text_of(reported)}, where engines {bitset.text_of(wanted)} had one to make")


class Listener:
    """The output that one client has received. pieces: how many of each engine, for each request and task."""

    def __init__(self) -> None:
        self.pieces: dict[tuple[m.TaskId, int], int] = {}

    def hear(self, request: m.TaskId, ranks: int, frame: Frame, *, again: bool) -> None:
        """A piece of these engines. again: the code may have started anew, since it ran before.

        Raises Bug if it is another's, or not the next: pieces may be lost with a scheduler, but change no places.
        """
        said = unpack_said(frame)
        if said.request != request or (said.rank >= 0 and ranks != 1 << said.rank):
            raise Bug(f"{said} comes as output of engines {bitset.text_of(ranks)} for {request}")
        for rank in bitset.ranks_of(ranks):
            before = self.pieces.get((request, rank), 0)
            if said.place <= before and not (again and said.place == 1):
                raise Bug(f"piece {said.place} of engine {rank} for {request} comes after piece {before}")
            self.pieces[request, rank] = said.place
