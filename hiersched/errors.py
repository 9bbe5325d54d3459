"""Every exception of hiersched, in one tree by whose fault it is.

`UserError`: what was asked cannot be done as asked; nothing ran. `TaskError`: the user's own code, or the engine under
it, failed; the text says whether the code may have run. `PeerError`: another process is gone, is not ours or speaks
another language. `Bug`: our fault; please report it. Each message says the cause and what to do.
"""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType, ModuleType
from typing import Any, ClassVar, NoReturn, Self


class HierschedError(Exception):
    """Base of all errors raised by hiersched.

    kin: classes of ipyparallel.error that code written for ipyparallel catches in the place of this one. Where that
    module is loaded they are bases of ours, so that it does catch them; it is not loaded for their sake.
    """

    kin: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        theirs = sys.modules.get("ipyparallel.error")
        if theirs is not None and not issubclass(CompositeError, getattr(theirs, "CompositeError", Exception)):
            _meet(theirs)
        return super().__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        Exception.__init__(self, *args)  # as of any exception: their classes, and Python's, have rules of their own

    __str__ = Exception.__str__
    __repr__ = Exception.__repr__


def _meet(theirs: ModuleType) -> None:
    """Make the classes that are our errors' kin bases of theirs. It changes nothing to do it twice."""
    met = [HierschedError]
    for kind in met:
        met += kind.__subclasses__()
        if "kin" in vars(kind):
            kin = (getattr(theirs, name) for name in kind.kin)
            kind.__bases__ = tuple(dict.fromkeys((*kind.__bases__, *kin)))


class Bug(HierschedError):
    """An invariant of hiersched was broken. Nothing the caller did should lead here."""


class Remote:
    """What code that knows only ipyparallel asks of errors that come from elsewhere: it tells them apart by name.

    ename, evalue: its name there, and its text; of a RemoteError, those of the exception that was raised. traceback:
    the remote one as text, traceback_lines: its lines; empty where no code of the user's raised anything.
    """

    kin: tuple[str, ...]
    engine_id: int | None = None
    method = "apply"
    traceback_lines: Sequence[str] = ()

    @property
    def ename(self) -> str:
        """The name of the first of its kin, or else its own."""
        return self.kin[0] if self.kin else type(self).__name__

    @property
    def evalue(self) -> str:
        """Its text."""
        return str(self)

    @property
    def traceback(self) -> str:
        """The remote traceback; its last line is the name and the text."""
        return "\n".join(self.traceback_lines)

    @property
    def engine_info(self) -> dict[str, Any]:
        """The engine's id and name, and the method, as ipyparallel gives them; empty where there was no engine."""
        if self.engine_id is None:
            return {}
        return {"engine_id": self.engine_id, "engine_uuid": f"engine-{self.engine_id}", "method": self.method}

    def render_traceback(self) -> list[str]:
        """The lines that IPython shows instead of the local traceback."""
        return [f"{type(self).__name__}: {self}"]

    def _render_traceback_(self) -> list[str]:
        return self.render_traceback()

    def print_traceback(self, excid: int | None = None) -> None:
        """Print what `render_traceback` gives. excid: as for CompositeError; here there is but one."""
        print("\n".join(self.render_traceback()))


# --- the caller asked for something that cannot be done ---------------------------------------------------------------


class UserError(HierschedError):
    """The request cannot be carried out as asked. Nothing ran."""


class NotOffered(UserError, AttributeError):
    """A name of ipyparallel's that has no meaning here. Says what to use instead."""


class PackError(UserError, TypeError):
    """A function, an argument or a result cannot be pickled. Names the object and where it sits."""


class UnpackError(UserError):
    """A call on its engine, or a result at its client, cannot be rebuilt: say, a module is missing there. Names it."""


class UnknownEngine(UserError, IndexError):
    """An engine id that does not exist, or no longer exists. Names the valid ids.

    engine_id, reason: of a call that was sent there, the engine's rank and what the scheduler said.
    """

    engine_id: int | None = None
    reason: str = ""


class UnknownEngineSet(UserError, KeyError):
    """An id of engines started together that does not exist. Names the valid ones."""


class UnknownTask(Remote, UserError, KeyError, IndexError):
    """An id, or a place in the history, of a call or task that never was one, is of another session, or ended too long
    ago. Says which, and names the latest there are.
    """

    kin = ("RemoteError",)
    ename = "KeyError"  # the hub's words for it


class UnknownDependency(UnknownTask):
    """What a task is to wait for is no task of this session's. The task was not sent."""

    kin = ("InvalidDependency",)
    ename = "InvalidDependency"


class UnknownSession(UserError, KeyError):
    """The id of a session that does not exist. Names those that can be joined."""


class ResultDropped(UnknownTask):
    """The call has ended and its result is gone: it is kept only as long as an AsyncResult of it."""


class NoEngines(UserError):
    """The call needs at least one engine, and the cluster has none."""

    kin = ("NoEnginesRegistered",)


class ConnectionFileError(UserError):
    """A connection file is missing, unreadable, stale, or belongs to another cluster."""


class CapacityError(UserError):
    """More engines than this machine's descriptors, processes or memory allow. Says how many would fit."""


class PlanError(UserError, ValueError):
    """No tree satisfies the hosts, slots and overrides given."""


# --- the user's code or the engine under it failed --------------------------------------------------------------------


class TaskError(Remote, HierschedError):
    """A call failed on an engine, or on the way there."""


class RemoteError(TaskError):
    """The user's code raised on an engine. It did run.

    ename, evalue: name and text of the remote exception; engine_id: the engine's rank; method: 'apply' or 'execute'.
    pickled: the exception itself, if it could be pickled; data.outcomes.original_of rebuilds it.
    """

    kin = ("RemoteError",)
    ename = evalue = ""
    pickled = b""

    def __init__(
        self,
        ename: str,
        evalue: str,
        traceback: Sequence[str],
        engine_id: int | None = None,
    ) -> None:
        """traceback: its formatted lines."""
        Exception.__init__(self, ename, evalue)
        self.ename = ename
        self.evalue = evalue
        self.traceback_lines = traceback
        self.engine_id = engine_id

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.ename, self.evalue, self.traceback_lines, self.engine_id), vars(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._where()}{self.ename}({self.evalue})>"

    def __str__(self) -> str:
        return f"{self._where()}{self.ename}: {self.evalue}"

    def _where(self) -> str:
        return "" if self.engine_id is None else f"[engine {self.engine_id}] "

    def render_traceback(self) -> list[str]:
        """The engine, and the remote traceback's lines; IPython shows these instead of the local ones."""
        if not self.traceback_lines:
            return [str(self)]
        return [*filter(None, [self._where().rstrip()]), *self.traceback_lines]


class EngineLost(TaskError):
    """The engine ended while it held this task.

    It may have run. Retried only if the task was marked repeatable; otherwise check its side effects first.
    engine_id: the engine's rank; reason: how it ended.
    """

    kin = ("EngineError", "RemoteError")
    reason: str = ""


class BlobLost(TaskError):
    """Data that a call refers to is no longer held anywhere. The call did not run; submit it again."""

    kin = ("EngineError", "RemoteError")


class AnswerLost(TaskError):
    """The call ran, and its answer was lost together with a scheduler. Check its side effects before calling again."""

    kin = ("EngineError", "RemoteError")


class TaskCancelled(TaskError):
    """The task was cancelled before it started. It did not run."""

    kin = ("TaskAborted",)


class TaskInterrupted(TaskCancelled):
    """The task was cancelled while it ran, and interrupted. It ran in part."""


class DependencyError(TaskError):
    """What the task depends on failed, is unknown, or can never be. It did not run."""

    kin = ("ImpossibleDependency", "RemoteError")


class DependencyTimeout(DependencyError, TimeoutError):
    """What the task depends on was not there within its timeout. It did not run."""

    kin = ("TaskTimeout",)


class UnmetDependency(TaskError):
    """Raised on an engine, by user code or by `depend` and `require`: this call should run on another engine."""

    kin = ("ImpossibleDependency", "RemoteError")


class QuorumNotReached(TaskError, TimeoutError):
    """Too few engines answered in time; the call still runs on the others. Names them.

    quorum: what is there: results, errors and stragglers, as `AsyncResult.quorum` gives them.
    """

    quorum: Any = None


class CompositeError(TaskError):
    """Some parts of a call failed. The good results are kept beside the errors.

    errors: {engine id: error}, or of a map {item's position: error}, where `unit` is 'item '; results: one for each
    part in their order, None where it failed. Equal errors are shown once, with all their engines; of many different
    ones, the first `tb_limit`.
    """

    kin = ("CompositeError",)
    tb_limit = 4

    def __init__(
        self, message: str, errors: dict[int, Exception], results: list[Any] | None = None, unit: str = ""
    ) -> None:
        super().__init__(message)
        self.msg = message
        self.errors = errors
        self.results = results
        self.unit = unit

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.msg, self.errors, self.results, self.unit), vars(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.msg!r}, {len(self.errors)} errors)"

    def __str__(self) -> str:
        groups = list(self._groups(gist_of).items())
        lines = [f"{self._label(parts)} {gist}" for gist, parts in groups[: self.tb_limit]]
        return "\n".join([self.msg, *lines, *self._rest(groups)])

    @property
    def elist(self) -> list[tuple[str, str, str, dict[str, Any]]]:
        """(name, text, traceback, engine) of each error, as ipyparallel has them."""
        return [_as_tuple(part, error) for part, error in self.errors.items()]

    def render_traceback(self, excid: int | None = None) -> list[str]:
        """Each different traceback once, under the engines it is of; IPython shows these lines.

        excid: only that of the error in this place of `elist`. Raises IndexError if there is none.
        """
        if excid is not None:
            part, error = self._entry(excid)
            return [self._heading([part]), *_traceback_of(error)]
        groups = list(self._groups(lambda error: "\n".join(_traceback_of(error))).items())
        lines = [self.msg]
        for text, parts in groups[: self.tb_limit]:
            lines += ["", self._heading(parts), *text.split("\n")]
        rest = self._rest(groups)
        return [*lines, "", *rest] if rest else lines

    def print_traceback(self, excid: int | None = None) -> None:
        """Print what `render_traceback` gives."""
        print("\n".join(self.render_traceback(excid)))

    def raise_exception(self, excid: int = 0) -> NoReturn:
        """Raise the error in this place of `elist`. Raises IndexError if there is none."""
        raise self._entry(excid)[1]

    def _entry(self, excid: int) -> tuple[int, Exception]:
        listed = list(self.errors.items())
        if not -len(listed) <= excid < len(listed):
            raise IndexError(f"there is no exception {excid}: there are {len(listed)}")
        return listed[excid]

    def _groups(self, key: Callable[[Exception], str]) -> dict[str, list[int]]:
        """The parts whose errors are equal by `key`."""
        groups: dict[str, list[int]] = {}
        for part, error in self.errors.items():
            groups.setdefault(key(error), []).append(part)
        return groups

    def _label(self, parts: Iterable[int]) -> str:
        return f"[{self.unit}{ranges_of(parts)}]"

    def _heading(self, parts: list[int]) -> str:
        """What stands above a traceback: '[0-62:execute]:'; items of a map are all of one method."""
        method = "" if self.unit == "item " else f":{getattr(self.errors[parts[0]], 'method', 'apply')}"
        return f"[{self.unit}{ranges_of(parts)}{method}]:"

    def _rest(self, groups: list[tuple[str, list[int]]]) -> list[str]:
        """A line about those that are not shown, if there are any; of several calls, about those that are equal too."""
        parts = [part for _, group in groups[self.tb_limit :] for part in group]
        if not parts and self.unit == "part " and len(self.errors) > self.tb_limit:
            engines = {error.engine_id for error in self.errors.values() if isinstance(error, TaskError)}
            where = ranges_of(engine for engine in engines if engine is not None)
            return [f"... {len(self.errors) - len(groups)} more exceptions, equal to these; engines: {where}"]
        if not parts:
            return []
        names = dict.fromkeys(_name_of(self.errors[part]) for part in parts)
        return [f"... {self._label(parts)} {len(parts)} more exceptions: {', '.join(names)}"]


def gist_of(error: Exception) -> str:
    """An error in a line that is the same for all engines which failed alike."""
    text = error.evalue if isinstance(error, RemoteError) else getattr(error, "reason", "") or str(error)
    return f"{_name_of(error)}: {text}"


def ranges_of(numbers: Iterable[int]) -> str:
    """Numbers for people, runs joined: '0-62,64'. Long lists are cut."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs[:_RUNS_SHOWN_MAX])
    return shown if len(runs) <= _RUNS_SHOWN_MAX else f"{shown},..."


_RUNS_SHOWN_MAX = 16


def _name_of(error: Exception) -> str:
    return error.ename if isinstance(error, RemoteError) else type(error).__name__


def _traceback_of(error: Exception) -> list[str]:
    """The remote lines of an error; of one that no code raised, its text."""
    lines = error.traceback_lines if isinstance(error, TaskError) else ()
    return list(lines) or [gist_of(error)]


def _as_tuple(part: int, error: Exception) -> tuple[str, str, str, dict[str, Any]]:
    engine = {"engine_id": part, "engine_uuid": f"engine-{part}", "method": "apply"}
    if isinstance(error, TaskError):
        return error.ename, error.evalue, "\n".join(_traceback_of(error)), error.engine_info or engine
    return type(error).__name__, str(error), gist_of(error), engine


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
    """The root scheduler is gone. Calls in flight may have run; start a new cluster.

    errors, results: of a call on several engines, as CompositeError has them: what had come before is not lost.
    """

    errors: Mapping[int, Exception] = MappingProxyType({})
    results: Sequence[Any] | None = None


class SessionTaken(ClusterLost):
    """Another client has joined this client's session. The session goes on there."""


class StartError(PeerError):
    """A process of the cluster did not start in time, or died while starting. Holds the end of its log."""


# --- by the names that ipyparallel's users know them ------------------------------------------------------------------

EngineError = EngineLost
ImpossibleDependency = DependencyError
InvalidDependency = DependencyError
NoEnginesRegistered = NoEngines
TaskAborted = TaskCancelled
TaskTimeout = DependencyTimeout
TimeoutError = builtins.TimeoutError
