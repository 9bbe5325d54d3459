"""Why something cannot be pickled: which object is at fault, and where it sits.

Pickling reports a failure without a place. So what failed is taken apart, and its parts are pickled one by one, until
an object is found that fails although none of its parts does. Among many parts the failing one is found by bisection,
so that the search costs about as much again as pickling did.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from itertools import islice
from reprlib import repr as short_repr
from types import FunctionType, MethodType
from typing import Any, TypeAlias

import numpy as np

from hiersched.data.pickles import PROTOCOL, ReduceResult, pickler_for
from hiersched.data.snapshots import global_names
from hiersched.errors import PackError

DEPTH_MAX = 16  # steps from what was to be pickled to what is named
PARTS_MAX = 100_000  # looked at in one object

_Parts: TypeAlias = Iterable[tuple[str, Any]]  # each with the step that leads to it


def explain(
    place: str, value: Any, error: Exception, *, by_value: bool = False, reduce_result: ReduceResult | None = None
) -> PackError:
    """The error that says what in `value`, which sits at `place` and failed with `error`, cannot be pickled."""
    path: list[str] = []
    seen = {id(value)}
    while len(path) < DEPTH_MAX:
        step, part, cause = _failing_part(value, by_value=by_value, reduce_result=reduce_result)
        if cause is None or id(part) in seen:
            break
        path.append(step)
        seen.add(id(part))
        value, error = part, cause
    where = f"{place}: {''.join(path).strip()}" if path else place
    return PackError(f"{where} is a {_kind_of(value)}, which cannot be pickled: {type(error).__name__}: {error}")


def failure_of(value: Any, *, by_value: bool, reduce_result: ReduceResult | None = None) -> Exception | None:
    """What pickling `value` raises; None if it succeeds."""
    try:
        pickler = pickler_for(by_value)(_Nowhere(), PROTOCOL, buffer_callback=lambda buffer: False)
        pickler.reduce_result = reduce_result
        pickler.dump(value)
    except Exception as error:
        return error
    return None


class _Nowhere:
    """A file that keeps nothing."""

    def write(self, data: object) -> None:
        """Forget the data."""


def _failing_part(
    value: Any, *, by_value: bool, reduce_result: ReduceResult | None
) -> tuple[str, Any, Exception | None]:
    """The first part that cannot be pickled, the step to it and its error; no error if every part can."""
    fails = functools.partial(failure_of, by_value=by_value, reduce_result=reduce_result)
    parts = list(islice(_parts_of(value, by_value=by_value), PARTS_MAX))
    if fails([part for _, part in parts]) is None:
        return "", None, None
    while len(parts) > 1:
        first, second = parts[: len(parts) // 2], parts[len(parts) // 2 :]
        parts = second if fails([part for _, part in first]) is None else first
    step, part = parts[0]
    return step, part, fails(part)


def _kind_of(value: Any) -> str:
    kind = type(value)
    return f"<{kind.__qualname__}>" if kind.__module__ == "builtins" else f"<{kind.__module__}.{kind.__qualname__}>"


def _parts_of(value: Any, *, by_value: bool) -> _Parts:
    """What pickling `value` would pickle in turn, each with the step that leads to it."""
    if isinstance(value, dict):
        yield from ((f" key {short_repr(key)}", key) for key in value)
        yield from ((f"[{short_repr(key)}]", item) for key, item in value.items())
    elif isinstance(value, (list, tuple)):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, (set, frozenset)):
        yield from ((f" item {short_repr(item)}", item) for item in value)
    elif isinstance(value, np.ndarray) and value.dtype.hasobject:
        yield from ((f".flat[{index}]", item) for index, item in enumerate(value.flat))
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value, by_value=by_value)
    elif isinstance(value, MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, functools.partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    if not isinstance(value, FunctionType):
        yield from _attributes_of(value)


def _parts_of_function(function: FunctionType, *, by_value: bool) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f" closure variable {name!r}", cell.cell_contents
        except ValueError:  # not bound (yet)
            continue
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount]
    yield from ((f" default of {name!r}", value) for name, value in zip(names, defaults, strict=True))
    yield from ((f" default of {name!r}", value) for name, value in (function.__kwdefaults__ or {}).items())
    yield from ((f".{name}", value) for name, value in function.__dict__.items())
    if by_value:
        names_used = sorted(global_names(code) & function.__globals__.keys())
        yield from ((f" global {name!r}", function.__globals__[name]) for name in names_used)


def _attributes_of(value: Any) -> Iterator[tuple[str, Any]]:
    """The attributes an object carries itself, in its `__dict__` or in slots."""
    yield from ((f".{name}", attribute) for name, attribute in getattr(value, "__dict__", {}).items())
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield f".{name}", getattr(value, name)
