"""A cluster as its user holds it: started or found, connected to, changed in size, stopped.

Each verb has two forms, as in ipyparallel: `name_sync` blocks, `name` is a coroutine.
"""

from __future__ import annotations

import asyncio
import html
import logging
import os
import secrets
import sys
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from hiersched.client import profiles
from hiersched.client.absent import CLUSTER_ARGUMENTS, CLUSTER_NAMES, SaysWhatIsAbsent, present
from hiersched.client.awaited import awaited
from hiersched.client.cluster_arguments import check_count, check_launcher, unaliased
from hiersched.client.controller import Controller
from hiersched.client.engine_sets import ranges_of
from hiersched.client.engine_verbs import EngineVerbs, check_capacity
from hiersched.core.bare_root import bare_root
from hiersched.core.topology import Host, TreePlan, plan_tree
from hiersched.errors import ClusterLost, ConnectionFileError, StartError, UserError
from hiersched.limits import START_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.spawn import HostConfig

if TYPE_CHECKING:
    from hiersched.client.client import Client


class Cluster(EngineVerbs, SaysWhatIsAbsent):
    """A cluster of `n` engines on this host, under a tree of schedulers sized for them.

    n: engines; by default one per core. cluster_id: its name. profile, profile_dir: whose files its connection file is
    among. cluster_file: where a copy of it is written. controller, engines: how they are started: 'local'.
    ip (controller_ip): an address to listen on for clients of other hosts, with CURVE keys; by default only this user
    on this host can connect. fanout, leaf_engines: overrides of the plan. threads: of BLAS and OpenMP libraries in each
    engine; by default a fair share of the cores. preload: modules that engines find imported. engine_environ: variables
    of their environment. restart: 'always' replaces engines that end. delay: seconds between the start of the root and
    that of the engines; they start together by default. timeout, engine_timeout: for the start of the root and of the
    engines, seconds. shutdown_atexit: the cluster ends with this process. send_engines_connection_env: accepted;
    engines are forked by a process that knows the root. log_level: of `log`, which tells what is started and stopped.

        with Cluster(n=4) as rc:
            rc[:].apply_sync(os.getpid)

    Raises UserError or PlanError for arguments that make no sense, TypeError for those that do not exist.
    """

    _absent = CLUSTER_NAMES

    def __init__(
        self,
        n: int | None = None,
        *,
        cluster_id: str | None = None,
        profile: str | None = None,
        profile_dir: str | Path | None = None,
        cluster_file: str | Path | None = None,
        controller: str = "local",
        engines: str = "local",
        ip: str | None = None,
        fanout: int | None = None,
        leaf_engines: int | None = None,
        threads: int | None = None,
        preload: Sequence[str] = (),
        engine_environ: Mapping[str, str] | None = None,
        restart: Literal["always", "never"] = "never",
        delay: float = 0.0,
        timeout: float = START_TIMEOUT_S,
        engine_timeout: float = START_TIMEOUT_S,
        shutdown_atexit: bool = True,
        send_engines_connection_env: bool = True,
        log_level: int = logging.INFO,
        **others: Any,
    ) -> None:
        super().__init__()
        aliased = unaliased(type(self), present(CLUSTER_ARGUMENTS, others))
        check_launcher(aliased.get("controller", controller))
        check_launcher(aliased.get("engines", engines))
        if restart not in ("always", "never"):
            raise UserError(f"restart is 'always' or 'never', not {restart!r}")
        if threads is not None and threads < 1:
            raise UserError(f"an engine needs at least one thread, not {threads}")
        self.cluster_id = cluster_id or f"{int(time.time())}-{uuid.uuid4().hex[:4]}"
        if not profiles.is_file_name(self.cluster_id):
            raise UserError(f"{self.cluster_id[:40]!r} cannot be a cluster's id: it becomes a file name")
        self.profile_dir = str(profiles.directory_of(profile, profile_dir))
        self.cluster_file = str(cluster_file or self.connection_file)
        self.n = _cores() if n is None else n
        self.ip, self.fanout, self.leaf_engines = aliased.get("ip", ip), fanout, leaf_engines
        self.threads, self.preload, self.restart = threads, list(preload), restart
        self.engine_environ = dict(engine_environ or {})
        self.delay, self.timeout, self.engine_timeout = delay, timeout, engine_timeout
        self.send_engines_connection_env = send_engines_connection_env
        self.controller: Controller | None = None
        self.log = logging.getLogger(f"hiersched.cluster.{self.cluster_id}")
        self.log.setLevel(log_level)
        self._owned = shutdown_atexit
        self._key = ""
        self._plan: TreePlan | None = self._planned(self.n)
        self._clients: set[Client] = set()

    @classmethod
    def from_file(
        cls,
        cluster_file: str | Path | None = None,
        *,
        profile: str | None = None,
        profile_dir: str | Path | None = None,
        cluster_id: str | None = "",
        **kwargs: Any,
    ) -> Cluster:
        """A cluster that runs already: by its file, by its id, or the newest of the profile.

        It goes on when this process ends. Raises ConnectionFileError if there is none.
        """
        path = profiles.find(cluster_file, cluster_id=cluster_id, profile=profile, profile_dir=profile_dir)
        found = connection.read(path)
        own = {"profile_dir": path.parent} if path.stem == found.cluster else {"cluster_file": path}
        return cls._held(Controller(found), {"cluster_id": found.cluster, **own, **kwargs})

    @classmethod
    def from_dict(cls, d: Mapping[str, Any], **kwargs: Any) -> Cluster:
        """The cluster that `to_dict` told of, running if it still does."""
        facts = {name: value for name, value in d["cluster"].items() if name != "class"}
        state = d.get("controller", {}).get("state")
        try:
            controller = Controller.from_dict(state) if state else None
        except ConnectionFileError:
            controller = None
        return cls._held(controller, {**facts, **kwargs})

    @classmethod
    def _held(cls, controller: Controller | None, keywords: dict[str, Any]) -> Cluster:
        """One that somebody else has started."""
        self = cls(**{"shutdown_atexit": False, **keywords})
        if controller is not None:
            self.controller, self._key, self._plan = controller, controller.connection.key, None
            self.n = len(self.engines.ranks()) or self.n
        return self

    @classmethod
    def list(cls, *, profile: str | None = None, profile_dir: str | Path | None = None) -> Sequence[Cluster]:
        """The clusters of this user that run, the oldest first: those of one profile, or of all."""
        named = profile or profile_dir
        directories = [profiles.directory_of(profile, profile_dir, make=False)] if named else profiles.directories()
        found = []
        for directory in directories:
            for name in connection.names(directory):
                path = connection.path_of(name, directory)
                try:
                    found.append(cls.from_file(path))
                except ConnectionFileError:  # it has ended, or is none of ours
                    continue
        return found

    # --- what it is ---------------------------------------------------------------------------------------------------

    @property
    def connection_file(self) -> Path:
        """Where the connection file lies while the cluster runs."""
        return connection.path_of(self.cluster_id, self.profile_dir)

    @property
    def profile(self) -> str:
        """The name of its profile, or the profile's directory if it has no name."""
        return profiles.name_of(Path(self.profile_dir))

    @property
    def shutdown_atexit(self) -> bool:
        """Whether the cluster ends with this process. It is decided when the cluster is made."""
        return self._owned

    @property
    def plan(self) -> TreePlan:
        """The tree of schedulers: as planned for `n` engines, or as the root that runs has planned it."""
        if self._plan is None:
            with self._session() as session:
                self._plan = session.plan
        return self._plan

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs to hold the same cluster, in another process of this host too. It has the key."""
        facts: dict[str, Any] = {
            "class": f"{type(self).__module__}.{type(self).__name__}",
            "cluster_id": self.cluster_id,
            "profile_dir": self.profile_dir,
            "controller_ip": self.ip,
            "delay": self.delay,
            "n": self.n,
        }
        sets = {key: {"n": engines.n, "ranks": engines.ranks} for key, engines in self.engines.items()}
        described: dict[str, Any] = {"cluster": facts, "engines": {"class": "local", "sets": sets}}
        if self.controller is not None:
            self.controller.connection = self._current()
            described["controller"] = {"class": "local", "state": self.controller.to_dict()}
        return described

    def __repr__(self) -> str:
        fields = [f"cluster_id={self.cluster_id!r}", f"n={self.n}"]
        if self.profile != profiles.DEFAULT:
            fields.insert(1, f"profile={self.profile!r}")
        return f"<Cluster({', '.join(fields)}): {', '.join(self._said())}>"

    def _repr_html_(self) -> str:
        state, *rest = self._said()
        rows = [("profile", self.profile), ("state", state), ("engines", " ".join(rest)), ("file", self.cluster_file)]
        if self.controller is not None:
            rows += [(f"engine set {key}", ranges_of(engines.ranks)) for key, engines in self.engines.items()]
        cells = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in rows)
        return f"<table><caption>Cluster <b>{html.escape(self.cluster_id)}</b></caption>{cells}</table>"

    def _said(self) -> tuple[str, ...]:
        if self.controller is None:
            tree = f"{self.plan.schedulers} scheduler{'s' * (self.plan.schedulers != 1)}, depth {self.plan.depth}"
            return "not running", tree
        if not self.controller.running:
            return ("ended",)
        sets = self.engines
        return "running", f"{len(sets.ranks())} engines in {len(sets)} set{'s' * (len(sets) != 1)}"

    # --- start --------------------------------------------------------------------------------------------------------

    def start_controller_sync(self) -> None:
        """Start the root without engines; returns when it can be reached.

        Raises StartError if it does not come up, UserError if a cluster of this id runs already.
        """
        self._start(bare_root(Host("localhost", 0, _cores())))

    def start_cluster_sync(self, n: int | None = None) -> Cluster:
        """Start schedulers and `n` engines; returns when the root can be reached.

        Raises CapacityError before anything starts if this machine cannot hold so many engines, StartError if the root
        does not come up, UserError if a cluster of this id runs already.
        """
        self.n = self.n if n is None else n
        plan = self._planned(self.n)
        if self.controller is None and self.delay <= 0:
            check_capacity(self.n)
            self._start(plan)
            self._change_sets(lambda sets: sets.add(range(self.n)))
            return self
        if self.controller is None:
            self.start_controller_sync()
            time.sleep(self.delay)
        elif self.engines:
            raise UserError(f"cluster {self.cluster_id!r} runs already: start_engines starts more engines")
        self.start_engines_sync(self.n)
        return self

    def connect_client_sync(self, **client_kwargs: Any) -> Client:
        """A new client of the running cluster. client_kwargs: of Client."""
        from hiersched.client.client import Client

        client = Client(self._running().connection, **{"cluster": self, **client_kwargs})
        self._clients = {client, *(other for other in self._clients if not other.session.closed)}
        return client

    def start_and_connect_sync(self, n: int | None = None, activate: bool = False) -> Client:
        """Start, connect, and wait until all engines are there. activate: make the %px magics those of all engines.

        Raises as `start_cluster_sync`, and StartError if an engine does not come up.
        """
        self.start_cluster_sync(n)
        controller = self._running()
        try:
            client = self.connect_client_sync()
            client.wait_for_engines(self.n, timeout=self.engine_timeout)
        except (StartError, TimeoutError, ClusterLost, ConnectionFileError) as error:
            failure = controller.failed(error)
            self.stop_cluster_sync()
            raise failure from None
        except BaseException:
            self.stop_cluster_sync()
            raise
        if activate:
            client.activate()
        return client

    def _planned(self, n: int) -> TreePlan:
        check_count(n)
        if n < 1:
            raise UserError(f"a cluster needs at least one engine, not {n}")
        return plan_tree([Host("localhost", n, _cores())], fanout=self.fanout, leaf_engines=self.leaf_engines)

    def _start(self, plan: TreePlan) -> None:
        if self.controller is not None:
            raise UserError(f"cluster {self.cluster_id!r} runs already")
        self._refuse_taken_id()
        self._key = secrets.token_hex(16)
        config = HostConfig(
            cluster=self.cluster_id,
            key=self._key,
            plan=plan,
            engines=plan.engines,
            threads=self.threads or max(1, _cores() // max(1, self.n)),
            files=self.profile_dir,
            ip=self.ip,
            preload=self.preload,
            path=[entry for entry in sys.path if entry] + [os.getcwd()],
            environ=self.engine_environ,
            restart=self.restart == "always",
        )
        self.log.info("starting the root and %d engines", plan.engines)
        self.controller = Controller.start(config, owned=self._owned, timeout_s=self.timeout)
        self._plan = plan
        try:
            self.write_cluster_file()
        except OSError:
            self.stop_cluster_sync()
            raise

    def _refuse_taken_id(self) -> None:
        path = self.connection_file
        if connection.is_free(path):
            profiles.sweep(path)  # after one that was killed
            return
        try:
            connection.read(path)
        except ConnectionFileError as error:
            raise UserError(f"the id {self.cluster_id!r} is taken, choose another cluster_id: {error}") from None
        raise UserError(f"a cluster {self.cluster_id!r} is running: choose another cluster_id, or stop it first")

    # --- stop ---------------------------------------------------------------------------------------------------------

    def stop_controller_sync(self) -> None:
        """End the root, and with it all engines; returns when they are gone. Does nothing if it does not run."""
        controller, self.controller = self.controller, None
        if controller is None:
            return
        self.log.info("stopping")
        for client in self._clients:
            client.close()
        self._clients.clear()
        controller.stop()
        self.remove_cluster_file()

    def stop_cluster_sync(self) -> None:
        """End all processes of the cluster; returns when they are gone. Does nothing if it does not run."""
        self.stop_controller_sync()

    # --- files --------------------------------------------------------------------------------------------------------

    def write_cluster_file(self) -> None:
        """Write `cluster_file`, by which others find the cluster. It is done at each start. Raises OSError."""
        connection.write(Path(self.cluster_file), self._current())

    def remove_cluster_file(self) -> None:
        """Remove `cluster_file`, unless another cluster has written it since. It is done at each stop."""
        connection.remove(Path(self.cluster_file), self._key)

    def update_cluster_file(self) -> None:
        """Write `cluster_file` if the cluster runs, else remove it."""
        if self.controller is None:
            self.remove_cluster_file()
        else:
            self.write_cluster_file()

    def _files(self) -> Iterable[Path]:
        return dict.fromkeys((self.connection_file, Path(self.cluster_file)))

    # --- other forms --------------------------------------------------------------------------------------------------

    start_controller = awaited(start_controller_sync)
    start_cluster = awaited(start_cluster_sync)
    connect_client = awaited(connect_client_sync)
    start_and_connect = awaited(start_and_connect_sync)
    stop_controller = awaited(stop_controller_sync)
    stop_cluster = awaited(stop_cluster_sync)

    def __enter__(self) -> Client:
        return self.start_and_connect_sync()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop_cluster_sync()

    async def __aenter__(self) -> Client:
        start = asyncio.ensure_future(self.start_and_connect())
        try:
            return await asyncio.shield(start)
        except asyncio.CancelledError:  # the start itself cannot be: it ends, and then what was started
            await asyncio.wait([start])
            await self.stop_cluster()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop_cluster()


def _cores() -> int:
    return len(os.sched_getaffinity(0))
