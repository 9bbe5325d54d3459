"""Real engines, and IPython as engines have it, for the tests of this directory."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import comm
import pytest
from IPython.core.async_helpers import get_asyncio_loop
from IPython.core.interactiveshell import InteractiveShell

from hiersched.nodes.engine import Engine
from hiersched.nodes.shell import EngineShell
from tests.nodes.fakes import HELLO, RANK, FakeLine, Work
from tests.nodes.schedulers import Cluster, EngineHost, Scheduler


@pytest.fixture(scope="session")
def engine_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineHost]:
    """What engines are forked from."""
    host = EngineHost(tmp_path_factory.mktemp("ipython"))
    yield host
    host.close()


@pytest.fixture
def start(engine_host: EngineHost, tmp_path: Path) -> Iterator[Callable[..., Cluster]]:
    """Starts clusters, which end with the test."""
    clusters: list[Cluster] = []

    def start(alive: tuple[int, ...] = (0, 1, 2)) -> Cluster:
        directory = tmp_path / f"c{len(clusters)}"
        directory.mkdir()
        clusters.append(Cluster(engine_host, directory, alive=alive))
        return clusters[-1]

    yield start
    for cluster in clusters:
        cluster.close()


@pytest.fixture
def cluster(start: Callable[..., Cluster]) -> Cluster:
    """An engine under three schedulers."""
    return start()


@pytest.fixture
def above(cluster: Cluster) -> Scheduler:
    """The engine's own scheduler."""
    return cluster.parent


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """Where deeds are held, until somebody puts `go` there."""
    gate = tmp_path / "gate"
    gate.mkdir()
    return gate


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineShell]:
    """IPython as engines have it; what it changes in this process is put back."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
        patch.setenv("MPLBACKEND", "agg")
        patch.setattr(comm, "create_comm", comm.create_comm)
        patch.setattr(comm, "get_comm_manager", comm.get_comm_manager)
        patch.setitem(sys.modules, "__main__", sys.modules["__main__"])
        before = dict(vars(builtins))
        shell = EngineShell.instance()
        yield shell
        get_asyncio_loop().close()
        InteractiveShell.clear_instance()
        EngineShell.clear_instance()
        for name in vars(builtins).keys() - before.keys():
            delattr(builtins, name)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeLine]:
    line = FakeLine()
    for clock in ("perf_counter", "monotonic"):
        monkeypatch.setattr(f"hiersched.nodes.engine.time.{clock}", lambda: line.now_s)
    yield line
    line.close()


@pytest.fixture
def lanes(line: FakeLine) -> Work:
    return Work(line)


@pytest.fixture
def run(line: FakeLine, lanes: Work) -> Callable[[], list[Any]]:
    """Run an engine through the script; everything it said."""

    def run() -> list[Any]:
        engine = lanes.engine = Engine(line, RANK, lanes, HELLO)  # type: ignore[arg-type]
        try:
            engine.run()
        finally:
            engine.speaker.close()
        return line.said

    return run
