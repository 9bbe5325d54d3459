"""Every exception of hiersched, in one tree by whose fault it is.

`UserError`: what was asked cannot be done as asked; nothing ran. `TaskError`: the user's own code, or the engine under
it, failed; the text says whether the code may have run. `PeerError`: another process is gone, is not ours or speaks
another language. `Bug`: our fault; please report it. Each message says the cause and what to do.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NoReturn


class HierschedError(Exception):
    """Base of all errors raised by hiersched."""


class Bug(HierschedError):
    """An invariant of hiersched was broken. Nothing the caller did should lead here."""


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

    __str__ = Exception.__str__  # not the quoted text of a KeyError


class UnknownTask(UserError, KeyError, IndexError):
    """An id, or a place in the history, of a call or task that never was one, is of another session, or ended too long
    ago. Says which, and names the latest there are.
    """

    __str__ = Exception.__str__  # not the quoted text of a KeyError


class UnknownSession(UserError, KeyError):
    """The id of a session that does not exist. Names those that can be joined."""

    __str__ = Exception.__str__  # KeyError would show the text quoted


class ResultDropped(UnknownTask):
    """The call has ended and its result is gone: it is kept only as long as an AsyncResult of it."""


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

    ename, evalue: name and text of the remote exception; traceback: its formatted lines; engine_id: the engine's rank;
    method: 'apply' or 'execute'. pickled: the exception itself, if it could be pickled; data.outcomes.original_of
    rebuilds it.
    """

    pickled = b""
    method = "apply"

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
        return f"{self._where()}{self.ename}: {self.evalue}"

    def _where(self) -> str:
        return "" if self.engine_id is None else f"[engine {self.engine_id}] "

    @property
    def engine_info(self) -> dict[str, Any]:
        """The engine's id and name, and the method, as ipyparallel gives them."""
        return {"engine_id": self.engine_id, "engine_uuid": f"engine-{self.engine_id}", "method": self.method}

    def render_traceback(self) -> list[str]:
        """The engine, and the remote traceback's lines; IPython shows these instead of the local ones."""
        if not self.traceback:
            return [str(self)]
        return [*filter(None, [self._where().rstrip()]), *self.traceback]

    _render_traceback_ = render_traceback  # the name that IPython asks for

    def print_traceback(self, excid: int | None = None) -> None:
        """Print the remote traceback. excid: as for CompositeError; there is but one."""
        print("\n".join(self.render_traceback()))


class EngineLost(TaskError):
    """The engine ended while it held this task.

    It may have run. Retried only if the task was marked repeatable; otherwise check its side effects first.
    engine_id: the engine's rank; reason: how it ended.
    """

    engine_id: int | None = None
    reason: str = ""


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
            return [f"{self._label([part])}:", *_traceback_of(error)]
        groups = list(self._groups(lambda error: "\n".join(_traceback_of(error))).items())
        lines = [self.msg]
        for text, parts in groups[: self.tb_limit]:
            lines += ["", f"{self._label(parts)}:", *text.split("\n")]
        rest = self._rest(groups)
        return [*lines, "", *rest] if rest else lines

    def _render_traceback_(self) -> list[str]:
        return self.render_traceback()

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

    def _rest(self, groups: list[tuple[str, list[int]]]) -> list[str]:
        """A line about those that are not shown, if there are any."""
        parts = [part for _, group in groups[self.tb_limit :] for part in group]
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
    return error.traceback if isinstance(error, RemoteError) and error.traceback else [gist_of(error)]


def _as_tuple(part: int, error: Exception) -> tuple[str, str, str, dict[str, Any]]:
    text = error.evalue if isinstance(error, RemoteError) else str(error)
    engine = getattr(error, "engine_id", None)
    info = {"engine_id": part if engine is None else engine, "engine_uuid": f"engine-{engine}", "method": "apply"}
    if isinstance(error, RemoteError):
        info = error.engine_info
    return _name_of(error), text, "\n".join(_traceback_of(error)), info


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
