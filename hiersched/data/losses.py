"""Which error stands for a part of a request that has no answer from the user's code, by its code on the wire."""

from __future__ import annotations

from hiersched.errors import (
    AnswerLost,
    BlobLost,
    CapacityError,
    DependencyError,
    DependencyTimeout,
    EngineLost,
    HierschedError,
    TaskCancelled,
    TaskInterrupted,
    UnknownEngine,
    UnmetDependency,
)
from hiersched.protocol import messages as m

ERROR_OF: dict[int, type[HierschedError]] = {
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
