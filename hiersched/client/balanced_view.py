"""A view whose calls run on one engine each, whichever of its engines is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from operator import index
from typing import TYPE_CHECKING, Any, Self

import msgspec

from hiersched.client.balanced_map import BalancedMap
from hiersched.client.chunks import ChunkSizer
from hiersched.client.dependencies import Dependency
from hiersched.client.joined import JoinedMapResult
from hiersched.client.lazy_map import LazyMap, LazyMapOptions
from hiersched.client.map_results import AsyncMapResult
from hiersched.client.map_run import chunk_packer
from hiersched.client.partition import columns
from hiersched.client.results import AsyncResult
from hiersched.client.targets import describe_ids, means_all, resolve_targets
from hiersched.client.terms import Term, checked_dependency, checked_priority, checked_retries, checked_timeout
from hiersched.client.views import MapOptions, View, name_of
from hiersched.kernels import bitset
from hiersched.limits import TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m

if TYPE_CHECKING:
    from hiersched.client.client import Client
    from hiersched.client.pending import Pending
    from hiersched.data.serialize import PackedCall

_ANY = m.Terms()  # what a task asks for that asks for nothing


class LoadBalancedView(View):
    """All engines, or those named by `targets`, with the tree choosing which of them runs a call.

    flags: block, track, label; after, follow, timeout, retries, priority. The last five may also be set for one call
    with `temp_flags`, and hold for each task of a map.
    """

    _FLAGS = (*View._FLAGS, "after", "follow", "timeout", "retries", "priority")

    after = Term(
        checked_dependency, "Tasks that must have ended: AsyncResults, ids, a Dependency, or None.", standing=False
    )
    follow = Term(checked_dependency, "Tasks on whose engines a task must run: as `after`.", standing=False)
    timeout = Term(checked_timeout, "Seconds that a task waits for these, after which it fails; None or 0: for ever.")
    retries = Term(checked_retries, "How many times a task may run again after it failed or its engine was lost.")
    priority = Term(checked_priority, "Tasks of higher priority go first.")

    def __init__(self, client: Client, targets: Any = None, **flags: Any) -> None:
        self.after = self.follow = self.timeout = None
        self.retries = self.priority = 0
        super().__init__(client, targets=targets, **flags)

    @property
    def targets(self) -> list[int] | None:
        """The engines that tasks may run on; None: any. Raises UnknownEngine when set to one that does not exist."""
        return None if self._ids is None else list(self._ids)

    @targets.setter
    def targets(self, targets: Any) -> None:
        everywhere = means_all(targets) and not isinstance(targets, slice)
        self._ids = None if everywhere else resolve_targets(targets, self.session.engine_ids())
        self.forget_terms()

    def __len__(self) -> int:
        return self.session.dispatch_width() if self._ids is None else len(self._ids)

    def __repr__(self) -> str:
        count = len(self)
        shown = f"{count} engine{'s' * (count != 1)}"
        if self._ids is not None:
            shown = f"engine{'s' * (count != 1)} {describe_ids(self._ids)}"
        return f"<{type(self).__name__} of {shown}>"

    # --- terms --------------------------------------------------------------------------------------------------------

    def forget_terms(self) -> None:
        """What tasks ask for has changed."""
        self._standing: m.Terms | None = None

    def _terms(self) -> m.Terms | None:
        """What the next task asks for; None where it asks for nothing."""
        standing = self._standing
        if standing is None:
            standing = self._standing = self._terms_without_dependencies()
        if self._after or self._follow:
            after, known = self._dependency(self._after)
            follow, also_known = self._dependency(self._follow)
            both = list({task: (task, *end) for task, *end in (*known, *also_known)}.values())
            return msgspec.structs.replace(standing, after=after, follow=follow, known=both)
        return None if standing is _ANY else standing

    def _terms_without_dependencies(self) -> m.Terms:
        terms = m.Terms(
            targets=_ANY.targets if self._ids is None else bitset.to_wire(bitset.of_ranks(self._ids)),
            priority=self._priority,
            retries=self._retries,
            timeout_s=self._timeout or 0.0,
        )
        return _ANY if terms == _ANY else terms

    def _dependency(self, given: Any) -> tuple[m.Dependency | None, list[tuple[int, bool, int]]]:
        """A dependency as it travels, and how those of its tasks ended that have. Raises what it cannot be met for."""
        if not given:
            return None, []
        if isinstance(given, Dependency):
            return self.session.dependency(list(given), all=given.all, success=given.success, failure=given.failure)
        return self.session.dependency(given, all=True, success=True, failure=False)

    # --- apply --------------------------------------------------------------------------------------------------------

    def submit(self, packed: PackedCall) -> Pending:
        """A task on this view's terms."""
        return self._noted(self.session.task(packed, terms=self._terms()))

    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """`f(*args, **kwargs)` on some engine, as an AsyncResult at once."""
        return AsyncResult(self.session, self.submit(self._packed(f, args, kwargs)), name=name_of(f), single=True)

    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of `f(*args, **kwargs)` on some engine."""
        pending = self.submit(self._packed(f, args, kwargs))
        self.session.wait((pending,), None)
        return pending.outcomes[0].value

    # --- map ----------------------------------------------------------------------------------------------------------

    def map(
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        max_outstanding: int | None = None,
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Any:
        """`f` on each item of `sequences`, as the builtin: a list where it blocks, else an AsyncMapResult.

        chunksize: items that travel together; None: it adapts to how long they take. ordered: whether iterating over
        the result follows the items, or goes as chunks come back. max_outstanding: chunks out at a time; None: a few
        for each engine. return_exceptions: give the errors of items, do not raise them. With `retries`, a chunk is
        tried again as a whole, and holds one item unless told otherwise.
        """
        options = MapOptions(chunksize, ordered, return_exceptions, max_outstanding, label)
        return self._maybe_got(self.start_map(f, sequences, options), block)

    def start_map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], options: MapOptions
    ) -> AsyncMapResult:
        """Chunks that go to whichever engine is free."""
        whole, _ = columns(sequences)
        items = 1 if self.retries and options.chunksize is None else options.chunksize
        sizer = ChunkSizer(items, chunks_max=options.max_outstanding)
        run = BalancedMap(self.tasks(options.label), whole, pack=self._chunk_packer(f), sizer=sizer, name=name_of(f))
        self._calls.maps.add(run)
        run.start()
        kind = AsyncMapResult if options.join is None else JoinedMapResult
        return kind(run, ordered=options.ordered, return_exceptions=options.return_exceptions, join=options.join)

    def imap(
        self,
        f: Callable[..., Any],
        /,
        *sequences: Iterable[Any],
        ordered: bool = True,
        max_outstanding: int | str = "auto",
        return_exceptions: bool = False,
        label: str | None = None,
    ) -> Iterator[Any]:
        """The results of `f` on each item, where the input is read only as results are taken: it may be endless.

        ordered: in the order of the input, or as they come back. max_outstanding: items out at most; 'auto': a few
        chunks for each engine; 0: as many as a client may. Its `cancel()` stops it. Raises ValueError for other bounds.
        """
        if not sequences:
            raise TypeError("imap needs at least one sequence")
        options = LazyMapOptions(
            ordered=ordered,
            return_exceptions=return_exceptions,
            items_max=_items_out_max(max_outstanding),
        )
        sizer = ChunkSizer(1 if self.retries else None)
        calls = zip(*sequences, strict=False)
        run = LazyMap(self.tasks(label), calls, pack=self._chunk_packer(f), sizer=sizer, options=options)
        self._calls.lazy_maps.add(run)
        return run.start()

    def shares_of(self, count: int, chunksize: int | None) -> int:
        """Into how many shares a parallel function cuts `count` items: of at most `chunksize` items, or of one."""
        return max(-(-count // (chunksize or 1)), 1)

    def _chunk_packer(self, f: Callable[..., Any]) -> Callable[[tuple[Any, ...]], PackedCall]:
        session = self.session
        return chunk_packer(session.packer, f, by_value=session.by_value, strict=self.retries > 0)

    def tasks(self, label: str | None = None) -> ViewTasks:
        """The session, for what submits many tasks on the terms that this view has now."""
        return ViewTasks(self.with_flags() if label is None else self.with_flags(label=label))

    # --- others -------------------------------------------------------------------------------------------------------

    def _balanced(self) -> Self:
        return self

    def register_joblib_backend(self, name: str = "hiersched", make_default: bool = False) -> None:
        """Make joblib's backend `name` run on this view's engines."""
        from hiersched.client.joblib_backend import register_view

        register_view(self, name, make_default=make_default)


def _items_out_max(max_outstanding: int | str) -> int | None:
    """The bound that `imap` was given, None for 'auto'. Raises ValueError."""
    if max_outstanding == "auto":
        return None
    if not hasattr(max_outstanding, "__index__") or (bound := index(max_outstanding)) < 0:
        raise ValueError(f"max_outstanding is a number of items, 'auto' or 0 for no bound, not {max_outstanding!r}")
    return bound or TASKS_IN_FLIGHT_PER_CLIENT_MAX


class ViewTasks:
    """A session as maps see it that belong to one view: what they submit goes out on the view's terms."""

    def __init__(self, view: LoadBalancedView) -> None:
        self._view = view
        self._session = view.session

    def task(self, packed: PackedCall) -> Pending:
        """One task."""
        return self._view.submit(packed)

    def dispatch_width(self) -> int:
        """How many engines the tasks may run on."""
        return len(self._view)

    def __getattr__(self, name: str) -> Any:
        """All else is the session's: waiting and cancelling."""
        return getattr(self._session, name)
