"""Writes down every message that the schedulers of a world send from now on."""

from __future__ import annotations

from collections.abc import Sequence

from hiersched.core import effects as e
from hiersched.protocol import messages as m
from hiersched.simulation.cluster import World
from hiersched.simulation.scheduler import SimScheduler


class Recorder:
    """sent: (scheduler, link of the receiver, message) in the order of sending. Checks go on as before."""

    def __init__(self, world: World) -> None:
        self.sent: list[tuple[SimScheduler, e.Link, m.Message]] = []
        self._watchers = {node: node.watcher for node in world.schedulers()}
        for node in world.schedulers():
            node.watcher = self

    def after_event(self, node: SimScheduler, event: e.Event, effects: Sequence[e.Effect]) -> None:
        watcher = self._watchers[node]
        if watcher is not None:
            watcher.after_event(node, event, effects)
        self.sent += [(node, effect.link, effect.message) for effect in effects if type(effect) is e.Send]

    def of(self, kind: type) -> list[tuple[SimScheduler, e.Link, m.Message]]:
        """What was sent of one kind of message."""
        return [sending for sending in self.sent if type(sending[2]) is kind]
