"""The parts of a result, one for each engine: facts about them, their times, and what they gave so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from hiersched.client.call_future import CallFuture
from hiersched.client.map_run import items_in
from hiersched.client.metadata import FIELDS, Metadata, describe_part, running_s, spanned_s
from hiersched.client.targets import describe_ids
from hiersched.data.cells import CellReply
from hiersched.data.namespace import ChunkResults
from hiersched.errors import HierschedError, TaskInterrupted

if TYPE_CHECKING:
    from datetime import datetime

    from hiersched.client.pending import Pending
    from hiersched.client.selection import Selection
    from hiersched.client.session import Session
    from hiersched.data.outcomes import Outcome


class ResultParts(CallFuture):
    """What is known of a request on one or many engines, at any time.

    Facts are at hand as attributes and by key: `ar.engine_id`, `ar['stdout']`. They are lists, or of one value where
    `single`. See Metadata.
    """

    _read: Callable[[Outcome], Any] | None = None  # what a part gave, where that is not the outcome's value

    def __init__(self, session: Session, pending: Pending | Selection, *, name: str, single: bool = False) -> None:
        self._fname = name
        self._single = single
        super().__init__(session, pending)

    def __len__(self) -> int:
        return len(self._pending.outcomes)

    # --- facts --------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            return self._fact(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *FIELDS]

    def _fact(self, name: str) -> Any:
        """A fact by name. Raises KeyError for a name that is none."""
        if name not in FIELDS:
            raise KeyError(f"{name!r} is no fact about a call: {', '.join(FIELDS)} are")
        parts = self._parts()
        return parts[0][name] if self._single else [part[name] for part in parts]

    def _parts(self) -> list[Metadata]:
        return [describe_part(self._pending, place) for place in range(len(self._pending.outcomes))]

    @property
    def metadata(self) -> Metadata | list[Metadata]:
        """The facts about each part; those of the only part where the result is single."""
        parts = self._parts()
        return parts[0] if self._single else parts

    @property
    def msg_ids(self) -> list[str]:
        """One id per part."""
        return [part["msg_id"] for part in self._parts()]

    @property
    def progress(self) -> int:
        """How many parts have ended, out of len(self)."""
        return sum(outcome is not None for outcome in self._pending.outcomes)

    # --- what the parts gave ------------------------------------------------------------------------------------------

    def _value_at(self, place: int) -> Any:
        """What the part in this place gave. Raises its error."""
        outcome = self._pending.outcomes[place]
        value = outcome.value if self._read is None else self._read(outcome)
        if type(value) is CellReply:
            return replace(value, metadata=describe_part(self._pending, place))
        return items_in(outcome) if type(value) is ChunkResults else value

    def _values(self) -> list[Any]:
        """One item per part: what it gave, or the error that kept it from giving anything; None while it runs."""
        return [self._value_or_error(place) for place in range(len(self._pending.outcomes))]

    def _value_or_error(self, place: int) -> Any:
        outcome = self._pending.outcomes[place]
        if outcome is None:
            return None
        return self._value_at(place) if outcome.error is None else outcome.error

    def results_so_far(self) -> dict[int, Any]:
        """What has come by now, while others may still run: {engine id: result}, errors in the places of results.

        Of a map, positions of items stand for engine ids; of several calls on the same engines, places of parts.
        """
        results, errors = self._so_far()
        return dict(sorted({**results, **errors}.items()))

    def _so_far(self) -> tuple[dict[int, Any], dict[int, Exception]]:
        """The results that have come, and the errors, by what tells the parts apart."""
        results: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        for place, (key, outcome) in enumerate(zip(self._keys(), self._pending.outcomes, strict=True)):
            if outcome is None:
                continue
            if outcome.error is not None:
                errors[key] = outcome.error
                continue
            try:
                results[key] = self._value_at(place)
            except HierschedError as error:  # it cannot be rebuilt here, or is of a map and holds errors
                errors[key] = error
        return results, errors

    def _keys(self) -> Sequence[int]:
        """What tells the parts apart: their engines, or their places where an engine has several."""
        targets, count = self._pending.targets, len(self._pending.outcomes)
        return targets if len(set(targets)) == count else range(count)

    # --- time ---------------------------------------------------------------------------------------------------------

    @property
    def elapsed(self) -> float:
        """Seconds since the call was made; once it has ended, wall_time."""
        if self.done():
            return self.wall_time
        return time.time() - min(part["submitted"] for part in self._parts()).timestamp()

    @property
    def serial_time(self) -> float:
        """Seconds that the parts ran, added up: what one engine would have taken. TimeoutError before the end."""
        return running_s(self._ended_parts())

    @property
    def wall_time(self) -> float:
        """Seconds from making the call to having its last answer. TimeoutError before the end."""
        return spanned_s(self._ended_parts())

    def timedelta(
        self,
        start: datetime | list[datetime],
        end: datetime | list[datetime],
        start_key: Callable[[list[datetime]], datetime] = min,
        end_key: Callable[[list[datetime]], datetime] = max,
    ) -> float:
        """Seconds between two of the times in the metadata; of lists, from the earliest to the latest."""
        first = start_key(start) if isinstance(start, list) else start
        last = end_key(end) if isinstance(end, list) else end
        return (last - first).total_seconds()

    def _ended_parts(self) -> list[Metadata]:
        if not self.done():
            raise TimeoutError(self._late(0))
        return self._parts()

    # --- for people ---------------------------------------------------------------------------------------------------

    def _late(self, timeout: float | None) -> str:
        """What a TimeoutError says."""
        missing = [
            engine
            for engine, outcome in zip(self._pending.targets, self._pending.outcomes, strict=False)
            if not outcome
        ]
        where = f"from engines {describe_ids(missing)} " if missing else ""
        return f"{self._fname}: no answer {where}within {timeout} s; it still runs, ask again"

    def __repr__(self) -> str:
        labels = sorted({request.label for request in self.requests() if request.label is not None})
        return f"<{type(self).__name__} {' '.join([self._fname, *map(repr, labels)])}: {self._state_text()}>"

    def _state_text(self) -> str:
        pending = self._pending
        if not pending.done:
            return f"pending, {self.progress} of {len(self)} done"
        if not pending.failed:
            return "finished"
        if self._single:
            return f"{'cancelled' if pending.cancelled else 'failed'}, {pending.outcomes[0].error}"
        if pending.cancelled:
            ran = any(isinstance(outcome.error, TaskInterrupted) for outcome in pending.outcomes)
            return "interrupted" if ran else "cancelled"
        failed = [t for t, outcome in zip(pending.targets, pending.outcomes, strict=True) if outcome.error is not None]
        return f"failed on engines {describe_ids(failed)}"
