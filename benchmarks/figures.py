"""The timing loops. They run in the peer's process (serve.py); each gives the samples of one round.

A round is bounded in calls and in seconds, so that a slow peer takes part without holding everybody up. A payload is
new for every call and made outside the clock: what has been seen before may be cached, and to push it again is no push.
The last answer of a round is checked, outside the clock too: what is fast and wrong gets no figure. The garbage
collector is on, as users have it. A `peer` is any Peer that has the verb in question.
"""

import os
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.functions import echo, ignore, nothing, nothing_of
from benchmarks.processes import proportional_memory_mb

CALLS_MIN = 2  # of a round, however slow the peer
SMALL_BYTES = 1_000
LARGE_BYTES = 1_000_000

PRINTED_LINES, PRINTED_LINE_BYTES = 10_000, 100
GRAPH_SEED = 3

NO_OP = "no-op on all"
ARGUMENT = "1 kB argument to all"
ECHO = "echo of 1 kB from all"
MAP_NO_OP = "no-op"
MAP_ECHO = "echo of strings"


class WrongAnswer(Exception):
    """A peer gave something else than was asked for."""


def one_call(peer: Any, *, calls: int, budget_s: float) -> list[float]:
    """Seconds of each no-op on one worker."""
    return _times(_no_payload, lambda _: peer.one_call(), _check_nothing, calls=calls, budget_s=budget_s)


def all_call(peer: Any, *, kind: str, calls: int, budget_s: float, view: str = "") -> list[float]:
    """Seconds of each call on all workers until all results are back; `kind` is NO_OP, ARGUMENT or ECHO."""
    function, payload = ALL_CALLS[kind]
    workers = len(peer.engine_pids())

    def action(arguments: tuple) -> object:
        return peer.all_call(function, *arguments, view=view)

    def check(arguments: tuple, results: object) -> None:
        _expect(results, [function(*arguments)] * workers)

    return _times(payload, action, check, calls=calls, budget_s=budget_s)


def push(peer: Any, *, calls: int, budget_s: float, view: str = "") -> list[float]:
    """Seconds of each push of LARGE_BYTES to all workers."""

    def check(value: np.ndarray, _: object) -> None:
        _expect(bytes(peer.pushed()), bytes(value))

    return _times(_large_payload, lambda value: peer.push_all(value, view=view), check, calls=calls, budget_s=budget_s)


def submit_rate(peer: Any, *, count: int) -> list[float]:
    """Tasks per second: `count` no-ops, submitted one by one, until all results are back."""
    begin = time.perf_counter()
    results = peer.submit_many(count)
    seconds = time.perf_counter() - begin
    _expect(results, [None] * count)
    return [count / seconds]


def map_rate(peer: Any, *, count: int, work: str = MAP_NO_OP, verb: str = "map_many", **options: int) -> list[float]:
    """Items per second of a map over `count` items until all results are back.

    work: MAP_NO_OP, over a range, or MAP_ECHO, over strings; verb: the peer's map to use.
    """
    items: Sequence[object] = range(count) if work == MAP_NO_OP else [f"item {number}" for number in range(count)]
    function = nothing_of if work == MAP_NO_OP else echo
    map_many = getattr(peer, verb)
    begin = time.perf_counter()
    results = map_many(function, items, **options)
    seconds = time.perf_counter() - begin
    _expect(results, [function(item) for item in items])
    return [count / seconds]


def magic(peer: Any, *, line: str, calls: int, budget_s: float) -> list[float]:
    """Seconds of each cell that holds a magic."""

    def check(_: tuple[()], succeeded: object) -> None:
        _expect(succeeded, True)

    return _times(_no_payload, lambda _: peer.magic(line), check, calls=calls, budget_s=budget_s)


def printing(peer: Any, *, calls: int, budget_s: float) -> list[float]:
    """Seconds until all that every engine printed, PRINTED_BYTES in numbered lines, is here."""
    workers = len(peer.engine_pids())
    code = f"for number in range({PRINTED_LINES}): print(f'{{number:0{PRINTED_LINE_BYTES - 1}d}}')"
    whole = "".join(f"{number:0{PRINTED_LINE_BYTES - 1}d}\n" for number in range(PRINTED_LINES))

    def check(_: tuple[()], texts: object) -> None:
        _expect(texts, [whole] * workers)

    return _times(_no_payload, lambda _: peer.printed(code), check, calls=calls, budget_s=budget_s)


def graph_rate(peer: Any, *, tasks: int, verb: str) -> list[float]:
    """Tasks per second of a graph of no-ops, each of which needs two of the 1,000 before it. verb: how it is run."""
    draw = random.Random(GRAPH_SEED)
    edges = [draw.sample(range(max(0, number - 1000), number), 2) if number > 1 else [] for number in range(tasks)]
    begin = time.perf_counter()
    results = getattr(peer, verb)(edges, ignore)
    seconds = time.perf_counter() - begin
    _expect(results, [None] * tasks)
    return [tasks / seconds]


def makespan(peer: Any, *, durations: Sequence[float]) -> list[float]:
    """Seconds until tasks that take so long have all ended."""
    begin = time.perf_counter()
    results = peer.submit_sleeps(durations)
    seconds = time.perf_counter() - begin
    _expect(results, [None] * len(durations))
    return [seconds]


def engine_memory(peer: Any) -> list[float]:
    """Mean proportional memory of an engine, in 10^6 bytes."""
    return [proportional_memory_mb(peer.engine_pids())]


def _no_payload() -> tuple[()]:
    return ()


def _small_payload() -> tuple[bytes]:
    return (os.urandom(SMALL_BYTES),)


def _large_payload() -> np.ndarray:
    """(LARGE_BYTES / 8,) float64."""
    return np.frombuffer(os.urandom(LARGE_BYTES), dtype=np.float64)


ALL_CALLS: dict[str, tuple[Callable[..., object], Callable[[], tuple]]] = {
    NO_OP: (nothing, _no_payload),
    ARGUMENT: (nothing_of, _small_payload),
    ECHO: (echo, _small_payload),
}


def _times(
    payload: Callable[[], Any],
    action: Callable[[Any], object],
    check: Callable[[Any, object], None],
    *,
    calls: int,
    budget_s: float,
) -> list[float]:
    """Seconds of `action(payload())`, again and again. The last answer is given to `check` with its payload."""
    seconds: list[float] = []
    deadline = time.perf_counter() + budget_s
    while len(seconds) < calls and (len(seconds) < CALLS_MIN or time.perf_counter() < deadline):
        value = payload()
        begin = time.perf_counter()
        answer = action(value)
        seconds.append(time.perf_counter() - begin)
    check(value, answer)
    return seconds


def _check_nothing(_: tuple[()], answer: object) -> None:
    _expect(answer, None)


def _expect(answer: object, right: object) -> None:
    """Raise WrongAnswer unless `answer` is `right`: what is fast and wrong has no figure."""
    if answer != right:
        raise WrongAnswer(f"answered {str(answer)[:80]}, not {str(right)[:80]}")
