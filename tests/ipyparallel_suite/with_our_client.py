"""A pytest plugin: ipyparallel's tests with hiersched.Client in the place of ipyparallel.Client, on a cluster of ours.

What a program gets that imports hiersched instead of ipyparallel, these tests get: every public name that both have,
wherever ipyparallel's modules hold it, is ours; their errors stay theirs, as ours have to be caught by their names. The
cluster that `ipyparallel.tests` starts, and the engines that it adds, are ours as well. Load it with
`-p tests.ipyparallel_suite.with_our_client`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import ipyparallel
import ipyparallel.client.view
import ipyparallel.joblib
import ipyparallel.tests as theirs
import pytest

import hiersched as hs
from hiersched.client.lazy_map import MapIterator

PROFILE = "iptest"  # the one that these tests name
ENGINES_TIMEOUT_S = 15.0

_running: list[hs.Cluster] = []


class StartedEngines:
    """Engines of one start, as the tests hold processes that they started."""

    def __init__(self, cluster: hs.Cluster, engine_set_id: str) -> None:
        self._cluster, self._set = cluster, engine_set_id

    def poll(self) -> int | None:
        """None while any of them is there, as of a process."""
        return None if self._set in self._cluster.engines else 0


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Put our names in the place of theirs, before their conftest and any of their tests is imported."""
    ours = {name: getattr(hs, name) for name in hs.__all__ if _stands_in(getattr(hs, name))}
    swapped = {id(getattr(ipyparallel, name)): new for name, new in ours.items() if hasattr(ipyparallel, name)}
    swapped[id(ipyparallel.client.view.LazyMapIterator)] = MapIterator
    for module in [module for name, module in sys.modules.items() if name.partition(".")[0] == "ipyparallel"]:
        for name, value in list(vars(module).items()):
            if id(value) in swapped and not name.startswith("_"):
                setattr(module, name, swapped[id(value)])
    hs.Client.__new__ = lambda kind, *args, **kwargs: object.__new__(kind)  # Python cannot give back that of `object`
    theirs.setup, theirs.teardown, theirs.add_engines = start_cluster, stop_cluster, add_engines


def _stands_in(value: Any) -> bool:
    """Whether it is a class or function of ours, and no error."""
    is_error = isinstance(value, type) and issubclass(value, BaseException)
    return callable(value) and not is_error


@pytest.fixture(scope="session", autouse=True)
def our_own_directory() -> Iterator[None]:
    """Connection files lie where no other cluster's do."""
    with tempfile.TemporaryDirectory(prefix="hiersched-suite-") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIERSCHED_DIR", directory)
        yield


def start_cluster() -> None:
    """In the place of their `setup`: a cluster with one engine, found by its profile."""
    cluster = hs.Cluster(n=1, profile=PROFILE)
    _running.append(cluster)
    cluster.start_cluster_sync()
    with hs.Client(profile=PROFILE) as client:
        client.wait_for_engines(1, timeout=ENGINES_TIMEOUT_S)


def stop_cluster() -> None:
    """In the place of their `teardown`."""
    while _running:
        _running.pop().stop_cluster_sync()


def add_engines(n: int = 1, profile: str = PROFILE, total: bool = False) -> list[StartedEngines]:
    """In the place of theirs: `n` engines more, or with `total` as many as are missing; returns when they are there."""
    (cluster,) = _running
    with hs.Client(profile=profile) as client:
        base = len(client)
        count = max(n - base, 0) if total else n
        if not count:
            return []
        started = StartedEngines(cluster, cluster.start_engines_sync(count))
        client.wait_for_engines(base + count, timeout=ENGINES_TIMEOUT_S)
        client[:].execute("%colors nocolor", block=True)  # with which they start theirs
    return [started] * count
