"""What can be done to the engines of a running cluster: more of them, fewer, others in their place, signals.

Each verb opens a session of its own for as long as it lasts. Which engines were started together is kept in the
connection file, and read from there each time: several processes may hold the same cluster.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from hiersched.client.awaited import awaited
from hiersched.client.cluster_arguments import check_count
from hiersched.client.controller import Controller
from hiersched.client.engine_sets import EngineSet, EngineSets, ranges_of
from hiersched.client.progress import Bar
from hiersched.client.signals import signal_number
from hiersched.errors import CapacityError, ConnectionFileError, UnknownEngine, UserError
from hiersched.limits import START_LOOK_PERIOD_S, STOP_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection

if TYPE_CHECKING:
    from hiersched.client.session import Session

Made = TypeVar("Made")


class EngineVerbs(ABC):
    """The verbs on engines. n: how many are started unless it is said. engine_timeout: for their start, seconds."""

    n: int
    cluster_id: str
    engine_timeout: float
    controller: Controller | None

    def __init__(self) -> None:
        self._changing_sets = threading.Lock()

    @property
    def engines(self) -> EngineSets:
        """The engines that were started together, by the id of their set; empty while the cluster does not run."""
        return EngineSets.from_text(self._current().sets) if self.controller is not None else EngineSets()

    @property
    def engine_set(self) -> EngineSet | None:
        """The first set of engines, and often the only one."""
        return next(iter(self.engines.values()), None)

    # --- more and fewer -----------------------------------------------------------------------------------------------

    def start_engines_sync(self, n: int | None = None, engine_set_id: str | None = None) -> str:
        """Start `n` engines more; returns the id of their set, as soon as they are being started.

        Raises UserError if the cluster does not run or has such a set, CapacityError if there is no room for them.
        """
        count = self._checked(self.n if n is None else n)
        self.engines.check_free(engine_set_id)
        check_capacity(count)
        with self._session() as session:
            ranks = session.grow(count)
        if not ranks:
            raise CapacityError(f"cluster {self.cluster_id!r} cannot hold {count} engines more")
        return self._change_sets(lambda sets: sets.add(ranks, engine_set_id))

    def stop_engines_sync(self, engine_set_id: str | None = None) -> None:
        """Stop a set of engines, or all; returns when they are gone. They are not replaced.

        Raises UnknownEngineSet for a set that does not exist.
        """
        self._stop(self.engines.ranks(engine_set_id))

    def stop_engine_sync(self, engine_id: int) -> None:
        """Stop one engine; returns when it is gone. Raises UnknownEngine."""
        self._stop([self._known(engine_id)])

    def scale_sync(self, n: int) -> list[int]:
        """Have `n` engines: start some, or stop the newest. The ids of those that are there then.

        Engines that have died, and that nobody has replaced by then, leave the sets that they were in.

        Raises UserError for a negative number, TimeoutError if they do not come within `engine_timeout`.
        """
        check_count(n)
        if n < 0:
            raise UserError(f"a cluster cannot have {n} engines")
        with self._session() as session:
            self._await_starting(session)
            present = list(session.engine_ids())
        dead = set(self.engines.ranks()).difference(present)
        if n > len(present):
            self.start_engines_sync(n - len(present))
        elif n < len(present):
            self._stop(present[n:])
        with self._session() as session:
            self._wait(session, lambda: session.dispatch_width() >= n, n)
            present = list(session.engine_ids())
        self._change_sets(lambda sets: sets.drop(dead.difference(present)))
        return present

    # --- others in their place, and signals ---------------------------------------------------------------------------

    def restart_engines_sync(self, engine_set_id: str | None = None) -> None:
        """End the engines of a set, or all, and start others with the same ids; returns when these are there.

        What runs on them ends with EngineLost. Raises UnknownEngineSet, or TimeoutError if one does not come within
        `engine_timeout`.
        """
        self._restart(self.engines.ranks(engine_set_id))

    def restart_engine_sync(self, engine_id: int) -> None:
        """End one engine and start another with its id; returns when it is there. Raises as `restart_engines_sync`."""
        self._restart([self._known(engine_id)])

    def signal_engines_sync(self, signum: int | str, engine_set_id: str | None = None) -> None:
        """Send a signal, by number or name, to the engines of a set, or to all; returns when it was sent.

        SIGINT interrupts what runs. Raises UnknownEngineSet, or UserError for what is no signal.
        """
        self._signal(signum, self.engines.ranks(engine_set_id))

    def signal_engine_sync(self, signum: int | str, engine_id: int) -> None:
        """Send a signal, by number or name, to one engine. Raises UnknownEngine, or UserError for what is no signal."""
        self._signal(signum, [self._known(engine_id)])

    # --- how ----------------------------------------------------------------------------------------------------------

    def _stop(self, ranks: list[int]) -> None:
        gone = set(ranks)
        with self._session() as session:
            self._await_starting(session)
            session.order(ranks, "stop")
            if not session.wait_for(lambda: gone.isdisjoint(session.engine_ids()), 2 * STOP_TIMEOUT_S):
                left = ranges_of(gone.intersection(session.engine_ids()))
                raise TimeoutError(f"engines {left} did not end within {2 * STOP_TIMEOUT_S:.0f} s")
        self._change_sets(lambda sets: sets.drop(ranks))

    def _restart(self, ranks: list[int]) -> None:
        with self._session() as session:
            self._await_starting(session)
            before = {rank: session.arrivals([rank]) for rank in ranks}
            session.order(ranks, "restart")
            self._wait(
                session,
                lambda: all(session.arrivals([rank]) > times for rank, times in before.items()),
                session.dispatch_width(),
            )

    def _signal(self, signum: int | str, ranks: list[int]) -> None:
        number = signal_number(signum)
        with self._session() as session:
            session.order(ranks, "signal", number)

    def _await_starting(self, session: Session) -> None:
        """Until nobody is being started any more: an engine that has not come yet cannot be told anything."""
        deadline = time.monotonic() + self.engine_timeout
        while starting := sum(totals.get("engines_starting", 0) for _, _, totals, _ in session.survey()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{starting} engines are still being started after {self.engine_timeout} s")
            session.wait_for(lambda: False, START_LOOK_PERIOD_S)

    def _wait(self, session: Session, condition: Callable[[], bool], count: int) -> None:
        """Until so many engines are there, which is when `condition` holds."""
        with Bar(count, "engine") as bar:
            came = bar.wait(
                lambda slice_s: session.wait_for(condition, slice_s), session.dispatch_width, self.engine_timeout
            )
        if not came:
            raise TimeoutError(f"{session.dispatch_width()} of {count} engines came within {self.engine_timeout} s")

    def _checked(self, n: int) -> int:
        check_count(n)
        if n < 1:
            raise UserError(f"give at least one engine, not {n}")
        return n

    def _known(self, engine_id: int) -> int:
        """This engine, if it is there. Raises UnknownEngine."""
        with self._session() as session:
            self._await_starting(session)
            present = session.engine_ids()
        if engine_id not in present:
            raise UnknownEngine(f"no engine {engine_id!r}; there are: {ranges_of(present) or 'none'}")
        return engine_id

    @contextlib.contextmanager
    def _session(self) -> Iterator[Session]:
        from hiersched.client.session import Session

        with contextlib.closing(Session(self._running().connection)) as session:
            yield session

    def _running(self) -> Controller:
        """The root, if it runs. Raises UserError."""
        if self.controller is None:
            raise UserError(f"cluster {self.cluster_id!r} does not run: start it first")
        return self.controller

    # --- the connection file ------------------------------------------------------------------------------------------

    @abstractmethod
    def _files(self) -> Iterable[Path]:
        """Where the connection is written."""

    def _current(self) -> Connection:
        """The connection as its file has it now; as it was last known if there is no file any more."""
        known = self._running().connection
        for path in self._files():
            with contextlib.suppress(ConnectionFileError):
                found = connection.read(path)
                if found.key == known.key:
                    return found
        return known

    def _change_sets(self, change: Callable[[EngineSets], Made]) -> Made:
        """Read the sets, change them, write them."""
        with self._changing_sets:
            found = self._current()
            sets = EngineSets.from_text(found.sets)
            made = change(sets)
            changed = msgspec.structs.replace(found, sets=sets.to_text())
            self._running().connection = changed
            for path in self._files():
                if connection.is_ours(path):
                    connection.write(path, changed)
            return made

    # --- awaited ------------------------------------------------------------------------------------------------------

    start_engines = awaited(start_engines_sync)
    stop_engines = awaited(stop_engines_sync)
    stop_engine = awaited(stop_engine_sync)
    scale = awaited(scale_sync)
    restart_engines = awaited(restart_engines_sync)
    restart_engine = awaited(restart_engine_sync)
    signal_engines = awaited(signal_engines_sync)
    signal_engine = awaited(signal_engine_sync)


def check_capacity(engines: int) -> None:
    """Raise CapacityError if this machine cannot hold so many engines more."""
    from hiersched.runtime import probe  # imports the schedulers, which only those who start some need

    probe.capacity(engines)
