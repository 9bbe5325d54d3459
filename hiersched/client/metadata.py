"""What is known about each part of a call: where it ran, when, and what it printed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hiersched.client.names import name_of
from hiersched.client.published import published
from hiersched.data.cells import CellReply
from hiersched.data.outputs import displayed, printed_text
from hiersched.errors import TaskCancelled

if TYPE_CHECKING:
    from hiersched.client.pending import Pending
    from hiersched.client.selection import Selection
    from hiersched.data.outcomes import Outcome
    from hiersched.protocol.messages import Dependency

FIELDS = (
    "msg_id",
    "engine_id",
    "engine_uuid",
    "status",
    "submitted",
    "started",
    "completed",
    "received",
    "after",
    "follow",
    "label",
    "error",
    "execute_input",
    "execute_result",
    "stdout",
    "stderr",
    "outputs",
    "data",
)


class Metadata(dict[str, Any]):
    """The facts about one part of a call, by name; also as attributes.

    status: 'ok', 'error', 'aborted' or, while it runs, None. submitted, received: by this machine's clock; started,
    completed: by the engine's. All are aware datetimes in UTC, None while unknown. outputs: what was displayed, as
    Jupyter's dicts with 'data' and 'metadata'. after, follow: ids of tasks that it waits for. data: what the code
    has published by now, by names. execute_input: the code of a cell that is not silent.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def describe_part(request: Pending | Selection, place: int) -> Metadata:
    """The metadata of one part of a request. Never blocks, and unpickles nothing of the user's
    but what was published."""
    pending, position = request.part(place)
    outcome = pending.outcomes[position]
    targets = pending.targets
    engine = targets[position] if targets and targets[position] >= 0 else None
    outputs = pending.outputs_of(position)
    terms = pending.terms
    known = Metadata(dict.fromkeys(FIELDS))
    known.update(
        msg_id=f"{name_of(pending.id)}:{engine}" if len(targets) > 1 else name_of(pending.id),
        engine_id=engine,
        engine_uuid=None if engine is None else f"engine-{engine}",
        submitted=moment(pending.submitted),
        after=_ids(terms.after if terms is not None else None),
        follow=_ids(terms.follow if terms is not None else None),
        label=pending.label,
        execute_input=getattr(pending, "code", None),
        stdout=printed_text(outputs, "stdout"),
        stderr=printed_text(outputs, "stderr"),
        outputs=displayed(outputs),
        data=published(outputs),
    )
    if outcome is not None:
        known.update(
            status=_status(outcome),
            started=moment(outcome.started),
            completed=moment(outcome.ended),
            received=moment(pending.received),
            error=outcome.error,
        )
        if pending.method == "execute" and outcome.ok and isinstance(outcome.value, CellReply):
            known["execute_result"] = outcome.value.execute_result
    return known


def _ids(dependency: Dependency | None) -> list[str]:
    return [] if dependency is None else [name_of(task) for task in dependency.tasks]


def _status(outcome: Outcome) -> str:
    if outcome.ok:
        return "ok"
    return "aborted" if isinstance(outcome.error, TaskCancelled) else "error"


def moment(epoch_s: float | None) -> datetime | None:
    """A time in seconds since the epoch as an aware datetime."""
    return None if epoch_s is None else datetime.fromtimestamp(epoch_s, UTC)


def running_s(parts: Iterable[Metadata]) -> float:
    """Seconds that the parts ran on their engines, added up; parts that never started count nothing."""
    return sum(
        (part["completed"] - part["started"]).total_seconds()
        for part in parts
        if part["started"] is not None and part["completed"] is not None
    )


def spanned_s(parts: Iterable[Metadata]) -> float:
    """Seconds from the first submission to the last arrival; 0.0 where nothing has arrived."""
    listed = list(parts)
    sent = [part["submitted"] for part in listed if part["submitted"] is not None]
    arrived = [part["received"] for part in listed if part["received"] is not None]
    return (max(arrived) - min(sent)).total_seconds() if sent and arrived else 0.0
