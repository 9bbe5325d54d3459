"""Where the files of clusters lie, and what is swept up there."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hiersched.client import profiles
from hiersched.errors import ConnectionFileError, UserError
from hiersched.limits import START_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The clusters' directory of this test."""
    home = tmp_path / "clusters"
    monkeypatch.setenv("HIERSCHED_DIR", str(home))
    return home


def put(path: Path, *, sockets: Path = Path("x"), **changes: object) -> Path:
    """A connection file, by default of a cluster that runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {
        "cluster": path.stem,
        "key": "secret",
        "address": f"ipc://{sockets}/root",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "nursery": os.getpid(),
    }
    connection.write(path, Connection(**(facts | changes)))  # type: ignore[arg-type]
    return path


@pytest.fixture
def ended_pid() -> int:
    """Of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


# --- directories ------------------------------------------------------------------------------------------------------


def test_the_default_profile_has_the_clusters_directory(home: Path) -> None:
    assert profiles.directory_of() == profiles.directory_of("default") == profiles.directory_of("") == home
    assert profiles.name_of(home) == "default"


def test_a_named_profile_has_a_directory_in_there_for_its_owner_only(home: Path) -> None:
    directory = profiles.directory_of("work")
    assert directory == home / "work"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert profiles.name_of(directory) == "work"
    assert profiles.directories() == [home, home / "work"]


def test_a_directory_needs_no_name(tmp_path: Path) -> None:
    directory = profiles.directory_of("ignored", tmp_path / "anywhere")
    assert directory == tmp_path / "anywhere"
    assert directory.is_dir()
    assert profiles.name_of(directory) == str(directory)


@pytest.mark.parametrize("name", ["a/b", "..", ".hidden", "x" * 300, "a\nb"])
def test_what_cannot_be_a_directory_is_no_profile(name: str) -> None:
    with pytest.raises(UserError, match="cannot be a profile"):
        profiles.directory_of(name)


def test_in_ipython_the_profile_is_the_one_it_was_started_with(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import IPython

    class Shell:
        profile = "work"

    monkeypatch.setattr(IPython, "get_ipython", Shell)
    assert profiles.directory_of() == home / "work"
    assert profiles.directory_of("default") == home


# --- which cluster ----------------------------------------------------------------------------------------------------


def test_looking_for_a_cluster_makes_no_directory(home: Path) -> None:
    for cluster_id in (None, "mine"):
        with pytest.raises(ConnectionFileError, match="no cluster"):
            profiles.find(cluster_id=cluster_id, profile="mistyped")
    assert not (home / "mistyped").exists()


def test_a_cluster_is_found_by_its_id_in_its_profile(home: Path) -> None:
    path = put(home / "work" / "mine.json")
    assert profiles.find(cluster_id="mine", profile="work") == path
    assert profiles.find(profile="work") == path  # the newest
    assert profiles.find(path, profile="another") == path
    with pytest.raises(ConnectionFileError, match="There is no cluster at all"):
        profiles.find(cluster_id="mine")
    with pytest.raises(ConnectionFileError, match=r"no cluster 'yours' .* There are 'mine'"):
        profiles.find(cluster_id="yours", profile="work")


# --- sweeping ---------------------------------------------------------------------------------------------------------


def test_only_what_killed_clusters_have_left_is_removed(home: Path, ended_pid: int) -> None:
    put(home / "runs.json")
    put(home / "elsewhere.json", pid=ended_pid, host="elsewhere")
    stale, stale_too = put(home / "stale.json", pid=ended_pid), put(home / "work" / "stale.json", pid=ended_pid)
    for log in (stale.with_suffix(".log"), home / "runs.log", home / "starts.log", home / "a_bug.log"):
        log.touch()
    (home / "notes.json").write_text("{}")
    long_ago = time.time() - START_TIMEOUT_S - 1
    os.utime(home / "a_bug.log", (long_ago, long_ago))
    removed = profiles.clean_cluster_files()
    assert removed == [stale, stale.with_suffix(".log"), home / "a_bug.log", stale_too]
    left = sorted(path.name for path in home.iterdir() if path.is_file())
    assert left == ["elsewhere.json", "notes.json", "runs.json", "runs.log", "starts.log"]
    assert profiles.clean_cluster_files() == []


def test_sockets_are_swept_up_and_nothing_else_that_has_sockets(tmp_path: Path, home: Path, ended_pid: int) -> None:
    ours, theirs = tmp_path / "hiersched-abc", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
        (directory / "root").touch()
    stale = put(home / "stale.json", sockets=ours, pid=ended_pid)
    other = put(home / "stranger.json", sockets=theirs, pid=ended_pid)
    assert profiles.clean_cluster_files() == [stale, ours, other]
    assert (theirs / "root").exists()


def test_by_force_running_clusters_lose_their_files_but_nobody_else_does(home: Path) -> None:
    runs = put(home / "runs.json")
    (home / "notes.json").write_text("{}")
    assert profiles.clean_cluster_files(home, force=True) == [runs]


def test_in_a_directory_of_others_no_lone_log_is_touched(tmp_path: Path, ended_pid: int) -> None:
    stale = put(tmp_path / "others" / "stale.json", pid=ended_pid)
    theirs = stale.with_name("theirs.log")
    theirs.touch()
    os.utime(theirs, (0, 0))
    assert profiles.clean_cluster_files(stale.parent) == [stale]
    assert theirs.exists()


# --- files of ipyparallel's -------------------------------------------------------------------------------------------


@pytest.fixture
def ipython_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of IPython's default profile."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    profile = tmp_path / "ipython" / "profile_default"
    (profile / "security").mkdir(parents=True)
    return profile


def put_ipyparallels(profile: Path, cluster_id: str, **changes: object) -> Path:
    """ipyparallel's file for clients, as our controller writes it."""
    name = f"ipcontroller-{cluster_id}-client.json" if cluster_id else "ipcontroller-client.json"
    path = profile / "security" / name
    facts = {"cluster": cluster_id or "default", "key": "secret", "address": "ipc://x/root", "pid": os.getpid()}
    root = Connection(**(facts | {"host": socket.gethostname(), "nursery": os.getpid()} | changes))  # type: ignore[arg-type]
    connection.write_private(path, {"ssh": "", "interface": "tcp://127.0.0.1", "key": "other", "hiersched": root})
    return path


def test_a_cluster_that_ipyparallel_has_started_is_found_by_its_id_or_as_the_newest(ipython_profile: Path) -> None:
    path = put_ipyparallels(ipython_profile, "a")
    assert profiles.find(cluster_id="a") == profiles.find() == profiles.find(profile_dir=ipython_profile) == path
    assert connection.read(path).cluster == "a"


def test_clusters_of_our_own_are_found_before_those_of_ipyparallel(home: Path, ipython_profile: Path) -> None:
    put_ipyparallels(ipython_profile, "a")
    ours = put(home / "b.json")
    assert profiles.find() == ours


def test_a_file_of_ipyparallels_own_controller_or_of_an_ended_cluster_is_not_found(
    ipython_profile: Path, ended_pid: int
) -> None:
    put_ipyparallels(ipython_profile, "gone", pid=ended_pid)
    connection.write_private(ipython_profile / "security" / "ipcontroller-client.json", {"interface": "tcp://1.2.3.4"})
    with pytest.raises(ConnectionFileError, match="no cluster runs"):
        profiles.find()
    with pytest.raises(ConnectionFileError, match="no cluster 'gone'"):
        profiles.find(cluster_id="gone")


def test_the_files_of_ipyparallel_are_not_taken_for_our_own(ipython_profile: Path, ended_pid: int) -> None:
    path = put_ipyparallels(ipython_profile, "a", pid=ended_pid)
    assert not connection.is_ours(path)
    assert not connection.is_free(path)
    assert profiles.clean_cluster_files(path.parent) == []
