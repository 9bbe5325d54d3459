"""The mux channel: what old clients ask of one engine.

Calls and cells become calls of ours. Messages for comms are delivered by a call as well, and have no answer. What else
a Jupyter kernel answers on its shell channel (completions, inspection, history) is refused, which the client learns.
"""

from __future__ import annotations

import msgspec

from hiersched.compat.contents import Content, error_content
from hiersched.compat.desk import Desk, Engine, Errand
from hiersched.compat.wire import Message
from hiersched.data.applied import APPLIED
from hiersched.data.cells import Cell
from hiersched.data.comms import deliver_comm
from hiersched.data.outcomes import Outcome, lost_outcome
from hiersched.data.serialize import PackedCall, Packer, digest_of
from hiersched.errors import ProtocolError, UnknownEngine
from hiersched.protocol import messages as m


def packed_apply(message: Message) -> PackedCall:
    """An apply_request as a call of ours; its function by content. Raises ProtocolError if it has none."""
    if len(message.buffers) < 2:
        raise ProtocolError(f"a call has a function and its arguments, and this one has {len(message.buffers)} buffers")
    blob = APPLIED + bytes(message.buffers[0])
    digest = digest_of(blob)
    return PackedCall(digest, {digest: blob}, message.buffers[1:])


def packed_cell(message: Message) -> PackedCall:
    """An execute_request as a cell of ours. Raises ProtocolError if it has no code."""
    content = message.content
    code, expressions = content.get("code"), content.get("user_expressions") or {}
    if not isinstance(code, str) or not isinstance(expressions, dict):
        raise ProtocolError("an execute_request has code, as text")
    wanted = {str(name): str(expressions[name]) for name in expressions}
    silent = bool(content.get("silent", False))
    halts = not silent and bool(content.get("stop_on_error", True))
    try:
        cell = msgspec.msgpack.encode(Cell(code, silent, True, wanted, halts))
    except UnicodeEncodeError as error:
        raise ProtocolError(f"the code of an execute_request is no text: {error}") from None
    return PackedCall(m.NO_FUNCTION, {}, [cell])


PACKED = {"apply_request": (packed_apply, m.CALL_LANE), "execute_request": (packed_cell, m.CELL_LANE)}


class Calls:
    """Requests to one engine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._packer = Packer()

    def take(self, message: Message) -> None:
        """A request has come: idents are its client and the engine's uuid."""
        if len(message.idents) < 2:
            raise ProtocolError("a request on this channel names its engine")
        client, uuid = message.idents[0], message.idents[1].decode(errors="replace")
        rank = self._desk.roster.rank_of(uuid)
        if message.msg_type in ("comm_open", "comm_msg", "comm_close"):
            if rank is not None:
                self._deliver(rank, message)
            return
        self._desk.books.asked(message, queue="mux", engine=uuid)
        path = [client, message.idents[1]]
        errand = Errand(self._desk, message, channel="mux", path=path, engine=None if rank is None else (uuid, rank))
        try:
            if rank is None:
                raise UnknownEngine(f"engine {uuid} is not there any more")
            if message.msg_type not in PACKED:
                raise ProtocolError(f"engines of this cluster do not answer {message.msg_type!r}")
            pack, lane = PACKED[message.msg_type]
            errand.begin(self._desk.exchange.call([rank], pack(message), lane=lane))
        except (UnknownEngine, ProtocolError) as error:
            refuse(errand, error)

    def _deliver(self, rank: int, message: Message) -> None:
        """Hand a message of a front end to the engine's comm."""
        buffers = [bytes(buffer) for buffer in message.buffers]
        arguments = (message.msg_type, message.content, buffers, message.metadata)
        delivery = _Delivery(self._desk, message, channel="mux", path=[], engine=self._desk.engine(rank))
        delivery.begin(self._desk.exchange.call([rank], self._packer.pack_call(deliver_comm, arguments)))


class _Delivery(Errand):
    """A message for a comm on its way: what its handlers print is published, and nobody waits for an answer."""

    __slots__ = ()

    def answer(self, content: Content, outcome: Outcome, engine: Engine | None) -> None:
        """Nobody asked."""


def refuse(errand: Errand, error: UnknownEngine | ProtocolError) -> None:
    """Answer that a request goes nowhere."""
    errand.answer(error_content(error), lost_outcome(error), None)
