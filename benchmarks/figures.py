"""The timing loops. They run in the peer's process (serve.py); each gives the samples of one round.

A round is bounded in calls and in seconds, so that a slow peer takes part without holding everybody up. A payload is
new for every call and made outside the clock: what has been seen before may be cached, and to push it again is no push.
The garbage collector is on, as users have it. A `peer` is any Peer that has the verb in question.
"""

import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.functions import echo, nothing, nothing_of
from benchmarks.processes import proportional_memory_mb

CALLS_MIN = 2  # of a round, however slow the peer
SMALL_BYTES = 1_000
LARGE_BYTES = 1_000_000

NO_OP = "no-op on all"
ARGUMENT = "1 kB argument to all"
ECHO = "echo of 1 kB from all"
PUSH = "push of 1 MB to all"


def one_call(peer: Any, *, calls: int, budget_s: float) -> list[float]:
    """Seconds of each no-op on one worker."""
    return _times(lambda _: peer.one_call(), _no_payload, calls=calls, budget_s=budget_s)


def all_call(peer: Any, *, kind: str, calls: int, budget_s: float, view: str = "") -> list[float]:
    """Seconds of each call on all workers until all results are back; `kind` is NO_OP, ARGUMENT, ECHO or PUSH."""
    actions: dict[str, tuple[Callable[[Any], object], Callable[[], object]]] = {
        NO_OP: (lambda _: peer.all_call(nothing, view=view), _no_payload),
        ARGUMENT: (lambda value: peer.all_call(nothing_of, value, view=view), _small_payload),
        ECHO: (lambda value: peer.all_call(echo, value, view=view), _small_payload),
        PUSH: (lambda value: peer.push_all(value, view=view), _large_payload),
    }
    action, payload = actions[kind]
    return _times(action, payload, calls=calls, budget_s=budget_s)


def submit_rate(peer: Any, *, count: int) -> list[float]:
    """Tasks per second: `count` no-ops, submitted one by one, until all results are back."""
    return _rate(peer.submit_many, count)


def map_rate(peer: Any, *, count: int, **options: int) -> list[float]:
    """Items per second: a map of a no-op over `count` items until all results are back."""
    return _rate(peer.map_many, count, **options)


def executor_map_rate(peer: Any, *, count: int) -> list[float]:
    """Items per second, through the executor's map instead of the view's."""
    return _rate(peer.executor_map_many, count)


def engine_memory(peer: Any) -> list[float]:
    """Mean proportional memory of an engine, in 10^6 bytes."""
    return [proportional_memory_mb(peer.engine_pids())]


def _times(
    action: Callable[[Any], object], payload: Callable[[], object], *, calls: int, budget_s: float
) -> list[float]:
    seconds: list[float] = []
    deadline = time.perf_counter() + budget_s
    while len(seconds) < calls and (len(seconds) < CALLS_MIN or time.perf_counter() < deadline):
        value = payload()
        begin = time.perf_counter()
        action(value)
        seconds.append(time.perf_counter() - begin)
    return seconds


def _rate(action: Callable[..., None], count: int, **options: int) -> list[float]:
    begin = time.perf_counter()
    action(count, **options)
    return [count / (time.perf_counter() - begin)]


def _no_payload() -> None:
    return None


def _small_payload() -> bytes:
    return os.urandom(SMALL_BYTES)


def _large_payload() -> np.ndarray:
    """(LARGE_BYTES / 8,) float64."""
    return np.frombuffer(os.urandom(LARGE_BYTES), dtype=np.float64)
