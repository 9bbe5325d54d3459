"""The effects of one step, gathered by all parts of a scheduler in the order they are to be performed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hiersched.core.effects import Effect, Link, Send
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Message


class Outbox:
    """Effects to be. counts: of what the scheduler did since it started; messages_out: sent since then."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.messages_out = 0
        self._effects: list[Effect] = []

    def add(self, effect: Effect) -> None:
        """One more effect."""
        self._effects.append(effect)

    def send(self, link: Link, message: Message, frames: Sequence[Frame] = ()) -> None:
        """One more message."""
        self.messages_out += 1
        self._effects.append(Send(link, message, frames))

    def told(self, kind: type) -> list[Link]:
        """Who will get a message of this kind in this step."""
        return [effect.link for effect in self._effects if type(effect) is Send and type(effect.message) is kind]

    def take(self) -> list[Effect]:
        """The effects so far; none are left."""
        effects = self._effects
        if effects:
            self._effects = []
        return effects
