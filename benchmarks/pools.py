"""Pools of anonymous workers: whichever is free takes the next task."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.functions import nothing, pid_after
from benchmarks.peer import WORKER_PAUSE_S, Edges, ExecutorPeer, Function, Items, Peer, PeerMissing, wait_for_workers


class ProcessPool(ExecutorPeer):
    """The standard library's pool."""

    label = "ProcessPoolExecutor"

    def load(self) -> None:
        """Import the pool."""
        from concurrent.futures import ProcessPoolExecutor

        self._open = ProcessPoolExecutor

    def start(self, n: int) -> None:
        """A pool of `n` processes; they come up as work arrives, so all of them are asked once."""
        self.executor = self._open(n)
        wait_for_workers(self.executor.submit, n)


class Loky(ExecutorPeer):
    """loky's reusable executor, which joblib uses too."""

    label = "loky"

    def load(self) -> None:
        """Import loky."""
        import loky

        self._package = loky

    def start(self, n: int) -> None:
        """An executor of `n` processes that never retire while idle."""
        self.executor = self._package.get_reusable_executor(n, timeout=None)
        wait_for_workers(self.executor.submit, n)


class MpiFutures(ExecutorPeer):
    """mpi4py.futures: the host is the first rank of an MPI job, the workers are the other `n`."""

    label = "mpi4py.futures"

    @classmethod
    def command(cls, n: int) -> list[str]:
        """The host under mpiexec. Raises PeerMissing without an MPI runtime."""
        beside_python = os.path.dirname(sys.executable)
        mpiexec = shutil.which("mpiexec", path=os.pathsep.join([beside_python, os.environ.get("PATH", os.defpath)]))
        if mpiexec is None:
            raise PeerMissing("no mpiexec: an MPI runtime is needed, for instance from `pip install mpich`")
        return [mpiexec, "-n", str(n + 1), sys.executable, "-m", "mpi4py.futures"]

    def load(self) -> None:
        """Import the executor."""
        from mpi4py.futures import MPIPoolExecutor

        self._open = MPIPoolExecutor

    def start(self, n: int) -> None:
        """The executor over the ranks that mpiexec has started."""
        self.executor = self._open(n)
        wait_for_workers(self.executor.submit, n)


class Dask(Peer):
    """dask.distributed with `n` worker processes of one thread."""

    label = "dask.distributed"

    def load(self) -> None:
        """Import distributed."""
        import distributed

        self._package = distributed

    def start(self, n: int) -> None:
        """A local cluster without dashboard."""
        self._cluster = self._package.LocalCluster(
            n_workers=n, threads_per_worker=1, processes=True, dashboard_address=None, local_directory=self.directory
        )
        self._client = self._package.Client(self._cluster)
        self._graphs = 0
        self._client.wait_for_workers(n)
        assert len(set(self._client.run(os.getpid).values())) == n

    def stop(self) -> None:
        """Close the client and the cluster."""
        self._client.close()
        self._cluster.close()

    def one_call(self) -> object:
        """A no-op; pure=False, for a pure one would be answered from the cache."""
        return self._client.submit(nothing, pure=False).result()

    def submit_many(self, count: int) -> list[object]:
        """`count` no-ops, one submit each."""
        submit = self._client.submit
        return self._client.gather([submit(nothing, pure=False) for _ in range(count)])

    def run_graph(self, edges: Edges, function: Function) -> list[object]:
        """A task for each entry, whose arguments are the results of those that it names; one submit each."""
        submit, tasks = self._client.submit, []
        for named in edges:
            tasks.append(submit(function, *[tasks[number] for number in named], pure=False))
        return self._client.gather(tasks)

    def whole_graph(self, edges: Edges, function: Function) -> list[object]:
        """The same, handed in as one graph."""
        self._graphs += 1
        names = [f"graph-{self._graphs}-{number}" for number in range(len(edges))]
        graph = {
            name: (function, *[names[number] for number in named]) for name, named in zip(names, edges, strict=True)
        }
        return self._client.get(graph, names)

    def submit_sleeps(self, seconds: Sequence[float]) -> list[object]:
        """A task for each, that takes so long."""
        submit = self._client.submit
        return self._client.gather([submit(time.sleep, duration, pure=False) for duration in seconds])

    def map_many(self, function: Function, items: Items) -> list[object]:
        """`function` of each of `items`, each a task: Client.map knows no chunks."""
        return self._client.gather(self._client.map(function, items, pure=False))


class Ray(Peer):
    """ray with `n` processors, hence `n` workers."""

    label = "ray"

    def load(self) -> None:
        """Import ray, its usage reports off."""
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        import ray
        from ray.util.multiprocessing import Pool

        self._package = ray
        self._pool_of = Pool

    def start(self, n: int) -> None:
        """A local node without dashboard."""
        self._package.init(num_cpus=n, include_dashboard=False, log_to_driver=False, _temp_dir=self.directory)
        self._nothing = self._package.remote(nothing)
        pid = self._package.remote(pid_after)
        wait_for_workers(lambda _, delay_s: pid.remote(delay_s).future(), n)
        self._n = n
        self._pool: Any = None

    def stop(self) -> None:
        """Shut the node down."""
        self._package.shutdown()

    def one_call(self) -> object:
        """A no-op as a remote task."""
        return self._package.get(self._nothing.remote())

    def submit_many(self, count: int) -> list[object]:
        """`count` no-ops, one remote task each."""
        remote = self._nothing.remote
        return self._package.get([remote() for _ in range(count)])

    def map_many(self, function: Function, items: Items, *, chunksize: int) -> list[object]:
        """`function` of each of `items` through ray's own multiprocessing pool, opened at the first map."""
        if self._pool is None:
            self._pool = self._pool_of(processes=self._n)
        return self._pool.map(function, items, chunksize=chunksize)


class Joblib(Peer):
    """joblib.Parallel over its loky backend, which chooses its batches by itself."""

    label = "joblib (loky)"

    def load(self) -> None:
        """Import joblib."""
        import joblib

        self._package = joblib

    def start(self, n: int) -> None:
        """A pool that stays open between calls."""
        self._parallel = self._package.Parallel(n_jobs=n, backend="loky")
        self._parallel.__enter__()
        self.map_many(pid_after, [WORKER_PAUSE_S] * n)

    def stop(self) -> None:
        """Close the pool."""
        self._parallel.__exit__(None, None, None)

    def map_many(self, function: Function, items: Items) -> list[object]:
        """`function` of each of `items`."""
        call = self._package.delayed(function)
        return self._parallel(call(item) for item in items)
