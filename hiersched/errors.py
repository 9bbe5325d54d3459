"""Every exception of hiersched, in one tree by whose fault it is.

`UserError`: what was asked cannot be done as asked; nothing ran. `TaskError`: the user's own code, or the engine under
it, failed; the text says whether the code may have run. `PeerError`: another process is gone, is not ours or speaks
another language. `Bug`: our fault; please report it. Each message says the cause and what to do.
"""

from __future__ import annotations

from typing import Any


class HierschedError(Exception):
    """Base of all errors raised by hiersched."""


class Bug(HierschedError):
    """An invariant of hiersched was broken. Nothing the caller did should lead here."""


# --- the caller asked for something that cannot be done ---------------------------------------------------------------


class UserError(HierschedError):
    """The request cannot be carried out as asked. Nothing ran."""


class PackError(UserError, TypeError):
    """A function, an argument or a result cannot be pickled. Names the object and where it sits."""


class UnpackError(UserError):
    """A call on its engine, or a result at its client, cannot be rebuilt: say, a module is missing there. Names it."""


class UnknownEngine(UserError, IndexError):
    """An engine id that does not exist, or no longer exists. Names the valid ids."""


class NoEngines(UserError):
    """The call needs at least one engine, and the cluster has none."""


class ConnectionFileError(UserError):
    """A connection file is missing, unreadable, stale, or belongs to another cluster."""


class CapacityError(UserError):
    """More engines than this machine's descriptors, processes or memory allow. Says how many would fit."""


class PlanError(UserError, ValueError):
    """No tree satisfies the hosts, slots and overrides given."""


# --- the user's code or the engine under it failed --------------------------------------------------------------------


class TaskError(HierschedError):
    """A call failed on an engine."""


class RemoteError(TaskError):
    """The user's code raised on an engine. It did run.

    ename, evalue: name and text of the remote exception; traceback: its formatted lines; engine_id: the engine's rank.
    pickled: the exception itself, if it could be pickled; data.outcomes.original_of rebuilds it.
    """

    pickled = b""

    def __init__(
        self,
        ename: str,
        evalue: str,
        traceback: list[str],
        engine_id: int | None = None,
    ) -> None:
        super().__init__(ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback = traceback
        self.engine_id = engine_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ename, self.evalue, self.traceback, self.engine_id), vars(self)

    def __str__(self) -> str:
        where = "" if self.engine_id is None else f"[engine {self.engine_id}] "
        return f"{where}{self.ename}: {self.evalue}"

    def render_traceback(self) -> list[str]:
        """The remote traceback's lines; IPython shows these instead of the local ones."""
        return list(self.traceback) or [str(self)]

    _render_traceback_ = render_traceback  # the name that IPython asks for

    def print_traceback(self) -> None:
        """Print the remote traceback."""
        print("\n".join(self.render_traceback()))


class EngineLost(TaskError):
    """The engine ended while it held this task.

    It may have run. Retried only if the task was marked repeatable; otherwise check its side effects first.
    """

    engine_id: int | None = None


class BlobLost(TaskError):
    """Data that a call refers to is no longer held anywhere. The call did not run; submit it again."""


class AnswerLost(TaskError):
    """The call ran, and its answer was lost together with a scheduler. Check its side effects before calling again."""


class TaskCancelled(TaskError):
    """The task was cancelled before it started. It did not run."""


class TaskInterrupted(TaskCancelled):
    """The task was cancelled while it ran, and interrupted. It ran in part."""


class DependencyError(TaskError):
    """What the task depends on failed, is unknown, or can never be. It did not run."""


class DependencyTimeout(DependencyError, TimeoutError):
    """What the task depends on was not there within its timeout. It did not run."""


class UnmetDependency(TaskError):
    """Raised on an engine, by user code or by `depend` and `require`: this call should run on another engine."""


class CompositeError(TaskError):
    """Some engines of a call failed. The good results are kept beside the errors.

    errors: {engine id: TaskError}; results: one item per target, in target order, None where it failed.
    """

    def __init__(self, message: str, errors: dict[int, Exception], results: list[Any] | None = None) -> None:
        super().__init__(message)
        self.errors = errors
        self.results = results

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.errors, self.results), vars(self)

    def __str__(self) -> str:
        lines = [str(self.args[0])]
        shown = 4
        for error in list(self.errors.values())[:shown]:
            lines.append(f"  {error}")
        if len(self.errors) > shown:
            lines.append(f"  ... and {len(self.errors) - shown} more")
        return "\n".join(lines)

    def render_traceback(self) -> list[str]:
        """The first error's remote traceback under a summary line; IPython shows these."""
        lines = [str(self)]
        for error in list(self.errors.values())[:1]:
            render = getattr(error, "render_traceback", None)
            lines.extend(render() if render else [str(error)])
        return lines

    _render_traceback_ = render_traceback


# --- another process is gone, or is not ours --------------------------------------------------------------------------


class PeerError(HierschedError):
    """Another process is gone, unauthorised, or speaks another protocol."""


class ProtocolError(PeerError):
    """A malformed, oversized or unknown message. The receiver dropped and counted it."""


class VersionMismatch(PeerError):
    """The peer speaks another version of the protocol. Install the same hiersched on both sides."""


class NotAuthorised(PeerError):
    """The peer does not hold this cluster's key. Use the connection file that the cluster wrote."""


class ClusterLost(PeerError):
    """The root scheduler is gone. Calls in flight may have run; start a new cluster."""


class StartError(PeerError):
    """A process of the cluster did not start in time, or died while starting. Holds the end of its log."""
