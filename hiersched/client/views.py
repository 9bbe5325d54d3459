"""What all views share: flags, calls that block or do not, maps, decorators, and the control of what was called.

A view is a session and a choice of engines. It holds no connection and no results, so views are cheap, and any number
of them may be used side by side.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from hiersched.client.call_log import CallLog
from hiersched.client.executor import ViewExecutor
from hiersched.client.pump import deadline_of, left_of
from hiersched.client.remote_functions import ParallelFunction, RemoteFunction
from hiersched.client.results import at_most
from hiersched.client.targets import resolve_targets
from hiersched.client.waits import wait_watched

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.client import Client
    from hiersched.client.map_results import AsyncMapResult
    from hiersched.client.pending import Pending
    from hiersched.client.results import AsyncResult, Join
    from hiersched.data.serialize import PackedCall


@dataclass(frozen=True)
class MapOptions:
    """How a map behaves.

    chunksize: items that travel together, None: it adapts to how long they take; ordered: iterate over the results in
    the order of the items, and not as they come; return_exceptions: give errors in the places of results;
    max_outstanding: chunks out at a time, None: a few for each engine; join: makes the final result of the parts'.
    """

    chunksize: int | None = None
    ordered: bool = True
    return_exceptions: bool = False
    max_outstanding: int | None = None
    label: str | None = None
    join: Join | None = None


class View(ABC):
    """Engines of one cluster, to call functions on.

    block: whether methods that can do both wait and give the result, or give an AsyncResult at once; by default the
    client's. label: a name for the calls, in their metadata. track: accepted for ipyparallel's sake; arguments may be
    changed as soon as the call was made.
    """

    _FLAGS: tuple[str, ...] = ("targets", "block", "track", "label")
    targets: Any

    def __init__(self, client: Client, **flags: Any) -> None:
        self.client = client
        self.session = client.session
        self.block: bool = client.block
        self.track = False
        self.label: str | None = None
        self._calls = CallLog()
        self._executor: ViewExecutor | None = None
        self.set_flags(**flags)

    @abstractmethod
    def __len__(self) -> int:
        """How many engines it has now."""

    # --- flags --------------------------------------------------------------------------------------------------------

    def set_flags(self, **flags: Any) -> Self:
        """Set attributes of the view by name. Raises KeyError for one that is no flag, and what the attribute does."""
        for name, value in flags.items():
            if name not in self._FLAGS:
                raise KeyError(
                    f"{name!r} is no flag of a {type(self).__name__}; its flags are {', '.join(self._FLAGS)}"
                )
            setattr(self, name, value)
        return self

    def temp_flags(self, **flags: Any) -> TemporaryFlags[Self]:
        """Flags that hold within a `with` block."""
        return TemporaryFlags(self, flags)

    def with_flags(self, **flags: Any) -> Self:
        """Another view of the same engines and calls, with these flags."""
        view = copy.copy(self)
        view._executor = None
        return view.set_flags(**flags)

    # --- apply --------------------------------------------------------------------------------------------------------

    def apply(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """`f(*args, **kwargs)` on the view's engines: its result where the view blocks, else an AsyncResult."""
        return self.apply_sync(f, *args, **kwargs) if self.block else self.apply_async(f, *args, **kwargs)

    @abstractmethod
    def apply_async(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> AsyncResult:
        """`f(*args, **kwargs)` on the view's engines, as an AsyncResult at once."""

    @abstractmethod
    def apply_sync(self, f: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """The result of `f(*args, **kwargs)` on the view's engines."""

    def _packed(self, f: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> PackedCall:
        session = self.session
        return session.packer.pack_call(f, args, kwargs, by_value=session.by_value)

    def _noted(self, pending: Pending, label: str | None = None) -> Pending:
        """A request that was just made, on record and under its label."""
        if label is None:
            label = self.label
        if label is not None:
            pending.label = label
        return self._calls.note(pending)

    def _maybe_got(self, result: AsyncResult, block: bool | None) -> Any:
        return result.get() if (self.block if block is None else block) else result

    # --- map ----------------------------------------------------------------------------------------------------------

    @abstractmethod
    def map(self, f: Callable[..., Any], /, *sequences: Iterable[Any], block: bool | None = None) -> Any:
        """`f` on each item of `sequences`, as the builtin: a list where it blocks, else an AsyncMapResult."""

    def map_async(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> AsyncMapResult:
        """`map` that does not block. Raises TypeError if told whether to."""
        if "block" in options:
            raise TypeError("map_async() never blocks; use map(block=...)")
        return self.map(f, *sequences, block=False, **options)

    def map_sync(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """`map` that blocks. Raises TypeError if told whether to."""
        if "block" in options:
            raise TypeError("map_sync() always blocks; use map(block=...)")
        return self.map(f, *sequences, block=True, **options)

    def imap(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> Iterator[Any]:
        """The results of `map_async`, one by one as they come."""
        return iter(self.map_async(f, *sequences, **options))

    @abstractmethod
    def start_map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], options: MapOptions
    ) -> AsyncMapResult:
        """The map of this kind of view, under way."""

    @abstractmethod
    def shares_of(self, count: int, chunksize: int | None) -> int:
        """Into how many shares a parallel function cuts `count` items."""

    # --- decorators and the like --------------------------------------------------------------------------------------

    def remote(self, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """A decorator: calling the function calls it on the view's engines. block: the view's, if None."""
        return partial(RemoteFunction, self, block=block, **flags)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **flags: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """A decorator: calling the function calls it on shares of its sequences. flags: see ParallelFunction."""
        return partial(ParallelFunction, self, dist=dist, block=block, **flags)

    def use_cloudpickle(self) -> None:
        """Ship functions by value: they bring their globals along. Holds for all views of the client."""
        self.session.by_value = True

    def use_dill(self) -> None:
        """The same as use_cloudpickle: functions bring their globals along. dill itself is not needed."""
        self.session.by_value = True

    def use_pickle(self) -> None:
        """Ship functions so that those of a notebook or script see the engine's namespace: the default."""
        self.session.by_value = False

    @property
    def executor(self) -> ViewExecutor:
        """A concurrent.futures.Executor: each call runs on one of the view's engines, whichever is free."""
        if self._executor is None or self._executor.closed:
            self._executor = ViewExecutor(self._balanced())
        return self._executor

    @abstractmethod
    def _balanced(self) -> LoadBalancedView:
        """A load-balanced view of the same engines."""

    # --- what was called ----------------------------------------------------------------------------------------------

    @property
    def history(self) -> list[str]:
        """The ids of this view's last calls, oldest first: at most CALLS_RECALLED_MAX."""
        return self._calls.ids()

    @property
    def results(self) -> Mapping[str, Any]:
        """The client's: {id: result} of calls that have ended and are held."""
        return self.client.results

    @property
    def outstanding(self) -> set[str]:
        """The ids of the parts of this view's calls that have not ended."""
        return self._calls.open_ids()

    def spin(self) -> None:
        """Take in what has come; nobody needs to, for it is taken in by itself."""
        self.session.engine_ids()

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for calls: AsyncResults, ids, places in the view's history; by default all that are outstanding.

        timeout: seconds, None or negative for ever. True if they have ended.
        """
        if jobs is not None:
            return self.client.wait(self._named(jobs), timeout)
        deadline = deadline_of(at_most(timeout))
        maps = all(run.wait(left_of(deadline)) for run in tuple(self._calls.maps))
        return maps and wait_watched(self.session.wait, tuple(self._calls.open), left_of(deadline))

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True) -> AsyncResult:
        """An AsyncResult of calls given by id or by their place in the view's history; by default of the last one."""
        jobs = self._named(-1 if indices_or_msg_ids is None else indices_or_msg_ids)
        return self.client.get_result(jobs, block=self.block if block is None else block, owner=owner)

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None) -> None:
        """Withdraw calls that have not started: AsyncResults or ids; by default all of this view's, maps included.

        targets: of this view's calls on engines, only those that these engines owe an answer.
        """
        if jobs is not None:
            self.client.abort(self._named(jobs), targets=targets, block=self.block if block is None else block)
            return
        for run in (*self._calls.maps, *self._calls.lazy_maps):
            run.cancel()
        requests = tuple(self._calls.open)
        if targets is not None:
            meant = set(resolve_targets(targets, self.session.engine_ids()))
            requests = tuple(made for made in requests if not made.targets or meant.intersection(made.missing()))
        self.session.cancel(requests)

    def purge_results(self, jobs: Any = (), targets: Any = ()) -> None:
        """Forget calls: their ids, for results are kept by nobody but the AsyncResults themselves.

        jobs: AsyncResults, ids or 'all'. targets: where any are given, all calls of this view are forgotten.
        """
        if jobs == "all" or targets not in ((), []):
            self._calls.forget_all()
            return
        listed = [jobs] if isinstance(jobs, str) or hasattr(jobs, "msg_ids") else list(jobs)
        self._calls.forget([part for job in listed for part in getattr(job, "msg_ids", [job])])

    def queue_status(self, targets: Any = None, verbose: bool = False) -> dict[Any, Any]:
        """What each engine has to do. See Client.queue_status."""
        return self.client.queue_status(targets=self._or_own(targets), verbose=verbose)

    def shutdown(self, targets: Any = None, restart: bool = False, hub: bool = False, block: bool | None = None) -> Any:
        """End the view's engines. restart: start others in their places; hub: end the whole cluster."""
        return self.client.shutdown(
            targets=self._or_own(targets), restart=restart, hub=hub, block=self.block if block is None else block
        )

    def kill(self, targets: Any = None, block: bool | None = None) -> Any:
        """End the view's engines at once, with SIGKILL. What they held fails with EngineLost."""
        return self.client.send_signal(
            "SIGKILL", targets=self._or_own(targets), block=self.block if block is None else block
        )

    def _or_own(self, targets: Any) -> Any:
        return self.targets if targets is None else targets

    def _named(self, jobs: Any) -> Any:
        """Calls with places in the view's history replaced by ids."""
        if hasattr(jobs, "__index__"):
            return self._calls.id_at(index(jobs))
        return [self._named(job) for job in jobs] if isinstance(jobs, (list, tuple, set)) else jobs


AnyView = TypeVar("AnyView", bound=View)


class TemporaryFlags(Generic[AnyView]):
    """A block within which a view has other flags; all that were set in it are as before at its end."""

    __slots__ = ("_before", "_flags", "_view")

    def __init__(self, view: AnyView, flags: dict[str, Any]) -> None:
        self._view = view
        self._flags = flags

    def __enter__(self) -> AnyView:
        self._before = vars(self._view).copy()
        try:
            return self._view.set_flags(**self._flags)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *exception: object) -> None:
        state = vars(self._view)
        self._before["_executor"] = state["_executor"]  # no flag
        state.update(self._before)


def remote(view: View, block: bool | None = None, **flags: Any) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """`view.remote(block, **flags)`."""
    return view.remote(block, **flags)


def parallel(
    view: View, dist: str = "b", block: bool | None = None, ordered: bool = True, **flags: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """`view.parallel(dist, block, **flags)`."""
    return view.parallel(dist, block, ordered=ordered, **flags)


def name_of(function: Any) -> str:
    """What to call a function in messages."""
    if isinstance(function, partial):
        return name_of(function.func)
    return getattr(function, "__name__", None) or type(function).__name__
