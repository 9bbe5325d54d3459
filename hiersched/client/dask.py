"""A dask.distributed cluster on the engines: a dask worker in each, a dask scheduler in the client's process.

Both run on event loops in threads of their own, so engines and client stay free for everything else. Scheduler and
workers speak dask's protocol directly. When the client's process ends, so does dask: workers whose scheduler is gone
close by themselves, and so do the processes that a nanny has started.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import shutil
import socket
import tempfile
import threading
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from hiersched.client.broadcast_view import BroadcastView
from hiersched.data import namespace
from hiersched.errors import UserError
from hiersched.limits import DASK_TIMEOUT_S

if TYPE_CHECKING:
    import distributed

    from hiersched.client.client import Client

Result = TypeVar("Result")

_LOOPBACK = "127.0.0.1"


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """What the coroutine gives. Raises TimeoutError, and withdraws it, if that takes DASK_TIMEOUT_S."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, DASK_TIMEOUT_S), self._loop).result()

    def stop(self) -> None:
        """End the loop and the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


# --- in the client's process ------------------------------------------------------------------------------------------


class DaskScheduler:
    """A dask scheduler. clients: dask clients that were made for it; directory: for what dask writes on this host."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.clients: WeakSet[distributed.Client] = WeakSet()
        self.directory = tempfile.mkdtemp(prefix="hiersched-dask-")
        self._thread = LoopThread("dask-scheduler")
        try:
            self._scheduler = self._thread.run(_started_scheduler({"local_directory": self.directory, **arguments}))
        except BaseException:
            self._end()
            raise

    @property
    def address(self) -> str:
        """Where workers and clients find it."""
        return self._scheduler.address

    @property
    def workers(self) -> int:
        """How many workers it has."""
        return len(self._scheduler.workers)

    def close(self) -> None:
        """End it, and the dask clients that were made for it. Workers that it has close too."""
        for client in tuple(self.clients):
            client.close()
        try:
            self._thread.run(self._scheduler.close(reason="stop_dask"))
        finally:
            self._end()

    def _end(self) -> None:
        self._thread.stop()
        shutil.rmtree(self.directory, ignore_errors=True)  # a worker that closes may be faster


async def _started_scheduler(arguments: dict[str, Any]) -> Any:
    from distributed import Scheduler

    for handler in logging.getLogger("distributed").handlers:
        handler.setLevel(logging.WARNING)  # as dask's own clusters do at a prompt
    return await Scheduler(**arguments)


_schedulers: dict[str, DaskScheduler] = {}  # by cluster


@atexit.register
def _close_schedulers() -> None:
    while _schedulers:
        _schedulers.popitem()[1].close()


def become_dask(
    client: Client,
    targets: Any = "all",
    port: int = 0,
    nanny: bool = False,
    scheduler_args: dict[str, Any] | None = None,
    **worker_args: Any,
) -> distributed.Client:
    """A distributed.Client of a dask cluster on these engines.

    port: of the scheduler, 0: any. nanny: run each worker in a process of its own, which dask can restart.
    scheduler_args: for distributed.Scheduler; where all engines are on this machine, it listens to this machine only,
    unless told otherwise. worker_args: for distributed.Worker or Nanny; by default a worker has one thread. Called
    again, it adds the engines that have no worker. Raises UserError where distributed is not installed.
    """
    view = BroadcastView(client, targets)
    distributed = _distributed()
    scheduler = _schedulers.get(client.cluster_id)
    is_here = set(view.apply_sync(socket.gethostname)) == {socket.gethostname()}
    if scheduler is None:
        arguments = {"port": port, **(scheduler_args or {})}
        if is_here:
            arguments = {"host": _LOOPBACK, "dashboard_address": f"{_LOOPBACK}:0", **arguments}
        scheduler = _schedulers[client.cluster_id] = DaskScheduler(arguments)
    options = {"nthreads": 1, "silence_logs": logging.WARNING, **worker_args}
    if is_here:
        options.setdefault("local_directory", scheduler.directory)
    try:
        view.apply_sync(become_worker, scheduler.address, nanny, options)
    except BaseException:
        stop_dask(client, targets)
        raise
    made = distributed.Client(scheduler.address)
    scheduler.clients.add(made)
    return made


def stop_dask(client: Client, targets: Any = "all") -> None:
    """End the dask workers on these engines, and with the last of them the scheduler and its clients."""
    scheduler = _schedulers.get(client.cluster_id)
    if not client.session.closed and client.ids:  # engines that are gone took their workers along
        BroadcastView(client, targets).apply_sync(stop_worker)
    if scheduler is not None and (targets == "all" or not scheduler.workers):
        del _schedulers[client.cluster_id]
        scheduler.close()


def _distributed() -> Any:
    try:
        import distributed
    except ImportError as error:
        raise UserError("become_dask() needs dask.distributed, here and on the engines: pip install distributed") from (
            error
        )
    return distributed


# --- on the engines ---------------------------------------------------------------------------------------------------

_NAMES = ("dask_worker", "distributed_worker")  # of the worker in the user namespace
_worker: tuple[LoopThread, Any] | None = None  # this engine's


def become_worker(address: str, nanny: bool, options: dict[str, Any]) -> str:
    """Start a dask worker in this engine, unless it has one. Its address. Raises what dask raises."""
    global _worker
    if _worker is not None and _worker[1].status.name in ("closed", "failed"):  # its scheduler is gone
        stop_worker()
    if _worker is None:
        thread = LoopThread("dask-worker")
        try:
            _worker = thread, thread.run(_started_worker(address, nanny, options))
        except BaseException:
            thread.stop()
            raise
        namespace.user_namespace.update(dict.fromkeys(_NAMES, _worker[1]))
    return str(_worker[1].address)


async def _started_worker(address: str, nanny: bool, options: dict[str, Any]) -> Any:
    from distributed import Nanny, Worker

    return await (Nanny if nanny else Worker)(address, **options)


def stop_worker() -> None:
    """End this engine's dask worker, if it has one."""
    global _worker
    if _worker is None:
        return
    (thread, worker), _worker = _worker, None
    for name in _NAMES:
        if namespace.user_namespace.get(name) is worker:
            del namespace.user_namespace[name]
    try:
        thread.run(worker.close())
    finally:
        thread.stop()
