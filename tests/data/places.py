"""A notebook and an engine within one process: two namespaces, both named `__main__`, and packing between them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

from hiersched.data.serialize import PackedCall, Packer, Unpacker


def notebook(source: str, **names: Any) -> dict[str, Any]:
    """The namespace in which `source` ran, as a notebook's cells run."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    run_cell(source, namespace)
    return namespace


def run_cell(source: str, namespace: dict[str, Any]) -> None:
    """Run more of a notebook."""
    exec(compile(textwrap.dedent(source), "<notebook>", "exec", dont_inherit=True), namespace)


class Engine:
    """Unpacks calls and runs them; `names` are in its user namespace."""

    def __init__(self, **names: Any) -> None:
        self.namespace: dict[str, Any] = {"__name__": "__main__", **names}
        self.unpacker = Unpacker(self.namespace)

    def run(self, call: PackedCall) -> Any:
        """What the call returns."""
        function = self.unpacker.function(call.function, call.blobs[call.function])
        args, kwargs = self.unpacker.arguments(call.frames, call.blobs)
        return function(*args, **kwargs)

    def apply(self, function: Callable[..., Any], *args: Any, by_value: bool = False, **kwargs: Any) -> Any:
        """What a call returns that a new client packs."""
        return self.run(Packer().pack_call(function, args, kwargs, by_value=by_value))

    def echo(self, value: Any) -> Any:
        """What arrives of `value` when it is an argument."""
        return self.apply(_same, value)


def _same(value: Any) -> Any:
    return value
