"""What code prints and displays, as it travels: at once while the code runs, the rest in a report with its answer.

An engine sends what has gathered as one piece; equal pieces of several engines become one on the way up. So nothing in
here may differ between engines that do the same: no rank, no time, no process.

Each output is packed when it is made, for what was displayed may be changed afterwards.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import msgspec

from hiersched.errors import ProtocolError

MimeBundle = dict[str, Any]

_INTEGER_MAX = 2**63  # magnitude that msgpack holds
_DEPTH_MAX = 32  # of what is displayed; nothing that is to be looked at is deeper


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


DATA = "data_message"  # the type of a Comm with which code publishes data: see nodes.datapub


class Comm(msgspec.Struct, array_like=True, tag="comm", frozen=True, gc=False):
    """A message of a widget or another comm: Jupyter's type (comm_open, comm_msg, comm_close), content and buffers."""

    msg_type: str
    content: dict[str, Any]
    metadata: dict[str, Any] = {}
    buffers: list[bytes] = []


Output = Text | Shown | Clear | Comm


def plain(item: Any) -> Any:
    """What stands for an object that msgpack does not know: outputs are for people to look at."""
    if isinstance(item, numbers.Integral):
        return int(item)
    return float(item) if isinstance(item, numbers.Real) else _text_of(item)


_encode = msgspec.msgpack.Encoder(enc_hook=plain).encode
_decode = msgspec.msgpack.Decoder(list[Output]).decode
_decode_one = msgspec.msgpack.Decoder(Output).decode


def pack_output(output: Output) -> msgspec.Raw:
    """One output. What msgpack or UTF-8 do not hold is shown as its text, so that everything can be packed."""
    try:
        packed = _encode(output)
        if type(output) is not Text:
            _decode_one(packed)  # a key may be no text
    except (ValueError, TypeError, OverflowError, RecursionError):
        packed = _encode([type(output).__struct_config__.tag, *cleaned(msgspec.structs.astuple(output))])
    return msgspec.Raw(packed)


def pack_outputs(outputs: Sequence[Output | msgspec.Raw]) -> bytes:
    """One piece, of outputs packed or not."""
    return _encode([output if type(output) is msgspec.Raw else pack_output(output) for output in outputs])


def unpack_outputs(piece: bytes | bytearray | memoryview) -> list[Output]:
    """The outputs of a piece, in order. Raises ProtocolError if it holds none."""
    try:
        return _decode(piece)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a piece of output: {error}") from error


def printed_text(outputs: Iterable[Output], stream: Literal["stdout", "stderr"]) -> str:
    """What was printed to one stream."""
    return "".join([output.text for output in outputs if type(output) is Text and output.stream == stream])


def displayed(outputs: Iterable[Output]) -> list[MimeBundle]:
    """What a notebook would show in the end, as Jupyter's dicts with output_type, data, metadata and transient.

    An update of something displayed by an earlier call stays, as `update_display_data`.
    """
    shown: list[MimeBundle] = []
    clearing = False
    for output in outputs:
        if type(output) is Clear:
            clearing = output.wait
            if not output.wait:
                shown.clear()
        elif type(output) is Shown:
            if clearing and not output.update:
                shown.clear()
                clearing = False
            if not (output.update and _replaced(shown, output)):
                shown.append(_jupyter(output))
        elif type(output) is Text and clearing:
            shown.clear()
            clearing = False
    return shown


def _replaced(shown: list[MimeBundle], update: Shown) -> bool:
    """Bring what has the update's id up to date; False if nothing has."""
    wanted = update.transient.get("display_id")
    places = [place for place, bundle in enumerate(shown) if bundle.get("transient", {}).get("display_id") == wanted]
    for place in places:
        shown[place] = {**_jupyter(update), "output_type": shown[place]["output_type"]}
    return wanted is not None and bool(places)


def _jupyter(output: Shown) -> MimeBundle:
    bundle: MimeBundle = {
        "output_type": "update_display_data" if output.update else "display_data",
        "data": output.data,
        "metadata": output.metadata,
    }
    if output.transient:
        bundle["transient"] = output.transient
    return bundle


def cleaned(item: Any, depth: int = 0) -> Any:
    """The same with texts that UTF-8 holds (printed text may have lone surrogates) and integers that msgpack holds."""
    if isinstance(item, str):
        return item.encode("utf-8", "backslashreplace").decode()
    if isinstance(item, (bool, bytes)) or item is None:
        return item
    if isinstance(item, numbers.Integral):
        return int(item) if abs(int(item)) < _INTEGER_MAX else str(item)
    if isinstance(item, numbers.Real):
        return float(item)
    if depth >= _DEPTH_MAX:
        return cleaned(f"<{type(item).__name__}, too deep to be shown>")
    if isinstance(item, dict):
        return {cleaned(_key_of(key)): cleaned(value, depth + 1) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [cleaned(value, depth + 1) for value in item]
    return cleaned(_text_of(item))


def _key_of(key: Any) -> str:
    return key if isinstance(key, str) else _text_of(key)


def _text_of(item: Any) -> str:
    try:
        return repr(item)
    except Exception as error:  # it is the user's: it may fail at anything
        return f"<its text cannot be had: {type(error).__name__}>"
