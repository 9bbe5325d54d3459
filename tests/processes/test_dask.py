"""A dask cluster on the engines of a cluster, which is gone when it is stopped."""

from __future__ import annotations

import os

import psutil
import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from tests.patience import until
from tests.processes.conftest import pids_of

pytest.importorskip("distributed")


def test_engines_become_dask_workers_and_are_engines_still(flat_rc: Client) -> None:
    pids = pids_of(flat_rc)
    dask = flat_rc.become_dask()
    assert set(dask.run(os.getpid).values()) == set(pids.values())
    assert dask.gather(dask.map(pow, range(20), [2] * 20)) == [number * number for number in range(20)]
    assert flat_rc[:].apply_sync(os.getpid) == list(pids.values())
    flat_rc.stop_dask()
    assert dask.status == "closed"
    assert pids_of(flat_rc) == pids


def test_some_engines_may_be_workers(flat_rc: Client) -> None:
    dask = flat_rc.become_dask(targets=[0, 2])
    assert set(dask.run(os.getpid).values()) == {pids_of(flat_rc)[0], pids_of(flat_rc)[2]}
    assert len(flat_rc.become_dask(targets=[1]).run(os.getpid)) == 3
    flat_rc.stop_dask()


def test_workers_in_processes_of_their_own_end_too(flat_rc: Client) -> None:
    dask = flat_rc.become_dask(targets=0, nanny=True)
    (worker,) = dask.run(os.getpid).values()
    assert worker != pids_of(flat_rc)[0]
    flat_rc.stop_dask()
    until(lambda: not psutil.pid_exists(worker), "the worker has ended")


@pytest.mark.usefixtures("leaves_nothing")
def test_a_cluster_that_ends_takes_its_workers_along() -> None:
    with Cluster(n=2) as rc:
        dask = rc.become_dask()
        assert dask.submit(abs, -3).result() == 3
        dask.close()
    rc.stop_dask()
