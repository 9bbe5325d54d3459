"""How a request ended, in ipyparallel's words: contents and metadata of its replies."""

from __future__ import annotations

import traceback
from typing import Any

from hiersched.compat.wire import date_text
from hiersched.data.outcomes import Outcome
from hiersched.errors import (
    AnswerLost,
    BlobLost,
    DependencyError,
    DependencyTimeout,
    EngineLost,
    NoEngines,
    RemoteError,
    TaskCancelled,
    TaskInterrupted,
    UnknownEngine,
    UnmetDependency,
)

Content = dict[str, Any]

OK: Content = {"status": "ok"}
ABORTED: Content = {"status": "aborted"}

# What stands for our errors there; the first that fits counts.
_NAMES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (DependencyTimeout, "TaskTimeout"),
    (DependencyError, "ImpossibleDependency"),
    (UnmetDependency, "ImpossibleDependency"),
    (NoEngines, "NoEnginesRegistered"),
    (TaskCancelled, "TaskAborted"),
    ((EngineLost, UnknownEngine, AnswerLost, BlobLost), "EngineError"),
)


def error_content(error: BaseException, *, engine: tuple[str, int] | None = None, method: str = "") -> Content:
    """An error as the content of a reply. engine: the (uuid, rank) of the one whose code raised it."""
    if isinstance(error, RemoteError):
        ename, evalue, lines = error.ename, error.evalue, list(error.traceback_lines)
    else:
        ename = next((name for kinds, name in _NAMES if isinstance(error, kinds)), type(error).__name__)
        evalue, lines = str(error), traceback.format_exception(error)
    return plain_error(ename, evalue, lines, engine=engine, method=method)


def plain_error(
    ename: str, evalue: str, lines: list[str] | None = None, *, engine: tuple[str, int] | None = None, method: str = ""
) -> Content:
    """The content of a reply that tells of an error."""
    info: Content = {}
    if engine is not None:
        info = {"engine_uuid": engine[0], "engine_id": engine[1]}
        if method:
            info["method"] = method
    return {"status": "error", "ename": ename, "evalue": evalue, "traceback": lines or [], "engine_info": info}


def content_of(outcome: Outcome, *, engine: tuple[str, int] | None, method: str = "apply") -> Content:
    """The content of a reply to a call that ended so; without what a cell adds to it."""
    error = outcome.error
    if error is None:
        return OK
    if isinstance(error, TaskCancelled) and not isinstance(error, TaskInterrupted):
        return ABORTED
    if isinstance(error, TaskInterrupted):
        return plain_error("KeyboardInterrupt", str(error), engine=engine, method=method)
    return error_content(error, engine=engine if isinstance(error, RemoteError) else None, method=method)


def metadata_of(asked: dict[str, Any], outcome: Outcome, *, engine: tuple[str, int] | None, status: str) -> Content:
    """The metadata of a reply. asked: the request's."""
    found: Content = {
        "dependencies_met": True,
        "engine": None if engine is None else engine[0],
        "is_broadcast": bool(asked.get("is_broadcast", False)),
        "is_coalescing": bool(asked.get("is_coalescing", False)),
        "original_msg_id": asked.get("original_msg_id", ""),
        "label": asked.get("label"),
        "status": status,
    }
    if outcome.started is not None:
        found["started"] = date_text(outcome.started)
    if status == "error" and engine is not None:
        found["engine_info"] = {"engine_uuid": engine[0], "engine_id": engine[1]}
    return found
