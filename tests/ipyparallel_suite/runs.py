"""One run of ipyparallel's tests in one configuration: a process of pytest for each file of tests, one by one.

Every process that a run leaves behind is ended, and told of. So is a file of tests that takes longer than it may.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests import leftovers
from tests.ipyparallel_suite.collected import VARIABLE as OUTCOMES
from tests.ipyparallel_suite.fetch import PACKAGE, TESTS
from tests.ipyparallel_suite.traced import LOG_VARIABLE

TEST_TIMEOUT_S = 120
FILE_TIMEOUT_S = 900
REPOSITORY = Path(__file__).parents[2]

CLIENT_FILES = (
    "view",
    "view_broadcast",
    "lbview",
    "asyncresult",
    "magics",
    "executor",
    "dependency",
    "remotefunction",
    "joblib",
    "client",
)
CONTROLLER_FILES = (*CLIENT_FILES, "apps", "async", "cluster", "label", "db", "launcher")
CONFIGURATIONS = {"default": {}, "curve": {"IPP_ENABLE_CURVE": "1"}, "any-ip": {"IPP_CONTROLLER_IP": "*"}}


@dataclass
class Run:
    """What came of one part in one configuration.

    outcomes: {test: (outcome, why)}, the test by file and name; troubles: what went wrong beside them, a line each;
    starts: how often our controller and sets of our engines were started, where these are traced.
    """

    part: str
    configuration: str
    outcomes: dict[str, tuple[str, str]] = field(default_factory=dict)
    troubles: list[str] = field(default_factory=list)
    starts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """As people call it."""
        return self.part if self.part == "client" else f"{self.part}, {self.configuration}"


def run(part: str, configuration: str, tree: Path, *, select: str = "", files: tuple[str, ...] = ()) -> Run:
    """Run a part: 'client' or 'controller'. select: pytest's -k; files: only these, without test_ and .py."""
    made = Run(part, configuration)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hst-") as scratch:
        log = Path(scratch, "starts")
        log.touch()
        environ = _environ(tree, scratch) | CONFIGURATIONS[configuration] | {LOG_VARIABLE: str(log)}
        for file in files or (CLIENT_FILES if part == "client" else CONTROLLER_FILES):
            _run_file(made, tree / TESTS / f"test_{file}.py", environ, select=select)
            print(f"  {file}: {_counted(made, f'test_{file}.py')}", flush=True)
        kinds = [line.split()[0] for line in log.read_text().splitlines()]
        made.starts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
    made.seconds = time.monotonic() - began
    if part == "controller" and not select and not made.starts.get("controller"):
        made.troubles.append("no start of our controller was seen: whose ran?")
    return made


def _counted(made: Run, file: str) -> str:
    ends = [outcome for test, (outcome, _) in made.outcomes.items() if test.startswith(f"{file}::")]
    return ", ".join(f"{ends.count(kind)} {kind}" for kind in sorted(set(ends))) or "nothing ran"


def _environ(tree: Path, scratch: str) -> dict[str, str]:
    """The environment of a run: their package from its sources, files of its own, nothing of the user's clusters."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("IPP_", "PYTEST_"))}
    path = os.pathsep.join([str(tree), str(REPOSITORY)])
    own = {"IPYTHONDIR": f"{scratch}/ipython", "TMPDIR": scratch, "XDG_RUNTIME_DIR": scratch}
    return {**kept, **own, "PYTHONPATH": path, "IPP_DISABLE_JS": "1", "JUPYTER_PLATFORM_DIRS": "1"}


def _run_file(made: Run, file: Path, environ: dict[str, str], *, select: str) -> None:
    """Run one file of tests, and take in how its tests ended."""
    tree = file.parents[len(TESTS.parts)]
    with tempfile.TemporaryDirectory(prefix="hst-") as scratch, _marked(made, file.name) as mark:
        outcomes = Path(scratch, "outcomes.json")
        command = [sys.executable, "-m", "pytest", str(file), f"--config-file={tree / 'pyproject.toml'}"]
        command += [
            f"--rootdir={tree}",
            "--override-ini=addopts=",
            "--quiet",
            "--tb=short",
            f"--timeout={TEST_TIMEOUT_S}",
        ]
        command += ["-p", "no:cacheprovider", "-p", "tests.ipyparallel_suite.collected"]
        command += ["-p", f"tests.ipyparallel_suite.with_our_{made.part}"]
        command += ["-k", select] if select else []
        log = Path(scratch, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=tree, env={**environ, **mark, OUTCOMES: str(outcomes)}, stdout=output, stderr=output
            )
            try:
                process.wait(FILE_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                made.troubles.append(f"{file.name} did not end within {FILE_TIMEOUT_S} s")
                process.kill()
                process.wait()
        if outcomes.exists():
            made.outcomes |= {test: (outcome, why) for test, (outcome, why) in json.loads(outcomes.read_text()).items()}
        else:
            made.troubles.append(f"{file.name}: pytest ended with {process.returncode}: {log.read_text()[-2000:]}")


@contextmanager
def _marked(made: Run, file: str) -> Iterator[dict[str, str]]:
    """A variable by which every process of the block is known. What is left of them at its end is ended."""
    before = os.environ.get(leftovers.RUN_VARIABLE)
    mark = {leftovers.RUN_VARIABLE: uuid.uuid4().hex}
    os.environ.update(mark)
    try:
        there = dict(leftovers.running_processes())
        yield mark
        deadline = time.monotonic() + leftovers.GONE_AFTER_S
        while (left := dict(leftovers.running_processes()).keys() - there.keys()) and time.monotonic() < deadline:
            time.sleep(leftovers.LOOK_EVERY_S)
        if left:
            told = [command for key, command in leftovers.running_processes() if key in left]
            made.troubles.append(f"{file} left {len(left)} processes behind: {'; '.join(told)}")
            leftovers.kill(left)
    finally:
        if before is None:
            del os.environ[leftovers.RUN_VARIABLE]
        else:
            os.environ[leftovers.RUN_VARIABLE] = before


def package_of(tree: Path) -> str:
    """What was run: 'ipyparallel 9.2.0'."""
    return f"{PACKAGE} {tree.name.removeprefix(f'{PACKAGE}-')}"
