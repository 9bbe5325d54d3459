"""An interrupt stops the code that runs on an engine, never the engine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pytest

from hiersched.client.client import Client
from hiersched.client.results import AsyncResult
from hiersched.errors import RemoteError
from tests.patience import DEADLINE_S
from tests.processes import errands
from tests.processes.conftest import Gate

WAYS: dict[str, Callable[[Client, Gate], AsyncResult]] = {
    "call": lambda rc, gate: rc[0].apply_async(errands.hold, str(gate)),
    "cell": lambda rc, gate: rc[0].execute(f"from tests.processes import errands\nerrands.hold({str(gate)!r})"),
    "awaiting cell": lambda rc, gate: rc[0].execute(
        f"import asyncio, os, pathlib\npathlib.Path({str(gate)!r}, str(os.getpid())).touch()\nawait asyncio.sleep(60)"
    ),
}


def test_an_idle_engine_does_not_mind(flat_rc: Client) -> None:
    pid = flat_rc[0].apply_sync(os.getpid)
    for _ in range(3):
        os.kill(pid, signal.SIGINT)
        assert flat_rc[0].apply_async(os.getpid).get(DEADLINE_S) == pid
        assert flat_rc[0].execute("1 + 1").get(DEADLINE_S) is not None


@pytest.mark.parametrize("way", WAYS)
def test_the_code_that_runs_is_interrupted(flat_rc: Client, gate: Gate, way: str) -> None:
    running = WAYS[way](flat_rc, gate)
    behind = flat_rc[0].apply_async(abs, -3)
    gate.wait_for(1)
    (pid,) = gate.come()
    os.kill(pid, signal.SIGINT)
    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        running.get(DEADLINE_S)
    assert behind.get(DEADLINE_S) == 3
    assert flat_rc[0].execute("import asyncio\nawait asyncio.sleep(0)\n1").get(DEADLINE_S) is not None
    assert flat_rc[0].apply_sync(os.getpid) == pid


def test_an_interrupt_here_ends_the_wait_and_not_the_call(flat_rc: Client, gate: Gate) -> None:
    running = flat_rc[:].apply_async(errands.hold, str(gate), "value")
    gate.wait_for(4)
    threading.Timer(0.05, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        running.get(DEADLINE_S)
    assert flat_rc.ids == [0, 1, 2, 3]
    gate.open()
    assert running.get(DEADLINE_S) == ["value"] * 4


def test_a_task_that_is_interrupted_ends_alone(flat_rc: Client, gate: Gate) -> None:
    balanced = flat_rc.load_balanced_view()
    tasks = [balanced.apply_async(errands.hold, str(gate), number) for number in range(8)]
    gate.wait_for(4)
    os.kill(next(iter(gate.come())), signal.SIGINT)
    failed = flat_rc.session.wait_any([task._pending for task in tasks], DEADLINE_S)
    assert failed
    gate.open()
    outcomes = [task.get(DEADLINE_S, return_exceptions=True) for task in tasks]
    interrupted = [outcome for outcome in outcomes if isinstance(outcome, RemoteError)]
    assert [error.ename for error in interrupted] == ["KeyboardInterrupt"]
    assert len(flat_rc) == 4


def test_code_may_handle_an_interrupt_and_go_on(flat_rc: Client, gate: Gate) -> None:
    running = flat_rc[0].execute(
        "from tests.processes import errands\n"
        f"try: errands.hold({str(gate)!r})\n"
        "except KeyboardInterrupt: handled = True\n"
    )
    gate.wait_for(1)
    os.kill(next(iter(gate.come())), signal.SIGINT)
    running.get(DEADLINE_S)
    assert flat_rc[0]["handled"] is True


def test_interrupts_at_any_moment_leave_the_engine_whole(flat_rc: Client) -> None:
    pid = flat_rc[0].apply_sync(os.getpid)
    calls = []
    for number in range(200):
        calls.append(flat_rc[0].apply_async(bytes, 100_000 + number))  # it is packed for a while
        os.kill(pid, signal.SIGINT)
    for number, call in enumerate(calls):
        outcome = call.get(DEADLINE_S, return_exceptions=True)
        assert outcome == bytes(100_000 + number) or outcome.ename == "KeyboardInterrupt"
    assert flat_rc[0].apply_sync(os.getpid) == pid
