"""What code prints and displays, as it travels: at once while the code runs, the rest in a report with its answer.

An engine sends what has gathered as one piece; equal pieces of several engines become one on the way up. So nothing in
here may differ between engines that do the same: no rank, no time, no process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from hiersched.errors import ProtocolError

MimeBundle = dict[str, Any]


class Text(msgspec.Struct, array_like=True, tag="text", frozen=True, gc=False):
    """Printed text."""

    stream: Literal["stdout", "stderr"]
    text: str


class Shown(msgspec.Struct, array_like=True, tag="shown", frozen=True, gc=False):
    """Something displayed. transient: Jupyter's, where `display_id` is; update: it replaces what has that id."""

    data: MimeBundle
    metadata: dict[str, Any] = {}
    transient: dict[str, Any] = {}
    update: bool = False


class Clear(msgspec.Struct, array_like=True, tag="clear", frozen=True, gc=False):
    """What was shown so far is to go; wait: when the next output comes."""

    wait: bool = False


class Comm(msgspec.Struct, array_like=True, tag="comm", frozen=True, gc=False):
    """A message of a widget or another comm: Jupyter's type (comm_open, comm_msg, comm_close), content and buffers."""

    msg_type: str
    content: dict[str, Any]
    metadata: dict[str, Any] = {}
    buffers: list[bytes] = []


Output = Text | Shown | Clear | Comm

_encode = msgspec.msgpack.Encoder(enc_hook=repr).encode  # repr: outputs are for people to look at
_decode = msgspec.msgpack.Decoder(list[Output]).decode


def pack_outputs(outputs: Sequence[Output]) -> bytes:
    """One piece."""
    return _encode(outputs)


def unpack_outputs(piece: bytes | memoryview) -> list[Output]:
    """The outputs of a piece, in order. Raises ProtocolError if it holds none."""
    try:
        return _decode(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a piece of output: {error}") from error
