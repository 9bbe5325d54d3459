"""A pytest plugin: notes how each test ends, and also collects the class that upstream deletes after defining it.

`test_view_broadcast` deletes TestBroadcastView, the views that do not coalesce, so that only those that do are tested.
The class is still there, as the base of the other. Load this with `-p tests.ipyparallel_suite.collected`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

VARIABLE = "HIERSCHED_SUITE_OUTCOMES"  # names the file that outcomes are written to: {test: [outcome, why]}
COALESCING = "TestBroadcastViewCoalescing"
_WHY_CHARS_MAX = 400

_outcomes: dict[str, tuple[str, str]] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: Any) -> list[pytest.Class] | None:
    """Beside the class of coalescing views, its base."""
    if name != COALESCING or not isinstance(collector, pytest.Module):
        return None
    (base,) = obj.__bases__
    setattr(collector.obj, base.__name__, base)
    return [pytest.Class.from_parent(collector, name=kind.__name__, obj=kind) for kind in (base, obj)]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """How a phase of a test ended; a failure in any of them is the test's."""
    outcome = _outcome_of(report)
    before, _ = _outcomes.get(report.nodeid, ("", ""))
    if outcome == "failed" or not before or (before == "passed" and report.when == "call"):
        _outcomes[report.nodeid] = outcome, _why(report)


def _outcome_of(report: pytest.TestReport) -> str:
    if hasattr(report, "wasxfail"):
        return "xfailed" if report.skipped else "xpassed"
    return report.outcome


def _why(report: pytest.TestReport) -> str:
    """The last line of what pytest shows of it."""
    if report.passed or report.longrepr is None:
        return ""
    if isinstance(report.longrepr, tuple):
        return str(report.longrepr[2])
    crash = getattr(report.longrepr, "reprcrash", None)
    return str(crash.message if crash is not None else report.longrepr)[:_WHY_CHARS_MAX]


def pytest_sessionfinish() -> None:
    """Write them down: the file's name and the test's, without where the file lies."""
    told = {name.rpartition("/")[2]: outcome for name, outcome in _outcomes.items()}
    Path(os.environ[VARIABLE]).write_text(json.dumps(told))
