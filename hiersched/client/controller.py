"""The root scheduler, with all that runs under it, as whoever started or found it holds it.

What ipyparallel calls a controller is the root here. Engines and sub-schedulers live below it: when it ends, all end.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
from typing import Any

import msgspec
import psutil

from hiersched.errors import ClusterLost, ConnectionFileError, StartError
from hiersched.limits import STOP_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection
from hiersched.runtime.spawn import HostConfig, HostProcess, ended


class Controller:
    """A root that was started or found. connection: how to reach it; changed when its engines are."""

    def __init__(self, found: Connection, host: HostProcess | None = None) -> None:
        self.connection = found
        self._host = host

    @classmethod
    def start(cls, config: HostConfig, *, owned: bool, timeout_s: float) -> Controller:
        """Start the processes that `config` describes. owned: they end with this process. Raises StartError."""
        host = HostProcess(config, owned=owned)
        try:
            importlib.import_module("hiersched.client.client")  # beside the start of the host
            return cls(host.wait_ready(timeout_s), host)
        except BaseException:
            host.stop()
            raise

    @classmethod
    def from_dict(cls, state: dict[str, Any]) -> Controller:
        """One that runs, by what `to_dict` gave. Raises ConnectionFileError if it does not run any more."""
        found = msgspec.convert(state, Connection)
        if connection.is_local(found) and not psutil.pid_exists(found.pid):
            raise ConnectionFileError(f"the root of cluster {found.cluster!r}, process {found.pid}, is gone")
        return cls(found)

    def __repr__(self) -> str:
        return f"<Controller(pid={self.pid}): {self.state}>"

    @property
    def pid(self) -> int:
        """The root's process."""
        return self.connection.pid

    @property
    def process(self) -> psutil.Process:
        """The root's process, if it is on this host. Raises psutil.NoSuchProcess if it has ended."""
        return psutil.Process(self.pid)

    @property
    def running(self) -> bool:
        """Whether it runs, as far as can be seen from this host."""
        return not connection.is_local(self.connection) or psutil.pid_exists(self.pid)

    @property
    def state(self) -> str:
        """'running', or 'after' its end."""
        return "running" if self.running else "after"

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` needs. It holds the cluster's key."""
        state: dict[str, Any] = msgspec.to_builtins(self.connection)
        return state

    def failed(self, error: Exception) -> Exception:
        """`error` with the end of the log, if it was started here. Everything is ended first."""
        if self._host is None:
            return error
        failure: StartError = self._host.failed(str(error))
        return failure

    def stop(self) -> None:
        """End it and all under it; returns when they are gone.

        Raises TimeoutError if it was started by another process, and does not end.
        """
        if self._host is not None:
            self._host.stop()
            return
        from hiersched.client.session import Session

        found = self.connection
        with contextlib.suppress(ClusterLost, ConnectionFileError), contextlib.closing(Session(found)) as session:
            session.stop_cluster()
        if connection.is_local(found) and not ended(found.nursery, 2 * STOP_TIMEOUT_S):
            raise TimeoutError(f"cluster {found.cluster!r} (process {found.nursery}) did not end")

    def kill(self) -> None:
        """End it by signals, if it does not answer or speaks another version. It has to be on this host.

        What it leaves is for `profiles.sweep`.
        """
        found = self.connection
        if not connection.is_local(found):
            raise ConnectionFileError(f"the cluster runs on {found.host}: end it there")
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.kill(found.nursery, number)
            if ended(found.nursery, 2 * STOP_TIMEOUT_S):
                return
        raise TimeoutError(f"cluster {found.cluster!r} (process {found.nursery}) cannot be killed")
