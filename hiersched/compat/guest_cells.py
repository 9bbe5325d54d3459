"""Cells for an engine of ipyparallel's, its answers, and what it prints and displays, in our words."""

from __future__ import annotations

from typing import Any

import msgspec

from hiersched.compat.guest_calls import failed_outcome, times_of
from hiersched.compat.wire import Message
from hiersched.data.cells import Cell, CellReply, JupyterReply, pack_jupyter_reply
from hiersched.data.outcomes import PackedOutcome, pack_outcome_buffers, pack_outcome_value
from hiersched.data.outputs import Clear, Comm, Output, Shown, Text
from hiersched.errors import ProtocolError
from hiersched.protocol.framing import Frame

_decode = msgspec.msgpack.Decoder(Cell).decode


def cell_in(frame: Frame) -> Cell:
    """The cell that a client asks for. Raises ProtocolError if there is none."""
    try:
        return _decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"this is no cell: {error}") from error


def content_of(cell: Cell) -> dict[str, Any]:
    """The request to run a cell."""
    return {
        "code": cell.code,
        "silent": cell.silent,
        "store_history": not cell.silent,
        "user_expressions": cell.expressions,
        "allow_stdin": False,
        "stop_on_error": False,
    }


def outcome_of(reply: Message, cell: Cell, result: dict[str, Any] | None) -> PackedOutcome:
    """How a cell ended. result: its last expression, as it was published. Raises ProtocolError as for a call."""
    started, ended = times_of(reply)
    content = reply.content
    if content.get("status") != "ok":
        return failed_outcome(content, started, ended)
    count = content.get("execution_count")
    count = count if isinstance(count, int) else 0
    if cell.jupyter:
        expressions = content.get("user_expressions") or {}
        packed = pack_jupyter_reply(JupyterReply(count, result, expressions))
        return pack_outcome_buffers([packed], started=started, ended=ended)
    return pack_outcome_value(CellReply(count, result), started=started, ended=ended)


def pages_in(reply: Message) -> list[Shown]:
    """What a cell has put into the pager: it is displayed."""
    payload = reply.content.get("payload") or []
    return [Shown(item.get("data") or {}) for item in payload if item.get("source") == "page"]


def result_in(message: Message) -> dict[str, Any] | None:
    """The last expression of a cell, if that is what was published."""
    if message.msg_type != "execute_result":
        return None
    return {"data": message.content.get("data") or {}, "metadata": message.content.get("metadata") or {}}


def output_in(message: Message) -> Output | None:
    """What was printed or displayed, if that is what was published."""
    content, kind = message.content, message.msg_type
    if kind == "stream":
        return Text("stderr" if content.get("name") == "stderr" else "stdout", str(content.get("text", "")))
    if kind in ("display_data", "update_display_data"):
        data, metadata = content.get("data") or {}, content.get("metadata") or {}
        return Shown(data, metadata, content.get("transient") or {}, kind == "update_display_data")
    if kind == "clear_output":
        return Clear(bool(content.get("wait")))
    if kind in ("comm_open", "comm_msg", "comm_close"):
        return Comm(kind, content, message.metadata, [bytes(buffer) for buffer in message.buffers])
    return None
