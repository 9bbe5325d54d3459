"""The two ways an engine runs code, both in the engine's one user namespace.

The call lane runs a function on arguments and packs what it returns: the hot path, with no Jupyter message in it. The
cell lane runs code as a notebook cell would, through IPython: magics, `await`, rich display, tracebacks. What the code
prints and displays is in the transcript; what of it did not go ahead goes with the outcome.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from hiersched.data import namespace
from hiersched.data.applied import Applied, pack_applied
from hiersched.data.cells import Cell, CellReply, JupyterReply, pack_jupyter_reply
from hiersched.data.outcomes import (
    PackedOutcome,
    code_of,
    pack_outcome_buffers,
    pack_outcome_error,
    pack_outcome_value,
)
from hiersched.data.pickles import Buffer
from hiersched.data.serialize import Unpacker
from hiersched.nodes.shell import EngineShell
from hiersched.nodes.surroundings import Surroundings, end_fork
from hiersched.nodes.transcript import Transcript
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import RAISED, Digest, TaskId


class Lanes:
    """What one engine runs. Every `run_...` returns an outcome, and never raises for the user's code.

    transcript: what the code prints and displays. surroundings: what it finds around it. halts: whether what waits
    behind the last cell was not to run if that failed.
    """

    def __init__(self, shell: EngineShell) -> None:
        self.namespace: dict[str, Any] = shell.user_ns
        self.unpacker = Unpacker(self.namespace)
        self.transcript = Transcript()
        self.surroundings = Surroundings(self.transcript)
        self.halts = False
        self._shell = shell
        shell.show_to(self.transcript)
        self._streams = self.surroundings.streams
        sys.stdout, sys.stderr, sys.stdin = self._streams
        namespace.bind(self.namespace)

    def run_call(
        self,
        function: Digest,
        frames: Sequence[Frame],
        blobs: Mapping[Digest, Any],
        results: Mapping[TaskId, Sequence[Frame]] | None = None,
    ) -> PackedOutcome:
        """Call the function of this digest with the packed arguments. results: of tasks whose values are among them."""
        started = time.time()
        try:
            call = self.unpacker.function(function, blobs.get(function))
            if type(call) is Applied:
                return self._apply(call, frames, started)
            args, kwargs = self.unpacker.arguments(frames, blobs, results)
            value = call(*args, **kwargs)
        except BaseException as error:
            return self._failed(error, started)
        return self._succeeded(value, started)

    def _apply(self, applied: Applied, frames: Sequence[Frame], started: float) -> PackedOutcome:
        """Call an old client's function. What its unpacking or the function raises is the caller's to report."""
        function, args, kwargs = applied.bind(frames, self.namespace)
        return self._gave(pack_applied(function(*args, **kwargs)), started)

    def run_cell(self, frames: Sequence[Frame]) -> PackedOutcome:
        """Run a cell in IPython."""
        started = time.time()
        shell = self._shell
        shell.result, shell.failure = None, None
        self.halts = False
        try:
            cell = msgspec.msgpack.decode(frames[0], type=Cell)
            self.halts = cell.halts
            ran = shell.run_cell(cell.code, silent=cell.silent, store_history=not cell.silent)
        except BaseException as error:
            return self._failed(error, started)
        if shell.failure is not None:
            return self._failed(shell.failure[0], started, shell.failure[1])
        unshown = ran.error_before_exec or ran.error_in_exec  # of those that IPython prints without a traceback
        if unshown is not None:
            return self._failed(unshown, started)
        if cell.jupyter:
            expressions = shell.user_expressions(cell.expressions) if cell.expressions else {}
            given = JupyterReply(shell.execution_count - 1, shell.result, expressions)
            return self._gave([pack_jupyter_reply(given)], started)
        reply = CellReply(shell.execution_count - 1, shell.result)
        return self._succeeded(reply, started, plain=shell.result is None)

    def failed(self, error: BaseException) -> PackedOutcome:
        """The outcome of code that failed when it had just ended: it was interrupted, or its result is too large."""
        return self._failed(error, time.time())

    def _succeeded(self, value: Any, started: float, *, plain: bool = False) -> PackedOutcome:
        self._put_back(None)
        if not self.transcript.used:
            return pack_outcome_value(value, started=started, ended=time.time(), plain=plain)
        printed = self.transcript.finish()
        try:
            return pack_outcome_value(value, started=started, ended=time.time(), printed=printed, plain=plain)
        except BaseException:  # an interrupt
            self.transcript.put_back(printed)
            raise

    def _gave(self, buffers: Sequence[Buffer], started: float) -> PackedOutcome:
        """The outcome of code that gives buffers in the place of a value."""
        self._put_back(None)
        printed = self.transcript.finish() if self.transcript.used else []
        try:
            return pack_outcome_buffers(buffers, started=started, ended=time.time(), printed=printed)
        except BaseException:  # an interrupt
            self.transcript.put_back(printed)
            raise

    def _failed(self, error: BaseException, started: float, lines: list[str] | None = None) -> PackedOutcome:
        self._put_back(error)
        ended = time.time()
        printed = self.transcript.finish() if code_of(error) == RAISED else ()  # of others no outcome travels
        try:
            return pack_outcome_error(error, started=started, ended=ended, printed=printed, traceback_lines=lines)
        except KeyboardInterrupt:
            self.transcript.put_back(printed)
            raise
        except Exception as second:  # the exception is the user's: it may fail at anything
            lines = [f"{type(error).__name__}: it cannot be shown: {type(second).__name__}"]
            return pack_outcome_error(error, started=started, ended=ended, printed=printed, traceback_lines=lines)

    def _put_back(self, error: BaseException | None) -> None:
        """What the code may have changed; and if it has forked, end the process that is not the engine."""
        if self.surroundings.forked:
            end_fork(error)
        sys.stdout, sys.stderr, sys.stdin = self._streams
