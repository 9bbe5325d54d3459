"""Unmodified engines of ipyparallel's beside ours, in one cluster of real processes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import zmq

from hiersched.client.client import Client
from hiersched.errors import CompositeError, EngineLost, RemoteError
from hiersched.limits import STOP_TIMEOUT_S
from tests.compat.guest_cluster import GuestCluster
from tests.patience import until

pytestmark = pytest.mark.processes

OURS, FIRST, SECOND = 0, 1, 5  # one of ours, and two of ipyparallel's, which have asked for their ids


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuestCluster]:
    """One engine of ours and two of ipyparallel's."""
    with GuestCluster(tmp_path_factory.mktemp("mixed"), 1) as cluster:
        for wanted in (FIRST, SECOND):
            cluster.start_guest(f"--IPEngine.id={wanted}")
        cluster.client(3).close()
        yield cluster


@pytest.fixture
def rc(mixed: GuestCluster) -> Iterator[Client]:
    """A client that sees them all."""
    client = mixed.client(3)
    yield client
    client.close()


def hold() -> None:
    """Run until interrupted."""
    time.sleep(60)


# --- work -------------------------------------------------------------------------------------------------------------


def test_all_engines_have_the_ids_that_they_are_to_have(rc: Client, mixed: GuestCluster) -> None:
    assert rc.ids == [OURS, FIRST, SECOND]
    pids = rc[:].apply_sync(os.getpid)
    assert set(pids[1:]) == {guest.pid for guest in mixed.guests}


def test_calls_maps_and_names_are_the_same_everywhere(rc: Client) -> None:
    view = rc[:]
    view.push({"base": 100}, block=True)
    assert view.map_sync(lambda x: 100 + x, range(7)) == list(range(100, 107))
    assert view.pull("base", block=True) == [100, 100, 100]
    view.scatter("part", list(range(6)), block=True)
    assert view.pull("part", block=True) == [[0, 1], [2, 3], [4, 5]]
    assert sorted(rc.load_balanced_view().map_sync(lambda x: -x, range(100))) == list(range(-99, 1))


def test_large_arrays_come_and_go(rc: Client) -> None:
    data = np.arange(500_000, dtype=np.float64)
    for result in rc[:].apply_sync(np.negative, data):
        np.testing.assert_array_equal(result, -data)


def test_cells_print_display_and_have_values(rc: Client) -> None:
    shown = rc[:].execute("import sys; print('out'); print('err', file=sys.stderr); 6 * 7", silent=False)
    assert [reply.data["text/plain"] for reply in shown.get(30)] == ["42"] * 3
    assert (shown.stdout, shown.stderr) == (["out\n"] * 3, ["err\n"] * 3)
    displays = rc[:].execute("from IPython.display import display, HTML; display(HTML('<b>x</b>'))")
    displays.get(30)
    assert [[bundle["data"]["text/html"] for bundle in bundles] for bundles in displays.outputs] == [["<b>x</b>"]] * 3


def test_output_of_calls_is_complete_with_the_answer(rc: Client) -> None:
    def chatter() -> int:
        for number in range(200):
            print(number)
        return 200

    asked = rc[:].apply_async(chatter)
    assert asked.get(30) == [200] * 3
    assert asked.stdout == ["".join(f"{number}\n" for number in range(200))] * 3


def test_errors_say_who_failed_and_how(rc: Client) -> None:
    for asked in (rc[:].apply_async(lambda: 1 / 0), rc[:].execute("1 / 0")):
        with pytest.raises(CompositeError, match="ZeroDivisionError: division by zero"):
            asked.get(30)
    with pytest.raises(RemoteError) as caught:
        rc[FIRST].apply_sync(int, "x")
    assert (caught.value.ename, caught.value.engine_id) == ("ValueError", FIRST)


def test_what_runs_is_interrupted_and_what_waits_is_cancelled(rc: Client) -> None:
    running, waiting = rc[FIRST].apply_async(hold), rc[FIRST].apply_async(os.getpid)
    until(lambda: rc.queue_status(FIRST)["queue"] == 2, "both are there")
    assert waiting.cancel()
    until(lambda: running.interrupt() or running.ready(), "it is interrupted")
    assert isinstance(rc[FIRST].apply_sync(os.getpid), int)


def test_a_signal_reaches_the_process_through_its_nanny(rc: Client) -> None:
    rc[SECOND].execute(
        "import signal; caught = []; _ = signal.signal(signal.SIGUSR1, lambda *a: caught.append(1))"
    ).get(30)
    assert rc.send_signal(signal.SIGUSR1, SECOND, block=True) == [SECOND]
    until(lambda: rc[SECOND].pull("caught", block=True) == [1], "the signal has come")


def test_the_cluster_counts_its_leaf_for_guests_with_the_others(rc: Client) -> None:
    assert rc.queue_status()[SECOND]["queue"] == 0
    assert rc.status()


# --- ends -------------------------------------------------------------------------------------------------------------


def test_engines_that_die_or_lose_their_leaf_are_lost_at_once(tmp_path: Path) -> None:
    with GuestCluster(tmp_path, 1) as cluster:
        victim = cluster.start_guest("--IPEngine.id=1")
        cluster.client(2).close()
        stopped, orphan = cluster.start_guest("--IPEngine.id=2"), cluster.start_guest("--IPEngine.id=3")
        with cluster.client(4) as rc:
            asked = rc[1].apply_async(hold)
            until(lambda: rc.queue_status(1)["queue"] == 1, "it runs")
            victim.kill()
            killed_s = time.monotonic()
            with pytest.raises(EngineLost):
                asked.get(10)
            assert time.monotonic() - killed_s < 1.0
            rc.shutdown([2])
            until(lambda: stopped.poll() is not None, "it has ended", within_s=2 * STOP_TIMEOUT_S)
            until(lambda: rc.ids == [0, 3], "that is known")
            asked = rc[:].apply_async(hold)
            until(lambda: rc.queue_status(3)["queue"] == 1, "it runs")
            cluster.leaf().kill()
            killed_s = time.monotonic()
            until(lambda: rc.ids == [0], "the guests are gone")
            assert time.monotonic() - killed_s < 1.0
            assert orphan.poll() is None
            rc.interrupt(0)
            with pytest.raises(CompositeError, match="EngineLost"):
                asked.get(10)
            assert rc[0].apply_sync(abs, -1) == 1
            orphan.kill()  # it would not stop before its call ends


def test_an_encrypted_door_lets_engines_in_that_have_its_key(tmp_path: Path) -> None:
    public, secret = zmq.curve_keypair()
    with GuestCluster(tmp_path, 0, key=b"", curve_publickey=public, curve_secretkey=secret) as cluster:
        cluster.start_guest()
        with cluster.client(1) as rc:
            assert rc[0].apply_sync(os.getpid) == cluster.guests[0].pid


def descriptors_of(process: psutil.Process) -> int:
    """How many descriptors a process has open."""
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def test_guests_take_no_descriptors_of_the_root(mixed: GuestCluster) -> None:
    leaf = mixed.leaf()
    host = psutil.Process(mixed.host.pid)
    root = min((child for child in host.children() if child != leaf), key=lambda child: child.create_time())
    connections = [one for one in root.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED]
    assert connections == []
    assert descriptors_of(root) < descriptors_of(leaf)
