"""Parts of requests, chosen one by one, as if they were a request of their own.

So one engine's part of a call can be waited for alone, and several calls as one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from hiersched.errors import TaskCancelled

if TYPE_CHECKING:
    from hiersched.client.pending import Pending
    from hiersched.client.waits import Switchboard
    from hiersched.data.outcomes import Outcome
    from hiersched.data.outputs import Output
    from hiersched.protocol.messages import TaskId

Part = tuple["Pending", int]  # and the place of the part among its outcomes
Item = TypeVar("Item")


class Selection:
    """The interface of a Pending over `parts`, which belong to one session or more."""

    def __init__(self, switchboard: Switchboard, parts: Sequence[Part]) -> None:
        self.parts = list(parts)
        self._switchboard = switchboard
        self._callbacks: list[Callable[[Selection], object]] = []
        self._watched = False

    def part(self, place: int) -> Part:
        """The request that this part is of, and its place there."""
        return self.parts[place]

    def requests(self) -> list[Pending]:
        """The requests that the parts are of, each once."""
        return list(dict.fromkeys(pending for pending, _ in self.parts))

    @property
    def id(self) -> TaskId:
        """Of the first request."""
        return self.parts[0][0].id

    @property
    def targets(self) -> tuple[int, ...]:
        """The engine of each part; -1 while none is known."""
        return tuple(pending.targets[place] if pending.targets else -1 for pending, place in self.parts)

    @property
    def outcomes(self) -> list[Outcome | None]:
        """How each part ended, None while it has not."""
        return [pending.outcomes[place] for pending, place in self.parts]

    @property
    def done(self) -> bool:
        """Whether every part has ended."""
        return all(pending.outcomes[place] is not None for pending, place in self.parts)

    @property
    def failed(self) -> bool:
        """Whether some part has failed."""
        return any(outcome is not None and not outcome.ok for outcome in self.outcomes)

    @property
    def cancelled(self) -> bool:
        """Whether every part was withdrawn."""
        return all(outcome is not None and isinstance(outcome.error, TaskCancelled) for outcome in self.outcomes)

    @property
    def submitted(self) -> float:
        """When the first was."""
        return min(pending.submitted for pending, _ in self.parts)

    def missing(self) -> list[int]:
        """The engines of the parts that have not ended."""
        return [rank for rank, outcome in zip(self.targets, self.outcomes, strict=True) if outcome is None]

    def outputs_of(self, place: int) -> list[Output]:
        """What the part in this place has printed and displayed so far."""
        pending, position = self.parts[place]
        return pending.outputs_of(position)

    def add_done_callback(self, callback: Callable[[Selection], object]) -> None:
        """Call `callback(self)` once when every part has ended; at once if all have."""
        self._callbacks.append(callback)
        if not self._watched:
            self._watched = True
            for pending in self.requests():
                self._switchboard.listen(pending, self)
        self._tell()

    def remove_done_callback(self, callback: Callable[[Selection], object]) -> None:
        """Call it no more, if it still would be."""
        if callback in self._callbacks:
            self._callbacks.remove(callback)

    def on_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """Output is not waited for."""

    def on_parts(self, pending: Pending) -> None:
        """Some parts may have ended."""
        self._tell()

    def _tell(self) -> None:
        if not self.done:
            return
        while self._callbacks:
            try:
                callback = self._callbacks.pop(0)
            except IndexError:  # another thread is telling
                break
            callback(self)
        for pending in self.requests():
            self._switchboard.unlisten(pending, self)
        self._watched = False


def split_by(condition: Callable[[Item], bool], items: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """Those for which the condition holds, asked once for each, and the others."""
    yes: list[Item] = []
    no: list[Item] = []
    for item in items:
        (yes if condition(item) else no).append(item)
    return yes, no
