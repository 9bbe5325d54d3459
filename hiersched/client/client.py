"""A client of a cluster, in ipyparallel's vocabulary: engine ids, views, results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hiersched.client.session import Session
from hiersched.core.topology import TreePlan
from hiersched.errors import ConnectionFileError, StartError
from hiersched.limits import CONNECT_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.direct_view import DirectView
    from hiersched.client.executor import ViewExecutor


class Client:
    """A connection to a running cluster.

    connection_file: the file that the cluster wrote, or what was read from it; by default the newest of this user.
    cluster_id: finds the file by the cluster's name. timeout: seconds to wait for the root's answer.

        rc = Client()
        rc.ids                # engines
        rc[:], rc[0], rc[::2] # views of all, one, some
        rc.load_balanced_view()

    Raises ConnectionFileError for a file that is missing, stale, foreign or unreadable; NotAuthorised and
    VersionMismatch if the root will not have this client.
    """

    def __init__(
        self,
        connection_file: str | Path | Connection | None = None,
        *,
        cluster_id: str | None = None,
        timeout: float = CONNECT_TIMEOUT_S,
    ) -> None:
        if isinstance(connection_file, Connection):
            found = connection_file
        elif connection_file is not None:
            found = connection.read(Path(connection_file))
        else:
            found = connection.read(connection.path_of(cluster_id) if cluster_id else connection.newest())
        if cluster_id is not None and found.cluster != cluster_id:
            raise ConnectionFileError(f"{connection_file} is of cluster {found.cluster!r}, not {cluster_id!r}")
        self.session = Session(found, timeout_s=timeout)

    def __repr__(self) -> str:
        count = self.session.dispatch_width()
        return f"<Client(cluster_id={self.cluster_id!r}): {count} engine{'s' * (count != 1)}>"

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[DirectView]:
        return (self[engine] for engine in self.ids)

    @property
    def cluster_id(self) -> str:
        """The cluster's name."""
        return self.session.cluster

    @property
    def ids(self) -> list[int]:
        """Ids of the engines that are there now, ascending."""
        return list(self.session.engine_ids())

    @property
    def plan(self) -> TreePlan:
        """The tree of schedulers, as the root planned it."""
        return self.session.plan

    # --- views --------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: int | slice | list[int]) -> DirectView:
        """A view of one engine, of a slice of the engines, or of a list of ids."""
        from hiersched.client.direct_view import DirectView

        return DirectView(self, key)

    def direct_view(self, targets: Any = "all", **options: Any) -> DirectView:
        """A view of these engines; 'all' follows the cluster."""
        from hiersched.client.direct_view import DirectView

        return DirectView(self, targets, **options)

    def load_balanced_view(self, **options: Any) -> LoadBalancedView:
        """A view whose calls run wherever an engine is free."""
        from hiersched.client.balanced_view import LoadBalancedView

        return LoadBalancedView(self, **options)

    def executor(self) -> ViewExecutor:
        """A concurrent.futures.Executor on the engines."""
        from hiersched.client.executor import ViewExecutor

        return ViewExecutor(self)

    # --- the cluster --------------------------------------------------------------------------------------------------

    def wait_for_engines(self, n: int | None = None, *, timeout: float | None = -1) -> None:
        """Wait until `n` engines are there; by default as many as were planned. timeout: seconds; negative: for ever.

        Raises TimeoutError, or StartError as soon as it is known that an engine did not come up.
        """
        planned = sum(host.slots for host in self.plan.hosts)
        wanted = planned if n is None else n
        session = self.session

        def settled() -> bool:
            return session.dispatch_width() >= wanted or planned - len(session.failed_starts()) < wanted

        bound = None if timeout is None or timeout < 0 else timeout
        if not session.wait_for(settled, bound):
            raise TimeoutError(f"{session.dispatch_width()} of {wanted} engines came within {bound} s")
        if session.dispatch_width() < wanted:
            failed = session.failed_starts()
            reasons = "; ".join(f"engine {rank}: {reason}" for rank, reason in sorted(failed.items())[:4])
            raise StartError(f"{len(failed)} of {planned} engines did not start ({reasons})")

    def wait(self, jobs: Iterable[Any] | Any | None = None, timeout: float | None = -1) -> bool:
        """Wait for results, or for all that is outstanding. True if they are done in time."""
        bound = None if timeout is None or timeout < 0 else timeout
        if jobs is None:
            return self.session.wait_all(bound)
        listed = [jobs] if not isinstance(jobs, Iterable) or hasattr(jobs, "wait") else list(jobs)
        return all(job.wait(bound) for job in listed)

    def status(self) -> dict[str, Any]:
        """What the schedulers have counted, by level, and who is there.

        levels: [{level, schedulers, messages_in, messages_out, ..., busiest: {...}}], root first.
        """
        levels = [
            {"level": level, "schedulers": schedulers, "messages_in": 0, "messages_out": 0, **totals, "busiest": maxima}
            for level, schedulers, totals, maxima in self.session.survey()
        ]
        return {"cluster_id": self.cluster_id, "engines": len(self), "levels": levels}

    def shutdown(self) -> None:
        """Stop the whole cluster: engines, schedulers and all."""
        self.session.stop_cluster()

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self.session.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
