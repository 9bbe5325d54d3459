"""How a class that cannot be imported travels: by value, with cloudpickle, but never back over the original.

cloudpickle gives every such class an identity, so that its copies in another process are one class, which each later
arrival brings up to date. When an instance comes home, that would overwrite the class it was made from with the copy's
attributes; so a class that left this process as a native is not touched by its own return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakSet

_NATIVE: WeakSet[type] = WeakSet()  # classes defined in this process that have left it
_FOREIGN: WeakSet[type] = WeakSet()  # classes that came from elsewhere


def reduce_class(cls: type, by_cloudpickle: Any) -> Any:
    """The class for pickle, from cloudpickle's own reduction of it."""
    if by_cloudpickle is NotImplemented or len(by_cloudpickle) < 6:  # such as None's type: found there, not made
        return by_cloudpickle
    make, parts, state, _, _, update = by_cloudpickle
    if cls not in _FOREIGN:
        _NATIVE.add(cls)
    return make_class, (make, parts), (update, state), None, None, update_class


def make_class(make: Callable[..., type], parts: tuple[Any, ...]) -> type:
    """The class these parts belong to: the one already here, or an empty one."""
    cls = make(*parts)
    if cls not in _NATIVE:
        _FOREIGN.add(cls)
    return cls


def update_class(cls: type, change: tuple[Callable[[type, Any], Any], Any]) -> None:
    """Bring a copied class up to date; leave a native one alone."""
    if cls not in _NATIVE:
        update, state = change
        update(cls, state)
