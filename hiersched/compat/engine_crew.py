"""The engines that were started as one set: they come, are given what they need, are told of signals, and end.

Whoever has the session sees who comes and goes; one thread besides waits for signals. SIGTERM ends the set, and every
other signal is the engines' own.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Set

import msgspec
from traitlets.config import Config

from hiersched.client.pending import Pending
from hiersched.client.session import Session
from hiersched.compat.engine_start import begin
from hiersched.errors import CapacityError, ClusterLost
from hiersched.limits import START_LOOK_PERIOD_S


class Startup(msgspec.Struct, frozen=True, kw_only=True):
    """What each engine is given: variables, working directory, entries for sys.path, IPython's settings, and code to
    run; see `begin`.
    """

    environ: dict[str, str]
    directory: str
    path: list[str]
    settings: Config
    files: list[str]
    lines: list[str]


class Crew:
    """The engines of one set, through a session of their own."""

    def __init__(self, session: Session, startup: Startup, log: logging.Logger) -> None:
        self._session = session
        self._log = log
        arguments = {name: getattr(startup, name) for name in startup.__struct_fields__}
        self._begin = session.packer.pack_call(begin, (), arguments)
        self._ranks: frozenset[int] = frozenset()
        self._awaited: set[int] = set()
        self._known: set[int] = set()  # those that are there, and were welcomed
        self._arrivals: dict[int, int] = {}  # how often each of them has come, replacements included
        self._failed = False
        self._stopping = threading.Event()

    def run(self, n: int, signals: Set[signal.Signals]) -> int:
        """Have `n` engines started, and return when they have all ended: the exit code.

        signals: those to be taken; they have to be blocked. 0: the engines have ended, or their cluster has; 1: some
        did not come. Raises CapacityError if there is no room for them.
        """
        self._ranks = frozenset(self._session.grow(n))
        if not self._ranks:
            raise CapacityError(f"the cluster cannot hold {n} engines more")
        self._awaited = set(self._ranks)
        threading.Thread(target=self._take_signals, args=(signals,), name="signals", daemon=True).start()
        try:
            self._follow()
        except ClusterLost as lost:
            self._log.info("the cluster has ended, and its engines with it: %s", lost)
        return int(self._failed)

    def _follow(self) -> None:
        """Return when nobody is there any more, and nobody is to come."""
        while True:
            self._session.wait_for(self._something_new, None)
            came = sorted(self._came())  # before it is looked who is there: who comes meanwhile comes in the next look
            present, before = self._present(), self._known
            self._known = present
            self._note_failures()
            for rank in came:
                self._arrivals[rank] = self._session.arrivals([rank])
                self._log.info("Completed registration with id %i", rank)
            for rank in sorted(before.union(came) - present):
                self._log.info("Engine %i has ended", rank)
            self._awaited.difference_update(came)
            self._welcome([rank for rank in came if rank in present])
            if not present and not self._awaited and not self._replaced():
                return

    def _something_new(self) -> bool:
        return self._present() != self._known or bool(self._not_coming()) or bool(self._came())

    def _present(self) -> set[int]:
        return set(self._session.engine_ids()) & self._ranks

    def _came(self) -> set[int]:
        """Engines that have come since they were looked for last; some may have gone again."""
        if self._session.arrivals(self._ranks) == sum(self._arrivals.values()):
            return set()
        return {rank for rank in self._ranks if self._session.arrivals([rank]) > self._arrivals.get(rank, 0)}

    def _not_coming(self) -> Set[int]:
        """Engines that are awaited and will not come."""
        return self._session.failed_starts().keys() & self._awaited

    def _note_failures(self) -> None:
        reasons = self._session.failed_starts()
        for rank in sorted(self._not_coming()):
            self._awaited.discard(rank)
            self._failed |= not self._stopping.is_set()
            self._log.error("Engine %i did not start: %s", rank, reasons[rank])

    def _welcome(self, ranks: list[int]) -> None:
        """These engines have come: give them what they need, or end them if that is what is wanted now."""
        if not ranks:
            return
        if self._stopping.is_set():
            self._session.order(ranks, "stop")
            return
        self._session.call(tuple(ranks), self._begin).add_done_callback(self._on_begun)

    def _on_begun(self, pending: Pending) -> None:
        """Say which engines could not take what they were given."""
        for rank, outcome in zip(pending.targets, pending.outcomes, strict=True):
            if outcome is not None and not outcome.ok and not self._stopping.is_set():
                self._log.error("Engine %i could not begin as it should: %s", rank, outcome.error)

    def _replaced(self) -> bool:
        """Whether others are being started in the place of those that have ended. Waits until they are there."""
        while any(totals.get("engines_starting", 0) for _, _, totals, _ in self._session.survey()):
            if self._session.wait_for(lambda: bool(self._present()), START_LOOK_PERIOD_S):
                return True
        return bool(self._present())

    def _take_signals(self, signals: Set[signal.Signals]) -> None:
        """Pass signals on to the engines as long as this process lives."""
        while True:
            number = signal.sigwait(signals)
            try:
                if number == signal.SIGTERM:
                    self._stopping.set()
                    self._session.order(self._ranks, "stop")
                else:
                    self._session.order(self._ranks, "signal", number)
            except ClusterLost:
                return  # there is nobody left to be told
            except TimeoutError as error:
                self._log.error("%s was not passed on: %s", signal.Signals(number).name, error)
