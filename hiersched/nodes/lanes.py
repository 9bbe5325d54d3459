"""The two ways an engine runs code, both in the engine's one user namespace.

The call lane runs a function on arguments and packs what it returns: the hot path, with no Jupyter message in it. The
cell lane runs code as a notebook cell would, through IPython: magics, `await`, rich display, tracebacks. Both capture
what is printed and send it with the outcome.
"""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.interactiveshell import InteractiveShell

from hiersched.data import namespace
from hiersched.data.cells import Cell, CellReply
from hiersched.data.outcomes import pack_outcome_error, pack_outcome_value
from hiersched.data.serialize import Unpacker
from hiersched.limits import OUTPUT_BYTES_MAX
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Digest


class Capture(io.TextIOBase):
    """Stands in for stdout or stderr and keeps what is written, up to a bound."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._parts: list[str] = []
        self._size = 0

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """What programs that look expect of a terminal."""
        return "utf-8"

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, text: str) -> int:
        """Keep `text`; beyond OUTPUT_BYTES_MAX only a note that there was more."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if self._size <= OUTPUT_BYTES_MAX:
            self._size += len(text)
            self._parts.append(text if self._size <= OUTPUT_BYTES_MAX else "\n[more output was dropped]\n")
        return len(text)

    def take(self) -> str:
        """What was written since the last take."""
        if not self._parts:
            return ""
        text = "".join(self._parts)
        self._parts.clear()
        self._size = 0
        return text


class _NoInput(io.TextIOBase):
    """Stands in for stdin: code that asks fails at once instead of waiting for nobody."""

    def readable(self) -> bool:
        """Yes, though there is nothing."""
        return True

    def readline(self, size: int = -1, /) -> str:  # type: ignore[override]
        """Raises EOFError."""
        raise EOFError("nobody answers input() on an engine; pass what it needs as an argument")

    def read(self, size: int = -1, /) -> str:
        """The end of the file."""
        return ""

    def close(self) -> None:
        """Stay: `exit()` closes what it finds here, and the engine goes on."""


class _Display(DisplayPublisher):
    """Keeps what a cell displays."""

    def publish(self, data: dict[str, Any], metadata: dict[str, Any] | None = None, **kwargs: Any) -> None:  # type: ignore[override]
        """Keep one display as a mime bundle."""
        self.shell.displayed.append({"output_type": "display_data", "data": data, "metadata": metadata or {}})

    def clear_output(self, wait: bool = False) -> None:
        """Forget what was displayed so far."""
        self.shell.displayed.clear()


class _ResultHook(DisplayHook):
    """Keeps the value of a cell's last expression, formatted."""

    def write_output_prompt(self) -> None:
        """Nothing is printed here: the client shows it."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Keep the formats of the value."""
        self.shell.result = {"data": format_dict, "metadata": md_dict or {}}

    def finish_displayhook(self) -> None:
        """The value is complete."""


class EngineShell(InteractiveShell):
    """IPython without a terminal: all that a cell shows is kept for the reply. Made once, before the engines fork."""

    def __init__(self, **kwargs: Any) -> None:
        self.displayed: list[dict[str, Any]] = []
        self.result: dict[str, Any] | None = None
        self.failure: tuple[BaseException, list[str]] | None = None
        super().__init__(displayhook_class=_ResultHook, display_pub_class=_Display, **kwargs)

    def init_history(self) -> None:
        """Engines keep no history: a thousand of them would write one file."""
        from IPython.core.history import HistoryManager

        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)
        self.configurables.append(self.history_manager)

    def take_displayed(self) -> Sequence[dict[str, Any]]:
        """What was displayed since the last take."""
        if not self.displayed:
            return ()
        taken, self.displayed = self.displayed, []
        return taken

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        self.failure = (evalue, stb)

    def ask_exit(self) -> None:
        """`exit` in a cell must not end an engine that others use."""
        raise RuntimeError("a cell cannot end the engine; use the client to stop it")


class Lanes:
    """What one engine runs. Every `run_...` returns the frames of the outcome and never raises for the user's code."""

    def __init__(self, shell: EngineShell) -> None:
        self.namespace: dict[str, Any] = shell.user_ns
        self.unpacker = Unpacker(self.namespace)
        self._shell = shell
        self._stdout = Capture("<stdout>")
        self._stderr = Capture("<stderr>")
        sys.stdout, sys.stderr = self._stdout, self._stderr
        sys.stdin = _NoInput()
        namespace.bind(self.namespace)

    def run_call(self, function: Digest, frames: Sequence[Frame], blobs: Mapping[Digest, Any]) -> list[Frame]:
        """Call the function of this digest with the packed arguments."""
        started = time.time()
        try:
            call = self.unpacker.function(function, blobs.get(function))
            args, kwargs = self.unpacker.arguments(frames, blobs)
            value = call(*args, **kwargs)
        except BaseException as error:
            return self._failed(error, started)
        return self._succeeded(value, started)

    def run_cell(self, frames: Sequence[Frame]) -> list[Frame]:
        """Run a cell in IPython."""
        started = time.time()
        shell = self._shell
        shell.result, shell.failure = None, None
        try:
            cell = msgspec.msgpack.decode(frames[0], type=Cell)
            ran = shell.run_cell(cell.code, silent=cell.silent, store_history=not cell.silent)
        except BaseException as error:
            return self._failed(error, started)
        if shell.failure is not None:
            return self._failed(shell.failure[0], started, shell.failure[1])
        unshown = ran.error_before_exec or ran.error_in_exec  # of those that IPython prints without a traceback
        if unshown is not None:
            return self._failed(unshown, started)
        return self._succeeded(CellReply(shell.execution_count - 1, shell.result), started)

    def interrupted(self, error: KeyboardInterrupt) -> list[Frame]:
        """The outcome of code that an interrupt reached when it had just ended."""
        return self._failed(error, time.time())

    def _succeeded(self, value: Any, started: float) -> list[Frame]:
        return pack_outcome_value(
            value,
            started=started,
            ended=time.time(),
            stdout=self._stdout.take(),
            stderr=self._stderr.take(),
            outputs=self._shell.take_displayed(),
        )

    def _failed(self, error: BaseException, started: float, lines: list[str] | None = None) -> list[Frame]:
        return pack_outcome_error(
            error,
            started=started,
            ended=time.time(),
            stdout=self._stdout.take(),
            stderr=self._stderr.take(),
            traceback_lines=lines,
            outputs=self._shell.take_displayed(),
        )
