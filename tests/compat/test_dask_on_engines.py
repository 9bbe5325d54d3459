"""What stands in, on engines of ours, for functions that only ipyparallel's own can run."""

import pytest
from ipyparallel import util
from ipyparallel.serialize import pack_apply_message

from hiersched.compat import dask_on_engines
from hiersched.data import applied


@pytest.fixture(autouse=True)
def _forgotten_afterwards():
    yield
    applied.stand_ins.clear()


def bound(function):
    """The function that an engine runs when an old client sends this one."""
    canned, *rest = pack_apply_message(function, (), {})
    return applied.Applied(applied.APPLIED + bytes(canned)).bind(rest, {})[0]


def test_workers_of_old_clients_are_started_and_ended_as_our_own():
    dask_on_engines.stand_in()
    assert bound(util.become_dask_worker) is dask_on_engines.become_dask_worker
    assert bound(util.stop_distributed_worker) is dask_on_engines.stop_worker


def test_other_functions_are_what_they_are():
    dask_on_engines.stand_in()
    assert bound(util.utcnow)() is not None


def test_an_old_clients_arguments_are_told_to_the_worker(monkeypatch):
    told = []
    monkeypatch.setattr(dask_on_engines, "become_worker", lambda *arguments: told.append(arguments))
    dask_on_engines.become_dask_worker(address="tcp://somewhere:1", nanny=True, nthreads=2)
    assert told == [("tcp://somewhere:1", True, {"nthreads": 2})]
