"""Calls as ipyparallel's clients pack them, on an engine of ours.

Such a function travels as a blob of its own kind: the first buffer of the message that an old client sends, as it is.
The other buffers are the frames of the call. What comes back are buffers as well, as an old client unpacks them; nobody
in between looks into any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hiersched.data.pickles import Buffer

APPLIED = b"p"  # the first byte of such a function's blob
_BYTES_MAX, _ITEMS_MAX = 1024, 64  # ipyparallel's own: what is larger leaves the pickle, or is not looked into


# What runs in the place of functions of ipyparallel's, by module and name, that only its own engines can run.
stand_ins: dict[tuple[str, str], Callable[..., Any]] = {}


class Applied:
    """A function as an old client packed it: the first buffer of its message."""

    def __init__(self, blob: Buffer) -> None:
        self._canned = memoryview(blob)[1:]

    def bind(
        self, frames: Sequence[Any], namespace: dict[str, Any]
    ) -> tuple[Callable[..., Any], Sequence[Any], Mapping[str, Any]]:
        """The function, made anew with these globals, and the arguments in the frames."""
        from ipyparallel.serialize import unpack_apply_message  # only engines that old clients call have any use for it

        buffers = [self._canned, *(frame if type(frame) is bytes else memoryview(frame) for frame in frames)]
        function, args, kwargs = unpack_apply_message(buffers, namespace, copy=False)
        if stand_ins:
            function = stand_ins.get((getattr(function, "__module__", ""), getattr(function, "__name__", "")), function)
        return function, args, kwargs


def pack_applied(value: Any) -> list[Buffer]:
    """What an applied function returned, in buffers. Those after the first may alias the value's memory."""
    from ipyparallel.serialize import serialize_object

    buffers: list[Buffer] = serialize_object(value, _BYTES_MAX, _ITEMS_MAX)
    return buffers
