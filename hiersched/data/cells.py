"""What a client asks of an engine's cell lane, and what the engine answers beside output."""

from __future__ import annotations

import sys
from functools import partialmethod
from typing import Any

import msgspec

from hiersched.data.outputs import cleaned, plain
from hiersched.errors import ProtocolError

_RED, _NORMAL = "\033[0;31m", "\033[0m"
_REPR_CHARS_MAX = 32


class Cell(msgspec.Struct, array_like=True, frozen=True):
    """Code to run as a notebook cell. silent: no result is shown and no execution count is used.

    jupyter: it is for a client that speaks Jupyter's protocol, whose answer is a `JupyterReply`. expressions: what that
    one wants evaluated afterwards, by name. halts: if it fails, what waits behind it in that session is withdrawn.
    """

    code: str
    silent: bool = True
    jupyter: bool = False
    expressions: dict[str, str] = {}
    halts: bool = False


class JupyterReply(msgspec.Struct, array_like=True, frozen=True):
    """How a cell ended, as Jupyter's execute_reply and execute_result have it. Nothing in it is pickled.

    execute_result: {"data": mime bundle, "metadata": {...}} of the last expression, if any.
    """

    execution_count: int
    execute_result: dict[str, Any] | None = None
    user_expressions: dict[str, Any] = {}


_encode = msgspec.msgpack.Encoder(enc_hook=plain).encode
_decode_jupyter = msgspec.msgpack.Decoder(JupyterReply).decode


def pack_jupyter_reply(reply: JupyterReply) -> bytes:
    """The reply as bytes. What msgpack does not hold is shown as its text."""
    try:
        packed = _encode(reply)
        _decode_jupyter(packed)  # a key may be no text
    except (ValueError, TypeError, OverflowError, RecursionError):
        packed = _encode(cleaned(msgspec.structs.astuple(reply)))
    return packed


def unpack_jupyter_reply(data: bytes | bytearray | memoryview) -> JupyterReply:
    """The reply in `data`. Raises ProtocolError if there is none."""
    try:
        return _decode_jupyter(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"not the reply to a cell: {error}") from error


class CellReply(msgspec.Struct, array_like=True, frozen=True):
    """How a cell ended: ipyparallel's ExecuteReply.

    execute_result: {"data": mime bundle, "metadata": {...}} of its last expression, if any. metadata: the client's
    facts about the part of the call that it answers, also as items and attributes of the reply; an engine knows none.
    """

    execution_count: int
    execute_result: dict[str, Any] | None
    metadata: dict[str, Any] = {}

    @property
    def data(self) -> dict[str, Any]:
        """The mime bundle of the last expression; empty if there is none."""
        return {} if self.execute_result is None else dict(self.execute_result["data"])

    @property
    def source(self) -> str:
        """Of the last expression, where its display says so."""
        return "" if self.execute_result is None else str(self.execute_result.get("source", ""))

    def display(self) -> None:
        """Show the last expression where IPython runs; elsewhere print it."""
        if _shell() is None:
            print(self._plain_text())
        else:
            from IPython.display import display

            display(self)  # type: ignore[no-untyped-call]

    def __getitem__(self, key: str) -> Any:
        return self.metadata[key]

    def _repr_of(self, mime: str) -> Any:
        """The last expression in one format, and its metadata if there are any, as IPython asks for it; None without.

        An image is base64 text.
        """
        data = self.data.get(mime)
        details = {} if self.execute_result is None else self.execute_result["metadata"].get(mime)
        return (data, details) if data is not None and details else data

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.metadata:
            raise AttributeError(name)
        return self.metadata[name]

    _repr_html_ = partialmethod(_repr_of, "text/html")
    _repr_latex_ = partialmethod(_repr_of, "text/latex")
    _repr_markdown_ = partialmethod(_repr_of, "text/markdown")
    _repr_json_ = partialmethod(_repr_of, "application/json")
    _repr_javascript_ = partialmethod(_repr_of, "application/javascript")
    _repr_png_ = partialmethod(_repr_of, "image/png")
    _repr_jpeg_ = partialmethod(_repr_of, "image/jpeg")
    _repr_svg_ = partialmethod(_repr_of, "image/svg+xml")

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """What a notebook shows: the last expression, labelled with its engine."""
        data = self.data
        if "text/plain" in data:
            data["text/plain"] = self._plain_text()
        return data, {} if self.execute_result is None else dict(self.execute_result["metadata"])

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(self._plain_text())

    def _plain_text(self) -> str:
        """The last expression as `Out[engine:count]: text`, in colour where IPython uses colours."""
        text = self.data.get("text/plain", "")
        if not text:
            return ""
        label = f"Out[{self.metadata.get('engine_id', '?')}:{self.execution_count}]: "
        shell = _shell()
        if shell is not None and shell.colors.lower() != "nocolor":
            label = f"{_RED}{label}{_NORMAL}"
        return f"{label}\n{text}" if "\n" in text and not text.startswith("\n") else label + text

    def __repr__(self) -> str:
        shown = self.data.get("text/plain", "")
        if len(shown) > _REPR_CHARS_MAX:
            shown = f"{shown[: _REPR_CHARS_MAX - 3]}..."
        return f"<ExecuteReply[{self.execution_count}]: {shown}>"


def _shell() -> Any:
    """IPython's shell, or None outside of IPython."""
    interactive = sys.modules.get("IPython")
    return interactive.get_ipython() if interactive is not None else None
