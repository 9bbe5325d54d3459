"""What all views share: how functions and results are named, blocked on, mapped and decorated.

A view is a session and a choice of engines. It holds no connection and no results, so views are cheap, and any number
of them may be used side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from hiersched.client.executor import ViewExecutor
from hiersched.client.remote_functions import ParallelFunction, RemoteFunction

if TYPE_CHECKING:
    from hiersched.client.client import Client
    from hiersched.client.map_results import AsyncMapResult
    from hiersched.client.results import AsyncResult, Join
    from hiersched.data.serialize import PackedCall


class View(ABC):
    """Engines of one cluster, to call functions on.

    block: whether methods that can do both wait and give the result, or give an AsyncResult at once.
    """

    _FLAGS: tuple[str, ...] = ("block",)

    def __init__(self, client: Client, *, block: bool = False) -> None:
        self.client = client
        self.session = client.session
        self.block = block

    # --- flags --------------------------------------------------------------------------------------------------------

    def set_flags(self, **flags: Any) -> Self:
        """Set attributes of the view by name. Raises KeyError for one that is no flag."""
        for name, value in flags.items():
            if name not in self._FLAGS:
                raise KeyError(
                    f"{name!r} is no flag of a {type(self).__name__}; its flags are {', '.join(self._FLAGS)}"
                )
            setattr(self, name, value)
        return self

    @contextmanager
    def temp_flags(self, **flags: Any) -> Iterator[Self]:
        """Flags that hold within a `with` block."""
        before = {name: getattr(self, name) for name in self._FLAGS}
        self.set_flags(**flags)
        try:
            yield self
        finally:
            self.set_flags(**before)

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

    # --- map ----------------------------------------------------------------------------------------------------------

    def map(
        self, f: Callable[..., Any], /, *sequences: Iterable[Any], block: bool | None = None, **options: Any
    ) -> Any:
        """`f` on each item of `sequences`, as the builtin: a list where it blocks, else an AsyncMapResult."""
        result = self._map(f, sequences, **options)
        return result.get() if (self.block if block is None else block) else result

    def map_async(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> AsyncMapResult:
        """`map` that does not block. Raises TypeError if told to."""
        if "block" in options:
            raise TypeError("map_async() never blocks; use map(block=...)")
        return self.map(f, *sequences, block=False, **options)

    def map_sync(self, f: Callable[..., Any], /, *sequences: Iterable[Any], **options: Any) -> list[Any]:
        """`map` that blocks. Raises TypeError if told whether to."""
        if "block" in options:
            raise TypeError("map_sync() always blocks; use map(block=...)")
        return self.map(f, *sequences, block=True, **options)

    @abstractmethod
    def _map(
        self, f: Callable[..., Any], sequences: tuple[Iterable[Any], ...], *, join: Join | None = None, **options: Any
    ) -> AsyncMapResult:
        """The map of this kind of view, under way."""

    @abstractmethod
    def shares_of(self, count: int, chunksize: int | None) -> int:
        """Into how many shares a parallel function cuts `count` items."""

    # --- decorators and the like --------------------------------------------------------------------------------------

    def remote(self, block: bool | None = None) -> Callable[[Callable[..., Any]], RemoteFunction]:
        """A decorator: calling the function calls it on the view's engines. block: the view's, if None."""
        return partial(RemoteFunction, self, block=block)

    def parallel(
        self, dist: str = "b", block: bool | None = None, **options: Any
    ) -> Callable[[Callable[..., Any]], ParallelFunction]:
        """A decorator: calling the function calls it on shares of its sequences. options: those of the view's map."""
        return partial(ParallelFunction, self, dist=dist, block=block, options=options)

    def use_cloudpickle(self) -> None:
        """Ship functions by value: they bring their globals along. Holds for all views of the client."""
        self.session.by_value = True

    def use_pickle(self) -> None:
        """Ship functions so that those of a notebook or script see the engine's namespace: the default."""
        self.session.by_value = False

    @property
    def executor(self) -> ViewExecutor:
        """A concurrent.futures.Executor over all engines."""
        return ViewExecutor(self.client)


def remote(view: View, block: bool | None = None) -> Callable[[Callable[..., Any]], RemoteFunction]:
    """`view.remote(block)`."""
    return view.remote(block)


def parallel(
    view: View, dist: str = "b", block: bool | None = None, **options: Any
) -> Callable[[Callable[..., Any]], ParallelFunction]:
    """`view.parallel(dist, block, **options)`."""
    return view.parallel(dist, block, **options)


def name_of(function: Any) -> str:
    """What to call a function in messages."""
    if isinstance(function, partial):
        return name_of(function.func)
    return getattr(function, "__name__", None) or type(function).__name__
