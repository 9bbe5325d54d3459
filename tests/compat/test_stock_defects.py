"""What ipyparallel's own controller or client does wrong, and ours must not.

Each test is the story of one defect, told once for all sides: our client and ipyparallel's with our controller, which
have it right, and ipyparallel's client with ipyparallel's controller, which has not (run with `-m slow`, and expected
to fail). Where ipyparallel's client is at fault, only ours has it right.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ipyparallel
import pytest
from ipyparallel import error
from jupyter_client.session import Session

import hiersched
from hiersched.kernels import bitset
from tests.compat import deeds, either, launched
from tests.compat.either import OLD_ENGINES, OURS, STOCK, AnyClient, Setup
from tests.patience import DEADLINE_S, until
from tests.processes.conftest import Gate
from tests.processes.errands import hold

pytestmark = pytest.mark.processes

ENGINES = 4
STUCK_AFTER_S = 5.0  # what ipyparallel's controller has not done by then it never does
DEPTH_0 = "--IPController.broadcast_scheduler_depth=0"
THREADS = "--usethreads"
NO_DATABASE = "--nodb"


def defect(
    what: str, *, of: str, ours: Setup = OURS, stock: Setup = STOCK, fails: type[BaseException] = AssertionError
) -> Callable[..., object]:
    """One of ipyparallel's. of: its "controller" or its "client". fails: how the test then does.

    The order of sides is that of the clusters, which are started anew whenever another one is wanted.
    """
    wrong = pytest.mark.xfail(reason=what, raises=fails, strict=True)
    sides = [pytest.param(stock, ipyparallel.Client, marks=[pytest.mark.slow, wrong], id="stock")]
    if ours.engines and not ours.flags:
        sides.append(pytest.param(ours, hiersched.Client, id="our-client"))
    if of == "controller":
        sides.append(pytest.param(ours, ipyparallel.Client, id="our-controller"))
    return pytest.mark.parametrize(("cluster", "rc"), sides, indirect=True)


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ipyparallel.Cluster]:
    """A cluster of four engines."""
    with either.running(request.param, tmp_path_factory.mktemp("ipython"), n=ENGINES) as made:
        yield made


@pytest.fixture
def rc(request: pytest.FixtureRequest, cluster: ipyparallel.Cluster) -> Iterator[AnyClient]:
    """A client of the side's kind."""
    with either.connect(cluster, request.param) as connected:
        connected.wait_for_engines(1, timeout=DEADLINE_S)
        yield connected


@pytest.fixture
def bound_s(cluster: ipyparallel.Cluster) -> float:
    """How long to wait for what may never come."""
    return DEADLINE_S if cluster.controller_launcher_class.__module__.startswith("hiersched") else STUCK_AFTER_S
