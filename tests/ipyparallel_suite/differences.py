"""Why a test of ipyparallel's does not pass here: differences.toml, and whether it tells what is the case."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from pathlib import Path

from tests.ipyparallel_suite.runs import Run

FILE = Path(__file__).with_name("differences.toml")


def read(path: Path = FILE) -> dict[tuple[str, str], str]:
    """{(part, test): reason}. A test that stands under two reasons raises ValueError."""
    reasons: dict[tuple[str, str], str] = {}
    for group in tomllib.loads(path.read_text())["difference"]:
        for test in group["tests"]:
            if (group["part"], test) in reasons:
                raise ValueError(f"{test} has two reasons")
            reasons[group["part"], test] = " ".join(group["why"].split())
    return reasons


def contradictions(runs: Iterable[Run], reasons: dict[tuple[str, str], str]) -> list[str]:
    """Tests that fail and have no reason, and reasons of tests that pass or that there are not; a line each."""
    found = []
    seen: dict[tuple[str, str], set[str]] = {}
    for run in runs:
        for test, (outcome, why) in run.outcomes.items():
            seen.setdefault((run.part, test), set()).add(outcome)
            if outcome == "failed" and (run.part, test) not in reasons:
                found.append(f"{run.name}: {test} fails, and nothing says why: {why}")
    parts = {part for part, _ in seen}
    for part, test in reasons:
        if part in parts and "failed" not in seen.get((part, test), set()):
            ends = ", ".join(sorted(seen.get((part, test), {"not run"})))
            found.append(f"{part}: {test} has a reason to fail, and does not: {ends}")
    return found
