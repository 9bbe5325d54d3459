"""Clusters of real processes.

One flat and one deep tree serve all tests that leave them as they are. Those that break something take engines from
`doomed`, or start a cluster of their own and say with `leaves_nothing` that it is gone in the end.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType

import psutil
import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.runtime import connection
from tests import leftovers
from tests.patience import DEADLINE_S, until

FLAT = {"n": 4}
DEEP = {"n": 8, "leaf_engines": 2, "fanout": 2}  # root, two levels of schedulers below it, engines


class Gate:
    """A place where engines wait, see `errands.hold`, until the test lets them go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def __str__(self) -> str:
        return str(self.directory)

    def come(self) -> set[int]:
        """Processes that have come."""
        return {int(path.name) for path in self.directory.iterdir() if path.name != "go"}

    def wait_for(self, count: int) -> None:
        """Wait until so many engines have come."""
        until(lambda: len(self.come()) >= count, f"{count} engines run the call")

    def open(self) -> None:
        """Let them go, and whoever comes later."""
        (self.directory / "go").touch()


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.open()


@pytest.fixture(scope="package")
def flat() -> Iterator[Cluster]:
    """Four engines under the root."""
    cluster = Cluster(**FLAT)
    with cluster:
        yield cluster


@pytest.fixture(scope="package")
def deep() -> Iterator[Cluster]:
    """Eight engines under three levels of schedulers."""
    cluster = Cluster(**DEEP)
    with cluster:
        assert (cluster.plan.depth, cluster.plan.schedulers) == (3, 7)
        yield cluster


@pytest.fixture(params=["flat", "deep"])
def rc(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of its own, of either tree."""
    cluster: Cluster = request.getfixturevalue(request.param)
    with Client(cluster.connection_file) as client:
        yield client


@pytest.fixture
def flat_rc(flat: Cluster) -> Iterator[Client]:
    """A client of its own, of the flat tree."""
    with Client(flat.connection_file) as client:
        yield client


@pytest.fixture
def leaves_nothing() -> Iterator[None]:
    """What the test started is gone at its end: processes, sockets, files."""
    before = leftovers.census(search=True)
    yield
    left = leftovers.wait_until_gone(before)
    found = leftovers.describe(left)
    leftovers.remove(left)
    assert not found


def in_a_notebook(source: str) -> Callable[..., object]:
    """The function that `source` defines, as if in a notebook's cell: its globals are those of `__main__`."""
    cell: dict[str, object] = {"__name__": "__main__"}
    exec(source, cell)
    return next(value for value in cell.values() if isinstance(value, FunctionType))


def host_of(client: Client) -> psutil.Process:
    """The nursery: the parent of all other processes of the cluster."""
    return psutil.Process(connection.read(connection.path_of(client.cluster_id)).pid).parent()


def schedulers_of(client: Client) -> dict[tuple[int, int, int], psutil.Process]:
    """Its schedulers by level and ranks (first, last), as told by the sockets they listen on."""
    found = {}
    for process in host_of(client).children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends just now
            for socket in process.net_connections(kind="unix"):
                kind, *numbers = Path(socket.laddr).name.split("-")
                if kind == "scheduler":
                    level, first, last = map(int, numbers)
                    found[level, first, last] = process
    return found


def pids_of(client: Client) -> dict[int, int]:
    """The process of each engine, by rank."""
    return client[:].apply_async(os.getpid).get_dict(DEADLINE_S)
