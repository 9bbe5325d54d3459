"""A cluster that takes guests, and engines of ipyparallel's that come to it: real processes, all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import psutil

from hiersched.client.client import Client
from hiersched.compat.door_config import DoorConfig
from hiersched.core.bare_root import bare_root
from hiersched.core.topology import Host, plan_tree
from hiersched.runtime.connection import Connection
from hiersched.runtime.spawn import HostConfig, HostProcess
from tests.leftovers import GONE_AFTER_S
from tests.patience import DEADLINE_S, until

_ROOT = Path(__file__).parents[2]


class _GuestHost(HostProcess):
    """A host's first process, with a leaf door."""

    def __init__(self, config: HostConfig, door: Path) -> None:
        self._door = door
        super().__init__(config, owned=True)

    def _launch(self, theirs: list[int]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.compat.guest_host", str(self._door)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=theirs,
            start_new_session=True,
            cwd=_ROOT,
        )


class GuestCluster:
    """engines: of our own. engine_file: what engines of ipyparallel's read. guests: their processes, by wanted id."""

    def __init__(self, directory: Path, engines: int, **door: object) -> None:
        self.engine_file = directory / "ipcontroller-engine.json"
        self._directory = directory
        settings = {"key": b"secret", "location": "127.0.0.1", "heartbeat_ms": 250, **door}
        config = DoorConfig(engine_file=str(self.engine_file), **settings)  # type: ignore[arg-type]
        door_file = directory / "door.msgpack"
        door_file.write_bytes(msgspec.msgpack.encode(config))
        here = Host("here", engines, os.cpu_count() or 1)
        plan = plan_tree([here]) if engines else bare_root(here)
        host = HostConfig(
            cluster="mixed", key="key", plan=plan, engines=engines, threads=1, files=str(directory), guests=True
        )
        self.host = _GuestHost(host, door_file)
        self.connection: Connection = self.host.wait_ready(DEADLINE_S)
        until(self.engine_file.exists, "the leaf door has written its file")
        self.guests: list[subprocess.Popen[bytes]] = []

    def start_guest(self, *flags: str, **environ: str) -> subprocess.Popen[bytes]:
        """One more engine of ipyparallel's, unmodified."""
        number = len(self.guests)
        log = (self._directory / f"guest-{number}.log").open("wb")
        guest = subprocess.Popen(
            [sys.executable, "-m", "ipyparallel.engine", f"--file={self.engine_file}", "--timeout=20", *flags],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "IPYTHONDIR": str(self._directory / "ipython"), "PYTHONPATH": str(_ROOT), **environ},
            cwd=self._directory,
        )
        log.close()
        self.guests.append(guest)
        return guest

    def client(self, engines: int) -> Client:
        """A client that sees so many engines."""
        client = Client(self.connection)
        until(lambda: len(client.ids) >= engines, f"there are {engines} engines")
        return client

    def leaf(self) -> psutil.Process:
        """The process of the leaf for guests."""
        family = psutil.Process(self.host.pid).children(recursive=True)
        (leaf,) = [one for one in family if self.engine_port in _ports_of(one)]
        return leaf

    @property
    def engine_port(self) -> int:
        """Where engines register."""
        return int(msgspec.json.decode(self.engine_file.read_bytes())["registration"])

    def __enter__(self) -> GuestCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        """End all of it. Guests end with their leaf, as it tells them; those that have lost it are killed."""
        self.host.stop()
        for guest in self.guests:
            try:
                guest.wait(GONE_AFTER_S)
            except subprocess.TimeoutExpired:
                guest.kill()
                guest.wait()


def _ports_of(process: psutil.Process) -> set[int]:
    """The ports that a process listens on."""
    listening = [one for one in process.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
    return {one.laddr.port for one in listening}
