"""What the tasks of a view ask for: attributes that are looked at when they are set, not when a task has failed."""

from __future__ import annotations

from collections.abc import Callable
from operator import index
from typing import Any

from hiersched.client.dependencies import as_dependency
from hiersched.limits import RETRIES_MAX

_PRIORITY_MAX = 2**31


class Term:
    """An attribute of a view that goes with its tasks.

    check: gives the value to keep, or raises. standing: what travels of it is the same until it is set again.
    """

    def __init__(self, check: Callable[[Any], Any], doc: str, *, standing: bool = True) -> None:
        self._check = check
        self._standing = standing
        self.__doc__ = doc

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, view: Any, owner: type | None = None) -> Any:
        return self if view is None else getattr(view, self._name)

    def __set__(self, view: Any, value: Any) -> None:
        setattr(view, self._name, self._check(value))
        if self._standing:
            view.forget_terms()


def checked_retries(retries: Any) -> int:
    """A number of retries. Raises TypeError for what is no whole number, ValueError for one out of bounds."""
    try:
        count = index(retries)
    except TypeError:
        raise TypeError(f"retries must be a whole number, not {retries!r}") from None
    if not 0 <= count <= RETRIES_MAX:
        raise ValueError(f"retries must be from 0 to {RETRIES_MAX}, not {count}")
    return count


def checked_timeout(timeout: Any) -> float | None:
    """Seconds to wait for dependencies; None and 0: for ever. Raises TypeError or ValueError for what is no such."""
    if timeout is None:
        return None
    if isinstance(timeout, str) or not hasattr(timeout, "__float__"):
        raise TypeError(f"timeout must be a number of seconds, not {timeout!r}")
    seconds = float(timeout)
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"timeout must be at least 0 seconds, and finite, not {timeout}; None waits for ever")
    return seconds


def checked_priority(priority: Any) -> int:
    """A priority; higher ones first. Raises TypeError for what is no whole number, ValueError for one out of bounds."""
    try:
        value = index(priority)
    except TypeError:
        raise TypeError(f"priority must be a whole number, not {priority!r}") from None
    if abs(value) >= _PRIORITY_MAX:
        raise ValueError(f"priority must be below {_PRIORITY_MAX} in magnitude, not {value}")
    return value


checked_dependency = as_dependency
