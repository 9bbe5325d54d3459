"""Live output on its way up: held for a moment, so that equal pieces of several engines become one.

A piece may join an equal one that waits only if nothing of its own engine was put behind that one: each engine's pieces
keep their order. What waits for a request goes before its reply.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiersched.core.effects import Link
from hiersched.kernels import bitset
from hiersched.limits import OUTPUT_FLUSH_S
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

SendOutputs = Callable[[Link, m.Outputs, Sequence[Frame]], None]
_Waiting = list[tuple[m.TaskId, int, Frame]]  # request, ranks, piece; in the order they came


class OutputRelay:
    """The pieces of one scheduler. owner_of: whom the output of a request is for; None: nobody wants it any more.

    send: gives pieces to an owner. due_s: when what waits is to be sent; infinite if nothing does.
    """

    def __init__(self, owner_of: Callable[[m.TaskId], Link | None], send: SendOutputs) -> None:
        self.due_s = float("inf")
        self._owner_of = owner_of
        self._send = send
        self._waiting: _Waiting = []
        self._places: dict[tuple[m.TaskId, bytes], int] = {}  # of the last equal piece
        self._last: dict[tuple[m.TaskId, int], int] = {}  # of the last piece of a rank

    def __len__(self) -> int:
        return len(self._waiting)

    def on_outputs(self, reach: int, outputs: m.Outputs, frames: Sequence[Frame], now: float) -> None:
        """Take in the pieces of a child that speaks for `reach`."""
        for piece, frame in zip(outputs.pieces, frames, strict=True):
            ranks = bitset.from_wire(piece.ranks) & reach
            if ranks:
                self._put(piece.request, ranks, frame)
        if self._waiting and self.due_s == float("inf"):
            self.due_s = now + OUTPUT_FLUSH_S

    def flush(self) -> None:
        """Send what waits, to whoever asked for the requests."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        self._places.clear()
        self._last.clear()
        self.due_s = float("inf")
        batches: dict[Link, tuple[list[m.Piece], list[Frame]]] = {}
        for request, ranks, frame in waiting:
            owner = self._owner_of(request)
            if owner is not None:
                pieces, frames = batches.setdefault(owner, ([], []))
                pieces.append(m.Piece(request, bitset.to_wire(ranks)))
                frames.append(frame)
        for owner, (pieces, frames) in batches.items():
            self._send(owner, m.Outputs(pieces), frames)

    def _put(self, request: m.TaskId, ranks: int, frame: Frame) -> None:
        key = (request, frame) if type(frame) is bytes else None  # a transport's frame is a large one: not compared
        place = None if key is None else self._places.get(key)
        mine = [(request, rank) for rank in bitset.ranks_of(ranks)]
        if place is not None and all(self._last.get(rank, -1) < place for rank in mine):
            self._waiting[place] = (request, self._waiting[place][1] | ranks, frame)
        else:
            place = len(self._waiting)
            self._waiting.append((request, ranks, frame))
            if key is not None:
                self._places[key] = place
        for rank in mine:
            self._last[rank] = place
