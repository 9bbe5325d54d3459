"""A peer in a process of its own, driven from here.

The timing loops run over there (figures.py), so the link between the two costs nothing that is measured. Every wait has
a deadline, and every process that carries the peer's mark is gone when the host is closed. What the peer prints goes to
a log, whose last line is shown when the peer dies.
"""

import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.peer import OURS, START_S_MAX, PeerMissing
from benchmarks.peers import PEERS
from benchmarks.processes import MARK, end_marked

ROOT = Path(__file__).resolve().parent.parent
LOAD_S_MAX = 60.0
ROUND_S_MAX = 600.0
STOP_S_MAX = 120.0
LOOK_PERIOD_S = 0.5  # how often a waiting host looks whether its process still lives


class HostFailed(Exception):
    """The peer failed, died or did not answer in time. Its text is the reason shown in the report."""


class Host:
    """The process of the peer called `label`, for `n` workers."""

    def __init__(self, label: str, n: int) -> None:
        self.label = label
        self.n = n
        self.left_behind = 0  # processes that had to be killed after the peer had stopped
        self.started_s = 0.0
        self._mark = uuid.uuid4().hex
        self._directory = Path(tempfile.mkdtemp(prefix="hsb-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def open(self) -> None:
        """Start the process and import the package there.

        Raises PeerMissing if the peer is not installed, HostFailed if its process does not come up. Close it even then.
        """
        command = [*PEERS[self.label].command(self.n), "-m", "benchmarks.serve", self.label, str(self.n)]
        address = str(self._directory / "link")
        with socket.socket(socket.AF_UNIX) as listener, open(self._log, "wb") as log:
            listener.bind(address)
            listener.listen(1)
            self._process = subprocess.Popen(
                [*command, address],
                cwd=self._directory,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._connection = self._accept(listener)
        try:
            self._order("load", limit_s=LOAD_S_MAX)
        except HostFailed as failure:
            raise PeerMissing(str(failure)) from failure

    def start(self) -> None:
        """Start the workers; `started_s` is how long it took from nothing (package imported) to `n` answers."""
        self.started_s = self._order("start", limit_s=START_S_MAX)

    def measure(self, figure: Callable[..., list[float]], options: dict[str, object]) -> list[float]:
        """Samples of one round of `figure`, a function of figures.py."""
        return self._order("measure", figure, options, limit_s=ROUND_S_MAX)

    def stop(self) -> float:
        """Seconds until the peer says that it has stopped."""
        return self._order("stop", limit_s=STOP_S_MAX)

    def close(self) -> None:
        """Hang up, and end whatever the peer left behind."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self.left_behind = end_marked(self._mark)
            self._process.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    @property
    def _log(self) -> Path:
        return self._directory / "log"

    def _environment(self) -> dict[str, str]:
        """The caller's, with the mark, this checkout importable, and nothing written into the user's home."""
        environment = dict(os.environ)
        environment[MARK] = self._mark
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
        environment["IPYTHONDIR"] = str(self._directory / "ipython")
        environment["IPP_DISABLE_JS"] = "1"
        if self.label != OURS:  # ours keeps the user's home, where its compiled kernels are cached
            environment["HOME"] = str(self._directory)
        return environment

    def _accept(self, listener: socket.socket) -> Connection:
        listener.settimeout(LOOK_PERIOD_S)
        deadline = time.monotonic() + LOAD_S_MAX
        while True:
            try:
                link, _ = listener.accept()
            except TimeoutError:
                self._look(deadline)
            else:
                return Connection(link.detach())

    def _order(self, verb: str, *arguments: object, limit_s: float) -> Any:
        """What the process answers to `verb`. Raises HostFailed."""
        assert self._connection is not None
        deadline = time.monotonic() + limit_s
        try:
            self._connection.send((verb, arguments))
            while not self._connection.poll(LOOK_PERIOD_S):
                self._look(deadline)
            outcome, value = self._connection.recv()
        except (EOFError, ConnectionError) as error:
            raise HostFailed(self._last_words()) from error
        if outcome == "failed":
            raise HostFailed(value)
        return value

    def _look(self, deadline: float) -> None:
        """Raise HostFailed if the process is gone or `deadline` has passed."""
        assert self._process is not None
        if self._process.poll() is not None:
            raise HostFailed(self._last_words())
        if time.monotonic() > deadline:
            raise HostFailed("no answer in time")

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines() if self._log.exists() else []
        return f"its process died; last line of its log: {lines[-1] if lines else '(empty)'}"
