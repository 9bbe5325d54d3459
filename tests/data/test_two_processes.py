"""A client and an engine in two processes: what belongs to one's `__main__` is truly not in the other's."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
CASES = re.findall(r"^@case\ndef (\w+)", (HERE / "client_script.py").read_text(), flags=re.MULTILINE)

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def report() -> dict[str, str]:
    """What went wrong, by case."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(HERE / "client_script.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("name", CASES)
def test_across_processes(report: dict[str, str], name: str) -> None:
    assert report[name] == ""
