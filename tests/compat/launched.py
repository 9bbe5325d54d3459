"""Clusters that ipyparallel launches with our launchers, in a profile of their own, and how to look into them."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ipyparallel
import psutil
from tornado.ioloop import IOLoop
from traitlets.config import Config

import hiersched
from tests import patience

PLAIN = [sys.executable, str(Path(__file__).with_name("plain_controller.py"))]


def cluster(profile_dir: Path, *, command: list[str] | None = None, **arguments: Any) -> ipyparallel.Cluster:
    """A cluster of ours that is not started yet. command: runs its controller; by default one without doors."""
    config = Config()
    config.HierschedControllerLauncher.controller_cmd = command or PLAIN
    defaults = {"controller": "hiersched", "engines": "hiersched", "n": 2, "delay": 0.0, "log_level": 40}
    return ipyparallel.Cluster(profile_dir=str(profile_dir), config=config, **(defaults | arguments))


@contextmanager
def running(made: ipyparallel.Cluster) -> Iterator[hiersched.Client]:
    """Start it, and give a client of ours once all engines are there. It is stopped in the end."""
    try:
        made.start_cluster_sync()
        with client(made) as connected:
            connected.wait_for_engines(made.n, timeout=patience.DEADLINE_S)
            yield connected
    finally:
        made.stop_cluster_sync()


def client(made: ipyparallel.Cluster) -> hiersched.Client:
    """A client of ours, by ipyparallel's connection file."""
    info(made)
    return hiersched.Client(made.controller.connection_files["client"])


def info(made: ipyparallel.Cluster) -> dict[str, dict[str, Any]]:
    """What its connection files say: {'client': ..., 'engine': ...}."""
    return on_a_loop(made.controller.get_connection_info)


def on_a_loop(function: Callable[[], Any]) -> Any:
    """What a function gives, awaited where it has to be, on an event loop that is closed afterwards."""

    async def run() -> Any:
        made = function()
        return await made if inspect.isawaitable(made) else made

    loop = IOLoop(make_current=False)
    try:
        return loop.run_sync(run)
    finally:
        loop.close()


def processes_of(made: ipyparallel.Cluster) -> list[psutil.Process]:
    """The controller's process and all below it."""
    controller = psutil.Process(made.controller.pid)
    return [controller, *controller.children(recursive=True)]


def until_gone(pids: list[int]) -> None:
    """Wait until these processes have ended, and were reaped or are to be."""
    patience.until(lambda: not any(map(lives, pids)), f"processes {pids} end")


def lives(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(pid: int) -> None:
    """End a process without a word."""
    os.kill(pid, 9)
