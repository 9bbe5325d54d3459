"""The standard library's executor on the engines of a view.

Functions are shipped by value, as those who use executors expect: a function sees the globals it was defined with, and
not an engine's namespace. Any number of tasks may be submitted; the session and the tree hold them back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TYPE_CHECKING, Any

from hiersched.client.balanced_map import BalancedMap
from hiersched.client.call_future import CallFuture
from hiersched.client.chunks import ChunkSizer
from hiersched.client.lazy_map import MapIterator
from hiersched.client.map_results import chunk_values
from hiersched.client.map_run import chunk_packer
from hiersched.client.partition import columns
from hiersched.data.outcomes import original_of
from hiersched.errors import RemoteError

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.pending import Pending


class ViewExecutor(Executor):
    """Runs calls on whichever engine of `view` is free, on the view's terms.

    Shutting it down leaves the engines and the client as they are.
    """

    def __init__(self, view: LoadBalancedView) -> None:
        self.view = view
        self._session = view.session
        self._packer = view.session.packer
        self._open: set[Pending] = set()
        self._maps: set[BalancedMap] = set()
        self.closed = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} on {self.view!r}{': closed' if self.closed else ''}>"

    @property
    def _max_workers(self) -> int:
        """How many calls run at a time; some libraries ask."""
        return len(self.view)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future:
        """A future of `fn(*args, **kwargs)` on some engine. Raises RuntimeError after `shutdown`, PackError."""
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        pending = self.view.submit(self._packer.pack_call(fn, args, kwargs, by_value=True))
        self._open.add(pending)
        pending.add_done_callback(self._open.discard)
        return CallFuture(self._session, pending)

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
    ) -> ExecutorMap:
        """The results of `fn` on each item, in order, as they come back.

        timeout: seconds from now in which a result must be there when it is asked for, or TimeoutError is raised.
        chunksize: items sent together; None: adapts to how long they take. An iterator is read whole, at once. Closing
        the iterator of results withdraws what has not started.
        """
        if self.closed:
            raise RuntimeError("cannot schedule new futures after shutdown")
        ends_at = None if timeout is None else time.monotonic() + timeout
        whole, _ = columns(iterables)
        strict = self.view.retries > 0
        pack = chunk_packer(self._packer, fn, by_value=True, strict=strict)
        sizer = ChunkSizer(1 if strict and chunksize is None else chunksize)
        run = BalancedMap(self.view.tasks(), whole, pack=pack, sizer=sizer, name=getattr(fn, "__name__", "map"))
        self._maps.add(run)
        run.add_done_callback(self._maps.discard)
        run.start()
        return ExecutorMap(run, ends_at)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. wait: until those submitted have ended; cancel_futures: those not started never run."""
        self.closed = True
        if cancel_futures:
            self.cancel_all()
        if wait:
            self._session.wait(tuple(self._open), None)
            for run in tuple(self._maps):
                run.wait(None)

    def cancel_all(self) -> None:
        """Withdraw every call that has not started. The executor takes further ones."""
        for run in tuple(self._maps):
            run.cancel()
        self._session.cancel(tuple(self._open))


class ExecutorMap(MapIterator):
    """The results of a map of an executor, in order. ends_at: by the monotonic clock, when they must be there."""

    def __init__(self, run: BalancedMap, ends_at: float | None) -> None:
        self._results = _results_of(run, ends_at)
        self._run = run

    def __next__(self) -> Any:
        return next(self._results)

    def cancel(self) -> None:
        """Withdraw what has not started."""
        self._run.cancel()

    def close(self) -> None:
        """`cancel`, and end the iteration."""
        self._run.cancel()
        self._results.close()


def _results_of(run: BalancedMap, ends_at: float | None) -> Generator[Any, None, None]:
    """The results of a map until `ends_at`; what has not started by the end of the iteration never will."""
    try:
        for chunk in run.in_order(ends_at):
            yield from chunk_values(chunk, return_exceptions=False)
    except RemoteError as error:
        raise original_of(error) from error
    finally:
        run.cancel()
