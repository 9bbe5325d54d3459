"""Clusters that ipyparallel starts, with a controller of its own or with ours, and clients of either kind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ipyparallel
import psutil
import pytest

import hiersched
from hiersched.compat.launchers import CONTROLLER_COMMAND
from tests import patience
from tests.compat import launched

ROOT = Path(__file__).parents[2]
AnyClient = ipyparallel.Client | hiersched.Client


@dataclass(frozen=True)
class Setup:
    """controller, engines: the names of launchers, "" for ipyparallel's own. flags: the controller's."""

    controller: str
    engines: str
    flags: tuple[str, ...] = ()

    def cluster(self, profile_dir: Path, **arguments: Any) -> ipyparallel.Cluster:
        """A cluster that is not started yet."""
        kinds = {"controller": self.controller or None, "engines": self.engines or None}
        flags = {"controller_args": list(self.flags)}
        return launched.cluster(profile_dir, command=CONTROLLER_COMMAND, **(kinds | flags | arguments))


OURS = Setup("hiersched", "hiersched")
STOCK = Setup("", "")
OLD_ENGINES = Setup("hiersched", "")  # below our controller


@contextmanager
def running(setup: Setup, directory: Path, **arguments: Any) -> Iterator[ipyparallel.Cluster]:
    """A cluster with its engines. Its profile is the default one of an IPython directory of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(directory))
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
        made = setup.cluster(directory / "profile_default", **arguments)
        try:
            made.start_cluster_sync()
            with connect(made, ipyparallel.Client) as rc:
                rc.wait_for_engines(made.n, timeout=patience.DEADLINE_S)
            yield made
        finally:
            made.stop_cluster_sync()


@contextmanager
def connect(made: ipyparallel.Cluster, kind: type[AnyClient]) -> Iterator[AnyClient]:
    """A client of this kind, which sees as many engines as run."""
    connected = launched.client(made) if kind is hiersched.Client else made.connect_client_sync()
    with connected as rc:
        yield rc


def listener(made: ipyparallel.Cluster, port: int) -> psutil.Process:
    """The process of the controller's that listens on this port."""
    (found,) = [
        process
        for process in launched.processes_of(made)
        for socket in process.net_connections("tcp")
        if socket.status == psutil.CONN_LISTEN and socket.laddr.port == port
    ]
    return found
