"""What dies takes down its own part of the work and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import CompositeError, EngineLost, NoEngines, RemoteError, UnknownEngine
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import Gate, pids_of

CLIENT = """
import sys, time
from hiersched import Client
from tests.processes import errands
rc = Client(cluster_id=sys.argv[1])
tasks = [rc.load_balanced_view().apply_async(errands.hold, sys.argv[2]) for _ in range(200)]
print("submitted", flush=True)
sys.stdin.read()
"""

FORKER = """
import os, sys
from hiersched import Client
with Client(cluster_id=sys.argv[1]) as rc:
    child = os.fork()
    if child == 0:
        sys.exit(0)  # does what is to be done at exit, unlike os._exit
    assert os.waitpid(child, 0) == (child, 0)
    print(rc.load_balanced_view().apply_sync(abs, -3))
"""


@pytest.fixture(scope="module")
def doomed() -> Iterator[Cluster]:
    """Engines to kill, two under each leaf scheduler: each test takes what it needs of those that are left."""
    cluster = Cluster(16, leaf_engines=2, fanout=8)
    with cluster:
        yield cluster


@pytest.fixture
def rc(doomed: Cluster) -> Iterator[Client]:
    with Client(doomed.connection_file) as client:
        yield client


def neighbours(rc: Client) -> list[int]:
    """Two engines of one scheduler, both alive."""
    ids = set(rc.ids)
    return next([rank, rank + 1] for rank in range(14, 3, -2) if {rank, rank + 1} <= ids)


def lost(rc: Client, *ranks: int) -> bool:
    return rc.session.wait_for(lambda: rc.session.dispatch_width() and not {*ranks} & {*rc.ids}, DEADLINE_S)


# --- engines ----------------------------------------------------------------------------------------------------------


def test_an_engine_killed_during_a_call_fails_its_part_only(rc: Client, gate: Gate) -> None:
    pids = pids_of(rc)
    victim = rc.ids[-1]
    call = rc[:].apply_async(errands.hold, str(gate), "kept")
    gate.wait_for(len(rc))
    os.kill(pids[victim], signal.SIGKILL)
    gate.open()
    with pytest.raises(CompositeError, match=f"1 of {len(pids)} engines: {victim}") as caught:
        call.get(DEADLINE_S)
    assert isinstance(caught.value.errors[victim], EngineLost)
    assert caught.value.errors[victim].engine_id == victim
    assert "killed by SIGKILL" in str(caught.value.errors[victim])
    assert caught.value.results == ["kept"] * (len(pids) - 1) + [None]
    assert victim not in rc.ids  # so the call can be made again at once
    assert len(rc[:].apply_async(os.getpid).get(DEADLINE_S)) == len(pids) - 1


def test_a_result_outlives_its_engine(rc: Client, gate: Gate) -> None:
    pids = pids_of(rc)
    first, neighbour = neighbours(rc)
    call = rc[[first, neighbour]].apply_async(errands.hold_unless, str(gate), pids[first])
    gate.wait_for(1)
    assert rc[first].apply_sync(os.getpid) == pids[first]  # so it has answered the call before
    os.kill(pids[first], signal.SIGKILL)
    assert lost(rc, first)
    gate.open()
    assert call.get(DEADLINE_S) == ["at once", "later"]


def test_an_idle_engine_that_is_killed_leaves_the_cluster(rc: Client) -> None:
    victim = rc.ids[-1]
    kept = rc[[victim, rc.ids[0]]]
    os.kill(pids_of(rc)[victim], signal.SIGKILL)
    assert lost(rc, victim)
    with pytest.raises(UnknownEngine):
        rc[victim]
    with pytest.raises(CompositeError) as caught:  # a view from before
        kept.apply_sync(os.getpid)
    assert isinstance(caught.value.errors[victim], (UnknownEngine, EngineLost))
    assert len(rc[:].apply_sync(os.getpid)) == len(rc.ids)


def test_an_engine_killed_during_tasks_fails_those_it_held(rc: Client, gate: Gate) -> None:
    balanced = rc.load_balanced_view()
    victim = pids_of(rc)[rc.ids[-1]]
    tasks = [balanced.apply_async(errands.hold, str(gate), number) for number in range(3 * len(rc))]
    gate.wait_for(len(rc))
    os.kill(victim, signal.SIGKILL)
    gate.open()
    outcomes = [task.get(DEADLINE_S, return_exceptions=True) for task in tasks]
    failures = [outcome for outcome in outcomes if isinstance(outcome, EngineLost)]
    assert len(failures) == 1
    assert [outcome for outcome in outcomes if outcome not in failures] == [
        number for number, outcome in enumerate(outcomes) if outcome not in failures
    ]


@pytest.mark.parametrize(
    ("how", "reason"),
    [("_exit", "exited with code 3"), ("segfault", "killed by SIGSEGV"), ("thread", "exited with code 4")],
)
def test_an_engine_that_ends_itself_is_lost_with_the_reason(rc: Client, how: str, reason: str) -> None:
    victim = rc.ids[-1]
    with pytest.raises(EngineLost, match=f"engine {victim}: .*{reason}"):
        rc[victim].apply_async(errands.end, how).get(DEADLINE_S)
    assert lost(rc, victim)


def test_an_engine_survives_code_that_wants_to_exit(rc: Client) -> None:
    one = rc[0]
    pid = one.apply_sync(os.getpid)
    for leave in (lambda: one.apply_async(errands.end, "sys.exit"), lambda: one.execute("import sys; sys.exit(3)")):
        with pytest.raises(RemoteError, match="SystemExit: 3"):
            leave().get(DEADLINE_S)
    with pytest.raises(RemoteError, match="a cell cannot end the engine"):
        one.execute("exit()", block=True)
    assert one.apply_sync(os.getpid) == pid


def test_an_engine_that_holds_its_interpreter_is_not_taken_for_dead(rc: Client) -> None:
    width = len(rc)
    call = rc[0].apply_async(errands.hold_the_interpreter, 3.5)  # more than a beat
    assert rc[rc.ids[1:]].apply_async(os.getpid).wait(DEADLINE_S)
    assert call.get(DEADLINE_S) == 3.5
    assert len(rc) == width


def test_with_the_last_engine_everything_that_waits_ends(gate: Gate) -> None:
    with Cluster(1) as rc:
        running = rc[0].apply_async(errands.hold, str(gate))
        tasks = [rc.load_balanced_view().apply_async(abs, number) for number in range(10)]
        gate.wait_for(1)
        os.kill(gate.come().pop(), signal.SIGKILL)
        with pytest.raises(EngineLost):
            running.get(DEADLINE_S)
        for task in tasks:
            with pytest.raises((EngineLost, UnknownEngine, NoEngines)):
                task.get(DEADLINE_S)
        assert rc.session.wait_for(lambda: not rc.ids, DEADLINE_S)
        with pytest.raises(NoEngines):
            rc[:].apply_sync(os.getpid)


# --- clients ----------------------------------------------------------------------------------------------------------


def test_the_tasks_of_a_client_that_is_killed_are_dropped(rc: Client, gate: Gate) -> None:
    def waiting() -> int:
        return rc.status()["levels"][0]["tasks_waiting"]

    command = [sys.executable, "-c", CLIENT, rc.cluster_id, str(gate)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"submitted\n"
        gate.wait_for(len(rc))
        until(lambda: waiting() > 100, "the tasks wait at the root")
        other.kill()
        until(lambda: waiting() == 0, "the tasks of the killed client are gone")
    gate.open()
    assert rc[:].apply_async(abs, -3).get(DEADLINE_S) == [3] * len(rc)


def test_a_client_that_leaves_takes_its_waiting_tasks_along(rc: Client, doomed: Cluster, gate: Gate) -> None:
    with Client(doomed.connection_file) as other:
        for _ in range(5 * len(rc)):
            other.load_balanced_view().apply_async(errands.hold, str(gate))
        gate.wait_for(len(rc))
    until(lambda: rc.status()["levels"][0]["tasks_waiting"] == 0, "its tasks are gone")
    gate.open()
    assert rc.load_balanced_view().apply_async(abs, -3).get(DEADLINE_S) == 3


def test_a_forked_child_leaves_its_parents_client_alone(rc: Client) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKER, rc.cluster_id], capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )
    assert (done.stdout, done.stderr) == ("3\n", "")
