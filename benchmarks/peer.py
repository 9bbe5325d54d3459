"""Everything that is measured, ours included, behind one interface.

A peer lives in a process of its own (host.py), so that its threads, its garbage and its death are its own affair. Each
class says how its users would do the same thing: start n workers, one call, a call on all, many submits, a map. A verb
that a peer does not have is not defined and is never asked for. A verb returns what the workers answered, so that the
caller can check it outside the clock. Packages are imported in `load`, outside the clock as well.
"""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any, ClassVar

from benchmarks.functions import nothing, pid_after

OURS = "hiersched"
WORKER_PAUSE_S = 0.02  # how long a worker is held while the others of a pool are waited for
START_S_MAX = 300.0

Function = Callable[..., object]
Items = Sequence[object]
Edges = Sequence[Sequence[int]]  # for each task of a graph, the earlier ones that it needs


class PeerMissing(Exception):
    """This peer cannot run on this machine. Says what is lacking."""


class Peer(ABC):
    """One system under test, with `n` workers once started."""

    label: ClassVar[str]

    def __init__(self, directory: str) -> None:
        self.directory = directory  # private to this peer, short enough for socket names

    @classmethod
    def command(cls, n: int) -> list[str]:
        """The command, up to `-m MODULE`, that runs this peer's host for `n` workers."""
        return [sys.executable]

    @abstractmethod
    def load(self) -> None:
        """Import the package. Raises ImportError where it is not installed."""

    @abstractmethod
    def start(self, n: int) -> None:
        """Return when `n` workers have each answered."""

    @abstractmethod
    def stop(self) -> None:
        """Return when the peer says that it has stopped."""


def wait_for_workers(submit: Callable[..., Any], n: int) -> None:
    """Return when `n` different workers have answered. `submit(f, x)` gives a future of f(x)."""
    deadline = time.monotonic() + START_S_MAX
    seen: set[int] = set()
    while len(seen) < n:
        if time.monotonic() > deadline:
            raise TimeoutError(f"only {len(seen)} of {n} workers answered within {START_S_MAX} s")
        answers = [submit(pid_after, WORKER_PAUSE_S) for _ in range(n)]
        seen.update(answer.result() for answer in answers)


class ExecutorPeer(Peer):
    """A peer that is a concurrent.futures.Executor."""

    executor: Executor

    def one_call(self) -> object:
        """A no-op on whichever worker is free."""
        return self.executor.submit(nothing).result()

    def submit_many(self, count: int) -> list[object]:
        """`count` no-ops, one submit each."""
        submit = self.executor.submit
        futures = [submit(nothing) for _ in range(count)]
        return [future.result() for future in futures]

    def map_many(self, function: Function, items: Items, *, chunksize: int = 1) -> list[object]:
        """`function` of each of `items`, `chunksize` to a task."""
        return list(self.executor.map(function, items, chunksize=chunksize))

    def stop(self) -> None:
        """Shut the pool down."""
        self.executor.shutdown()
