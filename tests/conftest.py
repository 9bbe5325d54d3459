"""Every test gives back what it took: processes, sockets, threads, shared memory and temporary files.

Threads and files are checked after every test. Processes and sockets, which cost more to look for, are checked after
the tests that live in `SEARCHED` directories or are marked `processes`. A fixture that outlives one test (a cluster
shared by a module) owns what it started: while one is alive, the check waits for the end of the module or of the run.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator

import hypothesis
import pytest

from tests import leftovers

SEARCHED = {"processes", "client", "scenarios", "runtime", "nodes"}
LASTING = pytest.StashKey[set[str]]()

os.environ[leftovers.RUN_VARIABLE] = uuid.uuid4().hex

# The same examples on every run, and no verdict from the clock of a busy machine.
hypothesis.settings.register_profile("hiersched", derandomize=True, deadline=None)
hypothesis.settings.load_profile("hiersched")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Give the run a temporary directory of its own (short: the path of a Unix socket ends at 107 bytes)."""
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    directory = tempfile.mkdtemp(prefix="hst-")
    config.add_cleanup(lambda: shutil.rmtree(directory))
    os.environ.update(dict.fromkeys(("TMPDIR", "XDG_RUNTIME_DIR", "HIERSCHED_DIR"), directory))
    tempfile.tempdir = directory
    config.stash[LASTING] = set()


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """Note a fixture of the tests' own that outlives one test."""
    of_the_tests = fixturedef.baseid.startswith("tests") and not fixturedef.argname.endswith("_leaves_nothing")
    if of_the_tests and fixturedef.scope != "function":
        request.config.stash[LASTING].add(f"{fixturedef.baseid}::{fixturedef.argname}")


def pytest_fixture_post_finalizer(fixturedef: pytest.FixtureDef[object], request: pytest.FixtureRequest) -> None:
    """Forget a fixture that has ended."""
    request.config.stash[LASTING].discard(f"{fixturedef.baseid}::{fixturedef.argname}")


def is_searched(request: pytest.FixtureRequest) -> bool:
    """Whether this test or module may start processes."""
    in_directory = not SEARCHED.isdisjoint(request.path.relative_to(request.config.rootpath).parts)
    return in_directory or request.node.get_closest_marker("processes") is not None


def judged(request: pytest.FixtureRequest, *, search: bool) -> Iterator[None]:
    """Fail what runs in between if it leaves something behind, unless a lasting fixture may still own it."""
    before = leftovers.census(search=search)
    yield
    if request.config.stash[LASTING]:
        return
    left = leftovers.wait_until_gone(before)
    found = leftovers.describe(left)
    if found:
        leftovers.remove(left)
        pytest.fail("left behind:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture(scope="session", autouse=True)
def _run_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from judged(request, search=True)


@pytest.fixture(scope="module", autouse=True)
def _module_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from judged(request, search=is_searched(request))


@pytest.fixture(autouse=True)
def _test_leaves_nothing(request: pytest.FixtureRequest) -> Iterator[None]:
    yield from judged(request, search=is_searched(request))
