"""The exception for a part of a request that user code did not answer, by its code on the wire."""

from __future__ import annotations

from hiersched.data.losses import ERROR_OF
from hiersched.errors import EngineLost, HierschedError, ProtocolError, UnknownEngine

NOWHERE = -1  # in the place of a rank: no engine in particular


def loss_error(code: int, rank: int, text: str) -> HierschedError:
    """What is raised for a part that ended with `code`, on or for the engine `rank`; NOWHERE: on none in particular."""
    kind = ERROR_OF.get(code)
    if kind is None:
        return ProtocolError(f"the answer has an unknown code, {code}: {text}")
    where = "" if rank == NOWHERE else f"engine {rank}: "
    if kind is not EngineLost and kind is not UnknownEngine:
        return kind(text)
    error = kind(where + text)
    error.engine_id = None if rank == NOWHERE else rank
    error.reason = text
    return error
