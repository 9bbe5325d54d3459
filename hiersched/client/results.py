"""What an asynchronous call gives at once: its result as soon as there is one.

`AsyncResult` stands for one request on one or many engines. Errors stay beside the good results: a call on a single
engine raises that engine's error itself, a call on several raises a CompositeError that carries everything, and
`get(return_exceptions=True)` gives errors in the places of results. It is also a concurrent.futures.Future, and can be
awaited. Nothing is unpickled before it is read.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

from hiersched.client.call_future import CallFuture
from hiersched.client.display import show_outputs
from hiersched.client.metadata import FIELDS, Metadata, describe_part, running_s, spanned_s
from hiersched.client.targets import describe_ids
from hiersched.data.cells import CellReply
from hiersched.errors import CompositeError

if TYPE_CHECKING:
    from datetime import datetime

    from hiersched.client.pending import Pending
    from hiersched.client.session import Session

Join = Callable[[list[Any]], Any]


class AsyncResult(CallFuture):
    """The results of one request.

    name: of the function, for messages; single: one result and not a list of them; join: makes the final result of
    the list of results, where all parts succeeded. Facts about its parts are at hand as attributes and by key:
    `ar.engine_id`, `ar['stdout']`; a list each, or one value where `single`. See Metadata.
    """

    def __init__(
        self, session: Session, pending: Pending, *, name: str, single: bool = False, join: Join | None = None
    ) -> None:
        self._name = name
        self._single = single
        self._join = join
        super().__init__(session, pending)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = -1) -> bool:
        """Block until every part has ended, at most `timeout` seconds (None or negative: for ever). True if so."""
        return self._wait(at_most(timeout))

    def ready(self) -> bool:
        """Whether every part has ended."""
        return self.done()

    def successful(self) -> bool:
        """Whether every part succeeded. Raises RuntimeError while some have not ended."""
        if not self.done():
            raise RuntimeError(f"{self!r} has not ended; wait() first")
        return not self._pending.failed

    def wait_interactive(self, interval: float = 0.1, timeout: float | None = -1) -> bool:
        """`wait` under a progress bar that is redrawn every `interval` seconds."""
        from tqdm.auto import tqdm  # costs 30 ms and is used at a prompt only

        timeout_s = at_most(timeout)
        ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        with tqdm(total=len(self), desc=self._name, unit="tasks") as bar:
            while not self._wait(interval) and (ends_at is None or time.monotonic() < ends_at):
                bar.update(self.progress - bar.n)
            bar.update(self.progress - bar.n)
        return self.done()

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self).__await__()

    def abort(self) -> bool:
        """Withdraw what has not started: `cancel`. Raises RuntimeError where everything has ended."""
        if self.done():
            raise RuntimeError(f"{self!r} has ended; nothing is left to abort")
        return self.cancel()

    # --- results ------------------------------------------------------------------------------------------------------

    def get(self, timeout: float | None = None, return_exceptions: bool | None = None) -> Any:
        """The result, or a list of results in the order of the targets.

        timeout: seconds, None or negative for ever. Raises TimeoutError naming who has not answered; the error of a
        single target; CompositeError where any of several failed. return_exceptions: give errors, do not raise them.
        """
        if not self._pending.done and not self._wait(at_most(timeout)):
            raise TimeoutError(self._late(timeout))
        if not self._pending.failed:
            return self._value()
        if return_exceptions:
            values = self._values()
            return values[0] if self._single else values
        error = self._error()
        assert error is not None, "a failed request holds an error"
        raise error

    @property
    def r(self) -> Any:
        """The result: get()."""
        return self.get()

    def result(self, timeout: float | None = None) -> Any:
        """The result, as the standard future gives it: get(), but a withdrawn call raises CancelledError."""
        self._settled(timeout)
        return self.get()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What get() would raise, or None. Raises TimeoutError and CancelledError as `result` does."""
        self._settled(timeout)
        return self._error()

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """{engine id: result}. Raises as get() does, and ValueError where an engine gave several results."""
        values = self.get(timeout)
        listed = [values] if self._single else values
        engines = [part["engine_id"] for part in self._parts()]
        if len(set(engines)) != len(engines) or len(listed) != len(engines):
            raise ValueError(f"{self._name} has several results of one engine; use get()")
        return dict(zip(engines, listed, strict=True))

    @property
    def result_dict(self) -> dict[int, Any]:
        """get_dict()."""
        return self.get_dict()

    def _value(self) -> Any:
        """The result of a request none of whose parts failed."""
        outcomes = self._pending.outcomes
        if self._single:
            return outcomes[0].value
        values = [outcome.value for outcome in outcomes]
        return values if self._join is None else self._join(values)

    def _values(self) -> list[Any]:
        """One item per part, the error where it failed."""
        return [outcome.value if outcome.error is None else outcome.error for outcome in self._pending.outcomes]

    def _first_error(self) -> BaseException | None:
        return self._error()

    def _error(self) -> Exception | None:
        """What get() raises once everything has ended; None where nothing failed."""
        pending = self._pending
        if not pending.failed:
            return None
        if self._single:
            return pending.outcomes[0].error
        errors = {
            engine: outcome.error
            for engine, outcome in zip(pending.targets, pending.outcomes, strict=True)
            if outcome.error is not None
        }
        message = f"{self._name} failed on {len(errors)} of {len(pending.targets)} engines: {describe_ids(errors)}"
        good = [outcome.value if outcome.error is None else None for outcome in pending.outcomes]
        return CompositeError(message, errors, good)

    def _late(self, timeout: float | None) -> str:
        """What a TimeoutError says."""
        missing = [
            engine
            for engine, outcome in zip(self._pending.targets, self._pending.outcomes, strict=False)
            if not outcome
        ]
        where = f"from engines {describe_ids(missing)} " if missing else ""
        return f"{self._name}: no answer {where}within {timeout} s; it still runs, ask again"

    # --- parts --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._pending.outcomes)

    def __iter__(self) -> Iterator[Any]:
        """Results in the order of the targets, each as soon as it is known. Raises the error of a failed one."""
        if self._single:
            raise TypeError("the result of a single engine cannot be iterated; use get()")
        pending = self._pending
        for position in range(len(pending.outcomes)):
            if pending.outcomes[position] is None:
                self._wait(None)
            outcome = pending.outcomes[position]
            if outcome.error is not None:
                raise outcome.error
            yield outcome.value

    def __getitem__(self, key: int | slice | str) -> Any:
        """By int or slice: results, TimeoutError while they are not all there. By name: metadata, at any time."""
        if isinstance(key, str):
            parts = self._parts()
            return parts[0][key] if self._single else [part[key] for part in parts]
        return self.get(0)[key]

    def __getattr__(self, name: str) -> Any:
        if name in FIELDS:
            return self[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *FIELDS]

    def _parts(self) -> list[Metadata]:
        pending = self._pending
        return [describe_part(pending, position) for position in range(len(pending.outcomes))]

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

    def display_outputs(self, groupby: str = "type") -> None:
        """Show what the parts printed and displayed. groupby: 'type', 'engine' or 'order'.

        Raises TimeoutError while some parts have not ended, ValueError for another `groupby`.
        """
        if not self.done():
            raise TimeoutError(self._late(0))
        show_outputs(self._shown_parts(), single=self._single, groupby=groupby)

    def _shown_parts(self) -> list[Metadata]:
        """The parts, with what a cell's last expression gave among their outputs."""
        parts = self._parts()
        for part, value in zip(parts, self._values(), strict=True):
            if isinstance(value, CellReply) and value.execute_result is not None:
                part["outputs"] = [*part["outputs"], value.execute_result]
        return parts

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

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._name}: {self._state_text()}>"

    def _state_text(self) -> str:
        pending = self._pending
        if not pending.done:
            return f"pending, {self.progress} of {len(self)} done"
        if not pending.failed:
            return "finished"
        if self._single:
            return f"failed, {pending.outcomes[0].error}"
        failed = [t for t, outcome in zip(pending.targets, pending.outcomes, strict=True) if outcome.error is not None]
        return f"failed on engines {describe_ids(failed)}"


def at_most(timeout: float | None) -> float | None:
    """ipyparallel's timeouts as ours: None and negative ones mean for ever."""
    return None if timeout is None or timeout < 0 else timeout
