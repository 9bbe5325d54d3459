"""The forms in which a cluster is had: awaited, as a block, found again, in profiles; and engines that come and go."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from hiersched.client import profiles
from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import CapacityError, EngineLost, RemoteError, UnknownEngine, UnknownEngineSet, UserError
from hiersched.runtime import connection
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import DEEP, Gate, pids_of

pytestmark = pytest.mark.usefixtures("leaves_nothing")

LEAVER = """
import sys
from hiersched import Cluster
print(Cluster(1, cluster_id=sys.argv[1], shutdown_atexit=False).start_cluster_sync().controller.pid)
"""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster of another test is known."""
    monkeypatch.setenv("HIERSCHED_DIR", str(tmp_path))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two engines."""
    cluster = Cluster(2)
    cluster.start_and_connect_sync()
    yield cluster
    cluster.stop_cluster_sync()


@pytest.fixture
def rc(cluster: Cluster) -> Client:
    """A client of it."""
    return cluster.connect_client_sync()


# --- forms ------------------------------------------------------------------------------------------------------------


def test_each_verb_can_be_awaited() -> None:
    async def story() -> None:
        cluster = Cluster(1)
        assert await cluster.start_cluster() is cluster
        rc = await cluster.connect_client()
        rc.wait_for_engines(1, timeout=DEADLINE_S)
        second = await cluster.start_engines(1, "second")
        rc.wait_for_engines(2, timeout=DEADLINE_S)
        await cluster.restart_engines(second)
        await cluster.restart_engine(0)
        await cluster.signal_engines(signal.SIGCONT)
        await cluster.signal_engine(signal.SIGCONT, 1)
        assert await cluster.scale(3) == [0, 1, 2]
        await cluster.stop_engine(0)
        await cluster.stop_engines(second)
        assert rc.ids == [2]
        await cluster.stop_cluster()
        assert cluster.controller is None

    asyncio.run(story())


def test_blocking_forms_work_inside_a_running_loop() -> None:
    async def story() -> list[int]:
        with Cluster(1) as rc:
            return rc[:].apply_sync(abs, -3)

    assert asyncio.run(story()) == [3]


def test_clusters_start_side_by_side() -> None:
    async def story() -> list[list[int]]:
        async with Cluster(1) as one, Cluster(2) as two:
            return [one.ids, two.ids]

    assert asyncio.run(story()) == [[0], [0, 1]]


def test_a_start_that_is_given_up_leaves_nothing() -> None:
    async def story() -> None:
        async with asyncio.timeout(0.01), Cluster(1):
            pass

    with pytest.raises(TimeoutError):
        asyncio.run(story())


def test_the_number_of_engines_may_be_told_at_the_start() -> None:
    cluster = Cluster(n=1)
    rc = cluster.start_and_connect_sync(3)
    assert (rc.ids, cluster.n, rc.cluster) == ([0, 1, 2], 3, cluster)
    cluster.stop_cluster_sync()


def test_engines_and_their_schedulers_have_the_environment_that_was_asked_for() -> None:
    with Cluster(1, engine_environ={"HS_TEST_COLOUR": "blue"}) as rc:
        assert rc[0].apply_sync(os.getenv, "HS_TEST_COLOUR") == "blue"
    assert "HS_TEST_COLOUR" not in os.environ


def test_magics_need_ipython() -> None:
    cluster = Cluster(1)
    with pytest.warns(UserWarning, match="within IPython only"):
        rc = cluster.start_and_connect_sync(activate=True)
    assert rc.ids == [0]
    cluster.stop_cluster_sync()


# --- root and engines apart -------------------------------------------------------------------------------------------


def test_a_root_without_engines_takes_clients_and_grows() -> None:
    cluster = Cluster(2)
    cluster.start_controller_sync()
    assert (cluster.engines, cluster.engine_set) == ({}, None)
    assert cluster.controller is not None
    assert cluster.controller.state == "running"
    rc = cluster.connect_client_sync()
    assert rc.ids == []
    with pytest.raises(UserError, match="runs already"):
        cluster.start_controller_sync()
    cluster.start_cluster_sync()
    rc.wait_for_engines(2, timeout=DEADLINE_S)
    assert rc[:].apply_sync(abs, -3) == [3, 3]
    with pytest.raises(UserError, match="start_engines starts more engines"):
        cluster.start_cluster_sync()
    cluster.stop_engines_sync()
    assert (rc.ids, cluster.engines) == ([], {})
    cluster.stop_controller_sync()
    cluster.stop_controller_sync()  # again, for nothing


def test_engines_may_start_a_little_later_than_the_root() -> None:
    with Cluster(2, delay=0.05) as rc:
        assert rc.ids == [0, 1]


def test_what_needs_a_running_cluster_says_so() -> None:
    cluster = Cluster(1)
    for verb in (cluster.start_engines_sync, cluster.stop_engines_sync, cluster.connect_client_sync):
        with pytest.raises(UserError, match="does not run: start it first"):
            verb()


# --- engines that come and go -----------------------------------------------------------------------------------------


def test_engines_that_are_added_have_a_set_of_their_own(cluster: Cluster, rc: Client) -> None:
    (first,) = cluster.engines
    second = cluster.start_engines_sync(2)
    rc.wait_for_engines(4, timeout=DEADLINE_S)
    assert {key: engines.ranks for key, engines in cluster.engines.items()} == {first: [0, 1], second: [2, 3]}
    assert len(set(pids_of(rc).values())) == 4
    cluster.stop_engines_sync(first)
    assert rc.ids == [2, 3]
    assert rc[:].apply_sync(abs, -1) == [1, 1]
    with pytest.raises(UnknownEngineSet, match=f"there are: '{second}'"):
        cluster.stop_engines_sync(first)
    with pytest.raises(UserError, match="there is an engine set"):
        cluster.start_engines_sync(1, second)


def test_a_deep_tree_grows_and_shrinks_too() -> None:
    cluster = Cluster(**DEEP)
    with cluster as rc:
        assert cluster.scale_sync(11) == list(range(11))
        assert rc[:].apply_sync(abs, -1) == [1] * 11
        cluster.stop_engine_sync(3)
        assert cluster.scale_sync(5) == [0, 1, 2, 4, 5]
        assert rc[:].apply_sync(abs, -1) == [1] * 5
        assert cluster.engines.ranks() == [0, 1, 2, 4, 5]
        assert cluster.scale_sync(0) == []


def test_engines_that_are_restarted_are_others_with_the_same_ids(cluster: Cluster, rc: Client) -> None:
    rc[:]["x"] = 1
    before = pids_of(rc)
    cluster.restart_engine_sync(1)
    after = pids_of(rc)
    assert (after[0] == before[0], after[1] == before[1]) == (True, False)
    cluster.restart_engines_sync()
    assert set(pids_of(rc).values()).isdisjoint({*before.values(), *after.values()})
    with pytest.raises(RemoteError, match="NameError"):
        rc[0]["x"]


def test_what_runs_on_an_engine_that_is_restarted_is_reported(cluster: Cluster, rc: Client, gate: Gate) -> None:
    running = rc[1].apply_async(errands.hold, str(gate))
    gate.wait_for(1)
    cluster.restart_engine_sync(1)
    with pytest.raises(EngineLost):
        running.get(DEADLINE_S)
    assert rc[1].apply_sync(abs, -3) == 3


def test_signals_reach_the_engines_of_a_set_and_no_others(cluster: Cluster, rc: Client, gate: Gate) -> None:
    (first,) = cluster.engines
    cluster.start_engines_sync(1)
    rc.wait_for_engines(3, timeout=DEADLINE_S)
    running = rc[:].apply_async(errands.hold, str(gate))
    gate.wait_for(3)
    cluster.signal_engines_sync(signal.SIGINT, first)
    gate.open()
    outcomes = running.get(DEADLINE_S, return_exceptions=True)
    assert [getattr(outcome, "ename", None) for outcome in outcomes] == ["KeyboardInterrupt"] * 2 + [None]


def test_one_engine_is_signalled_and_what_is_no_signal_is_refused(cluster: Cluster, rc: Client, gate: Gate) -> None:
    running = rc[1].apply_async(errands.hold, str(gate))
    gate.wait_for(1)
    cluster.signal_engine_sync(signal.SIGINT, 1)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        running.get(DEADLINE_S)
    with pytest.raises(UserError, match="is no signal"):
        cluster.signal_engine_sync(1_000, 1)
    with pytest.raises(UnknownEngine, match="there are: 0-1"):
        cluster.signal_engine_sync(signal.SIGINT, 2)


def test_an_engine_that_ends_is_replaced_if_asked_for() -> None:
    with Cluster(2, restart="always") as rc:
        before = pids_of(rc)
        os.kill(before[1], signal.SIGKILL)
        until(lambda: process_of(rc, 1) not in (None, before[1]), "another engine has its id")
        assert process_of(rc, 0) == before[0]


def process_of(rc: Client, engine: int) -> int | None:
    """Of an engine; None while there is none."""
    try:
        return rc[engine].apply_async(os.getpid).get(DEADLINE_S)
    except (UnknownEngine, EngineLost):
        return None


def test_an_engine_that_is_stopped_is_not_replaced() -> None:
    cluster = Cluster(2, restart="always")
    with cluster as rc:
        cluster.stop_engine_sync(0)
        assert rc[:].apply_sync(abs, -3) == [3]
        assert rc.ids == [1]


def test_more_than_fits_is_refused_and_nothing_changes(cluster: Cluster, rc: Client) -> None:
    with pytest.raises(CapacityError):
        cluster.start_engines_sync(900_000)
    with pytest.raises(UserError, match="at least one engine"):
        cluster.start_engines_sync(0)
    with pytest.raises(UserError, match="cannot have -1 engines"):
        cluster.scale_sync(-1)
    assert rc[:].apply_sync(abs, -3) == [3, 3]


# --- found again ------------------------------------------------------------------------------------------------------


def test_whoever_finds_a_cluster_can_do_all_that_its_owner_can(cluster: Cluster, rc: Client) -> None:
    found = Cluster.from_file(cluster_id=cluster.cluster_id)
    assert (found.engines, found.n, found.plan) == (cluster.engines, 2, cluster.plan)
    assert not found.shutdown_atexit
    second = found.start_engines_sync(1, "second")
    rc.wait_for_engines(3, timeout=DEADLINE_S)
    assert list(cluster.engines)[1] == second  # its owner knows
    cluster.stop_engines_sync("second")
    assert "second" not in found.engines
    found.restart_engines_sync()
    assert rc[:].apply_sync(abs, -3) == [3, 3]


def test_a_cluster_is_found_by_what_was_told_of_it(cluster: Cluster) -> None:
    found = Cluster.from_dict(cluster.to_dict())
    assert (found.cluster_id, found.n, found.engines) == (cluster.cluster_id, 2, cluster.engines)
    with found.connect_client_sync() as rc:
        assert rc.ids == [0, 1]
    told = cluster.to_dict()
    cluster.stop_cluster_sync()
    assert Cluster.from_dict(told).controller is None


def test_a_copy_of_the_file_leads_to_the_cluster_as_well(tmp_path: Path) -> None:
    copy = tmp_path / "anywhere.json"
    cluster = Cluster(1, cluster_file=copy)
    with cluster:
        assert copy.stat().st_mode & 0o777 == 0o600
        found = Cluster.from_file(copy)
        assert found.cluster_id == cluster.cluster_id
        found.start_engines_sync(1, "more")
        assert "more" in cluster.engines
        cluster.remove_cluster_file()
        assert not copy.exists()
        cluster.update_cluster_file()
        assert copy.exists()
    assert not copy.exists()


def test_a_file_that_cannot_be_written_stops_the_cluster(tmp_path: Path) -> None:
    cluster = Cluster(1, cluster_file=tmp_path / "no such directory" / "x.json")
    with pytest.raises(FileNotFoundError):
        cluster.start_cluster_sync()
    assert cluster.controller is None


def test_a_cluster_may_outlive_the_process_that_started_it(alone: None) -> None:
    command = [sys.executable, "-c", LEAVER, "left"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    root = psutil.Process(int(ran.stdout))
    cluster = Cluster.from_file(cluster_id="left")
    with cluster.connect_client_sync() as rc:
        rc.wait_for_engines(1, timeout=DEADLINE_S)
        assert rc[0].apply_sync(os.getppid) == connection.read(cluster.connection_file).nursery
    assert [known.cluster_id for known in Cluster.list()] == ["left"]
    cluster.stop_cluster_sync()
    assert not root.is_running()
    assert Cluster.list() == []


def test_profiles_are_worlds_of_their_own(alone: None) -> None:
    with Cluster(1, cluster_id="one", profile="work") as there, Cluster(2, cluster_id="one") as here:
        assert (len(there), len(here)) == (1, 2)
        with Client(profile="work") as rc:
            assert len(rc) == 1
        found = Cluster.from_file(profile="work")
        assert (found.profile, found.n) == ("work", 1)
        assert "profile='work'" in repr(found)
        assert [cluster.profile for cluster in Cluster.list()] == ["default", "work"]
        assert [cluster.profile for cluster in Cluster.list(profile="work")] == ["work"]
        with pytest.raises(UserError, match="is running"):
            Cluster(1, cluster_id="one", profile="work").start_cluster_sync()
    profiles.directory_of("work").rmdir()


def test_a_cluster_tells_what_it_is(cluster: Cluster) -> None:
    assert repr(cluster).endswith(", n=2): running, 2 engines in 1 set>")
    html = cluster._repr_html_()
    assert "<td>running</td>" in html
    assert "<td>0-1</td>" in html
    assert cluster.controller is not None
    cluster.controller.process.kill()
    until(lambda: not cluster.controller.running, "the root has ended")  # type: ignore[union-attr]
    assert "ended" in repr(cluster)
