"""Waiting for what processes and sockets do in their own time."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_S = 30.0  # far beyond what anything takes, even on a busy machine
LOOK_EVERY_S = 0.005


def until(condition: Callable[[], object], what: str, *, within_s: float = DEADLINE_S) -> None:
    """Wait until `condition()` holds. Fails, saying what did not happen, if it does not in time."""
    ends_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_at, f"in {within_s:.0f} s it did not come about that {what}"
        time.sleep(LOOK_EVERY_S)
