"""The root as whoever found it holds it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from hiersched.client import controller
from hiersched.client.controller import Controller
from hiersched.errors import ConnectionFileError
from hiersched.runtime.connection import Connection

STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); signal.pause()"


def found(pid: int, host: str | None = None) -> Controller:
    """A root, and a nursery, of this process id."""
    where = host or socket.gethostname()
    return Controller(Connection(cluster="mine", key="k", address="ipc://x", host=where, pid=pid, nursery=pid))


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[bytes]]:
    """A process that does not end when it is asked to."""
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_it_runs_as_long_as_its_process() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        root = found(process.pid)
        assert (root.state, root.process.pid) == ("running", process.pid)
        process.communicate()
    assert root.state == "after"
    assert repr(root) == f"<Controller(pid={process.pid}): after>"


def test_of_another_host_nothing_is_known() -> None:
    assert found(os.getpid(), "elsewhere").running


def test_it_is_held_again_by_what_it_told() -> None:
    told = found(os.getpid()).to_dict()
    assert Controller.from_dict(told).pid == os.getpid()
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    with pytest.raises(ConnectionFileError, match=f"process {process.pid}, is gone"):
        Controller.from_dict(told | {"pid": process.pid})


def test_a_process_that_does_not_end_when_asked_to_is_killed(
    stubborn: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "STOP_TIMEOUT_S", 0.05)
    found(stubborn.pid).kill()
    assert stubborn.wait() == -signal.SIGKILL


def test_what_runs_elsewhere_cannot_be_killed_here() -> None:
    with pytest.raises(ConnectionFileError, match="runs on elsewhere: end it there"):
        found(os.getpid(), "elsewhere").kill()


def test_an_error_of_a_root_that_others_started_stays_as_it_is() -> None:
    error = TimeoutError("too late")
    assert found(os.getpid()).failed(error) is error
