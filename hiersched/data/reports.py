"""What engines may have in common when they answer: an error, or what they printed.

It travels beside an outcome, and equal reports of several engines are merged on the way up. So nothing in here may
differ between engines that do the same.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Sequence
from typing import cast

import msgspec
from msgspec.structs import astuple

from hiersched.data.outputs import Output, cleaned
from hiersched.errors import ProtocolError, RemoteError
from hiersched.limits import ERROR_TEXT_CHARS_MAX

_FRAME_WITHOUT_SOURCE = re.compile(r'[ |+]*File "(?P<file>.+)", line (?P<line>\d+), in .+')


class Failure(msgspec.Struct, array_like=True, tag="failure", frozen=True, gc=False):
    """What the user's code raised: an exception's name, text and formatted traceback; and itself, if it pickles."""

    ename: str
    evalue: str
    traceback: list[str]
    pickled: bytes = b""


class Printed(msgspec.Struct, array_like=True, tag="printed", frozen=True, gc=False):
    """What was printed and displayed, in order, since the last piece that went ahead."""

    outputs: list[Output]


Report = Failure | Printed

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Report).decode


def pack_failure(ename: str, evalue: str, traceback: Sequence[str], pickled: bytes) -> bytes:
    """The report of an error. Long texts are cut in the middle."""
    failure = Failure(ename, _cut(evalue), [_cut(entry) for entry in traceback], pickled)
    try:
        return _encode(failure)
    except UnicodeEncodeError:
        return _encode(Failure(*cleaned(astuple(failure))))


def pack_printed(outputs: Sequence[msgspec.Raw]) -> bytes:
    """The report of outputs that were packed when they were made."""
    return _encode(Printed(cast("list[Output]", outputs)))


def read_report(frame: bytes | bytearray | memoryview) -> Report:
    """The report in a frame. Source that an engine's traceback lacks is filled in, if this process has it.

    Raises ProtocolError if there is none.
    """
    try:
        report: Report = _decode(frame)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not a report: {error}") from error
    if isinstance(report, Failure):
        lines = [_with_source(entry) for entry in report.traceback]
        return Failure(report.ename, report.evalue, lines, report.pickled)
    return report


def remote_error(failure: Failure) -> RemoteError:
    """The exception that tells of the failure."""
    error = RemoteError(failure.ename, failure.evalue, list(failure.traceback))
    error.pickled = failure.pickled
    return error


def _cut(text: str) -> str:
    if len(text) <= ERROR_TEXT_CHARS_MAX:
        return text
    half = ERROR_TEXT_CHARS_MAX // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters ...]\n{text[-half:]}"


def _with_source(entry: str) -> str:
    """A traceback's entry, with its line of source if the engine did not have it and this process does."""
    place = _FRAME_WITHOUT_SOURCE.fullmatch(entry)
    source = linecache.getline(place["file"], int(place["line"])).strip() if place else ""
    return f"{entry}\n    {source}" if source else entry
