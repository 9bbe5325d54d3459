"""Whether a function is still what it was when it was packed.

A snapshot lists, as identities, all that makes a function what it is: its code, defaults, attributes, what its cells
hold; for one packed by value also the globals that it uses; and the same of every function among these. It exists only
if all of that is immutable or itself listed, for then nothing can change without an identity changing. A function with,
say, a list among its defaults has no snapshot: it is packed again each time, and its digest tells whether it changed.
Snapshots hold what they list, so that no identity is ever used twice.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Iterable
from itertools import repeat
from operator import is_
from types import BuiltinFunctionType, CellType, CodeType, FunctionType, ModuleType
from typing import Any, Protocol

import numpy as np

from hiersched.data.functions import annotations_of, brings_globals, found, is_registered_by_value, reference_of
from hiersched.limits import FUNCTIONS_CACHED_MAX

_NUMPY_SCALARS = {kind for kind in np.sctypeDict.values() if not issubclass(kind, (np.void, np.object_))}
ATOMS = frozenset(
    {type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis), type(NotImplemented)} | _NUMPY_SCALARS
)
_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_NAME"})
_ABSENT = object()  # what an empty cell holds, and a namespace under a name it lacks


class Snapshot:
    """What a function was; `holds` tells whether it still is, in about a microsecond."""

    __slots__ = ("_facts",)

    def __init__(self, facts: list[_Fact]) -> None:
        self._facts = facts

    def holds(self) -> bool:
        """Whether the function would be packed into the same bytes now."""
        for fact in self._facts:  # noqa: SIM110 (a generator would double the cost)
            if not fact.holds():
                return False
        return True


def snapshot_of(function: Any, *, by_value: bool = False) -> Snapshot | None:
    """The snapshot of a function, partial, importable class or builtin; None if something in it may change unseen."""
    survey = _Survey(by_value)
    return Snapshot(survey.facts) if survey.covers(function) else None


class _Fact(Protocol):
    def holds(self) -> bool:
        """Whether it is still so."""


class _Imported:
    """That an object travels as its name: it is found under it, and its module is not to travel by value."""

    __slots__ = ("module", "qualname", "value")

    def __init__(self, value: Any, module: str, qualname: str) -> None:
        self.value, self.module, self.qualname = value, module, qualname

    def holds(self) -> bool:
        return found(self.module, self.qualname) is self.value and not is_registered_by_value(self.module)


class _Module:
    """That a module is imported; and if it is a package, that no import since can have added to what it offers."""

    __slots__ = ("imported", "module")

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.imported = len(sys.modules) if hasattr(module, "__path__") else None

    def holds(self) -> bool:
        if self.imported is not None and self.imported != len(sys.modules):
            return False
        return sys.modules.get(self.module.__name__) is self.module


class _Partial:
    """The parts of a functools.partial."""

    __slots__ = ("args", "attributes", "function", "keywords", "partial")

    def __init__(self, partial: functools.partial[Any]) -> None:
        self.partial, self.function, self.args = partial, partial.func, partial.args
        self.keywords, self.attributes = dict(partial.keywords), dict(partial.__dict__)

    def values(self) -> list[Any]:
        return [self.function, self.args, *self.keywords.values(), *self.attributes.values()]

    def holds(self) -> bool:
        partial = self.partial
        return (
            partial.func is self.function
            and partial.args is self.args
            and _same(partial.keywords, self.keywords)
            and _same(partial.__dict__, self.attributes)
        )


class _Names:
    """What a namespace holds under some names."""

    __slots__ = ("names", "namespace", "values")

    def __init__(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        self.namespace = namespace
        self.names = tuple(names)
        self.values = self.values_now()

    def values_now(self) -> list[Any]:
        return list(map(self.namespace.get, self.names, repeat(_ABSENT)))

    def holds(self) -> bool:
        return all(map(is_, self.values_now(), self.values))


class _Function:
    """The parts of one function."""

    __slots__ = (
        "annotations",
        "attributes",
        "cells",
        "code",
        "contents",
        "defaults",
        "doc",
        "function",
        "kwdefaults",
        "module",
        "name",
        "qualname",
    )

    def __init__(self, function: FunctionType) -> None:
        self.function = function
        self.code, self.defaults, self.doc = function.__code__, function.__defaults__, function.__doc__
        self.module, self.name, self.qualname = function.__module__, function.__name__, function.__qualname__
        self.cells = function.__closure__ or ()
        self.contents = list(map(_contents, self.cells))
        self.kwdefaults = dict(function.__kwdefaults__ or {})
        self.attributes = dict(function.__dict__)
        self.annotations = dict(annotations_of(function))

    def holds(self) -> bool:
        function = self.function
        return (
            function.__code__ is self.code
            and function.__defaults__ is self.defaults
            and function.__module__ is self.module
            and function.__name__ is self.name
            and function.__qualname__ is self.qualname
            and function.__doc__ is self.doc
            and (not self.cells or all(map(is_, map(_contents, self.cells), self.contents)))
            and _same(function.__kwdefaults__, self.kwdefaults)
            and _same(function.__dict__, self.attributes)
            and _same(annotations_of(function), self.annotations)
        )


def _contents(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return _ABSENT


def _same(now: dict[str, Any] | None, before: dict[str, Any]) -> bool:
    """Whether a dict has the same keys, and under each the very same object."""
    if not now or len(now) != len(before):
        return not now and not before
    for name, value in before.items():  # noqa: SIM110 (a generator would double the cost)
        if now.get(name, _ABSENT) is not value:
            return False
    return True


class _Survey:
    """Collects the facts that a function depends on."""

    def __init__(self, by_value: bool) -> None:
        self.facts: list[_Fact] = []
        self._by_value = by_value
        self._seen: set[int] = set()  # ids of objects that `facts` hold

    def covers(self, value: Any) -> bool:
        """Whether facts make sure that no change of `value` goes unseen."""
        kind = type(value)
        if kind in ATOMS or value is _ABSENT or id(value) in self._seen:
            return True
        if kind is tuple or kind is frozenset:
            return all(self.covers(item) for item in value)
        if kind is FunctionType or kind is BuiltinFunctionType or isinstance(value, type):
            reference = reference_of(value)
            if reference is not None:
                return self._note(value, _Imported(value, *reference))
            return kind is FunctionType and (self._by_value or not brings_globals(value)) and self._covers_parts(value)
        if kind is functools.partial:
            parts = _Partial(value)
            return self._note(value, parts) and all(map(self.covers, parts.values()))
        if isinstance(value, ModuleType) and sys.modules.get(value.__name__) is value:
            return self._note(value, _Module(value))
        return False

    def _note(self, value: Any, fact: _Fact) -> bool:
        self._seen.add(id(value))
        self.facts.append(fact)
        return True

    def _covers_parts(self, function: FunctionType) -> bool:
        parts = _Function(function)
        self._note(function, parts)
        values = [parts.defaults, *parts.kwdefaults.values(), *parts.attributes.values(), *parts.contents]
        if self._by_value:
            names = _Names(function.__globals__, global_names(function.__code__))
            self.facts.append(names)
            values += [*parts.annotations.values(), *names.values]
        return all(self.covers(value) for value in values)


@functools.lru_cache(FUNCTIONS_CACHED_MAX)
def global_names(code: CodeType) -> frozenset[str]:
    """The global names that `code`, and code within it, refers to."""
    names = frozenset(step.argval for step in dis.get_instructions(code) if step.opname in _GLOBAL_OPS)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= global_names(constant)
    return names
