"""A view of the whole cluster: each call runs on one engine, whichever is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hiersched.client.balanced_map import BalancedMap
from hiersched.client.chunks import ChunkSizer
from hiersched.client.lazy_map import LazyMap, LazyMapOptions
from hiersched.client.map_results import AsyncMapResult
from hiersched.client.map_run import chunk_packer
from hiersched.client.partition import columns
from hiersched.client.results import AsyncResult, Join
from hiersched.client.views import View, name_of
from hiersched.limits import TASKS_IN_FLIGHT_PER_CLIENT_MAX

if TYPE_CHECKING:
    from collections.abc import Iterator


class LoadBalancedView(View):
    """All engines, with the tree choosing which of them runs a call."""

    targets = None  # whichever engine is free

    def __len__(self) -> int:
        return self.session.dispatch_width()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self)} engines>"

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """`f(*args, **kwargs)` on some engine, as an AsyncResult at once."""
        pending = self.session.task(self._packed(f, args, kwargs))
        return AsyncResult(self.session, pending, name=name_of(f), single=True)

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of `f(*args, **kwargs)` on some engine."""
        session = self.session
        pending = session.task(self._packed(f, args, kwargs))
        session.wait((pending,), None)
        return pending.outcomes[0].value

    def _map(
        self,
        f: Callable[..., Any],
        sequences: tuple[Iterable[Any], ...],
        *,
        join: Join | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
    ) -> AsyncMapResult:
        """Chunks of `chunksize` items, or of sizes that adapt to how long items take.

        ordered: whether iterating over the result follows the items, or goes as chunks come back.
        """
        whole, _ = columns(sequences)
        session = self.session
        pack = chunk_packer(session.packer, f, by_value=session.by_value)
        run = BalancedMap(session, whole, pack=pack, sizer=ChunkSizer(chunksize), name=name_of(f))
        run.start()
        return AsyncMapResult(run, ordered=ordered, return_exceptions=return_exceptions, join=join)

    def imap(
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        ordered: bool = True,
        max_outstanding: int | str = "auto",
        return_exceptions: bool = False,
    ) -> Iterator[Any]:
        """The results of `f` on each item, where the input is read only as results are taken: it may be endless.

        ordered: in the order of the input, or as they come back. max_outstanding: items out at most; 'auto': a few
        chunks for each engine; 0: as many as a client may. Its `cancel()` stops it.
        """
        if not sequences:
            raise TypeError("imap needs at least one sequence")
        session = self.session
        options = LazyMapOptions(
            ordered=ordered,
            return_exceptions=return_exceptions,
            items_max=None if max_outstanding == "auto" else int(max_outstanding) or TASKS_IN_FLIGHT_PER_CLIENT_MAX,
        )
        pack = chunk_packer(session.packer, f, by_value=session.by_value)
        calls = zip(*sequences, strict=False)
        return LazyMap(session, calls, pack=pack, sizer=ChunkSizer(), options=options).start()

    def shares_of(self, count: int, chunksize: int | None) -> int:
        """Into how many shares a parallel function cuts `count` items: of at most `chunksize` items, or of one."""
        return max(-(-count // (chunksize or 1)), 1)
