"""Functions that run elsewhere when they are called here."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hiersched.client.partition import columns, distribution

if TYPE_CHECKING:
    from hiersched.client.views import View


class RemoteFunction:
    """A function that, when called, runs on the engines of a view.

    block: whether it waits; the view's, if None. flags: of the view, for its calls.
    """

    def __init__(self, view: View, f: Callable[..., Any], block: bool | None = None, **flags: Any) -> None:
        self.view = view
        self.func = f
        self.block = block
        self.flags = flags
        functools.update_wrapper(self, f)
        self.__doc__ = f"{type(self).__name__} wrapping:\n{f.__doc__}" if f.__doc__ else type(self).__doc__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result where it blocks, else an AsyncResult."""
        view = self._view()
        call = view.apply_sync if self._blocks() else view.apply_async
        return call(self.func, *args, **kwargs)

    def _view(self) -> View:
        """The view with the flags of this function. Raises KeyError for one that is none."""
        return self.view.with_flags(**self.flags) if self.flags else self.view

    def _blocks(self) -> bool:
        return self.view.block if self.block is None else self.block

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {inspect.unwrap(self.func)!r} on {self.view!r}>"


class ParallelFunction(RemoteFunction):
    """A function that, when called on sequences, runs on a share of them on each engine; the results are joined.

    dist: 'b' shares are blocks, 'r' they are dealt out in turn. On a direct view each engine gets one share. On a
    load-balanced one shares have at most `chunksize` items, or one. ordered, return_exceptions: as of the view's map.
    `map` calls the function on single items instead, for which `chunksize` is that of the view's map.
    """

    def __init__(
        self,
        view: View,
        f: Callable[..., Any],
        dist: str = "b",
        block: bool | None = None,
        chunksize: int | None = None,
        ordered: bool = True,
        return_exceptions: bool = False,
        **flags: Any,
    ) -> None:
        super().__init__(view, f, block, **flags)
        self._distribution = distribution(dist)
        self.chunksize = chunksize
        self.ordered = ordered
        self.return_exceptions = return_exceptions

    def __call__(self, *sequences: Any) -> Any:
        """The joined results where it blocks, else an AsyncMapResult. Raises ValueError for unequal lengths."""
        lengths = {len(sequence) for sequence in sequences if hasattr(sequence, "__len__")}
        if len(lengths) > 1:
            raise ValueError(f"all sequences must have the same length, not {sorted(lengths)}")
        whole, count = columns(sequences)
        parts = self._view().shares_of(count, self.chunksize)
        shares = [[share for share in self._distribution.split(column, parts) if len(share)] for column in whole]
        return self._started(shares, chunksize=None, join=self._distribution.join)

    def map(self, *sequences: Iterable[Any]) -> Any:
        """The function on each item: a list where it blocks, else an AsyncMapResult."""
        return self._started(sequences, chunksize=self.chunksize)

    def _started(
        self, sequences: Iterable[Any], *, chunksize: int | None, join: Callable[[list[Any]], Any] | None = None
    ) -> Any:
        """The view's map over `sequences`."""
        from hiersched.client.balanced_view import LoadBalancedView
        from hiersched.client.views import MapOptions

        view = self._view()
        if self.chunksize is not None and not isinstance(view, LoadBalancedView):
            warnings.warn("chunksize is of no use on a direct view: each engine gets one share", stacklevel=3)
        options = MapOptions(
            chunksize=chunksize, ordered=self.ordered, return_exceptions=self.return_exceptions, join=join
        )
        result = view.start_map(self.func, tuple(sequences), options)
        return result.get() if self._blocks() else result
