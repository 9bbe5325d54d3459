"""ipyparallel's messages: frames in, a checked message out, and back.

    idents..., <IDS|MSG>, signature, header, parent_header, metadata, content, buffers...

The signature is over the four parts before the buffers. A signature that was seen before is refused, as every receiver
of this protocol does, so that nobody can send again what another had sent. Contents are never unpickled unless the
cluster was told to write them so; buffers never are.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import os
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from hiersched.data.outputs import cleaned
from hiersched.errors import ProtocolError, UserError
from hiersched.limits import OLD_SIGNATURES_MAX
from hiersched.protocol.framing import Frame

DELIMITER = b"<IDS|MSG>"
NO_PARENT = b"{}"
_VERSION = "5.3"  # of Jupyter's protocol
_PARTS = 4


class Message(msgspec.Struct, eq=False, gc=False):
    """One message. header_raw: the header as it came, to be the parent of what answers it. buffers: the user's."""

    idents: list[bytes]
    header: dict[str, Any]
    header_raw: bytes
    parent: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: list[Frame]

    @property
    def msg_id(self) -> str:
        """Of its sender's making, unique."""
        return str(self.header["msg_id"])

    @property
    def msg_type(self) -> str:
        """What it asks for."""
        return str(self.header["msg_type"])

    @property
    def reply_type(self) -> str:
        """The type of its reply."""
        return f"{self.msg_type.removesuffix('_request')}_reply"

    @property
    def session(self) -> str:
        """Its sender."""
        return str(self.header.get("session", ""))


class Wire:
    """Packs and unpacks the messages of one cluster. key: signs them; empty: nothing is signed.

    pack, unpack: 'json', 'pickle', or the name of a function. Raises UserError for names of nothing that is there.
    """

    def __init__(
        self, key: bytes, *, signature_scheme: str = "hmac-sha256", pack: str = "json", unpack: str = "json"
    ) -> None:
        self.session = uuid.uuid4().hex
        self._mac = hmac.new(key, digestmod=_digest_named(signature_scheme)) if key else None
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._encode, self._decode = _packers(pack, unpack)
        self._nothing = self._encode({})
        self._numbers = itertools.count(1)
        self._lead = f"{self.session}_{os.getpid()}_"

    # --- in -----------------------------------------------------------------------------------------------------------

    def unpack(self, frames: Sequence[Frame]) -> Message:
        """The message in these frames. Raises ProtocolError, with the sender's path in `.idents` as far as it is known,
        for what is truncated, has a wrong signature, or was seen before.
        """
        idents: list[bytes] = []
        try:
            for frame in frames:
                if len(frame) == len(DELIMITER) and bytes(frame) == DELIMITER:
                    return self._checked(idents, frames[len(idents) + 1 :])
                idents.append(bytes(frame))
            raise ProtocolError("it has no delimiter: it is no message of Jupyter's")
        except ProtocolError as error:
            error.idents = idents  # type: ignore[attr-defined]
            raise

    def _checked(self, idents: list[bytes], frames: Sequence[Frame]) -> Message:
        if len(frames) < 1 + _PARTS:
            raise ProtocolError(f"it is truncated: {len(frames)} frames follow its delimiter")
        signature, *parts = [bytes(frame) for frame in frames[: 1 + _PARTS]]
        if self._mac is not None:
            if not hmac.compare_digest(self._sign(parts), signature):
                raise ProtocolError("its signature is wrong: it was signed with another key, or changed on the way")
            if signature in self._seen:
                raise ProtocolError("its signature was seen before: it was sent twice")
            self._seen[signature] = None
            if len(self._seen) > OLD_SIGNATURES_MAX:
                self._seen.popitem(last=False)
        header, parent, metadata, content = map(self._dict_in, parts)
        if not isinstance(header.get("msg_id"), str) or not isinstance(header.get("msg_type"), str):
            raise ProtocolError("its header names no message")
        return Message(idents, header, parts[0], parent, metadata, content, list(frames[1 + _PARTS :]))

    def _dict_in(self, part: bytes) -> dict[str, Any]:
        if part == NO_PARENT:
            return {}
        try:
            found = self._decode(part)
        except Exception as error:  # whatever the packer that was chosen raises
            raise ProtocolError(f"one of its parts cannot be read: {error}") from error
        if not isinstance(found, dict):
            raise ProtocolError(f"one of its parts is no dict, but a {type(found).__name__}")
        return found

    # --- out ----------------------------------------------------------------------------------------------------------

    def header(self, msg_type: str, date: float | None = None) -> dict[str, Any]:
        """The header of a new message. date: seconds since the epoch; by default now."""
        return {
            "msg_id": f"{self._lead}{next(self._numbers)}",
            "msg_type": msg_type,
            "username": "hiersched",
            "session": self.session,
            "date": date_text(date),
            "version": _VERSION,
        }

    def pack(
        self,
        kind: str | dict[str, Any],
        content: Any,
        *,
        parent: bytes = NO_PARENT,
        metadata: Any = None,
        idents: Sequence[bytes] = (),
        buffers: Sequence[Frame] = (),
    ) -> list[Frame]:
        """The frames of a new message. kind: its type, or its header. parent: the header of what it answers, as that
        came.
        """
        header = self.header(kind) if isinstance(kind, str) else kind
        if parent == NO_PARENT:
            parent = self._nothing
        parts = [self.encode(header), parent, self.encode(metadata or {}), self.encode(content)]
        return [*idents, DELIMITER, self._sign(parts), *parts, *buffers]

    def encode(self, part: Any) -> bytes:
        """One part of a message. What its format does not hold (lone surrogates, foreign objects) is shown as text."""
        try:
            return self._encode(part)
        except (ValueError, TypeError, OverflowError, RecursionError):
            return self._encode(cleaned(part))

    def _sign(self, parts: Sequence[bytes]) -> bytes:
        if self._mac is None:
            return b""
        mac = self._mac.copy()
        for part in parts:
            mac.update(part)
        return mac.hexdigest().encode()


def date_text(seconds: float | None = None) -> str:
    """A moment as this protocol writes it. seconds: since the epoch; by default now."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat()


def _digest_named(scheme: str) -> Callable[..., Any]:
    kind, _, name = scheme.partition("-")
    digest = getattr(hashlib, name, None)
    if kind != "hmac" or digest is None:
        raise UserError(f"messages can be signed as 'hmac-sha256' and the like, not as {scheme!r}")
    return digest  # type: ignore[no-any-return]


def _packers(pack: str, unpack: str) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
    """What writes and reads the parts of a message."""
    if pack == unpack == "json":
        return msgspec.json.encode, _json_in
    from jupyter_client.session import Session  # knows what the names stand for

    try:
        session = Session(packer=pack, unpacker=unpack)
    except Exception as error:
        raise UserError(f"messages cannot be packed by {pack!r} and unpacked by {unpack!r}: {error}") from error
    return session.pack, session.unpack


def _json_in(part: bytes) -> Any:
    try:
        return msgspec.json.decode(part)
    except (msgspec.DecodeError, UnicodeDecodeError):  # NaN, and texts that are no UTF-8, which clients may write
        return json.loads(part.decode(errors="replace"))
