"""%px and its kin: lines and cells that run on the engines of a view.

The magics are ipyparallel's own class. What is said otherwise here: flags and targets are looked at before anything
runs, and who mistypes one is told which there are; Ctrl-C stops the engines and returns when they have stopped; names
are completed by an engine.

    rc[:].activate()          %px import numpy
                              %%px --targets 0:4 --out result
"""

from __future__ import annotations

import ast
import copy
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from signal import SIGINT
from typing import TYPE_CHECKING, Any

from ipyparallel.client.magics import NO_LAST_RESULT, ParallelMagics, exec_args, output_args
from ipyparallel.error import AlreadyDisplayedError
from IPython.core import magic_arguments
from IPython.core.error import UsageError
from IPython.core.magic import no_var_expand

from hiersched.client.px_completions import complete_from_engine
from hiersched.client.shell import current_shell
from hiersched.client.signals import signal_number
from hiersched.client.targets import describe_ids, resolve_targets
from hiersched.errors import CompositeError, RemoteError, UserError
from hiersched.limits import STOP_TIMEOUT_S

if TYPE_CHECKING:
    from argparse import Namespace

    from IPython.core.interactiveshell import ExecutionInfo

    from hiersched.client.direct_view import DirectView
    from hiersched.client.results import AsyncResult

_VERBOSE = magic_arguments.argument(
    "-v", action="store_const", const=True, dest="set_verbose", help="the same as --verbose"
)
_OUTPUT = magic_arguments.argument("--output", dest="save_name", type=str, help="the same as --out")
_LOCAL = magic_arguments.argument(
    "--local", action="store_const", const=True, dest="local", help="also run the cell here, beside the engines"
)


def activate(view: DirectView, suffix: str = "") -> None:
    """Register the magics of a view with IPython. Warns where there is none."""
    shell = current_shell()
    if shell is None:
        warnings.warn("%px and its kin work within IPython only", stacklevel=3)
        return
    shell.magics_manager.register(EngineMagics(shell, view, suffix))
    complete_from_engine(shell, view, suffix)


class EngineMagics(ParallelMagics):
    """The magics of one view.

    verbose: say where each cell runs. stream_output: show output while a cell runs. progress_after_seconds: when to
    show a progress bar, -1 never. signal_on_interrupt: what Ctrl-C sends to the engines; 0: nothing.
    """

    # --- the magics ---------------------------------------------------------------------------------------------------

    @magic_arguments.magic_arguments()
    @exec_args
    @_VERBOSE
    def pxconfig(self, line: str) -> None:
        """Set what %px and %%px do by default."""
        flags = self._flags(self.pxconfig, line)
        if flags.targets:
            self.view.targets = self._eval_target_str(flags.targets)
        if flags.block is not None:
            self.view.block = flags.block
        if flags.set_verbose is not None:
            self.verbose = flags.set_verbose
        if flags.stream is not None:
            self.stream_output = flags.stream
        if flags.signal_on_interrupt is not None:
            self.signal_on_interrupt = self._eval_signal_str(flags.signal_on_interrupt)
        if flags.progress_after_seconds is not None:
            self.progress_after_seconds = flags.progress_after_seconds

    @magic_arguments.magic_arguments("pxresult")
    @output_args
    @_OUTPUT
    def result(self, line: str = "") -> None:
        """Wait for the last %px command, and show what it printed and displayed."""
        flags = self._flags(self.result, line)
        if self.last_result is None:
            raise UsageError(NO_LAST_RESULT)
        if flags.save_name:
            self.shell.user_ns[flags.save_name] = self.last_result
            return
        _shown(self.last_result, flags.groupby)

    @no_var_expand
    def px(self, line: str = "") -> Any:
        """Run a line on the engines of the view."""
        return self.parallel_execute(line)

    @magic_arguments.magic_arguments("px")
    @exec_args
    @output_args
    @_VERBOSE
    @_OUTPUT
    @_LOCAL
    def cell_px(self, line: str = "", cell: str = "") -> AsyncResult | None:
        """Run the cell on the engines of the view."""
        flags = self._flags(self.cell_px, line)
        block = self.view.block if flags.block is None else flags.block
        number = flags.signal_on_interrupt
        with self._aside(flags):
            result = self.parallel_execute(
                cell,
                block=block and not flags.local,  # the engines work while the cell runs here
                groupby=flags.groupby,
                save_name=flags.save_name,
                stream_output=flags.stream,
                progress_after=flags.progress_after_seconds,
                signal_on_interrupt=None if number is None else self._eval_signal_str(number),
            )
        if flags.local:
            self.shell.run_cell(cell)
            if block:
                _shown(result, flags.groupby)
        return None if block else result

    # --- running ------------------------------------------------------------------------------------------------------

    def parallel_execute(
        self,
        cell: str,
        block: bool | None = None,
        groupby: str = "type",
        save_name: str | None = None,
        stream_output: bool | None = None,
        progress_after: float | None = None,
        signal_on_interrupt: str | int | None = None,
    ) -> AsyncResult | None:
        """Run `cell`; what %px, %%px and %autopx come down to. The AsyncResult where it does not block."""
        block = self.view.block if block is None else block
        stream = self.stream_output if stream_output is None else stream_output
        after = self.progress_after_seconds if progress_after is None else progress_after
        number = self.signal_on_interrupt if signal_on_interrupt is None else signal_on_interrupt
        if self.verbose:
            print(f"{'Parallel' if block else 'Async parallel'} execution on engine(s): {self._shown_targets()}")
        try:
            result = self.view.execute(cell, silent=False, block=False)
        except KeyboardInterrupt:  # the cell may be on its way
            if block:
                self._signal(number)
            raise
        self.last_result = result
        if save_name:
            self.shell.user_ns[save_name] = result
        if not block:
            return result
        ended = self._watch(result, after, number, stream=stream)
        if not stream and result.done():
            result.display_outputs(groupby)
        if ended:
            _raise_errors(result, displayed=stream)
        return None

    def _watch(self, result: AsyncResult, progress_after: float, number: str | int | None, *, stream: bool) -> bool:
        """Wait for the engines, and show what they print. False if they were interrupted."""
        struck = False
        try:
            with result.stream_output() if stream else nullcontext():
                try:
                    _await(result, progress_after)
                except KeyboardInterrupt:  # handled in here, so that the engines' last words are seen
                    struck = True
                    self._interrupt(result, number)
        except KeyboardInterrupt:
            if struck:  # and again, while the engines were waited for
                raise
            struck = True
            self._interrupt(result, number)
        return not struck

    def _interrupt(self, result: AsyncResult, number: str | int | None) -> None:
        """Pass an interrupt on to the engines, and wait until they have stopped, or for STOP_TIMEOUT_S at most.

        Engines that are busy with something else do not start the cell any more.
        """
        if number is None:
            raise KeyboardInterrupt
        if number and signal_number(number) == SIGINT:
            result.cancel()
        if self._signal(number) and not result.wait(timeout=STOP_TIMEOUT_S):
            print(f"{result!r} goes on, {STOP_TIMEOUT_S:.0f} s after the signal", file=sys.stderr)

    def _signal(self, number: str | int | None) -> bool:
        """Tell the engines; False if they are to go on."""
        print(f"Received Keyboard Interrupt. Sending signal {number} to engines...", file=sys.stderr)
        if not number:
            return False
        self.view.client.send_signal(number, targets=self.view.targets, block=True)
        return True

    # --- %autopx ------------------------------------------------------------------------------------------------------

    def _enable_autopx(self) -> None:
        """Send what is typed to the engines, cells that await something included."""
        super()._enable_autopx()
        self.shell.events.register("pre_run_cell", self._note_cell)

    def _disable_autopx(self) -> None:
        """What is typed runs here again."""
        if self._autopx:
            self.shell.events.unregister("pre_run_cell", self._note_cell)
        super()._disable_autopx()

    def _note_cell(self, cell: ExecutionInfo) -> None:
        self._px_cell = cell.raw_cell

    def pxrun_nodes(self, *args: Any, **kwargs: Any) -> bool:
        """IPython's runner of cells, replaced: they run on the engines, but for %autopx. True if it failed."""
        if re.match(rf"\s*%?autopx{re.escape(self.suffix)}\s*$", self._px_cell):
            self._disable_autopx()
            return False
        try:
            self.parallel_execute(self._px_cell)
        except Exception:
            self.shell.showtraceback()
            return True
        return False

    # --- flags --------------------------------------------------------------------------------------------------------

    def _flags(self, magic: Callable[..., Any], line: str) -> Namespace:
        """The flags in `line`. Raises UsageError that names the valid ones."""
        try:
            return magic_arguments.parse_argstring(magic, line)
        except UsageError as error:
            options = [option for action in magic.parser._actions for option in action.option_strings]
            raise UsageError(f"{error}. The flags are {', '.join(options)}") from None

    @contextmanager
    def _aside(self, flags: Namespace) -> Iterator[None]:
        """The targets and the verbosity of one cell, for as long as it runs."""
        before = self.verbose
        changes = {"targets": self._eval_target_str(flags.targets)} if flags.targets else {}
        with self.view.temp_flags(**changes):
            self.verbose = before if flags.set_verbose is None else flags.set_verbose
            try:
                yield
            finally:
                self.verbose = before

    def _eval_target_str(self, ts: str) -> Any:
        """'all', an id, a slice of the ids, or ids with commas. Raises UsageError for anything else."""
        text = ts.strip().strip("'\"")
        if text == "all":
            return text
        ids = self.view.client.ids
        try:
            if ":" in text:
                targets = ids[slice(*(int(part) if part.strip() else None for part in text.strip("[]").split(":")))]
            else:
                targets = ast.literal_eval(text)
            listed = [targets] if isinstance(targets, int) else list(targets)
        except (ValueError, TypeError, SyntaxError):
            listed = [None]
        if not all(isinstance(target, int) for target in listed):
            raise UsageError(
                f"{ts!r} names no engines: give 'all', an id, ids as in 0,2 or a slice as in 0:4; "
                f"the engines are {describe_ids(ids)}"
            )
        try:
            resolve_targets(listed, ids)
        except UserError as error:
            raise UsageError(str(error)) from None
        return targets if isinstance(targets, int) else listed

    def _eval_signal_str(self, sig_str: str) -> str | int:
        """A signal's name or number; 0 is none. Raises UsageError for one that there is not."""
        try:
            number = signal_number(sig_str) if sig_str != "0" else 0
        except UserError as error:
            raise UsageError(str(error)) from None
        return number if sig_str.isdigit() else sig_str

    def _shown_targets(self) -> str:
        targets = self.view.targets
        if isinstance(targets, list) and len(targets) > 10:
            return f"[{', '.join(map(str, targets[:4]))}, ..., {', '.join(map(str, targets[-4:]))}]"
        return str(targets)


class DisplayedErrors(CompositeError, AlreadyDisplayedError):
    """The errors of engines, of which no more is to be said than how many there are: they were shown as they came."""

    def __init__(self, error: CompositeError) -> None:
        Exception.__init__(self, error.msg)  # both bases would take other arguments
        vars(self).update(vars(error))
        self.original_error = error
        self.n = len(error.errors)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.original_error,)

    def __str__(self) -> str:
        return f"{self.n} errors"

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """How many there are; excid: that one in full."""
        return [str(self)] if excid is None else super().render_traceback(excid)


def _await(result: AsyncResult, progress_after: float) -> None:
    """Wait for a result, under a progress bar if it takes more than so many seconds; negative: under none."""
    if progress_after > 0:
        result.wait_unshown(progress_after)
    if not result.done():
        if progress_after >= 0:
            result.wait_interactive()
        else:
            result.wait_unshown()


def _shown(result: AsyncResult, groupby: str) -> None:
    """Wait for a result, show its outputs, and raise its errors."""
    result.wait()
    result.display_outputs(groupby)
    _raise_errors(result, displayed=False)


def _raise_errors(result: AsyncResult, *, displayed: bool) -> None:
    """Raise what the engines raised; in short where it was shown as it came."""
    if result.successful():  # nobody asks for the replies, which would have to be unpacked
        return
    try:
        result.get()
    except CompositeError as error:
        if displayed:
            raise DisplayedErrors(error) from None
        raise
    except RemoteError as error:
        if displayed:
            short = copy.copy(error)
            short.traceback_lines = []
            raise short from None
        raise
