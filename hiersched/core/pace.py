"""How long functions run, learnt from their results.

A task that runs for d seconds takes d / (d + WINDOW_S) of an engine. d is learnt per function: mean plus four mean
deviations (as TCP's timer, Jacobson 1988), so that one function with uneven durations is not sent far ahead. A function
never seen counts as long.
"""

from __future__ import annotations

from collections import OrderedDict

from hiersched.limits import FUNCTIONS_CACHED_MAX, WINDOW_S, WINDOW_TASKS_MAX
from hiersched.protocol.messages import Digest

_GAIN = 0.25  # of a new measurement in the mean
_DEVIATIONS = 4
_WHOLE = 0.9  # of an engine: a task that takes more is alone on it, from 9 * WINDOW_S on


class Pace:
    """How long one function runs: running mean and mean deviation, seconds."""

    __slots__ = ("_deviation_s", "_mean_s", "weight")

    def __init__(self) -> None:
        self._mean_s = -1.0
        self._deviation_s = 0.0
        self.weight = 1.0

    def learn(self, duration_s: float) -> None:
        """Take in the mean duration of a batch."""
        if self._mean_s < 0.0:
            self._mean_s = duration_s
            self._deviation_s = duration_s / 2
        else:
            error = duration_s - self._mean_s
            self._mean_s += _GAIN * error
            self._deviation_s += _GAIN * (abs(error) - self._deviation_s)
        bound_s = self._mean_s + _DEVIATIONS * self._deviation_s
        share = bound_s / (bound_s + WINDOW_S)
        self.weight = max(share, 1 / WINDOW_TASKS_MAX) if share < _WHOLE else 1.0


class Paces:
    """The paces of the functions seen first of late."""

    def __init__(self) -> None:
        self._paces: OrderedDict[Digest, Pace] = OrderedDict()

    def of(self, function: Digest) -> Pace:
        """The pace of a function."""
        pace = self._paces.get(function)
        if pace is None:
            pace = self._paces[function] = Pace()
            if len(self._paces) > FUNCTIONS_CACHED_MAX:
                self._paces.popitem(last=False)
        return pace
