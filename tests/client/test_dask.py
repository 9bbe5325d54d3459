"""Engines become dask workers, and are ordinary engines again afterwards."""

from __future__ import annotations

import os
import sys
import threading

import pytest

distributed = pytest.importorskip("distributed")

from hiersched.client import dask  # noqa: E402 (only where distributed is installed)
from hiersched.errors import CompositeError, UserError  # noqa: E402
from tests.client.fake_session import FakeClient, FakeSession  # noqa: E402


@pytest.fixture
def client():
    """A client of one engine, for the engines of the fake session share this process."""
    client = FakeClient(FakeSession(engines=1))
    yield client
    dask.stop_dask(client)
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"dask-scheduler", "dask-worker"}


def test_engines_run_what_dask_sends_them(client):
    cluster = dask.become_dask(client)
    assert cluster.submit(os.getpid).result() == os.getpid()
    assert cluster.gather(cluster.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]
    assert list(cluster.nthreads().values()) == [1]
    assert client.session.engines[0].namespace["dask_worker"].address in cluster.nthreads()


def test_it_listens_to_this_machine_only(client):
    assert dask.become_dask(client).scheduler.address.startswith("tcp://127.0.0.1:")


def test_engines_that_are_workers_already_stay_so(client):
    first = dask.become_dask(client, nthreads=2)
    second = dask.become_dask(client)
    assert first.scheduler.address == second.scheduler.address
    assert second.nthreads() == first.nthreads()


def test_stopping_leaves_nothing(client):
    cluster = dask.become_dask(client)
    dask.stop_dask(client)
    assert cluster.status == "closed"
    assert "dask_worker" not in client.session.engines[0].namespace
    dask.stop_dask(client)


def test_it_can_be_started_again(client):
    dask.become_dask(client)
    dask.stop_dask(client)
    assert dask.become_dask(client).submit(abs, -3).result() == 3


def test_the_last_worker_to_stop_ends_the_scheduler(client):
    cluster = dask.become_dask(client)
    dask.stop_dask(client, targets=0)
    assert cluster.status == "closed"


def test_a_worker_whose_scheduler_is_gone_is_replaced(client):
    dask.become_dask(client)
    dask._schedulers.pop(client.cluster_id).close()
    assert dask.become_dask(client).submit(abs, -3).result() == 3


def test_bad_arguments_leave_nothing(client):
    with pytest.raises(CompositeError, match="no_such_argument"):
        dask.become_dask(client, no_such_argument=1)
    assert dask._schedulers == {}


def test_without_distributed_it_says_what_to_install(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match="pip install distributed"):
        dask.become_dask(client)
