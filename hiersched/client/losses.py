"""The exception for a part of a request that user code did not answer, by its code on the wire."""

from __future__ import annotations

from hiersched.data.losses import ERROR_OF
from hiersched.errors import EngineLost, HierschedError, NoEngines, ProtocolError, UnknownEngine

NOWHERE = -1  # in the place of a rank: no engine in particular


def loss_error(code: int, rank: int, text: str, *, names_engines: bool = True) -> HierschedError:
    """What is raised for a part that ended with `code`, on or for the engine `rank`; NOWHERE: on none in particular.

    names_engines: whether the call says where it may run; if not, that there is no engine is nobody's mistake.
    """
    kind = ERROR_OF.get(code)
    if kind is None:
        return ProtocolError(f"the answer has an unknown code, {code}: {text}")
    if kind is UnknownEngine and rank == NOWHERE and not names_engines:
        return NoEngines(f"{text}: start some, or wait until they have registered")
    where = "" if rank == NOWHERE else f"engine {rank}: "
    if kind is not EngineLost and kind is not UnknownEngine:
        return kind(text)
    error = kind(where + text)
    error.engine_id = None if rank == NOWHERE else rank
    error.reason = text
    return error
