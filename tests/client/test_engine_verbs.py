"""What is done to the engines of a cluster, on a session that carries orders out in this process."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from hiersched.client.controller import Controller
from hiersched.client.engine_verbs import EngineVerbs
from hiersched.core.metrics import Level
from hiersched.errors import CapacityError, UnknownEngine, UnknownEngineSet, UserError
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection

ROOM = 8  # engines that the cluster of these tests can hold


class LocalSession:
    """Carries out what the root would, at once; engines in `stubborn` do not do what they are told."""

    def __init__(self, engines: int) -> None:
        self.present = list(range(engines))
        self.said: list[tuple[str, tuple[int, ...], int]] = []
        self.stubborn: set[int] = set()
        self.starting = [0]  # engines, at each look; the last one lasts
        self._next = engines
        self._arrivals: Counter[int] = Counter()

    def engine_ids(self) -> list[int]:
        return list(self.present)

    def dispatch_width(self) -> int:
        return len(self.present)

    def arrivals(self, ranks: Iterable[int]) -> int:
        return sum(self._arrivals[rank] for rank in ranks)

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        return condition()

    def survey(self) -> list[Level]:
        starting = self.starting[0] if len(self.starting) == 1 else self.starting.pop(0)
        return [(0, 1, {"engines_starting": starting}, {})]

    def grow(self, engines: int) -> list[int]:
        if len(self.present) + engines > ROOM:
            return []
        added = list(range(self._next, self._next + engines))
        self._next += engines
        self.present += added
        return added

    def order(self, targets: Iterable[int], verb: str, number: int = 0) -> list[int]:
        ranks = [rank for rank in targets if rank in self.present]
        self.said.append((verb, tuple(ranks), number))
        for rank in set(ranks) - self.stubborn:
            if verb == "stop":
                self.present.remove(rank)
            if verb == "restart":
                self._arrivals[rank] += 1
        return ranks


class Held(EngineVerbs):
    """A cluster of two engines, held by its connection file."""

    n = 2
    cluster_id = "held"
    engine_timeout = 0.01

    def __init__(self, path: Path, session: LocalSession) -> None:
        super().__init__()
        self.path, self.session = path, session
        self.controller = Controller(connection.read(path))

    def _files(self) -> Iterable[Path]:
        return [self.path]

    @contextlib.contextmanager
    def _session(self) -> Iterator[LocalSession]:  # type: ignore[override]
        yield self.session


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The connection file of a cluster whose root is this very process."""
    path = tmp_path / "held.json"
    host, pid = socket.gethostname(), os.getpid()
    written = Connection(
        cluster="held", key="k", address="ipc://x", host=host, pid=pid, nursery=pid, sets={"first": "0-1"}
    )
    connection.write(path, written)
    return path


@pytest.fixture
def session() -> LocalSession:
    return LocalSession(2)


@pytest.fixture
def cluster(path: Path, session: LocalSession) -> Held:
    return Held(path, session)


# --- more and fewer ---------------------------------------------------------------------------------------------------


def test_engines_that_are_started_are_written_down(cluster: Held, path: Path) -> None:
    assert cluster.start_engines_sync(3, "second") == "second"
    assert connection.read(path).sets == {"first": "0-1", "second": "2-4"}
    assert cluster.engine_set is not None
    assert cluster.engine_set.ranks == [0, 1]


def test_as_many_are_started_as_the_cluster_was_made_for(cluster: Held) -> None:
    made = cluster.start_engines_sync()
    assert cluster.engines[made].n == 2


def test_what_does_not_fit_is_refused_and_not_written_down(cluster: Held, path: Path) -> None:
    with pytest.raises(CapacityError, match="cannot hold 7 engines more"):
        cluster.start_engines_sync(7)
    assert connection.read(path).sets == {"first": "0-1"}


def test_a_set_is_asked_for_before_anything_starts(cluster: Held, session: LocalSession) -> None:
    with pytest.raises(UserError, match="there is an engine set 'first'"):
        cluster.start_engines_sync(1, "first")
    assert session.engine_ids() == [0, 1]


def test_two_holders_know_of_each_other(cluster: Held, path: Path, session: LocalSession) -> None:
    other = Held(path, session)
    other.start_engines_sync(1, "second")
    cluster.start_engines_sync(1, "third")
    assert list(other.engines) == ["first", "second", "third"]
    cluster.stop_engines_sync("second")
    assert list(other.engines) == ["first", "third"]


def test_a_set_is_stopped_whole_and_an_engine_alone(cluster: Held, session: LocalSession) -> None:
    cluster.start_engines_sync(2, "second")
    cluster.stop_engines_sync("first")
    cluster.stop_engine_sync(3)
    assert (session.present, cluster.engines.to_text()) == ([2], {"second": "2"})
    cluster.stop_engines_sync()
    assert (session.present, cluster.engines) == ([], {})


def test_engines_that_are_still_being_started_are_waited_for(cluster: Held, session: LocalSession) -> None:
    session.starting = [2, 1, 0]
    cluster.stop_engines_sync()
    assert session.starting == [0]
    session.starting = [3]
    with pytest.raises(TimeoutError, match="3 engines are still being started"):
        cluster.scale_sync(1)


def test_engines_that_do_not_end_are_named(cluster: Held, session: LocalSession) -> None:
    session.stubborn = {1}
    with pytest.raises(TimeoutError, match="engines 1 did not end"):
        cluster.stop_engines_sync()


def test_scaling_starts_some_or_stops_the_newest(cluster: Held, session: LocalSession) -> None:
    assert cluster.scale_sync(5) == [0, 1, 2, 3, 4]
    cluster.stop_engine_sync(1)
    assert cluster.scale_sync(2) == [0, 2]
    assert cluster.scale_sync(2) == [0, 2]
    assert session.said[-1] == ("stop", (3, 4), 0)
    with pytest.raises(UserError, match="cannot have -1 engines"):
        cluster.scale_sync(-1)


# --- others in their place, and signals -------------------------------------------------------------------------------


def test_the_dead_leave_their_set_when_the_cluster_is_scaled(cluster: Held, session: LocalSession, path: Path) -> None:
    session.present.remove(0)
    assert cluster.scale_sync(2) == [1, 2]
    ((_, first), (_, second)) = connection.read(path).sets.items()
    assert (first, second) == ("1", "2")


def test_a_restart_waits_for_the_new_ones(cluster: Held, session: LocalSession) -> None:
    cluster.restart_engines_sync("first")
    cluster.restart_engine_sync(1)
    assert session.said == [("restart", (0, 1), 0), ("restart", (1,), 0)]
    session.stubborn = {0}
    with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
        cluster.restart_engines_sync()


def test_signals_go_to_a_set_to_one_or_to_all(cluster: Held, session: LocalSession) -> None:
    cluster.start_engines_sync(1, "second")
    cluster.signal_engines_sync(signal.SIGUSR1, "second")
    cluster.signal_engine_sync(signal.SIGINT, 0)
    cluster.signal_engines_sync("SIGTERM")
    assert session.said == [("signal", (2,), 10), ("signal", (0,), 2), ("signal", (0, 1, 2), 15)]


@pytest.mark.parametrize("number", [0, -1, 1_000, "SIGNOT"])
def test_what_is_no_signal_is_refused(cluster: Held, session: LocalSession, number: int | str) -> None:
    with pytest.raises(UserError, match="is no signal"):
        cluster.signal_engines_sync(number)
    assert session.said == []


def test_unknown_engines_and_sets_are_told_the_known_ones(cluster: Held) -> None:
    for verb in (
        cluster.stop_engine_sync,
        cluster.restart_engine_sync,
        lambda rank: cluster.signal_engine_sync(2, rank),
    ):
        with pytest.raises(UnknownEngine, match="no engine 7; there are: 0-1"):
            verb(7)
    for set_verb in (cluster.stop_engines_sync, cluster.restart_engines_sync):
        with pytest.raises(UnknownEngineSet, match="there are: 'first'"):
            set_verb("second")


def test_without_a_running_cluster_there_are_no_engines(cluster: Held) -> None:
    cluster.controller = None
    assert (cluster.engines, cluster.engine_set) == ({}, None)


def test_when_the_file_is_gone_what_was_known_last_counts(cluster: Held, path: Path) -> None:
    path.unlink()
    assert cluster.engines.to_text() == {"first": "0-1"}
    cluster.start_engines_sync(1, "second")
    assert cluster.engines.to_text() == {"first": "0-1", "second": "2"}
    assert not path.exists()
