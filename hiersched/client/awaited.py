"""Coroutine forms of methods that block."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def awaited(blocking: Callable[P, R]) -> Callable[P, Coroutine[Any, Any, R]]:
    """`name_sync` as the coroutine `name`: the same arguments, result and errors; it blocks a thread of its own."""

    @functools.wraps(blocking)
    async def form(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(blocking, *args, **kwargs)

    form.__name__ = blocking.__name__.removesuffix("_sync")
    form.__qualname__ = blocking.__qualname__.removesuffix("_sync")
    form.__doc__ = f"As `{blocking.__name__}`, awaited."
    return form
