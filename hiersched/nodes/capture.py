"""The streams that user code finds: what it prints goes to the transcript, and nobody answers what it asks.

They cannot be closed: code that tries, as `exit()` does, would take them from all that runs later.
"""

from __future__ import annotations

import codecs
import io
from typing import Any

from hiersched.nodes.transcript import Stream, Transcript


class Capture(io.TextIOBase):
    """Stands in for stdout or stderr."""

    def __init__(self, stream: Stream, transcript: Transcript) -> None:
        self.name = f"<{stream}>"
        self.buffer = _Bytes(self)
        self._stream = stream
        self._write = transcript.write

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What programs that look expect of a terminal."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What text cannot be encoded is escaped."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Add `text` to the transcript; how many characters that are."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._write(self._stream, text)
        return len(text)

    def close(self) -> None:
        """Stay open."""


class _Bytes(io.RawIOBase):
    """What `sys.stdout.buffer` is expected to be: takes UTF-8."""

    def __init__(self, text: Capture) -> None:
        self._text = text
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Add the text that `data` encodes; how many bytes that are."""
        view = memoryview(data).cast("B")
        self._text.write(self._decoder.decode(view))
        return view.nbytes

    def close(self) -> None:
        """Stay open."""


class NoInput(io.TextIOBase):
    """Stands in for stdin: code that asks fails at once instead of waiting for nobody."""

    def readable(self) -> bool:
        """Yes, though there is nothing."""
        return True

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Raises EOFError."""
        raise EOFError("nobody answers input() on an engine; pass what it needs as an argument")

    def read(self, size: int | None = -1, /) -> str:
        """The end of the file."""
        return ""

    def close(self) -> None:
        """Stay open."""
