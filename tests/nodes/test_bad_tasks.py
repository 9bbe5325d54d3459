"""Whatever a task does to its process, its caller is told, and the engine can be used afterwards."""

from __future__ import annotations

import _signal
import concurrent.futures
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from hiersched.data.outcomes import Outcome
from hiersched.errors import RemoteError
from hiersched.limits import OUTPUT_BYTES_MAX
from hiersched.protocol import messages as m
from tests.nodes import deeds
from tests.nodes.schedulers import Cluster, Scheduler
from tests.patience import until

A_WHILE_S = 0.005  # so long that what the code changed is looked at when it has ended


class Caller:
    """Calls functions on one engine."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.above: Scheduler = cluster.parent

    def __call__(self, function: Any, *args: Any) -> Outcome:
        outcome = self.above.reply(self.above.call(function, *args))
        assert isinstance(outcome, Outcome)
        return outcome

    def cell(self, code: str) -> Outcome:
        outcome = self.above.reply(self.above.cell(code))
        assert isinstance(outcome, Outcome)
        return outcome

    def is_whole(self) -> bool:
        """Whether the engine is the same process, and does all that it should."""
        assert self(os.getpid).value == self.cluster.pid
        assert self(print, "printed").stdout == "printed\n"
        assert self.cell("1 + 1").value.execute_result["data"]["text/plain"] == "2"
        return True


@pytest.fixture
def call(cluster: Cluster) -> Caller:
    return Caller(cluster)


def name_of(outcome: Outcome) -> str:
    assert isinstance(outcome.error, RemoteError)
    return outcome.error.ename


# --- ends and forks ---------------------------------------------------------------------------------------------------


def test_an_exit_is_an_error(call: Caller) -> None:
    assert name_of(call(sys.exit, 3)) == "SystemExit"
    assert name_of(call.cell("exit()")) == "RuntimeError"
    assert call.is_whole()


def test_a_process_that_ends_is_gone(call: Caller) -> None:
    call.above.call(os._exit, 3)
    assert call.cluster.ended()


def test_a_child_that_returns_into_the_engine_ends_there(call: Caller) -> None:
    assert call(deeds.fork_and_return).value == ("parent", 0)
    assert call.cell("import os\npid = os.fork()\npid or print('said by the child')").ok
    assert call.is_whole()


@pytest.mark.parametrize("status", [0, 3])
def test_a_child_that_exits_has_its_status(call: Caller, status: int) -> None:
    assert call(deeds.fork_and_raise, status).value == status
    assert call.is_whole()


def square(number: int) -> int:
    """Work for a pool."""
    return number * number


def in_a_pool() -> tuple[list[int], list[int]]:
    """Use processes of multiprocessing's."""
    with multiprocessing.get_context("fork").Pool(2) as pool:
        first = pool.map(square, range(4))
    with concurrent.futures.ProcessPoolExecutor(2) as executor:
        return first, list(executor.map(square, range(4)))


def test_multiprocessing_works_within_a_task(call: Caller) -> None:
    assert call(in_a_pool).value == ([0, 1, 4, 9], [0, 1, 4, 9])
    assert call.is_whole()


def leave_a_process() -> int:
    """Start a process that does not end by itself."""
    process = multiprocessing.get_context("fork").Process(target=time.sleep, args=(deeds.PATIENCE_S,))
    process.start()
    assert process.pid is not None
    return process.pid


def test_processes_of_multiprocessing_end_with_the_engine(call: Caller) -> None:
    pid = call(leave_a_process).value
    call.above.stop()
    assert call.cluster.ended()
    until(lambda: not Path(f"/proc/{pid}").exists(), "the process ended")


# --- streams and descriptors ------------------------------------------------------------------------------------------


def replace_streams() -> None:
    """Put others in the place of the streams, and close what was there."""
    out, err, incoming = sys.stdout, sys.stderr, sys.stdin
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    sys.stdin = None  # type: ignore[assignment]
    for stream in (out, err, incoming):
        stream.close()


def test_replaced_and_closed_streams_are_put_back(call: Caller) -> None:
    assert call(replace_streams).ok
    assert name_of(call(input)) == "EOFError"
    assert call.is_whole()


def test_a_closed_stream_still_prints(call: Caller) -> None:
    outcome = call.cell("import sys\nsys.stdout.close()\nprint('after')\nsys.stdout.buffer.write(b'and bytes')")
    assert outcome.stdout == "after\nand bytes"


def close_descriptors() -> None:
    """Close what every process begins with."""
    for descriptor in range(3):
        os.close(descriptor)
    time.sleep(A_WHILE_S)


def open_descriptors() -> list[bool]:
    """Which of the first three are open."""
    return [Path(f"/proc/self/fd/{descriptor}").exists() for descriptor in range(3)]


def test_closed_descriptors_are_opened_again(call: Caller) -> None:
    assert call(close_descriptors).ok
    assert call(open_descriptors).value == [True] * 3
    assert call.is_whole()


def print_without_end(size: int) -> int:
    """Print more than anybody wants."""
    text = "x" * 1_000_000
    for _ in range(size // len(text)):
        print(text, end="")
    print("the end")
    return size


def test_output_without_end_is_cut(call: Caller) -> None:
    outcome = call(print_without_end, OUTPUT_BYTES_MAX + 5_000_000)
    note = "\n[more output was dropped]\n"
    assert outcome.stdout.endswith(note)
    assert len(outcome.stdout) == OUTPUT_BYTES_MAX + len(note)
    assert call.is_whole()


# --- signals ----------------------------------------------------------------------------------------------------------


def block_signals() -> None:
    """Keep signals out, in every way there is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in range(signal.SIGRTMIN, signal.SIGRTMAX):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(A_WHILE_S)


def test_blocked_and_ignored_signals_reach_the_next_call(call: Caller, tmp_path: Path) -> None:
    assert call(block_signals).ok
    assert call(_signal.pthread_sigmask, signal.SIG_BLOCK, ()).value == set()
    running = call.above.call(deeds.hold, str(tmp_path))
    until((tmp_path / "begun").exists, "it began")
    call.above.send(m.Cancel([running], True))
    call.cluster.ring()
    assert call.above.reply(running).code == m.INTERRUPTED  # type: ignore[union-attr]
    assert call.is_whole()


# --- results that do not travel ---------------------------------------------------------------------------------------


class TooLarge:
    """Has no room in memory a second time."""

    def __reduce__(self) -> Any:
        raise MemoryError


def test_a_result_for_which_there_is_no_memory_is_an_error(call: Caller) -> None:
    outcome = call(TooLarge)
    assert name_of(outcome) == "MemoryError"
    assert "does not fit" in outcome.error.evalue  # type: ignore[union-attr]
    assert call.is_whole()


def test_a_result_that_cannot_be_pickled_is_an_error(call: Caller) -> None:
    assert name_of(call(threading.Lock)) == "PackError"
    assert call.is_whole()


class Mute(Exception):
    """Cannot be shown."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


def raise_mute() -> None:
    """Raise what cannot be shown."""
    raise Mute


def test_an_exception_that_cannot_be_shown_is_one_nevertheless(call: Caller) -> None:
    assert not call(raise_mute).ok
    assert call.is_whole()
