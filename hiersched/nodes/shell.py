"""IPython on an engine: a shell without a terminal, whose displays, widgets and figures go to the transcript.

The shell is made once, before the engines fork; each engine gives it the transcript it is to use.
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import comm
import comm.base_comm
from IPython.core import page
from IPython.core.compilerop import CachingCompiler
from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.error import UsageError
from IPython.core.interactiveshell import ExecutionResult, InteractiveShell
from traitlets import Type

from hiersched.data.outputs import Clear, Comm, Shown
from hiersched.data.tracebacks import format_traceback
from hiersched.nodes import datapub
from hiersched.nodes.transcript import Transcript

_comms = comm.get_comm_manager  # before anybody could replace it
_INLINE_BACKEND = "module://matplotlib_inline.backend_inline"  # figures are displayed, as in a notebook

_ONLY_PARSE = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT

_CELL_NUMBER = re.compile(r"(Cell(?:\s|\x1b\[[\d;]*m)*In ?\[)\d+(\])")  # and the colours between


class _Display(DisplayPublisher):
    """Adds what code displays to the transcript."""

    def publish(  # type: ignore[override]
        self,
        data: dict[str, Any],
        metadata: dict[str, Any] | None = None,
        source: object = None,
        *,
        transient: dict[str, Any] | None = None,
        update: bool = False,
        **kwargs: Any,
    ) -> None:
        """Display a mime bundle. transient: where `display_id` is; update: replace what has that id."""
        self._validate_data(data, metadata)
        self.shell.transcript.add(Shown(data, metadata or {}, transient or {}, update))

    def clear_output(self, wait: bool = False) -> None:
        """Have all that was shown so far go; wait: when the next output comes."""
        self.shell.transcript.add(Clear(wait))


class _ResultHook(DisplayHook):
    """Keeps the value of a cell's last expression, formatted."""

    def write_output_prompt(self) -> None:
        """Nothing is printed here: the client shows it."""

    def write_format_data(self, format_dict: dict[str, Any], md_dict: dict[str, Any] | None = None) -> None:
        """Keep the formats of the value."""
        self.shell.result = {"data": format_dict, "metadata": md_dict or {}}

    def finish_displayhook(self) -> None:
        """The value is complete."""


class EngineComm(comm.base_comm.BaseComm):
    """The engine's end of a comm: its messages go with the output of the code that sends them."""

    transcript: Transcript  # of this process

    def publish_msg(
        self,
        msg_type: str,
        data: dict[str, Any] | None = None,
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[Any] | None = None,
        **keys: Any,
    ) -> None:
        """Send a message to the other end."""
        content = {"data": data or {}, "comm_id": self.comm_id, **keys}
        self.transcript.add(Comm(msg_type, content, metadata or {}, [bytes(buffer) for buffer in buffers or ()]))


class _Compiler(CachingCompiler):
    """parsed: a cell and its tree, which need not be parsed again."""

    parsed: tuple[str, ast.Module] | None = None

    def ast_parse(self, source: str, filename: str = "<unknown>", symbol: str = "exec") -> ast.Module:
        """The tree of a cell."""
        parsed, self.parsed = self.parsed, None
        if parsed is not None and symbol == "exec" and source in (parsed[0], f"{parsed[0]}\n"):
            return parsed[1]
        return super().ast_parse(source, filename, symbol)


class EngineShell(InteractiveShell):
    """IPython without a terminal: all that a cell shows is kept.

    result: the last expression of the cell that ran last; failure: how it failed, with the lines of the traceback.
    """

    compiler_class = Type(_Compiler)

    def __init__(self, **kwargs: Any) -> None:
        self.transcript = Transcript()
        self.result: dict[str, Any] | None = None
        self.failure: tuple[BaseException, list[str]] | None = None
        os.environ.setdefault("MPLBACKEND", _INLINE_BACKEND)
        super().__init__(displayhook_class=_ResultHook, display_pub_class=_Display, **kwargs)
        self.set_hook("show_in_pager", page.as_hook(page.display_page), 99)  # `name?` is displayed, not paged
        self.events.register("pre_execute", self._use_comms)
        self.show_to(self.transcript)
        datapub.stand_in()

    def warm_up(self) -> None:
        """Import what IPython leaves until its first cell and its first traceback, so that no engine has to."""
        self.run_cell("None", silent=True)
        self.run_cell("1 / 0", silent=True)
        self.failure = None

    def show_to(self, transcript: Transcript) -> None:
        """Add to this transcript from now on."""
        self.transcript = EngineComm.transcript = transcript
        self._use_comms()

    def _use_comms(self) -> None:
        """Make widgets use our comms; code that imports a kernel puts its own there."""
        comm.create_comm, comm.get_comm_manager = EngineComm, _comms

    def init_history(self) -> None:
        """Engines keep no history: a thousand of them would write one file."""
        from IPython.core.history import HistoryManager

        self.history_manager = HistoryManager(shell=self, parent=self, enabled=False)
        self.configurables.append(self.history_manager)

    def run_cell(self, *args: Any, **kwargs: Any) -> ExecutionResult:
        """Run a cell. What it showed and raised is not remembered here: the client has it."""
        try:
            return super().run_cell(*args, **kwargs)
        finally:
            for kept in ("outputs", "exceptions"):  # since IPython 9
                getattr(self.history_manager, kept, {}).clear()

    def _tee(self, channel: str) -> AbstractContextManager[None]:
        """IPython would keep a copy of all that is printed, at a multiple of what printing costs."""
        return nullcontext()

    def transform_cell(self, raw_cell: str) -> str:
        """The cell as Python. What is Python already is left alone: IPython's look at it costs more than running it."""
        if self._is_python(raw_cell):
            return raw_cell if raw_cell.endswith("\n") else f"{raw_cell}\n"
        return super().transform_cell(raw_cell)

    def should_run_async(self, raw_cell: str, **kwargs: Any) -> bool:
        """Whether a cell awaits something at its top level: not if it does not say so."""
        return ("await" in raw_cell or "async" in raw_cell) and bool(super().should_run_async(raw_cell, **kwargs))

    def _is_python(self, cell: str) -> bool:
        """Whether IPython would leave a cell alone too: no magic, no prompt that was pasted along, no magic's name."""
        if self.input_transformers_post or cell[:1].isspace() or cell.startswith("In"):
            return False
        try:
            tree = compile(cell, "<cell>", "exec", _ONLY_PARSE, dont_inherit=True)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
        self.compile.parsed = cell, tree
        body = tree.body
        return not (len(body) == 1 and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Name))

    def enable_gui(self, gui: str | None = None) -> None:
        """Only figures that are displayed: engines have no screen. Raises UsageError for any toolkit."""
        if gui not in (None, "inline", "agg"):
            raise UsageError(f"an engine has no screen for {gui!r}; figures are shown inline")

    def showtraceback(self, exc_tuple: tuple[Any, ...] | None = None, *args: Any, **kwargs: Any) -> None:
        """Keep how the cell failed. An interrupt is not dressed up: hundreds of engines are to stop at once."""
        error = sys.exc_info()[1] if exc_tuple is None else exc_tuple[1]
        if isinstance(error, KeyboardInterrupt):
            self.failure = (error, format_traceback(error))
        else:
            super().showtraceback(exc_tuple, *args, **kwargs)

    def _showtraceback(self, etype: type, evalue: BaseException, stb: list[str]) -> None:
        """Keep the traceback. How many cells this engine has run would only keep equal errors of others apart."""
        self.failure = (evalue, [_CELL_NUMBER.sub(r"\1*\2", line) for line in stb])

    def ask_exit(self) -> None:
        """`exit` in a cell must not end an engine that others use."""
        raise RuntimeError("a cell cannot end the engine; use the client to stop it")
