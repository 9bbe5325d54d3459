"""Whether everything ended as it may have ended, given what happened in a world.

An error is explained or it is a bug: an engine is lost only if it died, a call is cancelled only if its client said so,
code raises only where it was told to or when it was interrupted. A task depends on others: it has run if, and only if,
these ended as it asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from hiersched.core.conditions import named_by
from hiersched.errors import (
    AnswerLost,
    BlobLost,
    ClusterLost,
    DependencyError,
    DependencyTimeout,
    EngineLost,
    HierschedError,
    RemoteError,
    TaskCancelled,
    TaskInterrupted,
    UnknownEngine,
    UnmetDependency,
)
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.simulation.client import SimClient
from hiersched.simulation.payload import Answer, Argument
from hiersched.simulation.requests import Outcome, Request, TaskEnd


class Events(msgspec.Struct, frozen=True):
    """What happened in a world. lost: ranks of engines that died, a bit set; interrupted: there was a SIGINT.

    cut: parts of the tree may have been given up while they lived. left: clients went. shared: several clients named
    the same blobs, of whom only the last is asked for one. calm: nothing died at all.
    """

    lost: int = 0
    interrupted: bool = False
    cut: bool = False
    left: bool = False
    shared: bool = False
    calm: bool = False


def unexplained(client: SimClient, requests: Iterable[Request], events: Events) -> Iterator[str]:
    """What ended at a client as it should not have, or was not heard in full though nothing died."""
    for request in requests:
        for place, outcome in enumerate(request.outcomes):
            argument = request.arguments[place if len(request.arguments) > 1 else 0]
            request_id = request.ids[0 if request.is_call else place]
            rank = request.targets[place] if request.is_call else None
            if not _explained(outcome, argument, rank, withdrawn=request_id in client.withdrawn, events=events):
                yield f"part {place} of {request_id} ({argument}) ends with {outcome}"
            heard = client.heard.pieces.get((request_id, outcome.rank), 0) if isinstance(outcome, Answer) else 0
            if events.calm and isinstance(outcome, Answer) and heard != argument.pieces:
                yield f"part {place} of {request_id} ({argument}): {heard} pieces of output came"
    for task, terms in client.terms.items():
        end = client.ends.get(task)
        if end is not None:
            yield from _wrong_end(client, task, terms, end)


def _explained(
    outcome: Outcome | None, argument: Argument, rank: int | None, *, withdrawn: bool, events: Events
) -> bool:
    """Whether a part of a request may have ended so. rank: its target's; None for a task, whose terms come later."""
    if not isinstance(outcome, type):
        return outcome is not None
    kind: type[HierschedError] = outcome
    lost = bool(events.lost if rank is None else events.lost >> rank & 1)
    reasons = {
        TaskCancelled: withdrawn,
        TaskInterrupted: withdrawn,
        RemoteError: events.interrupted or _among(argument.raises, rank),
        EngineLost: lost or events.cut,
        AnswerLost: lost,
        UnknownEngine: lost or events.cut,
        UnmetDependency: _among(argument.unmet, rank),
        BlobLost: events.left or events.cut or events.shared,
        ClusterLost: events.left,  # of a session joined again, what had not reached the root
        DependencyError: rank is None,
        DependencyTimeout: rank is None,
    }
    return reasons.get(kind, False)


def _among(ranks: m.Ranks, rank: int | None) -> bool:
    """Whether a rank, or any at all if it is None, is one of `ranks`."""
    listed = bitset.from_wire(ranks)
    return bool(listed if rank is None else listed >> rank & 1)


def _wrong_end(client: SimClient, task: m.TaskId, terms: m.Terms, end: TaskEnd) -> Iterator[str]:
    """What does not fit between the end of a task and those of the tasks that it depends on."""
    possible = _may_run(client, task, terms)
    if end.code in (0, m.RAISED, m.INTERRUPTED) and possible is False:
        yield f"task {task} ran (code {end.code}), though its dependencies were not met: {terms}"
    choosy = terms.follow is not None or bool(terms.targets[1]) or task in client.unmet
    if end.code == m.DEPENDENCY and possible and not choosy:
        yield f"task {task} did not run, though its dependencies were met: {terms}"
    if end.code == m.TIMED_OUT and not terms.timeout_s:
        yield f"task {task} timed out, and has no timeout"


def _may_run(client: SimClient, task: m.TaskId, terms: m.Terms) -> bool | None:
    """Whether all that a task depends on ended as it asks; None if this client has not heard of all these ends.

    A task knows of what came before it only.
    """
    ends = client.ends
    if any(other >= task for other in named_by(terms)):
        return False
    if any(other not in ends for other in named_by(terms)):
        return None
    if any(ends[other].code for other in terms.inputs):
        return False
    for asked in (terms.after, terms.follow):
        if asked is not None and asked.tasks:
            met = [bool(asked.failure if ends[other].code else asked.success) for other in asked.tasks]
            if not (all(met) if asked.all else any(met)):
                return False
    return True
