"""joblib on the engines of a cluster.

    hiersched.register_joblib(rc)
    with joblib.parallel_config(backend="hiersched"):
        GridSearchCV(...).fit(X, y)

Batches are submitted through the executor of a load-balanced view. A batch is an argument and never a function, so the
function on the engines is one and the same throughout, and large arrays in it travel once. Code that is itself parallel
finds threads on the engine, and below these nothing parallel, so that engines never wait for engines.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any

from joblib.parallel import (
    AutoBatchingMixin,
    FallbackToBackend,
    ParallelBackendBase,
    SequentialBackend,
    register_parallel_backend,
)

from hiersched.client.executor import ViewExecutor
from hiersched.errors import NoEngines, UserError

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.client import Client


class HierschedBackend(AutoBatchingMixin, ParallelBackendBase):
    """joblib's way to the engines of `view`, or to all of `client`."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False
    supports_sharedmem = False
    uses_threads = False
    default_n_jobs = -1
    MIN_IDEAL_BATCH_DURATION = 0.05  # seconds; sending a batch costs far less than joblib's own estimate
    MAX_IDEAL_BATCH_DURATION = 0.5

    def __init__(self, client: Client | None = None, *, view: LoadBalancedView | None = None, **options: Any) -> None:
        super().__init__(**options)
        if view is None and client is None:
            raise UserError(
                "the joblib backend 'hiersched' needs a client: call register_joblib(client), or pass it with "
                "parallel_config(backend='hiersched', client=client)"
            )
        self._view = client.load_balanced_view() if view is None else view
        self._executor = ViewExecutor(self._view)

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many jobs run at a time: one for each engine, except that n_jobs=1 asks for none of this.

        Raises ValueError for 0, NoEngines where there is none.
        """
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs == 1:
            return 1
        engines = len(self._view)
        if not engines:
            raise NoEngines("the cluster has no engines to run joblib's jobs on")
        return engines

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        """Get ready for one Parallel call; with a single job it runs here, without the cluster."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Future], None] | None = None) -> Future:
        """A future of one batch; `callback` is told when it has ended."""
        future = self._executor.submit(run_batch, func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def retrieve_result_callback(self, out: Future) -> Any:
        """The results of a batch that has ended. Raises the error of its task."""
        return out.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Withdraw the batches that have not started; the backend stays ready."""
        self._executor.cancel_all()

    def terminate(self) -> None:
        """The end of a Parallel call: forget what was learnt about its batches."""
        self.reset_batch_stats()


def run_batch(batch: Callable[[], Any]) -> Any:
    """Run one of joblib's batches, on an engine."""
    return batch()


def register_joblib(client: Client | None = None, *, make_default: bool = False) -> None:
    """Make the backend 'hiersched' known to joblib.

    client: for those who name none; make_default: use it wherever no backend is named.
    """
    factory = HierschedBackend if client is None else partial(HierschedBackend, client=client)
    register_parallel_backend("hiersched", factory, make_default=make_default)


def register_view(view: LoadBalancedView, name: str, *, make_default: bool = False) -> None:
    """Make a backend `name` known to joblib that runs on the engines of `view`, on its terms."""
    register_parallel_backend(name, partial(HierschedBackend, view=view), make_default=make_default)


def register_joblib_backend(name: str = "hiersched", make_default: bool = False) -> None:
    """Make a backend `name` known to joblib that runs on the newest cluster of the profile.

    It is connected to when the backend is first used, which raises ConnectionFileError where none runs.
    """
    from hiersched.client.client import Client

    clients: list[Client] = []

    def backend(**options: Any) -> HierschedBackend:
        if not clients or clients[0].session.closed:
            clients[:] = [Client()]
        return HierschedBackend(clients[0], **options)

    register_parallel_backend(name, backend, make_default=make_default)
