"""A cluster before it runs: what it is made of, what it says of itself, which names are free."""

from __future__ import annotations

import inspect
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hiersched.client.cluster import Cluster
from hiersched.errors import ConnectionFileError, PlanError, UserError
from hiersched.protocol.framing import PROTOCOL_VERSION
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection

VERBS = (
    *("start_cluster", "stop_cluster", "start_controller", "stop_controller", "connect_client", "start_and_connect"),
    *("start_engines", "stop_engines", "stop_engine", "scale"),
    *("restart_engines", "restart_engine", "signal_engines", "signal_engine"),
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clusters' directory of this test."""
    monkeypatch.setenv("HIERSCHED_DIR", str(tmp_path / "clusters"))
    return connection.clusters_directory()


def put(name: str, **changes: object) -> Path:
    """The connection file of a cluster whose root is this very process."""
    facts: dict[str, object] = {
        "cluster": name,
        "key": "secret",
        "address": "ipc:///nowhere/root",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "nursery": os.getpid(),
        "sets": {"first": "0-2"},
    }
    path = connection.path_of(name)
    connection.write(path, Connection(**(facts | changes)))  # type: ignore[arg-type]
    return path


def ended_pid() -> int:
    """Of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


# --- arguments --------------------------------------------------------------------------------------------------------


def test_without_arguments_there_is_an_engine_for_each_core_and_an_id_of_its_own() -> None:
    one, other = Cluster(), Cluster()
    assert one.n == len(os.sched_getaffinity(0))
    assert one.cluster_id != other.cluster_id
    assert one.shutdown_atexit


def test_it_takes_the_names_that_ipyparallel_has() -> None:
    cluster = Cluster(n=2, controller_ip="10.0.0.1", engine_launcher_class="Local", controller="hiersched", delay=1.0)
    assert (cluster.ip, cluster.delay) == ("10.0.0.1", 1.0)


def test_an_unknown_argument_is_told_the_nearest_and_all() -> None:
    with pytest.raises(TypeError, match=r"no argument 'fanuot': did you mean 'fanout'\? there are n, cluster_id, "):
        Cluster(2, fanuot=3)


def test_a_number_of_engines_is_a_whole_number() -> None:
    for wrong in ("4", 2.5):
        with pytest.raises(UserError, match=f"a number of engines is a whole number, not {wrong!r}"):
            Cluster(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("which", ["controller", "engines", "controller_launcher_class", "engine_launcher_class"])
def test_an_unknown_launcher_is_told_which_there_are(which: str) -> None:
    with pytest.raises(UserError, match="no launcher 'mpi': there is 'local'"):
        Cluster(2, **{which: "mpi"})  # type: ignore[arg-type]


def test_a_tree_that_cannot_be_is_refused_when_the_cluster_is_made() -> None:
    with pytest.raises(PlanError, match="fanout is 1"):
        Cluster(2, fanout=1)
    with pytest.raises(UserError, match="restart is 'always' or 'never', not 'sometimes'"):
        Cluster(2, restart="sometimes")  # type: ignore[arg-type]


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_two_forms_with_the_same_arguments(verb: str) -> None:
    blocking, awaited = getattr(Cluster, f"{verb}_sync"), getattr(Cluster, verb)
    assert inspect.iscoroutinefunction(awaited)
    assert not inspect.iscoroutinefunction(blocking)
    assert inspect.signature(blocking) == inspect.signature(awaited)
    assert awaited.__name__ == verb


# --- what it says of itself -------------------------------------------------------------------------------------------


def test_it_tells_its_tree_before_it_runs() -> None:
    assert repr(Cluster(4, cluster_id="mine")) == "<Cluster(cluster_id='mine', n=4): not running, 1 scheduler, depth 1>"
    deep = Cluster(8, cluster_id="mine", profile="work", fanout=2, leaf_engines=2)
    assert repr(deep) == "<Cluster(cluster_id='mine', profile='work', n=8): not running, 7 schedulers, depth 3>"


def test_in_a_notebook_it_is_a_table_and_no_name_is_taken_for_html() -> None:
    html = Cluster(4, cluster_id="<mine>")._repr_html_()
    assert "<td>not running</td>" in html
    assert "&lt;mine&gt;" in html


def test_its_files_are_those_of_its_profile(home: Path, tmp_path: Path) -> None:
    assert Cluster(1, cluster_id="mine").connection_file == home / "mine.json"
    assert Cluster(1, cluster_id="mine", profile="work").cluster_file == str(home / "work" / "mine.json")
    elsewhere = Cluster(1, cluster_id="mine", profile_dir=tmp_path / "else")
    assert (elsewhere.connection_file.parent, elsewhere.profile) == (tmp_path / "else", str(tmp_path / "else"))


# --- which names are free ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({}, "a cluster 'mine' is running: choose another cluster_id"),
        ({"protocol": PROTOCOL_VERSION + 1}, "the id 'mine' is taken.*speaks protocol version"),
        ({"host": "elsewhere"}, "a cluster 'mine' is running"),
    ],
)
def test_a_cluster_that_runs_keeps_its_id(changes: dict[str, object], why: str) -> None:
    path = put("mine", **changes)
    before = path.read_bytes()
    with pytest.raises(UserError, match=why):
        Cluster(1, cluster_id="mine").start_cluster_sync()
    assert path.read_bytes() == before


def test_a_file_that_is_none_of_ours_is_not_written_over(home: Path) -> None:
    (home / "notes.json").write_text("{}")
    with pytest.raises(UserError, match="is not a connection file of hiersched"):
        Cluster(1, cluster_id="notes").start_cluster_sync()
    assert (home / "notes.json").read_text() == "{}"


# --- found again ------------------------------------------------------------------------------------------------------


def test_a_cluster_is_found_with_its_sets_without_asking_it() -> None:
    put("mine")
    for found in (
        Cluster.from_file(),
        Cluster.from_file(cluster_id="mine"),
        Cluster.from_file(connection.path_of("mine")),
    ):
        assert (found.cluster_id, found.n, found.shutdown_atexit) == ("mine", 3, False)
        assert repr(found) == "<Cluster(cluster_id='mine', n=3): running, 3 engines in 1 set>"


def test_what_runs_is_listed_and_what_does_not_is_left_out(home: Path) -> None:
    put("runs")
    put("ended", pid=ended_pid())
    (home / "notes.json").write_text("{}")
    assert [cluster.cluster_id for cluster in Cluster.list()] == ["runs"]


def test_a_stopped_cluster_is_told_of_and_made_again() -> None:
    told = Cluster(3, cluster_id="mine", profile="work", delay=0.5).to_dict()
    again = Cluster.from_dict(told)
    assert (again.cluster_id, again.n, again.profile, again.delay) == ("mine", 3, "work", 0.5)
    assert again.controller is None
    assert again.to_dict() == told


def test_one_that_ended_meanwhile_is_not_running() -> None:
    put("mine")
    told = Cluster.from_file().to_dict()
    told["controller"]["state"]["pid"] = ended_pid()
    assert Cluster.from_dict(told).controller is None


def test_where_none_runs_none_is_found() -> None:
    with pytest.raises(ConnectionFileError, match="no cluster runs"):
        Cluster.from_file()


def test_its_file_is_removed_unless_it_is_anothers() -> None:
    path = put("mine")
    found = Cluster.from_file()
    put("mine", key="of another that took the name")
    found.remove_cluster_file()
    assert path.exists()
    Cluster.from_file().remove_cluster_file()
    assert not path.exists()
