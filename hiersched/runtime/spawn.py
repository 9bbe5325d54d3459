"""Starts the first process of a cluster on this host, and waits until its root can be reached."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import zmq

from hiersched.core.topology import TreePlan
from hiersched.errors import StartError, UserError
from hiersched.limits import ENGINES_MAX, STOP_TIMEOUT_S
from hiersched.runtime import connection
from hiersched.runtime.connection import Connection, clusters_directory

SOCKETS_PREFIX = "hiersched-"  # of the name of the directory of a cluster's sockets
_LOG_TAIL_BYTES = 4000
_CONNECTION_BYTES_MAX = 65_536


class HostConfig(msgspec.Struct, kw_only=True):
    """What a host is to run. Descriptors are inherited; -1: none.

    directory: of its sockets. files: the directory of its connection file and log; by default the clusters' own. ready:
    where the root writes the connection once it can be reached. owner: a pipe; when its other end closes, all ends.
    threads: for BLAS and OpenMP, of each engine. preload: modules that engines find imported already. path: entries for
    sys.path, after its own. environ: variables of all its processes. restart: engines that end are replaced.
    guests: the cluster takes in engines that it has not started (core/enrolment.py).
    """

    cluster: str
    key: str
    plan: TreePlan
    engines: int
    threads: int
    directory: str = ""
    files: str = ""
    ip: str | None = None
    preload: list[str] = []
    path: list[str] = []
    environ: dict[str, str] = {}
    restart: bool = False
    guests: bool = False
    ready: int = -1
    owner: int = -1


def log_path(cluster: str, directory: str | Path | None = None) -> Path:
    """Where the processes of a cluster write what they have to say: beside its connection file."""
    return Path(directory or clusters_directory()) / f"{cluster}.log"


def remove_log(log: Path, descriptor: int) -> None:
    """Remove a log if it is this open file still, and not that of another cluster that has taken the name since."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(log.stat(), os.fstat(descriptor)):
            log.unlink()


class HostProcess:
    """The host's first process, started here. It ends, with all it forked, when this object's `owner` pipe closes."""

    def __init__(self, config: HostConfig, *, owned: bool) -> None:
        self.cluster = config.cluster
        self.log = log_path(config.cluster, config.files)
        self._file = connection.path_of(config.cluster, config.files)
        self._key = config.key
        self._directory = config.directory = socket_directory()
        self._ready, config.ready = os.pipe()
        self._owner = -1
        if owned:
            config.owner, self._owner = os.pipe()
        theirs = [descriptor for descriptor in (config.ready, config.owner) if descriptor >= 0]
        self.log.unlink(missing_ok=True)  # that of a cluster that was killed
        self._log = os.open(self.log, os.O_WRONLY | os.O_CREAT, 0o600)  # held open, so that no other gets its identity
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._process = self._launch(theirs)
        except OSError as error:
            raise self.failed(f"{sys.executable} cannot be run ({error.strerror})") from None
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError), self._process.stdin as stdin:  # its early end is reported by `wait`
            stdin.write(msgspec.json.encode(config))

    def _launch(self, theirs: list[int]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "hiersched.nodes.host"],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            pass_fds=theirs,
            start_new_session=True,  # a Ctrl-C in the terminal is for the client, not for the engines
        )

    @property
    def pid(self) -> int:
        """Of the host's first process."""
        assert self._process is not None
        return self._process.pid

    def wait_ready(self, timeout_s: float) -> Connection:
        """The connection to the root, once it can be reached. Raises StartError."""
        deadline = time.monotonic() + timeout_s
        data = b""
        while True:
            readable, _, _ = select.select([self._ready], [], [], max(0.0, deadline - time.monotonic()))
            if not readable:
                raise self.failed(f"the root did not come up within {timeout_s} s")
            piece = os.read(self._ready, _CONNECTION_BYTES_MAX)
            if not piece:
                break
            data += piece
        os.close(self._ready)
        self._ready = -1
        if not data:
            raise self.failed("the root ended while it started")
        return msgspec.json.decode(data, type=Connection)

    def failed(self, what: str) -> StartError:
        """An error with the end of the log; everything that was started is ended first."""
        self._end()
        text = self.log.read_bytes()[-_LOG_TAIL_BYTES:].decode(errors="replace") if self.log.exists() else ""
        self._sweep()
        return StartError(f"cluster {self.cluster!r} did not start: {what}" + (f"\n{text}" if text else ""))

    def stop(self) -> None:
        """End the host and all it forked; returns when they are gone, and their files."""
        self._end()
        self._sweep()

    def _end(self) -> None:
        if self._ready >= 0:
            os.close(self._ready)
            self._ready = -1
        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(2 * STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        if self._owner >= 0:
            os.close(self._owner)
            self._owner = -1

    def _sweep(self) -> None:
        """Remove what a host leaves behind that was killed, or told to end before it was ready."""
        connection.remove(self._file, self._key)
        if self._log >= 0:
            if self._process is None or self._process.returncode != os.EX_SOFTWARE:  # then the log tells of a bug
                remove_log(self.log, self._log)
            os.close(self._log)
            self._log = -1
        shutil.rmtree(self._directory, ignore_errors=True)


def socket_directory() -> str:
    """A new directory for sockets. Raises UserError where their paths would be longer than the system allows."""
    directory = tempfile.mkdtemp(prefix=SOCKETS_PREFIX)
    longest = f"{directory}/scheduler-9-{ENGINES_MAX}-{ENGINES_MAX}"
    excess = len(os.fsencode(longest)) - zmq.IPC_PATH_MAX_LEN
    if excess > 0:
        os.rmdir(directory)
        raise UserError(
            f"the paths of sockets in {directory} would be {excess} bytes longer than the {zmq.IPC_PATH_MAX_LEN} "
            "that the system allows: set TMPDIR to a directory with a shorter name"
        )
    return directory


def ended(pid: int, timeout_s: float) -> bool:
    """Wait until a process that is not our child has ended; False if it has not in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    finally:
        os.close(descriptor)
