"""Virtual time: everything that will happen, in order.

Nothing waits: a run takes as long as its events take to compute. Events at the same time happen in the order in which
they were asked for, so a run depends on its inputs and its seed alone, and `digest` tells whether two runs were one.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

Action = Callable[[Any], None]


class Timeline:
    """The clock of a world and its calendar. now_s: virtual seconds. events: how many have happened."""

    __slots__ = ("_asked", "_calendar", "digest", "events", "now_s")

    def __init__(self) -> None:
        self.now_s = 0.0
        self.events = 0
        self.digest = 0
        self._asked = 0
        self._calendar: list[tuple[float, int, Action, Any]] = []

    def __len__(self) -> int:
        """Events to come."""
        return len(self._calendar)

    def at(self, time_s: float, action: Action, argument: Any = None) -> None:
        """Let `action(argument)` happen at a time that is not in the past."""
        self._asked += 1
        heappush(self._calendar, (time_s, self._asked, action, argument))

    def run(self, condition: Callable[[], bool], until_s: float) -> bool:
        """Let things happen until `condition()`; False if it does not hold by `until_s`, which is then the time."""
        calendar = self._calendar
        while not condition():
            if not calendar or calendar[0][0] > until_s:
                self.now_s = max(self.now_s, until_s)
                return False
            time_s, place, action, argument = heappop(calendar)
            self.now_s = time_s
            self.events += 1
            self.digest = hash((self.digest, time_s, place))
            action(argument)
        return True
