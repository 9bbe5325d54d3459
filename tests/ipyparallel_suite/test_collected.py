"""What the plugin notes of a run of tests, and which it adds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.ipyparallel_suite.collected import VARIABLE
from tests.ipyparallel_suite.runs import REPOSITORY

TESTS = """
import pytest

class TestBroadcastView:
    coalescing = False

    def test_it(self):
        assert not self.coalescing, "the second fails"

class TestBroadcastViewCoalescing(TestBroadcastView):
    coalescing = True

    @pytest.mark.xfail
    def test_known(self):
        raise ValueError

    @pytest.mark.xfail
    def test_mended(self):
        pass

@pytest.fixture
def broken():
    yield
    raise OSError("at the end")

def test_end(broken):
    pass

def test_not_here():
    pytest.skip("no such machine")

del TestBroadcastView
"""


def test_each_test_has_one_end_and_the_deleted_class_is_run(tmp_path: Path) -> None:
    file, told = tmp_path / "test_views.py", tmp_path / "told.json"
    file.write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.ipyparallel_suite.collected", str(file)]
    environ = {**os.environ, VARIABLE: str(told), "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([*command, f"--rootdir={tmp_path}"], cwd=tmp_path, env=environ, check=False, capture_output=True)
    outcomes = json.loads(told.read_text())
    assert {test: outcome for test, (outcome, _) in outcomes.items()} == {
        "test_views.py::TestBroadcastView::test_it": "passed",
        "test_views.py::TestBroadcastViewCoalescing::test_it": "failed",
        "test_views.py::TestBroadcastViewCoalescing::test_known": "xfailed",
        "test_views.py::TestBroadcastViewCoalescing::test_mended": "xpassed",
        "test_views.py::test_end": "failed",
        "test_views.py::test_not_here": "skipped",
    }
    assert "the second fails" in outcomes["test_views.py::TestBroadcastViewCoalescing::test_it"][1]
    assert outcomes["test_views.py::test_not_here"][1] == "Skipped: no such machine"
