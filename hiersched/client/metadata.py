"""What is known about each part of a call: where it ran, when, and what it printed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiersched.client.pending import Pending

FIELDS = (
    "msg_id",
    "engine_id",
    "status",
    "submitted",
    "started",
    "completed",
    "received",
    "error",
    "stdout",
    "stderr",
    "outputs",
)


class Metadata(dict[str, Any]):
    """The facts about one part of a call, by name; also as attributes.

    status: 'ok', 'error' or, while it runs, None. submitted, received: by this machine's clock; started, completed: by
    the engine's. All are aware datetimes in UTC, None while unknown. outputs: what was displayed, as Jupyter's dicts
    with 'data' and 'metadata'.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def describe_part(pending: Pending, position: int) -> Metadata:
    """The metadata of one target's part of a request. Never blocks and unpickles nothing."""
    outcome = pending.outcomes[position]
    targets = pending.targets
    engine = targets[position] if targets else None
    known = Metadata(dict.fromkeys(FIELDS))
    known["msg_id"] = f"{pending.id}:{engine}" if len(targets) > 1 else str(pending.id)
    known["engine_id"] = engine
    known["submitted"] = moment(pending.submitted)
    if outcome is None:
        known.update(stdout="", stderr="", outputs=[])
        return known
    if outcome.engine_id >= 0:
        known["engine_id"] = outcome.engine_id
    known.update(
        status="ok" if outcome.ok else "error",
        started=moment(outcome.started),
        completed=moment(outcome.ended),
        received=moment(pending.received),
        error=outcome.error,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        outputs=outcome.outputs,
    )
    return known


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
