"""What a map gives at once: the results of its items as they come.

A failed item costs no other: errors stand beside the good results, by the item's position in the map. Iterating gives
results as soon as they are back, and raises the error of an item when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from hiersched.client.metadata import Metadata, describe_part
from hiersched.client.results import AsyncResult, Join
from hiersched.errors import CompositeError

if TYPE_CHECKING:
    from hiersched.client.map_run import Chunk, MapRun


class AsyncMapResult(AsyncResult):
    """The results of the items of a map, which travel in chunks.

    ordered: iterate in the order of the items, and not as chunks come back; return_exceptions: give the errors of items
    in their places, do not raise them; join: makes the final result of the list of results where all succeeded. Its
    length and progress count items; its metadata has one entry per chunk.
    """

    def __init__(
        self, run: MapRun, *, ordered: bool = True, return_exceptions: bool = False, join: Join | None = None
    ) -> None:
        self._run = run
        self._ordered = ordered
        self._return_exceptions = return_exceptions
        super().__init__(run.session, run, name=run.name, join=join)  # type: ignore[arg-type]

    def _wait(self, timeout_s: float | None) -> bool:
        return self._run.wait(timeout_s)

    def _first_error(self) -> BaseException | None:
        failed = (outcome.error for outcome in self._run.outcomes if outcome is not None and outcome.error is not None)
        return self._run.error or next(failed, None)

    def cancel(self) -> bool:
        """Stop the map: items not yet sent never run. True unless it had ended.

        Chunks that have started are left to end, and what they give is dropped.
        """
        if not self._run.done:
            self._run.cancel()
        return self.cancelled()

    def get(self, timeout: float | None = None, return_exceptions: bool | None = None) -> Any:
        """All results in the order of the items.

        timeout: seconds, None or negative for ever. Raises TimeoutError saying how far it is; CompositeError, keyed by
        position, where items failed; TaskCancelled. return_exceptions: give the errors of items, do not raise them.
        """
        if not self.done() and not self.wait(timeout):
            raise TimeoutError(self._late(timeout))
        if self._run.error is not None:
            raise self._run.error
        results, errors = self._collected()
        if not errors:
            return results if self._join is None else self._join(results)
        if return_exceptions is None:
            return_exceptions = self._return_exceptions
        if not return_exceptions:
            raise self._composite(results, errors)
        for position, error in errors.items():
            results[position] = error
        return results

    def successful(self) -> bool:
        """Whether every item succeeded. Raises RuntimeError while some are not back."""
        if not self.done():
            raise RuntimeError(f"{self!r} has not ended; wait() first")
        return self._error() is None

    def _error(self) -> BaseException | None:
        if self._run.error is not None:
            return self._run.error
        results, errors = self._collected()
        return self._composite(results, errors) if errors else None

    def _collected(self) -> tuple[list[Any], dict[int, Exception]]:
        """The results of all items, None where one failed, and {position: error}."""
        results: list[Any] = []
        errors: dict[int, Exception] = {}
        for chunk in self._run.chunks:
            good, bad = chunk.items()
            results += good
            errors.update(bad)
        return results, errors

    def _composite(self, results: list[Any], errors: dict[int, Exception]) -> CompositeError:
        return CompositeError(f"{self._name} failed for {len(errors)} of {self._run.count} items", errors, results)

    def _late(self, timeout: float | None) -> str:
        return f"map of {self._name}: {self._run.late()} within {timeout} s; it still runs, ask again"

    def __len__(self) -> int:
        return self._run.count

    def __iter__(self) -> Iterator[Any]:
        """Results as soon as they are back, in the order of the items unless made with ordered=False."""
        for chunk in self._run.in_order() if self._ordered else self._run.as_done():
            yield from chunk_values(chunk, return_exceptions=self._return_exceptions)

    def _parts(self) -> list[Metadata]:
        return [describe_part(chunk.pending, chunk.position) for chunk in self._run.chunks if chunk.pending is not None]

    def _shown_parts(self) -> list[Metadata]:
        return self._parts()

    @property
    def progress(self) -> int:
        """How many items are back, out of len(self)."""
        return self._run.progress

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
