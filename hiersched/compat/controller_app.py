"""The application behind the controller: ipcontroller's flags, variables and files, made into a cluster of ours.

Everything that ipcontroller's own application decides from them (profile, key, addresses, ports, database, CURVE) is
decided by its own code. What it then would start is not: this process becomes the nursery, whose root has the doors for
ipyparallel's clients and engines. Nothing here may make a thread or a zmq context, because the nursery forks.
"""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import psutil
from ipyparallel.apps.baseapp import catch_config_error
from ipyparallel.controller.app import IPController
from ipyparallel.controller.heartmonitor import HeartMonitor
from ipyparallel.controller.task_scheduler import TaskScheduler
from traitlets import HasTraits
from traitlets.config import Config, Configurable
from traitlets.config.loader import DeferredConfig

from hiersched.client import profiles
from hiersched.compat import connection_files
from hiersched.compat.controller import engine_threads
from hiersched.compat.door_config import CLIENT_CHANNELS, ENGINE_CHANNELS, DoorConfig
from hiersched.compat.sockets import check_free
from hiersched.core.bare_root import bare_root
from hiersched.core.topology import Child, Host
from hiersched.errors import ConnectionFileError, StartError
from hiersched.limits import STOP_TIMEOUT_S
from hiersched.nodes import host
from hiersched.runtime import connection
from hiersched.runtime.spawn import HostConfig, socket_directory

if TYPE_CHECKING:
    from hiersched.nodes.facts import ClusterFacts
    from hiersched.nodes.scheduler import Lodge
    from hiersched.runtime.driver import Driver, Lodger

DEFAULT_CLUSTER = "default"  # what a cluster is called here that has no id
PRELOAD = ["ipyparallel.serialize", "ipyparallel.controller.dependency", "hiersched.compat.engine_start"]
_LOOPBACK = ("127.0.0.1", "localhost")
_IGNORED = {
    "use_threads": "the schedulers are processes, and one process serves all channels",
    "broadcast_scheduler_depth": "the tree of schedulers follows from the number of engines",
    "number_of_leaf_schedulers": "the tree of schedulers follows from the number of engines",
    "transport": "clients and engines come by tcp",
    "client_transport": "clients come by tcp",
    "engine_transport": "engines come by tcp",
    "monitor_transport": "there is no monitor: the hub's records are kept by the root",
    "monitor_ip": "there is no monitor: the hub's records are kept by the root",
    "mon_port": "there is no monitor: the hub's records are kept by the root",
    "log_url": "what there is to say goes to the standard error stream, or to a file with --log-to-file",
}
_IGNORED_OF_TASKS = {"hwm": "an engine has as many tasks as it has credit for, which its scheduler decides"}


class HierschedController(IPController):
    """ipcontroller's application, with a tree of schedulers in the place of its hub and queues."""

    @catch_config_error
    def initialize(self, argv: list[str] | None = None) -> None:
        """Read flags, variables, configuration and, to be used again, connection files."""
        super(IPController, self).initialize(argv)  # IPController's own would open sockets
        ours = logging.getLogger(
            "hiersched"
        )  # what all processes of the cluster have to say goes where this one's does
        ours.handlers, ours.propagate = self.log.handlers, False
        ours.setLevel(self.log.getEffectiveLevel())
        if self.enable_curve:  # looked at before the session, whose key depends on it
            self.log.info("Using CURVE security. Messages are not signed besides.")
        self.load_secondary_config()
        self._say_what_is_ignored()

    def load_secondary_config(self) -> None:
        """Take over keys, addresses and ports from existing connection files, if they are to be used again."""
        if not self.reuse_files:
            return
        client_file, engine_file = self._files()
        if not client_file.exists() and not engine_file.exists():
            self.log.info("no connection files to be used again yet: %s", client_file)
            return
        try:
            client, engine = connection_files.read_pair(client_file, engine_file)
        except ConnectionFileError as error:
            self.log.error("Could not load connection files: %s", error)
            return
        self.log.info("using connection files again: %s, %s", client_file, engine_file)
        self.config.Session.key = client["key"].encode("ascii")
        self.config.Session.packer, self.config.Session.unpacker = client["pack"], client["unpack"]
        self.config.Session.signature_scheme = client["signature_scheme"]
        self.client_ip, self.engine_ip = (info["interface"].rpartition("://")[2] for info in (client, engine))
        self.location = engine["location"]
        self.ssh_server = self.ssh_server or client.get("ssh", "")
        self.engine_ssh_server = self.engine_ssh_server or engine.get("ssh", "")
        self.client_info, self.engine_info = client, engine

    def start(self) -> None:
        """Be the cluster's nursery until it ends. Exits with its exit code."""
        doors = self.door_config()
        self._check_ports(doors)
        nursery = self.host_config()
        self._sweep()
        self.log.info("starting cluster %r; connection file for clients: %s", nursery.cluster, doors.client_file)
        for number in (signal.SIGTERM, signal.SIGINT):  # until the nursery has handlers of its own
            signal.signal(number, _end_early)
        try:
            code = host.run(nursery, lodging(doors))
        except SystemExit:
            _end_children()
            raise
        finally:
            connection_files.remove(doors)
        self.log.info("cluster %r has ended", nursery.cluster)
        self.exit(code if code >= 0 else 128 - code)

    # --- what it is to run --------------------------------------------------------------------------------------------

    def host_config(self) -> HostConfig:
        """What this host is to run: a root, with the doors, that waits for engine sets."""
        cores = len(os.sched_getaffinity(0))
        directory = socket_directory()
        return HostConfig(
            cluster=self.cluster_id or DEFAULT_CLUSTER,
            key=secrets.token_hex(16),
            plan=bare_root(Host("localhost", 0, cores)),
            engines=0,
            threads=engine_threads(),
            directory=directory,
            files=directory,  # the connection that others are to find is in ipyparallel's files
            ip=None if self.client_ip in _LOOPBACK else self.client_ip,
            preload=PRELOAD,
            guests=True,  # engines of ipyparallel's own may join
        )

    def door_config(self) -> DoorConfig:
        """What the doors are told."""
        curve = self.enable_curve
        session, (client_file, engine_file) = self.session, self._files()
        beats = given(self.config, HeartMonitor)
        heartbeat_ms = int(beats.get("period", HeartMonitor.period.default_value))
        client_ports, engine_ports = self._ports()
        return DoorConfig(
            key=session.key,
            signature_scheme=session.signature_scheme,
            pack=session.packer,
            unpack=session.unpacker,
            client_ip=self.client_ip,
            engine_ip=self.engine_ip,
            location=self.location,
            ssh=self.ssh_server,
            engine_ssh=self.engine_ssh_server,
            client_ports=client_ports,
            engine_ports=engine_ports,
            curve_publickey=self.curve_publickey if curve else b"",
            curve_secretkey=self.curve_secretkey if curve else b"",
            task_scheme=given(self.config, TaskScheduler).get("scheme_name", TaskScheduler.scheme_name.default_value),
            client_file=str(client_file),
            engine_file=str(engine_file),
            reuse=self.reuse_files,
            state_file=str(Path(self.profile_dir.log_dir, f"engines{self.cluster_id}.json")),
            restore=self.restore_engines,
            db=f"{self.db_class.__module__}.{self.db_class.__qualname__}",
            db_arguments=self._db_arguments(),
            heartbeat_ms=heartbeat_ms,
            max_missed_beats=beats.get("max_heartmonitor_misses", HeartMonitor.max_heartmonitor_misses.default_value),
            registration_timeout_s=float(
                given(self.config, type(self)).get("registration_timeout", 0) or max(30, heartbeat_ms // 100)
            ),
            log_level=self.log.getEffectiveLevel(),
            cluster_id=self.cluster_id,
        )

    def next_port(self, pool_name: str = "common") -> int:
        """A port from the user's pools; 0, any that is free, when they are used up."""
        drawn_freely = self._random_port_count
        port: int = super().next_port(pool_name)
        return 0 if self._random_port_count > drawn_freely else port

    def _ports(self) -> tuple[dict[str, int], dict[str, int]]:
        """Those for clients, and those for engines. What engines register at comes first: --port is for that."""
        if self.client_info and self.engine_info:
            return (
                connection_files.ports_in(self.client_info, CLIENT_CHANNELS),
                connection_files.ports_in(self.engine_info, ENGINE_CHANNELS),
            )
        engine = {channel: self.next_port("engine") for channel in ENGINE_CHANNELS}
        return {channel: self.next_port("client") for channel in CLIENT_CHANNELS}, engine

    def _check_ports(self, doors: DoorConfig) -> None:
        """Exit if a port that the user has chosen is taken."""
        try:
            check_free(doors.client_ip, doors.client_ports)
            check_free(doors.engine_ip, doors.engine_ports)
        except StartError as error:
            self.log.error("%s", error)
            self.exit(1)

    def _db_arguments(self) -> dict[str, Any]:
        """What the configuration says about the class of the database, and where it is to lie."""
        arguments: dict[str, Any] = {"session": self.session.session}
        if "location" in self.db_class.class_traits():
            arguments["location"] = self.profile_dir.location
        return arguments | given(self.config, self.db_class)

    def _files(self) -> tuple[Path, Path]:
        """The connection files for clients and for engines."""
        directory = Path(self.profile_dir.security_dir)
        return directory / self.client_json_file, directory / self.engine_json_file

    def _sweep(self) -> None:
        """Remove what a killed controller of this name has left. Files that are used again are written anew later."""
        client_file, engine_file = self._files()
        try:
            left = connection.read_any(client_file)
        except ConnectionFileError:  # nothing is there, or it is of ipyparallel's own controller
            return
        if not connection.is_gone(left):
            self.log.warning("cluster %r seems to run: its connection files are replaced", left.cluster)
            return
        sockets = profiles.sockets_of(left)
        if sockets is not None:
            shutil.rmtree(sockets, ignore_errors=True)
        if not self.reuse_files:
            client_file.unlink(missing_ok=True)
            engine_file.unlink(missing_ok=True)

    def _say_what_is_ignored(self) -> None:
        """Log each setting that means nothing here, and why."""
        for owner, reasons in ((type(self), _IGNORED), (TaskScheduler, _IGNORED_OF_TASKS)):
            for name in given(self.config, owner).keys() & reasons.keys():
                self.log.warning("%s is ignored: %s", name, reasons[name])


def lodging(config: DoorConfig) -> Lodge:
    """What gives each scheduler its door: the root's is for clients, that of the guests' scheduler for engines."""

    def lodge(driver: Driver, facts: ClusterFacts, child: Child, found: connection.Connection | None) -> Lodger | None:
        if found is not None:
            from hiersched.compat.frontdoor import FrontDoor

            return FrontDoor(driver, facts, config, found)
        from hiersched.core.enrolment import is_for_guests

        if is_for_guests(child):
            from hiersched.compat.leafdoor import LeafDoor

            return LeafDoor(driver, facts, child, config)
        return None

    return lodge


def given(config: Config, owner: type[HasTraits]) -> dict[str, Any]:
    """What a configuration says about a class: {trait: value}, with what is said of a subclass over its bases."""
    return dict(_given(config, owner))


def _given(config: Config, owner: type[HasTraits]) -> Iterator[tuple[str, Any]]:
    traits = owner.class_traits(config=True)
    for section in (base.__name__ for base in reversed(owner.mro()) if issubclass(base, Configurable)):
        for name, value in config[section].items() if section in config else ():
            if name in traits:
                yield name, value.get_value(traits[name]) if isinstance(value, DeferredConfig) else value


def _end_early(number: int, frame: FrameType | None) -> NoReturn:
    """Told to stop while it still imports."""
    raise SystemExit(0)


def _end_children() -> None:
    """End the root that was forked already, and wait until it has cleaned up."""
    children = psutil.Process().children()
    for child in children:
        child.terminate()
    psutil.wait_procs(children, STOP_TIMEOUT_S)
