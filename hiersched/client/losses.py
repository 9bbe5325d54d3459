"""The exception for a part of a request that user code did not answer, by its code on the wire."""

from __future__ import annotations

from hiersched.errors import (
    AnswerLost,
    BlobLost,
    CapacityError,
    DependencyError,
    DependencyTimeout,
    EngineLost,
    HierschedError,
    ProtocolError,
    TaskCancelled,
    TaskInterrupted,
    UnknownEngine,
    UnmetDependency,
)
from hiersched.protocol import messages as m

NOWHERE = -1  # in the place of a rank: no engine in particular

_LOSSES: dict[int, type[HierschedError]] = {
    m.ENGINE_LOST: EngineLost,
    m.ENGINE_UNKNOWN: UnknownEngine,
    m.BLOB_LOST: BlobLost,
    m.CANCELLED: TaskCancelled,
    m.REFUSED: CapacityError,
    m.UNMET: UnmetDependency,
    m.DEPENDENCY: DependencyError,
    m.TIMED_OUT: DependencyTimeout,
    m.ANSWER_LOST: AnswerLost,
    m.INTERRUPTED: TaskInterrupted,
}


def loss_error(code: int, rank: int, text: str) -> HierschedError:
    """What is raised for a part that ended with `code`, on or for the engine `rank`; NOWHERE: on none in particular."""
    kind = _LOSSES.get(code)
    if kind is None:
        return ProtocolError(f"the answer has an unknown code, {code}: {text}")
    where = "" if rank == NOWHERE else f"engine {rank}: "
    if kind is UnknownEngine:
        return UnknownEngine(where + text)
    if kind is not EngineLost:
        return kind(text)
    error = EngineLost(where + text)
    error.engine_id = None if rank == NOWHERE else rank
    error.reason = text
    return error
