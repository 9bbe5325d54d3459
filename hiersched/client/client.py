"""A client of a cluster, in ipyparallel's vocabulary: engine ids, views, results."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from html import escape
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from hiersched.client import profiles
from hiersched.client.absent import CLIENT_ARGUMENTS, CLIENT_NAMES, SaysWhatIsAbsent, present
from hiersched.client.activation import offer_magics
from hiersched.client.cluster_arguments import unaliased
from hiersched.client.comms import CommRelay
from hiersched.client.engine_control import EngineControl
from hiersched.client.insides import Insides
from hiersched.client.jobs import Jobs
from hiersched.client.progress import Bar, Stage, here
from hiersched.client.results import at_most
from hiersched.client.session import Session
from hiersched.client.targets import describe_ids
from hiersched.core.topology import TreePlan
from hiersched.errors import ConnectionFileError, StartError
from hiersched.limits import CONNECT_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection

if TYPE_CHECKING:
    from hiersched.client.balanced_view import LoadBalancedView
    from hiersched.client.broadcast_view import BroadcastView
    from hiersched.client.cluster import Cluster
    from hiersched.client.direct_view import DirectView
    from hiersched.client.executor import ViewExecutor


class Client(EngineControl, Jobs, Insides, SaysWhatIsAbsent):
    """A connection to a running cluster.

    connection_info: the file that the cluster wrote, or what was read from it; by default the newest of the profile.
    profile, profile_dir, cluster_id: where to find the file. cluster: the Cluster that it is a client of, if it is one
    of this process. timeout: seconds to wait for the root's answer. others: ipyparallel's url_file, which is
    connection_info; its context and debug, which are of no effect.

    session: joins a detached session, by its id; a client that is still in it is told, and what it waits for ends with
    SessionTaken. detached: begins one that outlives this client until it is
    forgotten. What such a session has submitted goes on without a client, and its answers are kept by the root.

        rc = Client()
        rc.ids                # engines
        rc[:], rc[0], rc[::2] # views of all, one, some
        rc.load_balanced_view()

    Raises ConnectionFileError for a file that is missing, stale, foreign or unreadable; NotAuthorised and
    VersionMismatch if the root will not have this client; UnknownSession if there is none to join; TypeError for
    arguments that do not exist, UserError for those of ipyparallel's that have no meaning here.
    """

    _absent = CLIENT_NAMES
    block = False

    def __init__(
        self,
        connection_info: str | Path | Connection | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | Path | None = None,
        cluster_id: str | None = None,
        cluster: Cluster | None = None,
        timeout: float = CONNECT_TIMEOUT_S,
        session: str | None = None,
        detached: bool = False,
        **others: Any,
    ) -> None:
        connection_info = _aliased(others).get("connection_info", connection_info)
        if isinstance(connection_info, Connection):
            found = connection_info
            self.profile = "" if cluster is None else cluster.profile
        else:
            path = profiles.find(connection_info, cluster_id=cluster_id, profile=profile, profile_dir=profile_dir)
            found = connection.read(path)
            self.profile = profiles.name_of(path.absolute().parent)
        if cluster_id and found.cluster != cluster_id:
            raise ConnectionFileError(f"{connection_info} is of cluster {found.cluster!r}, not {cluster_id!r}")
        self.cluster = cluster
        self.session = Session(found, name=session, detached=detached, timeout_s=timeout)
        offer_magics(self)
        self.session.relay_comms(CommRelay(self.session))

    # --- for people ---------------------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if self.session.closed:
            return f"<Client(cluster_id={self.cluster_id!r}): closed>"
        count = self.session.dispatch_width()
        return f"<Client(cluster_id={self.cluster_id!r}): {count} engine{'s' * (count != 1)}>"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        plan = self.plan
        facts = {
            "cluster": self.cluster_id,
            "engines": f"{len(self)}: {describe_ids(self.ids)}" if len(self) else "none",
            "schedulers": f"{plan.schedulers} in {plan.depth} level{'s' * (plan.depth != 1)}",
            "outstanding": str(len(self.session.open_requests())),
        }
        if self.session.detached:
            facts["session"] = f"{self.session_id}, outlives this client"
        if self.session.closed:
            facts = {"cluster": self.cluster_id, "state": "closed"}
        rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(fact)}</td></tr>" for name, fact in facts.items())
        return f"<table><caption>hiersched client</caption>{rows}</table>"

    # --- what there is ------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[DirectView]:
        return (self[engine] for engine in self.ids)

    @property
    def cluster_id(self) -> str:
        """The cluster's name."""
        return self.session.cluster

    @property
    def session_id(self) -> str:
        """The id of the session: a detached one can be joined by it."""
        return self.session.id

    @property
    def ids(self) -> list[int]:
        """Ids of the engines that are there now, ascending; none once the client is closed."""
        return [] if self.session.closed else list(self.session.engine_ids())

    @property
    def plan(self) -> TreePlan:
        """The tree of schedulers, as the root planned it."""
        return self.session.plan

    def status(self) -> dict[str, Any]:
        """What the schedulers have counted, by level, and who is there.

        levels: [{level, schedulers, messages_in, messages_out, ..., busiest: {...}}], root first.
        """
        levels = [
            {"level": level, "schedulers": schedulers, "messages_in": 0, "messages_out": 0, **totals, "busiest": maxima}
            for level, schedulers, totals, maxima in self.session.survey()
        ]
        return {"cluster_id": self.cluster_id, "engines": len(self), "levels": levels}

    # --- views --------------------------------------------------------------------------------------------------------

    def __getitem__(self, key: int | slice | list[int]) -> DirectView:
        """A view of one engine, of a slice of the engines, or of a list of ids. Raises TypeError for anything else."""
        if not (hasattr(key, "__index__") or isinstance(key, (slice, list, tuple, range))):
            raise TypeError(f"engines are named by an id, a slice or a list of ids, not by {key!r}")
        return self.direct_view(key)

    def direct_view(self, targets: Any = "all", **flags: Any) -> DirectView:
        """A view of these engines; 'all' follows the cluster. flags: of the view."""
        from hiersched.client.direct_view import DirectView

        return DirectView(self, targets, **flags)

    def broadcast_view(self, targets: Any = "all", is_coalescing: bool = False, **flags: Any) -> BroadcastView:
        """A direct view by ipyparallel's name for calls that travel down a tree; here those of all views do."""
        from hiersched.client.broadcast_view import BroadcastView

        return BroadcastView(self, targets, is_coalescing=is_coalescing, **flags)

    def load_balanced_view(self, targets: Any = None, **flags: Any) -> LoadBalancedView:
        """A view whose calls run wherever one of these engines is free. flags: of the view."""
        from hiersched.client.balanced_view import LoadBalancedView

        return LoadBalancedView(self, targets, **flags)

    def executor(self, targets: Any = None) -> ViewExecutor:
        """A concurrent.futures.Executor on these engines."""
        return self.load_balanced_view(targets).executor

    def activate(self, targets: Any = "all", suffix: str = "") -> DirectView:
        """A view of these engines, on which %px, %%px and the other magics run. suffix: of the names of the magics."""
        view = self.direct_view(targets, block=True)
        view.activate(suffix)
        return view

    # --- waiting for engines ------------------------------------------------------------------------------------------

    def wait_for_engines(
        self,
        n: int | None = None,
        *,
        timeout: float | None = -1,
        block: bool = True,
        interactive: bool | None = None,
        widget: bool | None = None,
    ) -> Future[None] | None:
        """Wait until `n` engines are there; by default as many as the cluster has or was planned for.

        timeout: seconds; negative: for ever. block: if not, give a Future. interactive: whether to show a progress bar;
        by default where somebody can see it, when it lasts. widget: whether the bar is one. Raises TimeoutError, or
        StartError as soon as it is known that an engine did not come up.
        """
        planned = sum(host.slots for host in self.plan.hosts)
        wanted = n if n is not None else planned if self.cluster is None else self.cluster.n
        if block:
            self._wait_for_engines(
                wanted, planned, at_most(timeout), Stage(None) if interactive is False else here(widget)
            )
            return None
        future: Future[None] = Future()

        def wait() -> None:
            try:
                self._wait_for_engines(wanted, planned, at_most(timeout), Stage(None))
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(None)

        if self.session.dispatch_width() >= wanted:
            future.set_result(None)
        else:
            threading.Thread(target=wait, name="hiersched-wait-for-engines", daemon=True).start()
        return future

    def _wait_for_engines(self, wanted: int, planned: int, timeout_s: float | None, stage: Stage) -> None:
        session = self.session
        failed_before = len(session.failed_starts())

        def hopeless() -> bool:
            failed = len(session.failed_starts())
            return failed > failed_before or (failed > 0 and planned - failed < wanted <= planned)

        def settled() -> bool:
            return session.dispatch_width() >= wanted or hopeless()

        with Bar(wanted, "engine", stage=stage) as bar:
            in_time = bar.wait(lambda slice_s: session.wait_for(settled, slice_s), session.dispatch_width, timeout_s)
        if session.dispatch_width() >= wanted:
            return
        if not in_time:
            raise TimeoutError(f"{session.dispatch_width()} of {wanted} engines came within {timeout_s} s")
        failed = session.failed_starts()
        reasons = "; ".join(f"engine {rank}: {reason}" for rank, reason in sorted(failed.items())[:4])
        raise StartError(f"{len(failed)} of {max(planned, wanted)} engines did not start ({reasons})")

    # --- the end ------------------------------------------------------------------------------------------------------

    def close(self, linger: float | None = None, forget: bool = False) -> None:
        """Leave the cluster, which goes on. So does a detached session, unless it is to be forgotten.

        linger: accepted for ipyparallel's sake; what was said last is given LAST_WORDS_S to be sent.
        """
        self.session.close(forget=forget)

    def forget(self) -> None:
        """`close(forget=True)`: end the session, and withdraw what of it has not ended."""
        self.close(forget=True)

    def spin(self) -> None:
        """Does nothing, for code written for early ipyparallel: what comes in is taken in as it comes."""
        warnings.warn("Client.spin has nothing to do: messages are taken in as they come", DeprecationWarning, 2)

    def spin_thread(self, interval: float = 1) -> None:
        """Does nothing, as `spin`."""
        self.spin()

    stop_spin_thread = spin

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _aliased(others: dict[str, Any]) -> dict[str, Any]:
    """Arguments by names that ipyparallel has for them. Raises TypeError and UserError."""
    used = {name: value for name, value in others.items() if name not in ("context", "debug")}
    return unaliased(Client, present(CLIENT_ARGUMENTS, used), aliases={"url_file": "connection_info"})
