"""Imports on an engine, into a namespace of the client's choice.

A binding is what one name of an import statement comes to: (name, module, attribute). The attribute is empty where the
name stands for the module itself, and `*` where it stands for all that the module offers.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, TypeAlias

from hiersched.data import namespace

Binding: TypeAlias = tuple[str, str, str]


def bring(module: str, bindings: Sequence[Binding]) -> None:
    """Import `module`, and bind these names in the engine's user namespace. Raises ImportError."""
    importlib.import_module(module)
    for name, source, attribute in bindings:
        if attribute == "*":
            namespace.user_namespace.update(_offered(source))
        else:
            namespace.user_namespace[name] = _imported(source, attribute)


def import_into(target: dict[str, Any], module: str) -> None:
    """`import module`, in a namespace: it binds the first part of a dotted name. Raises ImportError."""
    importlib.import_module(module)
    top = module.partition(".")[0]
    target[top] = sys.modules[top]


def _imported(source: str, attribute: str) -> Any:
    """What `from source import attribute` gives: an attribute, or a module within the package."""
    module = importlib.import_module(source)
    if not attribute:
        return module
    try:
        return getattr(module, attribute)
    except AttributeError:
        try:
            return importlib.import_module(f"{source}.{attribute}")
        except ModuleNotFoundError:
            raise ImportError(f"cannot import name {attribute!r} from {source!r}") from None


def _offered(source: str) -> dict[str, Any]:
    """What `from source import *` gives."""
    module = importlib.import_module(source)
    names = getattr(module, "__all__", None)
    if names is None:
        names = [name for name in vars(module) if not name.startswith("_")]
    return {name: _imported(source, name) for name in names}
