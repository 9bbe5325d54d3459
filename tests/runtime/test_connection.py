"""The connection file says where the root is, to its owner only, and what is wrong with it when something is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from hiersched.errors import ConnectionFileError
from hiersched.protocol.framing import PROTOCOL_VERSION
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection
from hiersched.runtime.keys import CurveKeys


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where clusters of this test keep their files; not there yet."""
    directory = tmp_path / "deep" / "clusters"
    monkeypatch.setenv("HIERSCHED_DIR", str(directory))
    return directory


def living(name: str = "mine", **changes: object) -> Connection:
    """Of a cluster whose root is this very process."""
    facts = {
        "cluster": name,
        "key": "secret",
        "address": "ipc:///tmp/root",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "nursery": os.getppid(),
    }
    return Connection(**(facts | changes))  # type: ignore[arg-type]


def ended_pid() -> int:
    """Of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    return process.pid


def put(name: str, *, age_s: int, **changes: object) -> Path:
    """A file written `age_s` seconds ago."""
    path = connection.path_of(name)
    connection.write(path, living(name, **changes))
    then = path.stat().st_mtime_ns - age_s * 1_000_000_000
    os.utime(path, ns=(then, then))
    return path


# --- writing and reading ----------------------------------------------------------------------------------------------


def test_what_was_written_is_read() -> None:
    keys = CurveKeys("server", "client", "client secret")
    for written in (living(), living(tcp_address="tcp://10.0.0.1:5555", curve=keys)):
        connection.write(connection.path_of("mine"), written)
        assert connection.read(connection.path_of("mine")) == written


def test_only_its_owner_may_read_it(directory: Path) -> None:
    previous = os.umask(0)
    try:
        connection.write(connection.path_of("mine"), living())
    finally:
        os.umask(previous)
    assert connection.path_of("mine").stat().st_mode & 0o777 == 0o600
    assert directory.stat().st_mode & 0o777 == 0o700


def test_nobody_sees_half_a_file(directory: Path) -> None:
    path = connection.path_of("mine")
    connection.write(path, living())
    inode = path.stat().st_ino
    connection.write(path, living(key="another"))
    assert path.stat().st_ino != inode  # replaced, not written over
    assert [file.name for file in directory.iterdir()] == ["mine.json"]


def test_names_may_have_dots(directory: Path) -> None:
    connection.write(connection.path_of("a.b.c"), living("a.b.c"))
    assert connection.names() == ["a.b.c"]


def test_the_directory_is_in_the_home_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HIERSCHED_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert connection.clusters_directory() == tmp_path / ".hiersched"


# --- what can be wrong ------------------------------------------------------------------------------------------------


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConnectionFileError, match=r"nowhere\.json cannot be read \(No such file"):
        connection.read(connection.path_of("nowhere"))
    with pytest.raises(ConnectionFileError, match="Is a directory"):
        connection.read(connection.clusters_directory())


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"{", b'{"cluster": 3}', b"\xff\xfe"])
def test_what_is_no_connection_file_is_refused(data: bytes) -> None:
    path = connection.path_of("broken")
    path.write_bytes(data)
    with pytest.raises(ConnectionFileError, match="is not a connection file of hiersched"):
        connection.read(path)


def test_another_version_is_refused_before_anything_else() -> None:
    path = put("newer", age_s=0, protocol=PROTOCOL_VERSION + 1, pid=ended_pid())
    with pytest.raises(ConnectionFileError, match=f"version {PROTOCOL_VERSION + 1}, this side speaks"):
        connection.read(path)


def test_a_file_whose_cluster_has_ended_is_stale() -> None:
    with pytest.raises(ConnectionFileError, match="is stale: the cluster's process"):
        connection.read(put("ended", age_s=0, pid=ended_pid()))


def test_processes_of_other_hosts_are_not_looked_for() -> None:
    elsewhere = living(host="elsewhere", pid=ended_pid())
    connection.write(connection.path_of("remote"), elsewhere)
    assert connection.read(connection.path_of("remote")) == elsewhere
    assert not connection.is_local(elsewhere)
    assert connection.is_local(living())


@pytest.mark.parametrize(
    ("changes", "free"),
    [({}, False), ({"protocol": PROTOCOL_VERSION + 1}, False), ({"host": "elsewhere"}, False), ({"pid": None}, True)],
    ids=["it runs", "it runs and is of another version", "it is of another host", "it has ended"],
)
def test_a_name_is_free_only_when_its_cluster_has_ended(changes: dict[str, object], free: bool) -> None:
    path = put("mine", age_s=0, **{name: ended_pid() if value is None else value for name, value in changes.items()})
    assert connection.is_free(path) is free
    assert connection.is_ours(path)


def test_a_name_without_a_file_is_free_and_one_with_a_foreign_file_is_not() -> None:
    path = connection.path_of("notes")
    assert connection.is_free(path)
    path.write_text("[]")
    assert not connection.is_free(path)
    assert not connection.is_ours(path)


# --- which cluster ----------------------------------------------------------------------------------------------------


def test_the_newest_is_the_last_one_written_that_runs() -> None:
    put("old", age_s=30)
    put("young", age_s=20)
    put("ended", age_s=10, pid=ended_pid())
    connection.path_of("broken").write_text("{}")
    assert connection.names() == ["old", "young", "ended", "broken"]
    assert connection.newest() == connection.path_of("young")


def test_another_directory_is_another_world(tmp_path: Path) -> None:
    connection.write(connection.path_of("there", tmp_path), living("there"))
    put("here", age_s=0)
    assert connection.names(tmp_path) == ["there"]
    assert connection.newest(tmp_path) == tmp_path / "there.json"
    assert connection.names() == ["here"]


def test_without_any_the_user_is_told_how_to_start_one() -> None:
    with pytest.raises(ConnectionFileError, match=r"no cluster runs: .* Start one with `hiersched start -n 4`"):
        connection.newest()


def test_with_stale_ones_only_the_newest_is_explained() -> None:
    put("first", age_s=20, pid=ended_pid())
    put("second", age_s=10, pid=ended_pid())
    with pytest.raises(ConnectionFileError, match=r"second\.json is stale"):
        connection.newest()


def test_a_cluster_removes_its_own_file_only() -> None:
    path = put("mine", age_s=0)
    connection.remove(path, "the key of one that had this name before")
    assert path.exists()
    connection.remove(path, "secret")
    assert not path.exists()
    connection.remove(path, "secret")  # gone already
    path.write_text("something else")
    connection.remove(path, "secret")
    assert path.read_text() == "something else"


def test_the_file_is_plain_json() -> None:
    path = put("mine", age_s=0)
    assert msgspec.json.decode(path.read_bytes())["cluster"] == "mine"
    assert path.read_bytes().endswith(b"}\n")


def test_a_root_that_has_ended_is_gone_even_before_anybody_reaps_it() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert connection.is_gone(living(pid=process.pid))


def test_a_file_of_ipyparallels_that_leads_to_a_root_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "ipcontroller-client.json"
    connection.write_private(path, {"key": "other", "interface": "tcp://127.0.0.1", "hiersched": living()})
    assert connection.read(path) == living()
    assert not connection.is_ours(path)
