"""Anything may be killed at any time: what was asked ends, nothing runs twice in silence, nothing is left behind.

Drawn from a seed: which work is under way, who is killed, and when. CI runs a short storm; `make stress` a long one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import psutil
import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.client.results import AsyncResult
from hiersched.errors import AnswerLost, ClusterLost, EngineLost, UnknownEngine
from hiersched.limits import RESTARTS_MAX
from hiersched.runtime import connection
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import host_of, schedulers_of

ENGINES = 8
TREE = {"n": ENGINES, "leaf_engines": 2, "fanout": 2, "restart": "always"}
TASKS = 40
LONGEST_S = 0.02

CLIENT = """
import sys
from hiersched import Client
from tests.processes import errands
rc = Client(cluster_id=sys.argv[1])
tasks = [rc.load_balanced_view().apply_async(errands.nap, 0.01, number) for number in range(200)]
print("submitted", flush=True)
sys.stdin.read()
"""


class Storm:
    """One cluster under fire. log: where each task that runs leaves its number."""

    def __init__(self, rc: Client, rng: Random, log: Path) -> None:
        self.rc = rc
        self.rng = rng
        self.log = log
        self.started = 0
        self.tasks: list[tuple[int, AsyncResult]] = []
        self.calls: list[AsyncResult] = []
        self.killed: Counter[str] = Counter()

    def work(self) -> None:
        """Put some work under way, or none."""
        view = self.rc.load_balanced_view()
        for _ in range(self.rng.choice([0, 1, TASKS])):
            self.started += 1
            seconds = self.rng.random() * LONGEST_S
            self.tasks.append((self.started, view.apply_async(errands.run_once, str(self.log), self.started, seconds)))
        for _ in range(self.rng.choice([0, 1, 3])):
            self.calls.append(self.rc[:].apply_async(errands.nap, self.rng.random() * LONGEST_S, "done"))

    def strike(self) -> None:
        """Kill somebody."""
        kind = self.rng.choices(["engine", "scheduler", "client"], [6, 3, 1])[0]
        below_root = [process for (level, *_), process in schedulers_of(self.rc).items() if level > 0]
        if kind == "client":
            self._strike_client()
        elif kind == "scheduler" and below_root:
            with contextlib.suppress(psutil.NoSuchProcess):  # killed a moment ago, and not replaced
                self.rng.choice(below_root).kill()
        else:
            processes = host_of(self.rc).children()
            engines = {name: process for process in processes if (name := _name_of(process)).startswith("hs-engine")}
            names = sorted(name for name in engines if self.killed[name] < RESTARTS_MAX)  # more often is given up
            if names:
                name = self.rng.choice(names)
                self.killed[name] += 1
                with contextlib.suppress(psutil.NoSuchProcess):  # it has just been lost with another
                    engines[name].kill()

    def _strike_client(self) -> None:
        command = [sys.executable, "-c", CLIENT, self.rc.cluster_id]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"submitted\n"
            other.kill()

    def check(self) -> None:
        """All that was asked has ended as it should."""
        for number, task in self.tasks:
            outcome = task.get(DEADLINE_S, return_exceptions=True)
            assert outcome == number or isinstance(outcome, EngineLost), outcome
        for call in self.calls:
            for outcome in call.get(DEADLINE_S, return_exceptions=True):
                # An answer is lost with an engine and its scheduler; an engine is unknown if it is called too late.
                assert outcome == "done" or isinstance(outcome, (EngineLost, AnswerLost, UnknownEngine)), outcome
        runs = Counter(self.log.read_text().split()) if self.log.exists() else Counter()
        assert max(runs.values(), default=1) == 1, runs.most_common(3)
        until(lambda: len(self.rc.ids) == ENGINES, "every engine has been replaced")

    def end_the_root(self) -> None:
        """Clients know at once, and all processes end."""
        call = self.rc[:].apply_async(errands.nap, DEADLINE_S)
        host = host_of(self.rc)
        family = [host, *host.children(recursive=True)]
        psutil.Process(connection.read(connection.path_of(self.rc.cluster_id)).pid).kill()
        with pytest.raises(ClusterLost):
            call.get(DEADLINE_S)
        alive = psutil.wait_procs(family, 5.0)[1]
        assert not alive, alive


def _name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.stress)])
def test_whoever_is_killed_everything_ends_and_nothing_is_left(
    kills: int, tmp_path: Path, leaves_nothing: None
) -> None:
    seed = int(os.environ.get("HIERSCHED_STORM_SEED", "1"))
    rng = Random(seed)
    done = 0
    while done < kills:
        with Cluster(**TREE) as rc:
            storm = Storm(rc, rng, tmp_path / f"runs-{done}")
            for _ in range(min(10, kills - done)):
                storm.work()
                storm.strike()
                done += 1
            storm.check()
            if rng.random() < 0.5:
                storm.end_the_root()
