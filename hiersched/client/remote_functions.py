"""Functions that run elsewhere when they are called here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hiersched.client.partition import columns, distribution

if TYPE_CHECKING:
    from hiersched.client.views import View


class RemoteFunction:
    """A function that, when called, runs on the engines of a view. block: the view's, if None."""

    def __init__(self, view: View, function: Callable[..., Any], *, block: bool | None = None) -> None:
        self.view = view
        self.func = function
        self.block = block
        functools.update_wrapper(self, function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The result where it blocks, else an AsyncResult."""
        call = self.view.apply_sync if self._blocks() else self.view.apply_async
        return call(self.func, *args, **kwargs)

    def _blocks(self) -> bool:
        return self.view.block if self.block is None else self.block

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {inspect.unwrap(self.func)!r} on {self.view!r}>"


class ParallelFunction(RemoteFunction):
    """A function that, when called on sequences, runs on a share of them on each engine; the results are joined.

    On a direct view each engine gets one share. On a load-balanced one shares have at most `chunksize` items, or one.
    `map` calls the function on single items instead. options: those of the view's map.
    """

    def __init__(
        self,
        view: View,
        function: Callable[..., Any],
        *,
        dist: str = "b",
        block: bool | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(view, function, block=block)
        self._distribution = distribution(dist)
        self._options = options or {}

    def __call__(self, *sequences: Any) -> Any:
        """The joined results where it blocks, else an AsyncMapResult. Raises ValueError for unequal lengths."""
        lengths = {len(sequence) for sequence in sequences if hasattr(sequence, "__len__")}
        if len(lengths) > 1:
            raise ValueError(f"all sequences must have the same length, not {sorted(lengths)}")
        whole, count = columns(sequences)
        options = dict(self._options)
        parts = self.view.shares_of(count, options.pop("chunksize", None))
        shares = [[share for share in self._distribution.split(column, parts) if len(share)] for column in whole]
        result = self.view.map_async(self.func, *shares, join=self._distribution.join, **options)
        return result.get() if self._blocks() else result

    def map(self, *sequences: Iterable[Any]) -> Any:
        """The function on each item: a list where it blocks, else an AsyncMapResult."""
        return self.view.map(self.func, *sequences, block=self._blocks(), **self._options)
