"""What is withdrawn does not run, what is interrupted stops, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import FIRST_EXCEPTION

import pytest

from hiersched.client.client import Client
from hiersched.errors import (
    CompositeError,
    DependencyError,
    DependencyTimeout,
    QuorumNotReached,
    RemoteError,
    TaskCancelled,
    TaskInterrupted,
    UserError,
)
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import Gate, in_a_notebook

SOON_S = 2.0  # far less than what is withdrawn would take, and enough on a busy machine


fails_on_first = in_a_notebook(
    """
def fails_on_first(pid, directory):
    import os
    if os.getpid() == pid:
        raise ValueError("the first")
    from tests.processes import errands
    return errands.hold(directory)
"""
)


hold_if = in_a_notebook(
    """
def hold_if(directory, pid):
    import os
    if os.getpid() != pid:
        return "at once"
    from tests.processes import errands
    return errands.hold(directory, "later")
"""
)


# --- before it starts -------------------------------------------------------------------------------------------------


def test_a_call_in_the_queue_of_a_busy_engine_is_withdrawn_at_once(rc: Client, gate: Gate) -> None:
    running = rc[0].apply_async(errands.hold, str(gate), "value")
    gate.wait_for(1)
    behind, last = rc[0].apply_async(abs, -3), rc[0].apply_async(abs, -5)
    behind.abort()
    with pytest.raises(TaskCancelled):
        behind.get(SOON_S)
    assert not running.ready()
    gate.open()
    assert (running.get(DEADLINE_S), last.get(DEADLINE_S)) == ("value", 5)


def test_a_call_is_withdrawn_where_it_has_not_started(rc: Client, gate: Gate) -> None:
    rc[0].apply_async(errands.hold, str(gate))
    gate.wait_for(1)
    everywhere = rc[:].apply_async(errands.hold, str(gate), "value")
    gate.wait_for(len(rc))
    assert everywhere.cancel() is False
    gate.open()
    with pytest.raises(CompositeError) as caught:
        everywhere.get(DEADLINE_S)
    assert {rank: type(error) for rank, error in caught.value.errors.items()} == {0: TaskCancelled}
    assert caught.value.results == [None] + ["value"] * (len(rc) - 1)


def test_queued_tasks_are_withdrawn_at_once_and_running_ones_go_on(rc: Client, gate: Gate) -> None:
    balanced = rc.load_balanced_view()
    tasks = [balanced.apply_async(errands.hold, str(gate), number) for number in range(100)]
    gate.wait_for(len(rc))
    begin_s = time.monotonic()
    rc.abort()
    until(lambda: sum(task.done() for task in tasks) == len(tasks) - len(rc), "the queued ones have ended")
    assert time.monotonic() - begin_s < SOON_S
    gate.open()
    rc.wait(timeout=DEADLINE_S)
    assert sum(task.cancelled() for task in tasks) == len(tasks) - len(rc)
    assert len(rc.outstanding) == 0


def test_a_withdrawn_future_is_cancelled_as_the_standard_has_it(flat_rc: Client, gate: Gate) -> None:
    executor = flat_rc.executor()
    held = [executor.submit(errands.hold, str(gate)) for _ in range(len(flat_rc))]
    gate.wait_for(len(flat_rc))
    waiting = executor.submit(abs, -3)
    assert waiting.cancel()
    assert waiting.cancelled()
    assert not held[0].cancel()
    gate.open()
    flat_rc.wait(held, DEADLINE_S)


# --- while it runs ----------------------------------------------------------------------------------------------------


def test_a_task_that_runs_is_interrupted_and_the_one_behind_it_is_not(flat_rc: Client, gate: Gate) -> None:
    one = flat_rc.load_balanced_view(targets=[2])
    running, behind = one.apply_async(time.sleep, 60), one.apply_async(errands.square, 3)
    until(lambda: flat_rc.queue_status(2)["tasks"] >= 1, "the first is on its engine")
    assert running.cancel() is False or running.cancelled()
    assert running.interrupt() or running.wait(SOON_S)
    with pytest.raises(TaskCancelled):
        running.get(DEADLINE_S)
    assert behind.get(DEADLINE_S) == 9
    assert len(flat_rc) == 4


def test_a_call_on_all_engines_is_interrupted(rc: Client, gate: Gate) -> None:
    call = rc[:].apply_async(errands.hold, str(gate))
    behind = rc[:].apply_async(abs, -3)
    gate.wait_for(len(rc))
    begin_s = time.monotonic()
    call.interrupt()
    assert call.wait(SOON_S)
    assert time.monotonic() - begin_s < SOON_S
    with pytest.raises(TaskInterrupted):
        call.get()
    assert behind.get(DEADLINE_S) == [3] * len(rc)
    assert call.status == ["aborted"] * len(rc)


def test_a_map_is_stopped_with_what_runs_of_it(rc: Client) -> None:
    running = rc.load_balanced_view().map_async(time.sleep, [60.0] * 100, chunksize=1)
    until(lambda: sum(queue["tasks"] for queue in _queues(rc)) >= len(rc), "it runs")
    assert running.cancel(running=True)
    with pytest.raises(TaskCancelled, match="was cancelled with 0 of 100 items done"):
        running.get(DEADLINE_S)
    assert rc[:].apply_async(abs, -3).get(SOON_S + DEADLINE_S) == [3] * len(rc)
    until(lambda: not sum(queue["tasks"] for queue in _queues(rc)), "the engines are free")


def _queues(rc: Client) -> list[dict[str, int]]:
    return [queue for engine, queue in rc.queue_status().items() if engine != "unassigned"]


def test_a_signal_says_which_engines_it_was_sent_to(rc: Client, gate: Gate) -> None:
    call = rc[:].apply_async(errands.hold, str(gate))
    gate.wait_for(len(rc))
    assert rc.interrupt(0) == [0]
    assert rc.send_signal("SIGINT", targets=[1]) == [1]
    until(lambda: call.wait(0) or call.progress == 2, "two have stopped")
    assert call.send_signal(signal.SIGINT) == rc.ids[2:]
    results = call.get(DEADLINE_S, return_exceptions=True)
    assert all(isinstance(error, (RemoteError, TaskInterrupted)) for error in results)
    with pytest.raises(UserError, match="is no signal"):
        rc.send_signal("SIGNONSENSE")


# --- part of the answers ----------------------------------------------------------------------------------------------


def test_most_answers_are_had_while_stragglers_run(rc: Client, gate: Gate) -> None:
    pids = rc[:].apply_async(os.getpid).get_dict(DEADLINE_S)
    straggler = rc.ids[-1]
    call = rc[:].apply_async(hold_if, str(gate), pids[straggler])
    share = (len(rc) - 1) / len(rc)
    quorum = call.quorum(share, timeout=DEADLINE_S)
    assert quorum.results == dict.fromkeys(rc.ids[:-1], "at once")
    assert quorum.stragglers == [straggler]
    with pytest.raises(QuorumNotReached, match=f"stragglers: {straggler}"):
        call.quorum(1.0, timeout=0.05)
    gate.open()
    assert call.quorum(1.0, timeout=DEADLINE_S).stragglers == []


def test_the_first_error_is_raised_while_others_run(rc: Client, gate: Gate) -> None:
    first = rc[0].apply_async(os.getpid).get(DEADLINE_S)
    call = rc[:].apply_async(fails_on_first, first, str(gate))
    with pytest.raises(CompositeError, match="failed on 1 of"):
        call.get(DEADLINE_S, return_when=FIRST_EXCEPTION)
    assert not call.ready()
    gate.open()
    call.wait(DEADLINE_S)


# --- dependencies -----------------------------------------------------------------------------------------------------


def test_the_error_of_an_input_is_the_cause_of_what_could_not_run(rc: Client) -> None:
    balanced = rc.load_balanced_view()
    bad = balanced.apply_async(errands.reciprocal, 0)
    taker = balanced.apply_async(errands.square, bad)
    with balanced.temp_flags(after=bad):
        waiter = balanced.apply_async(abs, -3)
    for result in (taker, waiter):
        with pytest.raises(DependencyError) as caught:
            result.get(DEADLINE_S)
        assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_what_waits_in_vain_ends_when_its_time_is_over(flat_rc: Client, gate: Gate) -> None:
    balanced = flat_rc.load_balanced_view()
    held = balanced.apply_async(errands.hold, str(gate))
    with balanced.temp_flags(after=held, timeout=0.05):
        waiter = balanced.apply_async(abs, -3)
    with pytest.raises(DependencyTimeout):
        waiter.get(DEADLINE_S)
    gate.open()
    held.get(DEADLINE_S)


def test_what_waits_for_something_withdrawn_says_so(flat_rc: Client, gate: Gate) -> None:
    balanced = flat_rc.load_balanced_view()
    held = [balanced.apply_async(errands.hold, str(gate)) for _ in range(len(flat_rc))]
    gate.wait_for(len(flat_rc))
    first = balanced.apply_async(abs, -3)
    second = balanced.apply_async(errands.square, first)
    until(lambda: flat_rc.why(second).state == "dependency", "the root has the task")
    first.cancel()
    until(first.cancelled, "the task is withdrawn")  # on a busy machine `cancel` does not wait for as long as it takes
    with pytest.raises(DependencyError) as caught:
        second.get(SOON_S)
    assert isinstance(caught.value.__cause__, TaskCancelled)
    gate.open()
    flat_rc.wait(held, DEADLINE_S)


# --- Ctrl-C here ------------------------------------------------------------------------------------------------------


def test_interrupts_at_any_moment_leave_the_client_whole(rc: Client) -> None:
    """Every call that was made under fire gives its result, and the client goes on."""
    command = [sys.executable, "-m", "tests.processes.struck_client", rc.cluster_id, "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE_S, check=False)
    assert done.stdout.startswith("whole"), done.stderr
    _, made, struck = done.stdout.split()
    assert int(made) > 20
    assert int(struck) > 20
