"""A session outlives its client if it is asked to, and ends with it otherwise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from hiersched.client.client import Client
from hiersched.errors import (
    CapacityError,
    ClusterLost,
    RemoteError,
    SessionTaken,
    UnknownSession,
)
from hiersched.limits import SESSIONS_DETACHED_MAX
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import Gate
from tests.processes.test_output import print_and_hold


def joined(rc: Client, session: str) -> Client:
    """A client of a session that was left."""
    return Client(cluster_id=rc.cluster_id, session=session)


def test_what_a_detached_session_has_submitted_goes_on_without_a_client(rc: Client, gate: Gate) -> None:
    first = Client(cluster_id=rc.cluster_id, detached=True)
    call = first[:].apply_async(errands.hold, str(gate), "held")
    tasks = [first.load_balanced_view().apply_async(errands.square, number) for number in range(50)]
    gate.wait_for(len(rc))
    names = [call.msg_ids[0].partition(":")[0], *(task.msg_ids[0] for task in tasks)]
    first.close()
    with pytest.raises(ClusterLost, match="join it again with session="):
        call.get(DEADLINE_S)
    gate.open()
    with joined(rc, first.session_id) as second:
        assert second.get_result(names[0]).get(DEADLINE_S) == ["held"] * len(rc)
        assert second.get_result(names[1:]).get(DEADLINE_S) == [number**2 for number in range(50)]
        assert second.load_balanced_view().apply_sync(errands.square, 7) == 49
        second.forget()


def test_answers_that_came_while_nobody_was_there_are_kept(rc: Client, gate: Gate) -> None:
    first = Client(cluster_id=rc.cluster_id, detached=True)
    tasks = [first.load_balanced_view().apply_async(errands.square, number) for number in range(20)]
    bad = first[0].apply_async(errands.reciprocal, 0)
    first.wait(timeout=DEADLINE_S)
    first.close()
    for _ in range(2):  # they are kept until the session is forgotten
        with joined(rc, first.session_id) as again:
            results = again.get_result([task.msg_ids[0] for task in tasks])
            assert results.get(DEADLINE_S) == [number**2 for number in range(20)]
            with pytest.raises(RemoteError, match="ZeroDivisionError"):
                again.get_result(bad.msg_ids[0]).get(DEADLINE_S)
            assert not again.outstanding
    joined(rc, first.session_id).forget()


def test_who_is_in_a_session_that_another_joins_learns_it_at_once(flat_rc: Client, gate: Gate) -> None:
    first = Client(cluster_id=flat_rc.cluster_id, detached=True)
    call = first[0].apply_async(errands.hold, str(gate), "held")
    gate.wait_for(1)
    with joined(flat_rc, first.session_id) as second:
        with pytest.raises(SessionTaken, match="another client has joined"):
            call.get(DEADLINE_S)
        first.close()
        gate.open()
        assert second.get_result(call.msg_ids[0]).get(DEADLINE_S) == "held"
        second.forget()


def test_a_session_that_does_not_exist_cannot_be_joined(flat_rc: Client) -> None:
    with Client(cluster_id=flat_rc.cluster_id, detached=True) as detached:
        with pytest.raises(UnknownSession, match=f"those that do: {detached.session_id}"):
            joined(flat_rc, "typo")
        detached.forget()


def test_what_runs_is_seen_running_by_who_joins(flat_rc: Client, gate: Gate) -> None:
    first = Client(cluster_id=flat_rc.cluster_id, detached=True)
    call = first[0].apply_async(print_and_hold, str(gate), "before")
    until(lambda: call.wait(0) or call.stdout, "its output has come")
    first.close()
    with joined(flat_rc, first.session_id) as second:
        result = second.get_result(call.msg_ids[0])
        until(lambda: result.wait(0) or result.stdout, "its output has come again")
        assert not result.ready()
        assert second.outstanding == set(call.msg_ids)
        gate.open()
        result.get(DEADLINE_S)
        assert result.stdout == "before\nand the rest\n"
        second.forget()


def test_what_is_withdrawn_with_a_forgotten_session_does_not_run(flat_rc: Client, gate: Gate) -> None:
    first = Client(cluster_id=flat_rc.cluster_id, detached=True)
    for _ in range(len(flat_rc)):
        first.load_balanced_view().apply_async(errands.hold, str(gate))
    gate.wait_for(len(flat_rc))
    behind = [first.load_balanced_view().apply_async(errands.hold, str(gate)) for _ in range(20)]
    first.forget()
    gate.open()
    until(lambda: not any(queue["tasks"] for queue in _queues(flat_rc)), "the engines are free")
    assert len(gate.come()) == len(flat_rc)
    assert all(isinstance(task.exception(0), ClusterLost) for task in behind)
    with pytest.raises(UnknownSession, match="there is no session"):
        joined(flat_rc, first.session_id)


def _queues(rc: Client) -> list[dict[str, int]]:
    return [queue for engine, queue in rc.queue_status().items() if engine != "unassigned"]


SUBMIT = """
import sys
from hiersched.client.client import Client
from tests.processes import errands

rc = Client(cluster_id=sys.argv[1], detached=sys.argv[3] == "detached")
balanced = rc.load_balanced_view()
held = [balanced.apply_async(errands.hold, sys.argv[2], number) for number in range(len(rc) + 3)]
print(rc.session_id, *(task.msg_ids[0] for task in held), flush=True)
rc.wait()
"""


def killed_client(rc: Client, gate: Gate, kind: str) -> list[str]:
    """What a client said that submitted tasks and was killed: its session, and the ids of its tasks."""
    arguments = [sys.executable, "-c", SUBMIT, rc.cluster_id, str(gate), kind]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        said = client.stdout.readline().split()
        gate.wait_for(len(rc))
        os.kill(client.pid, signal.SIGKILL)
    return said


def test_the_tasks_of_a_client_that_is_killed_are_withdrawn(flat_rc: Client, gate: Gate) -> None:
    killed_client(flat_rc, gate, "ordinary")
    until(lambda: sum(queue["tasks"] for queue in _queues(flat_rc)) <= len(flat_rc), "the queued ones are gone")
    gate.open()
    until(lambda: not any(queue["tasks"] for queue in _queues(flat_rc)), "the engines are free")
    assert len(gate.come()) == len(flat_rc)
    assert flat_rc.queue_status()["unassigned"] == 0


def test_a_detached_session_goes_on_when_its_client_is_killed(flat_rc: Client, gate: Gate) -> None:
    session, *names = killed_client(flat_rc, gate, "detached")
    gate.open()
    with joined(flat_rc, session) as second:
        assert second.get_result(names).get(DEADLINE_S) == list(range(len(flat_rc) + 3))
        second.forget()


def test_the_root_keeps_a_bounded_number_of_sessions(flat_rc: Client) -> None:
    clients: list[Client] = []

    def fill() -> bool:
        """Whether there are as many as there may be; sessions that were just forgotten may still count."""
        try:
            clients.append(Client(cluster_id=flat_rc.cluster_id, detached=True))
        except CapacityError as error:
            assert "detached sessions" in str(error)
        return len(clients) == SESSIONS_DETACHED_MAX

    until(fill, "all sessions are there")
    with pytest.raises(CapacityError, match="detached sessions"):
        Client(cluster_id=flat_rc.cluster_id, detached=True)
    clients.pop().forget()
    until(fill, "there is room again")
    for client in clients:
        client.forget()
