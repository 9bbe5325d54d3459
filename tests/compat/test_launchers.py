"""Clusters of ours that ipyparallel's Cluster starts, finds again and stops. The controllers have no doors here."""

from __future__ import annotations

import os
import signal
import stat
import time
from pathlib import Path

import ipyparallel
import pytest
from ipyparallel.cluster.launcher import abbreviate_launcher_class, find_launcher_class

import hiersched
from hiersched.compat.launchers import CONTROLLER_COMMAND, HierschedControllerLauncher, HierschedEngineSetLauncher
from tests import patience
from tests.compat import launched

pytestmark = pytest.mark.processes


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a profile that is not there yet, in an IPython directory of its own."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    return tmp_path / "profile_default"


def security(profile: Path) -> dict[str, int]:
    """The files of the security directory with their modes."""
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in (profile / "security").iterdir()}


def test_the_launchers_are_found_by_name_and_have_that_name() -> None:
    assert find_launcher_class("hiersched", "controller") is HierschedControllerLauncher
    assert find_launcher_class("Hiersched", "engine") is HierschedEngineSetLauncher
    assert abbreviate_launcher_class(HierschedControllerLauncher) == "hiersched"
    assert abbreviate_launcher_class(HierschedEngineSetLauncher) == "hiersched"


def test_a_cluster_starts_with_its_engines_and_nothing_of_it_stays(profile: Path) -> None:
    made = launched.cluster(profile, cluster_id="a", n=3)
    with launched.running(made) as rc:
        assert rc.ids == [0, 1, 2]
        assert rc[:].apply_sync(os.getppid) == [made.controller.pid] * 3
        files = security(profile)
        assert files["ipcontroller-a-client.json"] == files["ipcontroller-a-engine.json"] == 0o600
        pids = [process.pid for process in launched.processes_of(made)] + [made.engine_set.pid]
        sockets = Path(rc.session._connection.address.removeprefix("ipc://")).parent
        assert sockets.is_dir()
    launched.until_gone(pids)
    assert not security(profile)
    assert not sockets.exists()
    assert not list((profile / "log").iterdir())


def test_with_its_doors_it_serves_ipyparallels_clients_and_nothing_of_it_stays(profile: Path) -> None:
    made = launched.cluster(profile, cluster_id="a", command=CONTROLLER_COMMAND)
    with launched.running(made) as rc:
        files = launched.info(made)
        assert files["engine"]["hb_ping"] != files["engine"]["hb_pong"]
        pids = [process.pid for process in launched.processes_of(made)] + [made.engine_set.pid]
        with made.connect_client_sync() as theirs:
            theirs.wait_for_engines(2, timeout=patience.DEADLINE_S)
            assert theirs.ids == rc.ids == [0, 1]
            theirs[:].push({"a": 5}, block=True)
        assert rc[:].pull("a", block=True) == [5, 5]
    launched.until_gone(pids)
    assert not security(profile)


def test_a_client_of_ours_finds_the_cluster_by_its_id_or_profile(profile: Path) -> None:
    with launched.running(launched.cluster(profile, cluster_id="a", n=1)):
        for how in ({"cluster_id": "a"}, {}, {"profile_dir": profile}, {"profile": "default"}):
            with hiersched.Client(**how) as rc:
                assert rc.cluster_id == "a"


def test_sets_of_engines_come_go_and_are_started_again_each_on_its_own(profile: Path) -> None:
    made = launched.cluster(profile, n=2)
    with launched.running(made) as rc:
        first = made.engine_set
        other = made.start_engines_sync(1, "other")
        rc.wait_for_engines(3, timeout=patience.DEADLINE_S)
        assert first.get_output().count("Completed registration with id") == 2
        made.restart_engines_sync(next(iter(made.engines)))
        patience.until(lambda: rc.ids == [2, 3, 4], "others have come")
        made.stop_engines_sync(other)
        patience.until(lambda: rc.ids == [3, 4], "the other set is gone")
        assert not launched.lives(first.pid)


def test_signals_to_a_set_reach_its_engines_and_no_others(profile: Path) -> None:
    made = launched.cluster(profile, n=2)
    with launched.running(made) as rc:
        made.start_engines_sync(1, "other")
        rc.wait_for_engines(3, timeout=patience.DEADLINE_S)
        rc[:].execute(
            "import signal; came = []; signal.signal(signal.SIGUSR1, lambda number, _: came.append(number))", block=True
        )
        made.signal_engines_sync(signal.SIGUSR1, "other")
        patience.until(lambda: rc[2].pull("came", block=True) == [signal.SIGUSR1], "it comes")
        assert rc[:2].pull("came", block=True) == [[], []]
        asleep = rc[0].apply_async(time.sleep, patience.DEADLINE_S)
        patience.until(lambda: made.signal_engines_sync(signal.SIGINT) or asleep.ready(), "it is interrupted")
        with pytest.raises(hiersched.RemoteError, match="KeyboardInterrupt"):
            asleep.get()


def test_a_cluster_is_found_again_by_its_file_and_stopped_from_there(profile: Path) -> None:
    made = launched.cluster(profile, cluster_id="a")
    with launched.running(made):
        pids = [process.pid for process in launched.processes_of(made)] + [made.engine_set.pid]
        found = launched.on_a_loop(lambda: ipyparallel.Cluster.from_file(profile_dir=str(profile), cluster_id="a"))
        assert found.controller.pid == made.controller.pid
        assert found.engine_set.n == 2
        assert found.engine_launcher_class is HierschedEngineSetLauncher
        found.stop_cluster_sync()
        launched.until_gone(pids)


def test_the_engines_of_a_set_that_is_killed_end(profile: Path) -> None:
    made = launched.cluster(profile)
    with launched.running(made) as rc:
        launched.kill(made.engine_set.pid)
        patience.until(lambda: rc.ids == [], "they are gone")


def test_a_set_ends_when_its_engines_have_or_its_cluster(profile: Path) -> None:
    made = launched.cluster(profile)
    with launched.running(made) as rc:
        made.start_engines_sync(1, "other")
        rc.wait_for_engines(3, timeout=patience.DEADLINE_S)
        first, other = made.engines.values()
        rc.shutdown(targets=[0, 1])
        launched.until_gone([first.pid])
        launched.kill(made.controller.pid)
        launched.until_gone([other.pid])
        sockets = Path(rc.session._connection.address.removeprefix("ipc://")).parent
    with launched.running(launched.cluster(profile, cluster_id=made.cluster_id)):
        assert not sockets.exists()  # what the killed controller has left


def test_engines_have_the_surroundings_of_their_set_and_run_its_startup_code(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "startup.py").write_text("from_file = 1")
    (tmp_path / "work").mkdir()
    made = launched.cluster(profile, n=0)
    made.config.HierschedEngineSetLauncher.environment = {"OF_THE_SET": "yes"}
    made.config.HierschedEngineSetLauncher.engine_args = ["-s", str(tmp_path / "startup.py"), "-c", "of_line = 2"]
    made.config.HierschedEngineSetLauncher.engine_args += [f"--work-dir={tmp_path / 'work'}"]
    with launched.running(made) as rc:
        made.start_engines_sync(1)
        rc.wait_for_engines(1, timeout=patience.DEADLINE_S)
        patience.until(lambda: rc[0].apply_sync(os.getenv, "OF_THE_SET") == "yes", "it is given them")
        assert rc[0].apply_sync(os.getcwd) == str(tmp_path / "work")
        assert rc[0].pull(["from_file", "of_line"], block=True) == [1, 2]


def test_files_that_are_used_again_lead_to_the_cluster_that_runs(profile: Path) -> None:
    arguments = ["--reuse", "--ports=10101-10130"]
    keys = []
    for _ in range(2):
        made = launched.cluster(profile, cluster_id="a", n=1, controller_args=arguments)
        with launched.running(made) as rc:
            info = launched.info(made)
            keys.append((info["client"]["key"], info["client"]["mux"], info["engine"]["registration"]))
            assert rc.session._connection.nursery == made.controller.pid
        assert len(security(profile)) == 2
    assert keys[0] == keys[1]


def test_a_controller_that_is_stopped_while_it_starts_leaves_nothing(profile: Path) -> None:
    made = launched.cluster(profile)
    made.start_controller_sync()
    pid = made.controller.pid
    patience.until(lambda: launched.processes_of(made)[1:] or not launched.lives(pid), "it has forked its root")
    made.stop_controller_sync()
    launched.until_gone([pid])
    assert not security(profile)


def test_engines_of_ours_say_what_is_missing_under_a_controller_of_ipyparallels_own(profile: Path) -> None:
    made = launched.cluster(profile, n=1)
    made.config.HierschedEngineSetLauncher.engine_args = ["--IPEngine.wait_for_url_file=0"]
    made.config.HierschedEngineSetLauncher.environment = {"IPP_CONNECTION_INFO": '{"key": "k"}'}
    made.start_engines_sync()
    launched.until_gone([made.engine_set.pid])
    assert 'start the controller with controller="hiersched"' in made.engine_set.get_output()
    made.stop_engines_sync()
