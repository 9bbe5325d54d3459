"""How a function travels, and which globals it gets where it arrives.

An importable function travels as its name. Any other travels as its parts: code, defaults, closure, attributes. Where
it arrives it is made anew with the globals of that place: one whose globals are `__main__` (a notebook, a script) sees
the user namespace there, one of another module sees that module, imported there. Cells travel as objects of their own,
made empty and filled afterwards, so that closures may share variables and refer to themselves.

Code is marshalled, which only the same Python can read: `load_code` refuses any other. Annotations that are not
importable travel as text, as `from __future__ import annotations` would have them.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import marshal
import sys
from contextvars import ContextVar
from types import CellType, CodeType, FunctionType
from typing import Any

import cloudpickle

from hiersched.errors import UnpackError

MAIN = "__main__"
MAIN_MODULES = frozenset({MAIN, "__mp_main__"})  # the second: `__main__` in a child of multiprocessing
PYTHON = f"{sys.implementation.cache_tag}-{importlib.util.MAGIC_NUMBER[:2].hex()}"  # who can read our marshalled code

# The user namespace of the place where something is being rebuilt; None: this process's `__main__`.
NAMESPACE: ContextVar[dict[str, Any] | None] = ContextVar("hiersched_namespace", default=None)


def reference_of(value: Any) -> tuple[str, str] | None:
    """Module and qualified name under which `value` (a function or class) can be imported; None if it cannot.

    Nothing of `__main__` can, nor of a module given to cloudpickle.register_pickle_by_value.
    """
    module, qualname = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(qualname, str) or module in MAIN_MODULES:
        return None
    if found(module, qualname) is not value or is_registered_by_value(module):
        return None
    return module, qualname


def found(module: str, qualname: str) -> Any:
    """What `module`, if it is imported, holds under `qualname` now; None if nothing."""
    place: Any = sys.modules.get(module)
    for name in qualname.split("."):
        place = getattr(place, name, None)
    return place


def is_registered_by_value(module: str) -> bool:
    """Whether `module`, or a package around it, was given to cloudpickle.register_pickle_by_value."""
    registry = cloudpickle.list_registry_pickle_by_value()
    return bool(registry) and any(module == name or module.startswith(f"{name}.") for name in registry)


def home_of(function: FunctionType) -> str | None:
    """The module whose namespace is the function's globals; a decorator may have given it another `__module__`.

    None if they are no module's: the function is generated, like a named tuple's `__new__`.
    """
    name = function.__globals__.get("__name__", MAIN)
    if name in MAIN_MODULES:
        return MAIN
    module = sys.modules.get(name)
    return name if module is not None and vars(module) is function.__globals__ else None


def brings_globals(function: FunctionType) -> bool:
    """Whether a function that is not importable travels by value in any case, since no namespace awaits it there."""
    return home_of(function) is None or is_registered_by_value(function.__module__ or "")


def annotations_of(function: FunctionType) -> dict[str, Any]:
    """The function's annotations; none if computing them fails, as it may from Python 3.14 on, where they are lazy."""
    try:
        return function.__annotations__
    except Exception:  # they do not change what the function computes, so they must not keep it from travelling
        return {}


def reduce_function(function: FunctionType) -> tuple[Any, ...]:
    """The function as its parts, for pickle: made without defaults first, completed afterwards."""
    parts = (function.__code__, home_of(function), function.__name__, function.__closure__)
    labels = (function.__module__, function.__qualname__, function.__doc__)
    annotations = {name: _portable(value) for name, value in annotations_of(function).items()} or None
    rest = (labels, function.__defaults__, function.__kwdefaults__, annotations, function.__dict__ or None)
    return make_function, parts, rest, None, None, complete_function


def _portable(annotation: Any) -> Any:
    if annotation is None or type(annotation) is str or (isinstance(annotation, type) and reference_of(annotation)):
        return annotation
    return inspect.formatannotation(annotation, base_module=MAIN)


def make_function(code: CodeType, home: str, name: str, closure: tuple[CellType, ...] | None) -> FunctionType:
    """A function of `code` whose globals are this place's namespace of module `home`. Raises UnpackError."""
    return FunctionType(code, _namespace_of(home, name), name, None, closure)


def complete_function(function: FunctionType, rest: tuple[Any, ...]) -> None:
    """Give a made function the rest of its parts, which may refer to it."""
    labels, function.__defaults__, function.__kwdefaults__, annotations, attributes = rest
    function.__module__, function.__qualname__, function.__doc__ = labels
    if annotations:
        function.__annotations__ = annotations
    if attributes:
        function.__dict__.update(attributes)


def _namespace_of(home: str, function_name: str) -> dict[str, Any]:
    if home == MAIN:
        return user_namespace()
    try:
        return vars(importlib.import_module(home))
    except ImportError as error:
        raise UnpackError(
            f"function {function_name!r} belongs to module {home!r}, which cannot be imported here ({error}): install "
            "the module on the engines, or ship the function by value with use_cloudpickle()"
        ) from error


def user_namespace() -> dict[str, Any]:
    """The globals of what belongs to `__main__`, where something is being rebuilt."""
    namespace = NAMESPACE.get()
    return vars(sys.modules[MAIN]) if namespace is None else namespace


def reduce_cell(cell: CellType) -> tuple[Any, ...]:
    """A closure's cell, for pickle: made empty first, filled afterwards."""
    try:
        contents = cell.cell_contents
    except ValueError:  # its variable is not bound (yet)
        return make_cell, ()
    return make_cell, (), (contents,), None, None, fill_cell


def make_cell() -> CellType:
    """An empty cell."""
    return CellType()


def fill_cell(cell: CellType, contents: tuple[Any]) -> None:
    """Put the only item of `contents` into the cell."""
    cell.cell_contents = contents[0]


def reduce_code(code: CodeType) -> tuple[Any, ...]:
    """A code object, for pickle, with the Python that can read it."""
    try:
        # Later formats encode reference counts, so that the same code would have more than one digest.
        data = marshal.dumps(code, 2)
    except ValueError:  # a constant that format 2 does not know: slices, from Python 3.14 on
        data = marshal.dumps(code)
    return load_code, (PYTHON, data)


def load_code(python: str, data: bytes) -> CodeType:
    """The code object in `data`. Raises UnpackError if another Python marshalled it."""
    if python != PYTHON:
        raise UnpackError(
            f"this code was compiled by {python} and this process runs {PYTHON}: "
            "use the same version of Python for clients and engines"
        )
    code: CodeType = marshal.loads(data)
    return code
