"""What has come in beside outcomes and is still to be told, outside the session's lock, in the order it came."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiersched.client.pending import Pending
from hiersched.data.outputs import Comm, Output

OnComm = Callable[[int, Comm], None]  # a message of this engine


class OutputNews:
    """Output of these engines, for those who listened when it came."""

    __slots__ = ("_listeners", "_outputs", "_pending", "_ranks")

    def __init__(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        self._pending, self._ranks, self._outputs = pending, ranks, outputs
        self._listeners = list(pending.listeners)

    def tell(self) -> None:
        """Tell each of them once."""
        while self._listeners:
            self._listeners.pop(0).on_output(self._pending, self._ranks, self._outputs)


class CommNews:
    """A message of a widget, or of another comm of an engine."""

    __slots__ = ("_comm", "_on_comm", "_rank")

    def __init__(self, rank: int, comm: Comm, on_comm: OnComm) -> None:
        self._rank, self._comm, self._on_comm = rank, comm, on_comm

    def tell(self) -> None:
        """Relay it."""
        self._on_comm(self._rank, self._comm)
