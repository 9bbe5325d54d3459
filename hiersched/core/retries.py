"""Whether a task that has failed runs again, and what its last word is if nobody can run it.

A task that ran in vain (`_RAN_IN_VAIN`) goes back to the queue while its retries last, and avoids the engine that
failed it as long as another may run it. An engine that lacks what a task depends on (UNMET) is ruled out, which costs
no retry. What never came to run (ENGINE_UNKNOWN) goes back at any level; the rest is decided at the root, where all
engines are in sight. A task that was withdrawn never starts again. Each try has a number, so that the answer of an
earlier one, which somebody may still keep, is not taken for that of the present one.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from hiersched.core.queues import ANY, Flight, Standing
from hiersched.core.wording import engines_text
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

_RAN_IN_VAIN = frozenset({m.RAISED, m.ENGINE_LOST, m.ANSWER_LOST})
DID_NOT_RUN = frozenset({m.ENGINE_UNKNOWN, m.UNMET})


def runs_again(flight: Flight, result: m.Result, frames: Sequence[Frame], *, failed: int, is_root: bool) -> bool:
    """Whether a task that ended like this, at the ranks `failed`, is to wait again. Its standing then knows of it."""
    standing = flight.standing
    if standing is not None and standing.withdrawn:
        return False
    if result.code == m.ENGINE_UNKNOWN:
        return True
    if not is_root:
        return False
    if result.code == m.UNMET:
        standing = flight.standing = standing or Standing()
        standing.ruled_out |= failed
    elif result.code in _RAN_IN_VAIN and standing is not None and standing.retries:
        standing.retries -= 1
        standing.avoided |= failed
        flight.task = msgspec.structs.replace(flight.task, attempt=flight.task.attempt + 1)
    else:
        return False
    standing.failure = (result, frames)
    return True


def outcome_of(flight: Flight, result: m.Result) -> m.Result:
    """How a task ends that does not run again: one that was withdrawn before it ran is cancelled."""
    if result.code in DID_NOT_RUN and flight.standing is not None and flight.standing.withdrawn:
        return cancelled(flight.task)
    return result


def cancelled(task: m.Task) -> m.Result:
    """The result of a task that was withdrawn before it started."""
    return without_value(task, m.CANCELLED, "cancelled before it started")


def without_value(task: m.Task, code: int, text: str, rank: m.Rank = m.NO_RANK) -> m.Result:
    """How a scheduler ends this try of a task. code, text: why; rank: where it may have run."""
    return m.Result(task.id, rank, 0, code, text.encode(), 0, task.attempt)


def last_word(flight: Flight) -> tuple[m.Result, Sequence[Frame]]:
    """How a task ends that no engine may run: as it failed last, if it ran at all."""
    task, standing = flight.task, flight.standing
    if standing is None or (standing.targets == ANY and standing.failure is None):
        return without_value(task, m.ENGINE_UNKNOWN, "no engine is left"), ()
    if standing.failure is None:
        text = f"it may run on {engines_text(standing.targets)} only, and none of these is there"
        return without_value(task, m.ENGINE_UNKNOWN, text), ()
    result, frames = standing.failure
    if result.code != m.UNMET:
        return result, frames
    text = f"no engine that it may run on has what it depends on; {engines_text(standing.ruled_out)} lacked it"
    said = result.payload.decode(errors="replace")
    return without_value(task, m.DEPENDENCY, f"{text}: {said}", result.rank), ()
