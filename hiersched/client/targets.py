"""Which engines are meant: an id, several, a slice of those that exist, or all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import Any

from hiersched.errors import NoEngines, UnknownEngine

_RANGES_SHOWN_MAX = 8


def resolve_targets(targets: Any, engine_ids: Sequence[int]) -> tuple[int, ...]:
    """The engines that `targets` names among `engine_ids`, in the order asked for.

    targets: 'all', None or [:]; an id, where -1 is the last engine; a slice of the existing ids; or several ids. Raises
    NoEngines where that leaves none, UnknownEngine for an id that does not exist or stands twice, TypeError otherwise.
    """
    if not engine_ids:
        raise NoEngines("the cluster has no engines; start some, or wait until they have registered")
    if means_all(targets):
        return tuple(engine_ids)
    if isinstance(targets, slice):
        chosen = tuple(engine_ids[targets])
    elif isinstance(targets, (str, bytes)):
        raise TypeError(f"targets must be engine ids, a slice or 'all', not {targets!r}")
    elif isinstance(targets, Iterable):
        chosen = tuple(_existing(targets, engine_ids))
    else:
        chosen = tuple(_existing((targets,), engine_ids))
    if not chosen:
        raise NoEngines(f"no engine is meant by {targets!r}; the engines are {describe_ids(engine_ids)}")
    return chosen


def means_all(targets: Any) -> bool:
    """Whether `targets` means all engines, those to come included."""
    return targets is None or (isinstance(targets, str) and targets == "all") or targets == slice(None)


def is_single(targets: Any) -> bool:
    """Whether `targets` is one id, so that a call gives one result and not a list."""
    return hasattr(targets, "__index__")


def describe_ids(ids: Iterable[int]) -> str:
    """Engine ids with runs joined: '0-5, 9'. Long lists are cut and say how many there are."""
    runs: list[list[int]] = []
    count = 0
    for engine in sorted(ids):
        count += 1
        if runs and engine == runs[-1][1] + 1:
            runs[-1][1] = engine
        else:
            runs.append([engine, engine])
    shown = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in runs[:_RANGES_SHOWN_MAX])
    return shown if len(runs) <= _RANGES_SHOWN_MAX else f"{shown}, ... ({count} in all)"


def _existing(targets: Iterable[Any], engine_ids: Sequence[int]) -> list[int]:
    """Each target as an existing id, counting from the end where it is negative."""
    known = frozenset(engine_ids)
    engines = []
    for target in targets:
        engine = index(target)
        if engine not in known:
            if not -len(engine_ids) <= engine < 0:
                raise UnknownEngine(f"there is no engine {engine}; the engines are {describe_ids(engine_ids)}")
            engine = engine_ids[engine]
        engines.append(engine)
    if len(set(engines)) != len(engines):
        raise UnknownEngine(f"an engine is named twice in {engines}; a call runs once on each")
    return engines
