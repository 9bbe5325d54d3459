"""The first process of a host, as whoever starts it sees it: ready, failed or stopped, and swept up after.

The host is a script of a few lines here, so that it can misbehave.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import psutil
import pytest

from hiersched.core.topology import Host, plan_tree
from hiersched.errors import StartError, UserError
from hiersched.runtime import connection, spawn
from hiersched.runtime.spawn import HostConfig, HostProcess, ended, log_path
from tests.patience import DEADLINE_S, until

READY = """
import json, os, signal, sys
config = json.load(sys.stdin)
found = dict(cluster=config["cluster"], key=config["key"], address="ipc://x", host="elsewhere", pid=1, nursery=2)
def ready():
    with open(os.path.join(os.environ["HIERSCHED_DIR"], config["cluster"] + ".json"), "w") as file:
        json.dump(found, file)
    open(os.path.join(config["directory"], "socket"), "w").close()
    os.write(config["ready"], json.dumps(found).encode())
    os.close(config["ready"])
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., HostProcess]]:
    """Start a host that runs this script."""
    monkeypatch.setenv("HIERSCHED_DIR", str(tmp_path / "clusters"))
    monkeypatch.setattr(spawn, "STOP_TIMEOUT_S", 0.1)
    started: list[HostProcess] = []

    def start(script: str, *, owned: bool = True) -> HostProcess:
        host = tmp_path / "host"
        host.write_text(f"#!{sys.executable}\n{READY}\n{textwrap.dedent(script)}")
        host.chmod(0o700)
        with monkeypatch.context() as patch:
            patch.setattr(spawn.sys, "executable", str(host))
            config = HostConfig(
                cluster="mine", key="secret", plan=plan_tree([Host("here", 1, 1)]), engines=1, threads=1
            )
            started.append(HostProcess(config, owned=owned))
        return started[-1]

    yield start
    for host in started:
        host.stop()


def files_left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "clusters").iterdir())


LASTING = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
ready()
signal.pause()
"""


def test_a_host_is_ready_when_its_root_can_be_reached(start: Callable[..., HostProcess], tmp_path: Path) -> None:
    host = start(LASTING)
    found = host.wait_ready(DEADLINE_S)
    assert (found.cluster, found.key, found.pid) == ("mine", "secret", 1)
    assert psutil.pid_exists(host.pid)
    assert os.getsid(host.pid) == host.pid  # a Ctrl-C here is not for it
    host.stop()
    assert not psutil.pid_exists(host.pid)
    assert files_left(tmp_path) == []
    host.stop()  # again, for nothing


def test_a_host_that_ends_at_once_has_failed_with_the_end_of_its_log(
    start: Callable[..., HostProcess], tmp_path: Path
) -> None:
    host = start("print('x' * 100_000); sys.exit('no such module')")
    with pytest.raises(StartError, match="cluster 'mine' did not start: the root ended while it started") as caught:
        host.wait_ready(DEADLINE_S)
    assert str(caught.value).endswith("no such module\n")
    assert len(str(caught.value)) < 5_000
    assert files_left(tmp_path) == []


def test_a_host_that_cannot_be_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIERSCHED_DIR", str(tmp_path / "clusters"))
    monkeypatch.setattr(spawn.sys, "executable", str(tmp_path / "no-such-python"))
    config = HostConfig(cluster="mine", key="secret", plan=plan_tree([Host("here", 1, 1)]), engines=1, threads=1)
    descriptors = os.listdir("/proc/self/fd")
    with pytest.raises(StartError, match=r"no-such-python cannot be run \(No such file"):
        HostProcess(config, owned=True)
    assert os.listdir("/proc/self/fd") == descriptors
    assert files_left(tmp_path) == []


def test_a_host_that_is_never_ready_is_ended(start: Callable[..., HostProcess], tmp_path: Path) -> None:
    host = start("signal.pause()")
    with pytest.raises(StartError, match=r"the root did not come up within 0\.05 s"):
        host.wait_ready(0.05)
    assert not psutil.pid_exists(host.pid)
    assert files_left(tmp_path) == []


def test_a_host_that_will_not_end_is_made_to(start: Callable[..., HostProcess], tmp_path: Path) -> None:
    host = start("signal.signal(signal.SIGTERM, signal.SIG_IGN); ready(); signal.pause(); signal.pause()")
    host.wait_ready(DEADLINE_S)
    host.stop()
    assert not psutil.pid_exists(host.pid)
    assert files_left(tmp_path) == []


def test_a_host_that_was_killed_is_swept_up_after(start: Callable[..., HostProcess], tmp_path: Path) -> None:
    host = start(LASTING)
    host.wait_ready(DEADLINE_S)
    os.kill(host.pid, signal.SIGKILL)
    until(lambda: psutil.Process(host.pid).status() == psutil.STATUS_ZOMBIE, "it has ended")
    assert files_left(tmp_path) == ["mine.json", "mine.log"]
    host.stop()
    assert files_left(tmp_path) == []


def test_the_log_of_a_bug_stays(start: Callable[..., HostProcess], tmp_path: Path) -> None:
    host = start("ready(); print('a bug'); sys.exit(os.EX_SOFTWARE)")
    host.wait_ready(DEADLINE_S)
    until(lambda: psutil.Process(host.pid).status() == psutil.STATUS_ZOMBIE, "it has ended")
    host.stop()
    assert files_left(tmp_path) == ["mine.log"]
    assert log_path("mine").read_text() == "a bug\n"


def test_stopping_one_cluster_leaves_another_of_its_name(start: Callable[..., HostProcess], tmp_path: Path) -> None:
    first = start(LASTING)
    first.wait_ready(DEADLINE_S)
    os.kill(first.pid, signal.SIGKILL)
    second = start(LASTING.replace("ready()", "found['key'] = 'another'; ready()"))
    second.wait_ready(DEADLINE_S)
    first.stop()
    assert files_left(tmp_path) == ["mine.json", "mine.log"]
    assert connection.read(connection.path_of("mine")).key == "another"
    connection.path_of("mine").unlink()


@pytest.mark.parametrize("owned", [True, False])
def test_an_owned_host_can_tell_that_its_owner_has_gone(
    start: Callable[..., HostProcess], owned: bool, tmp_path: Path
) -> None:
    host = start(
        """
        owner = config["owner"]
        print("owned" if owner >= 0 and os.fstat(owner) else "free", flush=True)
        ready()
        signal.pause()
        """,
        owned=owned,
    )
    host.wait_ready(DEADLINE_S)
    assert host.log.read_text() == ("owned\n" if owned else "free\n")


def test_a_path_too_long_for_sockets_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    with pytest.raises(UserError, match="longer than the 107 that the system allows: set TMPDIR"):
        spawn.socket_directory()
    assert list(deep.iterdir()) == []


def test_the_end_of_a_process_that_is_no_child_is_waited_for() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not ended(process.pid, 0.0)
        process.kill()
        assert ended(process.pid, DEADLINE_S)
    assert ended(process.pid, 0.0)


def test_what_a_host_is_told_survives_the_pipe() -> None:
    config = HostConfig(
        cluster="mine",
        key="secret",
        plan=plan_tree([Host("here", 100, 2)], fanout=4),
        engines=100,
        threads=2,
        preload=["json"],
        path=["/a b"],
        ip="::1",
    )
    assert msgspec.json.decode(msgspec.json.encode(config), type=HostConfig) == config
