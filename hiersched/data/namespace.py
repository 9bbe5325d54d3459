"""What an engine runs on behalf of a view: put names, get names, run a share of a map.

These are ordinary functions that clients call on engines. Being importable on both sides, they travel by reference.
An engine hands its user namespace to `bind` once, before its first call; a process that never did has an empty one of
its own. The namespace is the one that cells run in and that functions from a notebook see as their globals.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

from hiersched.data.outcomes import code_of, pack_outcome_error
from hiersched.data.pickles import Buffer
from hiersched.protocol.messages import UNMET

user_namespace: dict[str, Any] = {}


def bind(namespace: dict[str, Any]) -> None:
    """Make `namespace` the one that every later call here reads and writes."""
    global user_namespace
    user_namespace = namespace


def push(**names: Any) -> None:
    """Set names of the user namespace. A dotted or subscripted one (`a.b`, `a[0]`) sets that part of what is there."""
    for name, value in names.items():
        if name.isidentifier():
            user_namespace[name] = value
        else:
            exec(f"{name} = __pushed", user_namespace, {"__pushed": value})


def pull(names: str | list[str]) -> Any:
    """The value of one name or expression in the user namespace, or a list with one value for each.

    Raises what evaluating it raises: NameError where it is undefined.
    """
    if isinstance(names, str):
        return _evaluate(names)
    return [_evaluate(name) for name in names]


def _evaluate(name: str) -> Any:
    try:
        return user_namespace[name]
    except KeyError:
        return eval(name, user_namespace)


def clear() -> None:
    """Empty the user namespace but for what IPython has in every one, where it runs."""
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if shell is None:
        user_namespace.clear()
    else:
        shell.reset(new_session=False)


class ChunkResults(NamedTuple):
    """What a chunk of a map gives back.

    results: one per item, None where it failed; failures: (position within the chunk, frames of the error's outcome).
    """

    results: list[Any]
    failures: list[tuple[int, list[Buffer]]]


def mapper(function: Callable[..., Any], /, *, strict: bool = False) -> Callable[..., ChunkResults]:
    """The function that maps `function` over chunks. Being one, it is kept on engines as functions are.

    strict: an item that raises fails the whole chunk, so that it can be tried again elsewhere.
    """

    def run_chunk(*columns: Iterable[Any]) -> ChunkResults:
        return map_chunk(function, *columns)

    def run_whole_chunk(*columns: Iterable[Any]) -> ChunkResults:
        return ChunkResults(list(map(function, *columns)), [])

    return run_whole_chunk if strict else run_chunk


def map_chunk(function: Callable[..., Any], /, *columns: Iterable[Any]) -> ChunkResults:
    """Call `function` on each item, or on the items side by side of several columns, as `map` would.

    An item that raises is noted and the others still run. What is not an Exception (an interrupt, an exit) ends the
    chunk, and so does UnmetDependency: the chunk belongs on another engine.
    """
    single = len(columns) == 1
    waiting: Iterator[Any] = iter(columns[0]) if single else zip(*columns, strict=False)
    call = function if single else partial(_spread, function)
    results: list[Any] = []
    failures: list[tuple[int, list[Buffer]]] = []
    append = results.append
    while True:
        try:
            for item in waiting:
                append(call(item))
        except Exception as error:
            if code_of(error) == UNMET:
                raise
            failures.append((len(results), pack_outcome_error(error, started=0.0, ended=0.0).whole))
            append(None)
        else:
            return ChunkResults(results, failures)


def _spread(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(*arguments)
