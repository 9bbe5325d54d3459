"""Live output on its way up: held for a moment, so that equal pieces of several engines become one.

A piece may join an equal one that waits only if nothing of its own engine was put behind that one: each engine's pieces
keep their order. What waits goes before any reply or result, so that no piece comes after the end of its request, and
nothing is taken in of ranks that have answered. Whom a piece is for is settled when it comes: by the time it goes on,
its request may have ended.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiersched.core.effects import Link
from hiersched.kernels import bitset
from hiersched.limits import OUTPUT_FLUSH_S, OUTPUT_WAITING_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

SendOutputs = Callable[[Link, m.Outputs, Sequence[Frame]], None]

_NEVER_S = float("inf")
_PIECE_BYTES = 256  # that a piece takes here beside its text, about


class OutputRelay:
    """The pieces of one scheduler. listener_of: whom the output of a request is for, and which ranks may still have
    some, as a bit set (-1: any); None: nobody wants it any more.

    send: gives pieces to an owner. due_s: when what waits is to be sent; infinite if nothing does.
    """

    def __init__(self, listener_of: Callable[[m.TaskId], tuple[Link, int] | None], send: SendOutputs) -> None:
        self.due_s = _NEVER_S
        self._listener_of = listener_of
        self._send = send
        self._waiting: list[tuple[Link, m.TaskId, int, Frame]] = []  # owner, request, ranks, piece; as they came
        self._bytes = 0
        self._places: dict[tuple[m.TaskId, bytes], int] = {}  # of the last equal piece
        self._last: dict[int, int] = {}  # place of the last piece of a rank

    def __len__(self) -> int:
        return len(self._waiting)

    def on_outputs(self, reach: int, outputs: m.Outputs, frames: Sequence[Frame], now: float) -> None:
        """Take in the pieces of a child that speaks for `reach`."""
        for piece, frame in zip(outputs.pieces, frames, strict=True):
            listener = self._listener_of(piece.request)
            if listener is None:
                continue
            owner, running = listener
            ranks = bitset.from_wire(piece.ranks) & reach & running
            if ranks:
                self._put(owner, piece.request, ranks, frame)
        if self._bytes > OUTPUT_WAITING_BYTES_MAX:
            self.flush()
        elif self._waiting and self.due_s == _NEVER_S:
            self.due_s = now + OUTPUT_FLUSH_S

    def flush(self) -> None:
        """Send what waits, to whoever asked for the requests."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        self._bytes = 0
        self._places.clear()
        self._last.clear()
        self.due_s = _NEVER_S
        batches: dict[Link, tuple[list[m.Piece], list[Frame]]] = {}
        for owner, request, ranks, frame in waiting:
            pieces, frames = batches.setdefault(owner, ([], []))
            pieces.append(m.Piece(request, bitset.to_wire(ranks)))
            frames.append(frame)
        for owner, (pieces, frames) in batches.items():
            self._send(owner, m.Outputs(pieces), frames)

    def _put(self, owner: Link, request: m.TaskId, ranks: int, frame: Frame) -> None:
        key = (request, frame) if type(frame) is bytes else None  # a transport's frame is a large one: not compared
        place = None if key is None else self._places.get(key)
        last, listed = self._last, bitset.ranks_of(ranks)
        if place is not None and all(last.get(rank, -1) < place for rank in listed):
            self._waiting[place] = (owner, request, self._waiting[place][2] | ranks, frame)
        else:
            place = len(self._waiting)
            self._waiting.append((owner, request, ranks, frame))
            self._bytes += len(frame) + _PIECE_BYTES
            if key is not None:
                self._places[key] = place
        for rank in listed:
            last[rank] = place
