"""What a map gives at once: the results of its items as they come.

A failed item costs no other: errors stand beside the good results, by the item's position in the map. Iterating gives
results as soon as they are back, and raises the error of an item when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hiersched.client.map_run import items_in
from hiersched.client.metadata import Metadata, describe_part
from hiersched.client.pump import deadline_of
from hiersched.client.results import AsyncResult, Join, at_most
from hiersched.client.streaming import Stream
from hiersched.errors import CompositeError, UserError

if TYPE_CHECKING:
    from hiersched.client.map_run import Chunk, MapRun
    from hiersched.data.serialize import Ticket


class AsyncMapResult(AsyncResult):
    """The results of the items of a map, which travel in chunks.

    ordered: iterate in the order of the items, and not as chunks come back; return_exceptions: give the errors of items
    in their places, do not raise them; join: makes the final result of the list of results where all succeeded. Its
    length and progress count items; its metadata has one entry per chunk.
    """

    _read = staticmethod(items_in)
    _unit = "item"

    def __init__(
        self, run: MapRun, *, ordered: bool = True, return_exceptions: bool = False, join: Join | None = None
    ) -> None:
        self._run = run
        self._ordered = ordered
        super().__init__(run.session, run, name=run.name, join=join)  # type: ignore[arg-type]
        self._return_exceptions = return_exceptions

    # --- waiting ------------------------------------------------------------------------------------------------------

    def _block(self, timeout_s: float | None) -> bool:
        return self._run.wait(timeout_s)

    def _block_until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        return self._run.wait_until(condition, timeout_s)

    def _some_failed(self) -> bool:
        """Whether some item that is back has failed."""
        return self._run.failed or any(chunk.items()[1] for chunk in self._run.chunks if chunk.outcome is not None)

    @property
    def sent(self) -> bool:
        """Whether the sequences may be changed: all items are on their way."""
        return self._run.sent

    def wait_for_send(self, timeout: float | None = -1) -> None:
        """Block until `sent`. Raises TimeoutError where that takes longer than `timeout` seconds."""
        if not self._wait_until(lambda: self._run.sent, at_most(timeout)):
            raise TimeoutError(f"map of {self._fname}: not all items were sent within {timeout} s")

    def successful(self) -> bool:
        """Whether every item succeeded. Raises RuntimeError while some are not back."""
        if not self.done():
            raise RuntimeError(f"{self!r} has not ended; wait() first")
        return self._error() is None

    def cancel(self, running: bool = False) -> bool:
        """Stop the map: items not yet sent never run. True unless it had ended.

        Chunks that have started are left to end, or interrupted if `running`; what they give is dropped.
        """
        if not self._run.done:
            self._run.cancel(running=running)
        return self.cancelled()

    # --- results ------------------------------------------------------------------------------------------------------

    def get(
        self, timeout: float | None = None, return_exceptions: bool | None = None, return_when: str | None = None
    ) -> Any:
        """All results in the order of the items.

        timeout: seconds, None or negative for ever. Raises TimeoutError saying how far it is; CompositeError, keyed by
        position, where items failed; TaskCancelled. return_exceptions: give the errors of items, do not raise them, and
        what stopped the map in the places of items that are not back. return_when: with FIRST_EXCEPTION, errors are
        raised as soon as there is one.
        """
        if return_when == FIRST_EXCEPTION:
            self._wait_until(self._condition_of(return_when), at_most(timeout))
        elif not self.done():
            self.wait(timeout)
        if not self.done() and not (return_when == FIRST_EXCEPTION and self._some_failed()):
            raise TimeoutError(self._late(timeout))
        give = self._return_exceptions if return_exceptions is None else return_exceptions
        if self._run.error is not None and not give:
            raise self._run.error
        results, errors = self._collected()
        if self._run.error is not None:
            errors = dict.fromkeys(self._missing(), self._run.error) | errors
        if not errors:
            return results if self._join is None else self._join(results)
        if not give:
            raise self._composite(results, errors)
        for position, error in errors.items():
            results[position] = error
        return results

    def _error(self) -> BaseException | None:
        if self._run.error is not None:
            return self._run.error
        results, errors = self._collected()
        return self._composite(results, errors) if errors else None

    def _first_error(self) -> BaseException | None:
        failed = (outcome.error for outcome in self._run.outcomes if outcome is not None and outcome.error is not None)
        return self._run.error or next(failed, None)

    def _collected(self) -> tuple[list[Any], dict[int, Exception]]:
        """The results of all items, None where one failed or is not back, and {position: error}."""
        results: list[Any] = []
        errors: dict[int, Exception] = {}
        for chunk in self._run.chunks:
            good, bad = chunk.items() if chunk.outcome is not None else ([None] * chunk.count, {})
            results += good
            errors.update(bad)
        return results + [None] * (self._run.count - len(results)), errors

    def _so_far(self) -> tuple[dict[int, Any], dict[int, Exception]]:
        """{position: result} and {position: error} of the items that are back."""
        results: dict[int, Any] = {}
        errors: dict[int, Exception] = {}
        for chunk in self._run.chunks:
            if chunk.outcome is not None:
                good, bad = chunk.items()
                results.update(enumerate(good, chunk.start))
                errors.update(bad)
        return {position: value for position, value in results.items() if position not in errors}, errors

    def _composite(self, results: list[Any], errors: dict[int, Exception]) -> CompositeError:
        message = f"{self._fname} failed for {len(errors)} of {self._run.count} items"
        return CompositeError(message, errors, results, unit="item ")

    def _missing(self) -> list[int]:
        good, bad = self._so_far()
        return [position for position in range(self._run.count) if position not in good and position not in bad]

    def _late(self, timeout: float | None) -> str:
        return f"map of {self._fname}: {self._run.late()} within {timeout} s; it still runs, ask again"

    def __hiersched_result__(self) -> Ticket:
        """Raises UserError: the results of a map are those of many tasks."""
        raise UserError(f"{self!r} is not the result of one task, as an argument has to be: pass get()")

    # --- parts --------------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self._run.count

    def __iter__(self) -> Iterator[Any]:
        """Results as soon as they are back, in the order of the items unless made with ordered=False."""
        for chunk in self._chunks():
            yield from chunk_values(chunk, return_exceptions=self._return_exceptions)

    def _chunks(self, ends_at: float | None = None, *, ordered: bool | None = None) -> Iterator[Chunk]:
        """The chunks as they are back."""
        if self._ordered if ordered is None else ordered:
            return self._run.in_order(ends_at, self._watched)
        return self._run.as_done(ends_at, self._watched)

    def as_completed(
        self, timeout: float | None = None, return_exceptions: bool | None = None
    ) -> Iterator[tuple[int, Any]]:
        """(position, result) of each item as it comes, whatever the order.

        timeout: seconds from now in which all must have come, or TimeoutError is raised. return_exceptions: give the
        errors of items, do not raise them.
        """
        give = self._return_exceptions if return_exceptions is None else return_exceptions
        for chunk in self._chunks(deadline_of(at_most(timeout)), ordered=False):
            yield from enumerate(chunk_values(chunk, return_exceptions=give), chunk.start)

    def split(self) -> tuple[AsyncResult, ...]:
        """One AsyncResult for each chunk that was sent so far, to be waited for apart."""
        return tuple(self._of([self._run.part(place)], single=False) for place in range(len(self._run.chunks)))

    def _parts(self) -> list[Metadata]:
        return [describe_part(self._run, place) for place in range(len(self._run.chunks))]

    def _values(self) -> list[Any]:
        return [None] * len(self._run.chunks)  # what items gave is no output

    @property
    def progress(self) -> int:
        """How many items are back, out of len(self)."""
        return self._run.progress

    @contextmanager
    def stream_output(self) -> Iterator[None]:
        """Within the block, show what is printed and displayed as it comes, what came before included."""
        stream = Stream(self._session, single=False)
        with self._run.following(stream.follow), stream.flowing(self._pending):
            yield

    def _state_text(self) -> str:
        run = self._run
        if not run.done:
            return f"pending, {run.late()}"
        if run.error is not None:
            return f"ended early, {run.error}"
        return f"{run.count} items finished" if not run.failed else f"{run.count} items ended, some failed"


def chunk_values(chunk: Chunk, *, return_exceptions: bool) -> Iterator[Any]:
    """The results of one chunk. An item's error takes its place, or is raised there."""
    results, errors = chunk.items()
    if not errors:
        yield from results
        return
    for position, result in enumerate(results, chunk.start):
        error = errors.get(position)
        if error is None:
            yield result
        elif return_exceptions:
            yield error
        else:
            raise error
