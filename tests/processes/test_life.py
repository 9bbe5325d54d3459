"""How a cluster begins and ends, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import ClusterLost, StartError, UserError
from hiersched.runtime import connection
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import DEEP, Gate, host_of, pids_of

pytestmark = pytest.mark.usefixtures("leaves_nothing")

OWNER = """
import sys
from hiersched import Cluster
cluster = Cluster(2, cluster_id=sys.argv[1])
rc = cluster.start_and_connect_sync()
print("running", flush=True)
sys.stdin.read()
"""


# --- beginning and end ------------------------------------------------------------------------------------------------


def test_a_cluster_is_started_used_and_stopped() -> None:
    cluster = Cluster(2, cluster_id="life")
    assert "not running" in repr(cluster)
    rc = cluster.start_and_connect_sync()
    assert rc.ids == [0, 1]
    assert (rc.cluster_id, cluster.n, cluster.plan.schedulers) == ("life", 2, 1)
    assert rc[:].apply_sync(os.getcwd) == [os.getcwd()] * 2
    cluster.stop_cluster_sync()
    assert "not running" in repr(cluster)
    assert not cluster.connection_file.exists()
    cluster.stop_cluster_sync()  # again, for nothing
    with pytest.raises(ClusterLost):
        rc[:].apply_sync(os.getpid)


def test_a_cluster_can_be_started_again() -> None:
    cluster = Cluster(1)
    for _ in range(2):
        with cluster as rc:
            assert rc[0].apply_sync(abs, -3) == 3


def test_a_deep_tree_is_stopped_whole() -> None:
    with Cluster(**DEEP) as rc:
        processes = host_of(rc).children()
    assert len(processes) == 7 + 8
    assert not any(process.is_running() for process in processes)


def test_a_cluster_is_awaited() -> None:
    async def story() -> list[int]:
        async with Cluster(1) as rc:
            ids = rc.ids
        cluster = Cluster(1)
        await cluster.start_cluster()
        client = await cluster.connect_client()
        client.wait_for_engines(1, timeout=DEADLINE_S)
        await cluster.stop_cluster()
        return ids

    assert asyncio.run(story()) == [0]


def test_only_its_owner_can_reach_the_files_of_a_cluster() -> None:
    cluster = Cluster(1)
    with cluster:
        sockets = Path(connection.read(cluster.connection_file).address.removeprefix("ipc://")).parent
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert cluster.connection_file.stat().st_mode & 0o777 == 0o600
        assert connection.clusters_directory().stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()


def test_an_error_in_the_block_still_stops_the_cluster() -> None:
    with pytest.raises(ZeroDivisionError), Cluster(1):
        _ = 1 / 0


def test_stopping_ends_what_runs_and_what_waits(gate: Gate) -> None:
    with Cluster(1) as rc:
        running = rc[0].apply_async(errands.hold, str(gate))
        waiting = rc[0].apply_async(os.getpid)
        gate.wait_for(1)
    for result in (running, waiting):
        with pytest.raises(ClusterLost):
            result.get(DEADLINE_S)


def test_any_client_can_shut_the_cluster_down() -> None:
    cluster = Cluster(2)
    rc = cluster.start_and_connect_sync()
    with cluster.connect_client_sync() as other:
        other.shutdown(hub=True)
        with pytest.raises(ClusterLost, match="has stopped: a client asked for it"):
            other[0].apply_sync(os.getpid)
    with pytest.raises(ClusterLost):
        rc[0].apply_sync(os.getpid)
    cluster.stop_cluster_sync()


# --- by file and by name ----------------------------------------------------------------------------------------------


def test_a_running_cluster_is_found_by_its_file_and_by_its_name() -> None:
    with Cluster(2, cluster_id="found"):
        for found in (Cluster.from_file(cluster_id="found"), Cluster.from_file(connection.path_of("found"))):
            assert (found.cluster_id, found.n) == ("found", 2)
            with found.connect_client_sync() as rc:
                rc.wait_for_engines(timeout=DEADLINE_S)
                assert len(rc) == 2
        with Client() as rc:  # the newest
            assert rc.cluster_id == "found"


def test_whoever_finds_a_cluster_can_stop_it() -> None:
    cluster = Cluster(2, cluster_id="stopped-by-another")
    rc = cluster.start_and_connect_sync()
    Cluster.from_file(cluster_id="stopped-by-another").stop_cluster_sync()
    assert not cluster.connection_file.exists()
    with pytest.raises(ClusterLost):
        rc[:].apply_sync(os.getpid)
    with Cluster(1, cluster_id="stopped-by-another") as again:  # at once
        assert again.ids == [0]
    cluster.stop_cluster_sync()


def test_two_clusters_cannot_have_one_name() -> None:
    with Cluster(1, cluster_id="taken"), pytest.raises(UserError, match="is running: choose another cluster_id"):
        Cluster(1, cluster_id="taken").start_cluster_sync()


def test_two_clusters_are_two_worlds() -> None:
    with Cluster(1) as one, Cluster(1) as other:
        one[0]["x"], other[0]["x"] = 1, 2
        assert (one[0]["x"], other[0]["x"]) == (1, 2)
        assert pids_of(one) != pids_of(other)


# --- when something is killed -----------------------------------------------------------------------------------------


def test_a_cluster_ends_with_the_process_that_owns_it() -> None:
    command = [sys.executable, "-c", OWNER, "owned"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"running\n"
        with Client(cluster_id="owned") as rc:
            processes = [host_of(rc), *host_of(rc).children()]
            owner.kill()
            psutil.wait_procs(processes, DEADLINE_S)
    until(lambda: not connection.path_of("owned").exists(), "the connection file is gone")


@pytest.mark.parametrize("victim", ["root", "nursery"])
def test_when_the_root_or_the_nursery_is_killed_clients_learn_it_at_once(victim: str, gate: Gate) -> None:
    cluster = Cluster(**DEEP)
    rc = cluster.start_and_connect_sync()
    nursery = host_of(rc)
    processes = [nursery, *nursery.children()]
    running = rc[:].apply_async(errands.hold, str(gate))
    tasks = [rc.load_balanced_view().apply_async(errands.hold, str(gate)) for _ in range(20)]
    gate.wait_for(8)
    root = connection.read(cluster.connection_file).pid
    os.kill({"root": root, "nursery": nursery.pid}[victim], signal.SIGKILL)
    for result in (running, *tasks):
        with pytest.raises(ClusterLost):
            result.get(DEADLINE_S)
    with pytest.raises(ClusterLost):
        rc[:].apply_async(os.getpid)
    _, alive = psutil.wait_procs(processes, DEADLINE_S)
    assert not alive
    cluster.stop_cluster_sync()  # sweeps up what a killed nursery could not
    assert not cluster.connection_file.exists()


def test_a_client_that_does_nothing_learns_at_its_next_call_that_the_root_was_killed() -> None:
    with Cluster(1) as rc:
        root = psutil.Process(connection.read(connection.path_of(rc.cluster_id)).pid)
        root.kill()
        psutil.wait_procs([root], DEADLINE_S)
        with pytest.raises(ClusterLost):
            rc[0].apply_sync(os.getpid)


def test_the_newest_cluster_is_the_newest_that_runs() -> None:
    with Cluster(1, cluster_id="older"):
        killed = Cluster(1, cluster_id="killed")
        rc = killed.start_and_connect_sync()
        nursery = host_of(rc)
        processes = [nursery, *nursery.children()]
        nursery.kill()
        psutil.wait_procs(processes, DEADLINE_S)
        assert killed.connection_file.exists()
        with Client() as found:
            assert found.cluster_id == "older"
        killed.stop_cluster_sync()


def test_a_name_is_free_again_when_its_cluster_was_killed() -> None:
    killed = Cluster(1, cluster_id="reused")
    rc = killed.start_and_connect_sync()
    nursery = host_of(rc)
    processes = [nursery, *nursery.children()]
    nursery.kill()
    psutil.wait_procs(processes, DEADLINE_S)
    with Cluster(1, cluster_id="reused") as again:
        assert again.ids == [0]
        killed.stop_cluster_sync()  # must not sweep up what is the new cluster's
        with Client(cluster_id="reused") as client:
            assert client.ids == [0]


# --- starts that fail -------------------------------------------------------------------------------------------------


def test_a_module_that_cannot_be_preloaded_ends_the_start_with_the_log() -> None:
    with pytest.raises(StartError, match="No module named 'no_such_module'"):
        Cluster(2, preload=["no_such_module"]).start_and_connect_sync()


def test_a_start_that_fails_can_be_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    cluster = Cluster(1, preload=["written_later"])
    with pytest.raises(StartError):
        cluster.start_and_connect_sync()
    (tmp_path / "written_later.py").touch()
    with cluster as rc:
        assert rc[0].apply_sync(errands.is_loaded, "written_later")


def test_an_address_that_is_not_ours_ends_the_start() -> None:
    with pytest.raises(StartError, match="assign requested address"):
        Cluster(1, ip="192.0.2.1").start_and_connect_sync()


def test_engines_that_end_while_they_start_end_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fatal.py").write_text("import os\nos.register_at_fork(after_in_child=lambda: os._exit(5))\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(StartError, match="it exited with code 5"):
        Cluster(2, preload=["fatal"]).start_and_connect_sync()


def test_sockets_need_a_short_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(UserError, match="set TMPDIR to a directory with a shorter name"):
        Cluster(1).start_cluster_sync()
    assert not list(deep.iterdir())


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"n": 0}, "at least one engine"),
        ({"n": -3}, "at least one engine"),
        ({"n": 1, "threads": 0}, "at least one thread"),
        ({"n": 1, "cluster_id": "a/b"}, "cannot be a cluster's id"),
        ({"n": 1, "cluster_id": ".."}, "cannot be a cluster's id"),
        ({"n": 1, "cluster_id": "x" * 300}, "cannot be a cluster's id"),
        ({"n": 1, "cluster_id": "a\0b"}, "cannot be a cluster's id"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(arguments: dict[str, object], what: str) -> None:
    with pytest.raises(UserError, match=what):
        Cluster(**arguments)  # type: ignore[arg-type]
