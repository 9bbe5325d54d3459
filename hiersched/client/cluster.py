"""A cluster as its user holds it: started, connected to, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from hiersched.core.topology import Host, TreePlan, plan_tree
from hiersched.errors import ClusterLost, ConnectionFileError, StartError, UserError
from hiersched.limits import START_TIMEOUT_S, STOP_TIMEOUT_S
from hiersched.runtime import connection, probe
from hiersched.runtime.connection import Connection
from hiersched.runtime.spawn import HostConfig, HostProcess, ended

_ID_BYTES_MAX = 200  # a file name has at most 255, suffixes included

if TYPE_CHECKING:
    from hiersched.client.client import Client


class Cluster:
    """A cluster of `n` engines on this host, under a tree of schedulers sized for them.

    n: engines; by default one per core. cluster_id: its name. fanout, leaf_engines: overrides of the plan. threads: of
    BLAS and OpenMP libraries in each engine; by default a fair share of the cores. preload: modules that engines find
    imported. ip: an address to listen on for clients of other hosts, with CURVE keys; by default only this user on this
    host can connect. shutdown_atexit: the cluster ends with this process. timeout: for starting, seconds.

        with Cluster(n=4) as rc:
            rc[:].apply_sync(os.getpid)

    Raises UserError or PlanError for arguments that make no sense.
    """

    def __init__(
        self,
        n: int | None = None,
        *,
        cluster_id: str | None = None,
        fanout: int | None = None,
        leaf_engines: int | None = None,
        threads: int | None = None,
        preload: Sequence[str] = (),
        ip: str | None = None,
        shutdown_atexit: bool = True,
        timeout: float = START_TIMEOUT_S,
    ) -> None:
        cores = len(os.sched_getaffinity(0))
        self.n = cores if n is None else n
        if self.n < 1:
            raise UserError(f"a cluster needs at least one engine, not {n}")
        if threads is not None and threads < 1:
            raise UserError(f"an engine needs at least one thread, not {threads}")
        self.cluster_id = cluster_id or f"{int(time.time())}-{uuid.uuid4().hex[:4]}"
        if not _is_file_name(self.cluster_id):
            raise UserError(f"{self.cluster_id[:40]!r} cannot be a cluster's id: it becomes a file name")
        self.plan: TreePlan = plan_tree([Host("localhost", self.n, cores)], fanout=fanout, leaf_engines=leaf_engines)
        self.timeout = timeout
        self._threads = threads or max(1, cores // self.n)
        self._preload = list(preload)
        self._ip = ip
        self._owned = shutdown_atexit
        self._host: HostProcess | None = None
        self._connection: Connection | None = None
        self._clients: list[Client] = []

    @classmethod
    def from_file(cls, path: str | Path | None = None, *, cluster_id: str | None = None) -> Cluster:
        """A cluster that runs already: by its connection file, by its id, or the newest of this user."""
        found = connection.read(_path(path, cluster_id))
        self = cls(1, cluster_id=found.cluster, shutdown_atexit=False)
        self._connection = found
        with self.connect_client_sync() as client:
            self.plan = client.plan
            self.n = sum(host.slots for host in client.plan.hosts)
        return self

    def __repr__(self) -> str:
        state = "running" if self._connection is not None else "not running"
        tree = f"{self.plan.schedulers} scheduler{'s' * (self.plan.schedulers != 1)}, depth {self.plan.depth}"
        return f"<Cluster(cluster_id={self.cluster_id!r}, n={self.n}): {state}, {tree}>"

    @property
    def connection_file(self) -> Path:
        """Where the connection file lies while the cluster runs."""
        return connection.path_of(self.cluster_id)

    # --- start --------------------------------------------------------------------------------------------------------

    def start_cluster_sync(self) -> Cluster:
        """Start schedulers and engines; returns when the root can be reached.

        Raises CapacityError before anything starts if this machine cannot hold so many engines, StartError if the root
        does not come up, UserError if a cluster of this id runs already.
        """
        if self._connection is not None:
            raise UserError(f"cluster {self.cluster_id!r} runs already")
        self._refuse_taken_id()
        probe.capacity(self.n)
        config = HostConfig(
            cluster=self.cluster_id,
            key=secrets.token_hex(16),
            plan=self.plan,
            engines=self.n,
            threads=self._threads,
            ip=self._ip,
            preload=self._preload,
            path=[entry for entry in sys.path if entry] + [os.getcwd()],
        )
        self._host = HostProcess(config, owned=self._owned)
        try:
            importlib.import_module("hiersched.client.client")  # beside the start of the host
            self._connection = self._host.wait_ready(self.timeout)
        except BaseException:
            self._host.stop()
            raise
        return self

    def connect_client_sync(self) -> Client:
        """A new client of the running cluster."""
        if self._connection is None:
            raise UserError(f"cluster {self.cluster_id!r} does not run: start it first")
        from hiersched.client.client import Client

        client = Client(self._connection)
        self._clients.append(client)
        return client

    def start_and_connect_sync(self, n: int | None = None) -> Client:
        """Start, connect, and wait until all engines are there.

        Raises as `start_cluster_sync`, and StartError if an engine does not come up.
        """
        if n is not None and n != self.n:
            raise UserError(f"this cluster was planned for {self.n} engines; give n={n} when you make it")
        self.start_cluster_sync()
        assert self._host is not None
        host = self._host
        try:
            client = self.connect_client_sync()
            client.wait_for_engines(self.n, timeout=self.timeout)
        except (StartError, TimeoutError, ClusterLost, ConnectionFileError) as error:
            failure = host.failed(str(error))
            self.stop_cluster_sync()
            raise failure from None
        except BaseException:
            self.stop_cluster_sync()
            raise
        return client

    # --- stop ---------------------------------------------------------------------------------------------------------

    def stop_cluster_sync(self) -> None:
        """End all processes of the cluster; returns when they are gone. Does nothing if it does not run."""
        found, self._connection = self._connection, None
        if found is None:
            return
        for client in self._clients:
            client.close()
        self._clients.clear()
        if self._host is not None:
            self._host.stop()
            self._host = None
        else:
            self._stop_elsewhere(found)

    def _stop_elsewhere(self, found: Connection) -> None:
        """Stop a cluster that another process started."""
        from hiersched.client.client import Client

        with contextlib.suppress(ClusterLost), Client(found) as client:
            client.shutdown()
        if connection.is_local(found) and not ended(found.nursery, 2 * STOP_TIMEOUT_S):
            raise TimeoutError(f"cluster {self.cluster_id!r} (process {found.nursery}) did not end")

    def _refuse_taken_id(self) -> None:
        try:
            connection.read(self.connection_file)
        except ConnectionFileError:
            return  # none, or a stale one, which the new cluster overwrites
        raise UserError(f"a cluster {self.cluster_id!r} is running: choose another cluster_id, or stop it first")

    # --- other forms --------------------------------------------------------------------------------------------------

    async def start_cluster(self) -> Cluster:
        """As `start_cluster_sync`, awaited."""
        return await asyncio.to_thread(self.start_cluster_sync)

    async def connect_client(self) -> Client:
        """As `connect_client_sync`, awaited."""
        return await asyncio.to_thread(self.connect_client_sync)

    async def start_and_connect(self, n: int | None = None) -> Client:
        """As `start_and_connect_sync`, awaited."""
        return await asyncio.to_thread(self.start_and_connect_sync, n)

    async def stop_cluster(self) -> None:
        """As `stop_cluster_sync`, awaited."""
        await asyncio.to_thread(self.stop_cluster_sync)

    def __enter__(self) -> Client:
        return self.start_and_connect_sync()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_cluster_sync()

    async def __aenter__(self) -> Client:
        return await self.start_and_connect()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop_cluster()


def _is_file_name(text: str) -> bool:
    return text.isprintable() and "/" not in text and text[0] != "." and len(os.fsencode(text)) <= _ID_BYTES_MAX


def _path(path: str | Path | None, cluster_id: str | None) -> Path:
    if path is not None:
        return Path(path)
    return connection.path_of(cluster_id) if cluster_id is not None else connection.newest()
