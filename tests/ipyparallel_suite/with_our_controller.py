"""A pytest plugin: ipyparallel's tests with its own client, and our controller and engines in the place of its.

What starts them is replaced where it stands: two lists of arguments, the defaults of two traits, and, for those who
start `ipcluster` as a process, its configuration. Each start leaves a line in the file that HIERSCHED_STARTS_LOG names.
Load it with `-p tests.ipyparallel_suite.with_our_controller`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ipyparallel.cluster import launcher

_TRACED = str(Path(__file__).with_name("traced.py"))
CONTROLLER = [sys.executable, _TRACED, "controller"]
ENGINES = [sys.executable, _TRACED, "engine_set"]

CLUSTER_CONFIG = f"""
c.ControllerLauncher.controller_cmd = {CONTROLLER!r}
c.EngineLauncher.engine_cmd = {ENGINES!r}
"""


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Put our commands in the place of theirs, before their conftest and any of their tests is imported."""
    launcher.ipcontroller_cmd_argv[:] = CONTROLLER
    launcher.ipengine_cmd_argv[:] = ENGINES
    for kind, name, command in (
        (launcher.ControllerLauncher, "controller_cmd", CONTROLLER),
        (launcher.EngineLauncher, "engine_cmd", ENGINES),
    ):
        kind.class_traits()[name].default_args = (list(command),)


@pytest.fixture(autouse=True, scope="module")
def our_launchers_in_the_profile(ipython_dir: str) -> None:
    """What `ipcluster` reads where it is started as a process."""
    Path(ipython_dir, "profile_default", "ipcluster_config.py").write_text(CLUSTER_CONFIG)
