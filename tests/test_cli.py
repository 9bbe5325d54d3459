"""The command line, as a shell runs it: what it prints, what it returns, what it leaves behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

import hiersched
from hiersched.client import profiles
from hiersched.client.client import Client
from hiersched.runtime import connection
from tests.patience import DEADLINE_S

pytestmark = pytest.mark.processes


def hs(*words: str) -> subprocess.CompletedProcess[str]:
    """Run `hiersched ...`."""
    return subprocess.run(
        [sys.executable, "-m", "hiersched.cli", *words],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def done(*words: str) -> str:
    """What it printed; it must succeed."""
    ran = hs(*words)
    assert (ran.returncode, ran.stderr) == (0, ""), ran
    return ran.stdout


def refused(*words: str) -> str:
    """Why it did not do what it was told; it must say so and not end in a traceback of its own."""
    ran = hs(*words)
    assert ran.returncode == 1, ran
    assert ran.stderr.startswith(f"hiersched {words[0]}: "), ran
    return ran.stderr


@pytest.fixture
def _stopped() -> Iterator[None]:
    """Stops what a test that failed may have left running."""
    yield
    if connection.names():
        hs("stop", "--all")


# --- clusters ---------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_stopped")
def test_a_cluster_outlives_the_command_that_started_it() -> None:
    assert done("status") == "no cluster runs\n"
    said = done("start", "-n", "3", "--cluster-id", "by-hand", "--threads", "2")
    assert "by-hand: 3 engines, root only" in said
    assert "hiersched.Client(cluster_id='by-hand')" in said
    with Client(cluster_id="by-hand") as rc:
        assert rc.ids == [0, 1, 2]
        assert rc[0].apply_sync(os.getenv, "OMP_NUM_THREADS") == "2"
        status = done("status", "--cluster-id", "by-hand")
        assert "by-hand: 3 of 3 engines, root only" in status
        assert "messages in" in status
        processes = [psutil.Process(pid) for pid in rc[:].apply_sync(os.getpid)]
    assert "is running: choose another cluster_id" in refused("start", "-n", "1", "--cluster-id", "by-hand")
    assert done("stop", "--cluster-id", "by-hand") == "stopped by-hand\n"
    assert not any(process.is_running() for process in processes)
    assert done("status") == "no cluster runs\n"


@pytest.mark.usefixtures("_stopped")
def test_a_deep_tree_is_started_shown_and_stopped() -> None:
    said = done("start", "-n", "8", "--fanout", "2", "--leaf-engines", "2", "--cluster-id", "deep")
    assert "7 schedulers, depth 3, fanout 2, 2 engines a leaf" in said
    rows = re.findall(r"^ +(\d) +(\d) ", done("status"), flags=re.MULTILINE)
    assert rows == [("0", "1"), ("1", "2"), ("2", "4")]
    assert done("stop") == "stopped deep\n"  # the newest


@pytest.mark.usefixtures("_stopped")
def test_all_clusters_are_stopped_at_once() -> None:
    for name in ("one", "two"):
        done("start", "-n", "1", "--cluster-id", name)
    stale = connection.path_of("stale")
    stale.write_text("{}")
    assert "is not a connection file" in done("status", "--cluster-id", "stale")
    assert [line.split()[1] for line in done("list").splitlines()[1:]] == ["one", "two"]
    assert sorted(done("stop", "--all").splitlines()) == ["stopped one", "stopped two"]
    stale.unlink()


@pytest.mark.usefixtures("_stopped")
def test_engines_come_and_go_by_command() -> None:
    done("start", "-n", "2", "--cluster-id", "sized")
    assert done("engines", "-n", "2", "--set", "more") == "sized: engines 2-3 in set more\n"
    assert done("scale", "-n", "3") == "sized: 3 engines: 0-2\n"
    assert done("signal", "CONT", "--engines", "0-1") == "sized: signal CONT to engines 0-1\n"
    assert "the engines are 0-2" in refused("signal", "INT", "--engines", "0-7")
    (told,) = json.loads(done("status", "--json"))
    assert (told["cluster_id"], told["engines"], sorted(told["queues"])) == ("sized", 3, ["0", "1", "2"])
    assert done("status", "--watch", "0.01", "--looks", "2").count("sized: 3 of") == 2
    done("stop")


@pytest.mark.usefixtures("_stopped")
def test_clusters_of_a_profile_are_apart() -> None:
    said = done("start", "-n", "1", "--cluster-id", "apart", "--profile", "work")
    assert "Client(cluster_id='apart', profile='work')" in said
    assert done("status") == "no cluster runs\n"
    assert done("list").splitlines()[1].split()[:3] == ["work", "apart", "running"]
    assert done("stop", "--profile", "work") == "stopped apart\n"
    profiles.directory_of("work").rmdir()


def test_a_cluster_may_stay_with_its_command() -> None:
    command = [sys.executable, "-m", "hiersched.cli", "start", "-n", "1", "--cluster-id", "here", "--no-daemonize"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as staying:
        assert staying.stdout is not None
        lines = iter(staying.stdout)
        assert next(line for line in lines if "Ctrl-C" in line) == "Ctrl-C stops it\n"
        with Client(cluster_id="here") as rc:
            assert rc.ids == [0]
        staying.send_signal(signal.SIGTERM)
        assert list(lines) == ["stopped here\n"]
        assert staying.wait(DEADLINE_S) == 0
    assert connection.names() == []


@pytest.mark.usefixtures("_stopped")
def test_a_cluster_that_does_not_answer_is_stopped_by_force() -> None:
    done("start", "-n", "1", "--cluster-id", "stuck")
    path = connection.path_of("stuck")
    found = connection.read(path)
    connection.write(path, msgspec.structs.replace(found, protocol=found.protocol + 1))
    assert "or kill it with --force" in refused("stop", "--cluster-id", "stuck")
    assert "is taken, choose another cluster_id" in refused("start", "-n", "1", "--cluster-id", "stuck")
    assert done("stop", "--cluster-id", "stuck", "--force") == "stopped stuck\n"
    assert not psutil.pid_exists(found.pid)
    assert connection.names() == []


def test_what_killed_clusters_have_left_is_cleaned_up() -> None:
    done("start", "-n", "1", "--cluster-id", "killed")
    path = connection.path_of("killed")
    nursery = psutil.Process(connection.read(path).nursery)
    processes = [nursery, *nursery.children()]
    nursery.kill()
    psutil.wait_procs(processes, DEADLINE_S)
    sockets = Path(connection.read_any(path).address.removeprefix("ipc://")).parent
    assert done("clean").splitlines() == [f"removed {left}" for left in (path, path.with_suffix(".log"), sockets)]
    assert done("clean") == ""


def test_a_start_that_fails_says_why_and_leaves_nothing() -> None:
    assert "No module named 'no_such_module'" in refused("start", "-n", "2", "--preload", "no_such_module")
    assert "at least one engine" in refused("start", "-n", "0")
    assert "becomes a file name" in refused("start", "-n", "1", "--cluster-id", "a/b")
    assert connection.names() == []
    assert not list(connection.clusters_directory().glob("*.log"))


def test_what_does_not_run_cannot_be_stopped() -> None:
    assert "no cluster runs" in refused("stop")
    assert "no cluster 'never-started'" in refused("stop", "--cluster-id", "never-started")
    assert done("stop", "--all") == ""


# --- plans ------------------------------------------------------------------------------------------------------------


def test_a_plan_is_printed_with_predicted_times() -> None:
    plan = done("plan", "-n", "4096", "--hosts", "64")
    assert "4096 engines on 64 hosts" in plan
    assert re.search(r"a no-op on all engines: [\d.]+ ms predicted", plan)
    assert re.search(r"^ +0 +1 ", plan, flags=re.MULTILINE)


def test_a_small_plan_is_the_root_alone() -> None:
    assert "4 engines on 1 host: root only" in done("plan", "-n", "4")


def test_a_plan_follows_what_is_asked_for() -> None:
    assert "7 schedulers, depth 3, fanout 2" in done("plan", "-n", "8", "--fanout", "2", "--leaf-engines", "2")


def test_a_plan_may_use_costs_measured_here() -> None:
    assert "predicted" in done("plan", "-n", "1000", "--measure")


@pytest.mark.parametrize(
    "words", [["-n", "0"], ["-n", "-3"], ["-n", "4", "--hosts", "0"], ["-n", "4", "--fanout", "0"]]
)
def test_a_plan_of_nothing_is_refused(words: list[str]) -> None:
    assert "Traceback" not in refused("plan", *words)


# --- the command itself -----------------------------------------------------------------------------------------------


def test_it_tells_its_version_and_what_it_can_do() -> None:
    assert done("--version") == f"hiersched {hiersched.__version__}\n"
    assert all(word in done("--help") for word in ("start", "stop", "status", "plan", "sim"))
    assert hs("no-such-command").returncode == 2


def test_it_is_quick_to_say_no(tmp_path: Path) -> None:
    """Nothing heavy is imported before it is needed."""
    script = "import sys; from hiersched.cli import main; main(['stop', '--all']); print('IPython' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE_S, check=True)
    assert ran.stdout == "False\n"
