"""docs/compatibility.md: what came of ipyparallel's own tests, and why those that fail do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.ipyparallel_suite.runs import REPOSITORY, Run

PAGE = REPOSITORY / "docs" / "compatibility.md"
_ENDS = ("passed", "failed", "skipped", "xfailed", "xpassed")

_HEAD = """# Compatibility

The tests of {package}, unmodified, run against hiersched by `make ipp-suite`. They come from its source distribution,
and each run compares them with it. This page is written by that run.
"""
_PARTS = {
    "controller": """## ipyparallel's client, our controller and engines

The stock client and its tests, where every start of `ipcontroller` and `ipengine` starts ours. *curve*: with
`IPP_ENABLE_CURVE=1`; *any-ip*: with `--ip=*`.
""",
    "client": """## `hiersched.Client` in the place of `ipyparallel.Client`

Every public name that both packages have is ours, and the cluster is ours; the errors that the tests expect are
ipyparallel's. The tests of views include the class of non-coalescing broadcast views that upstream deletes after
defining it.
""",
}


def write(runs: Sequence[Run], package: str, reasons: dict[tuple[str, str], str], page: Path = PAGE) -> None:
    """Write the page anew."""
    sections = [_HEAD.format(package=package)]
    for part, text in _PARTS.items():
        here = [run for run in runs if run.part == part]
        if here:
            sections += [text, _table(here), _starts(here), _reasons(here, reasons)]
    page.write_text("\n".join(filter(None, sections)))


def share_passed(run: Run) -> float:
    """Of the tests that were not skipped, how many passed, or failed as upstream expects them to."""
    ends = Counter(outcome for outcome, _ in run.outcomes.values())
    return 1 - ends["failed"] / max(1, ends.total() - ends["skipped"])


def _table(runs: Sequence[Run]) -> str:
    """A row for each file, a column for each configuration."""
    files = list(dict.fromkeys(test.split("::")[0] for run in runs for test in run.outcomes))
    lines = [f"| | {' | '.join(run.configuration for run in runs)} |", f"|---|{'---|' * len(runs)}"]
    for file in files:
        cells = [_cell(run, f"{file}::") for run in runs]
        lines.append(f"| {file.removesuffix('.py')} | {' | '.join(cells)} |")
    totals = [f"**{_cell(run, '')}** ({share_passed(run):.1%})" for run in runs]
    lines.append(f"| **all** | {' | '.join(totals)} |")
    return "\n".join(lines) + "\n"


def _cell(run: Run, lead: str) -> str:
    ends = Counter(outcome for test, (outcome, _) in run.outcomes.items() if test.startswith(lead))
    return ", ".join(f"{ends[end]} {end}" for end in _ENDS if ends[end]) or "not run"


def _starts(runs: Sequence[Run]) -> str:
    """How often ours were started, where that is traced."""
    told = [
        f"{run.configuration}: {', '.join(f'{count} {kind}' for kind, count in run.starts.items())}"
        for run in runs
        if run.starts
    ]
    return f"Starts of ours that were counted: {'; '.join(told)}.\n" if told else ""


def _reasons(runs: Sequence[Run], reasons: dict[tuple[str, str], str]) -> str:
    """Each reason, with the tests that fail for it; and what upstream's skips say."""
    part = runs[0].part
    failed = sorted({test for run in runs for test, (outcome, _) in run.outcomes.items() if outcome == "failed"})
    skipped = {test: why for run in runs for test, (outcome, why) in run.outcomes.items() if outcome == "skipped"}
    whys: dict[str, list[str]] = {}
    for test in failed:
        whys.setdefault(reasons.get((part, test), "No reason is known."), []).append(test)
    lines = ["Tests that do not pass, and why:\n"] if whys else []
    for why, tests in whys.items():
        lines.append(f"- {why}\n" + "\n".join(f"    - `{test}`" for test in tests))
    if skipped:
        lines.append("\nSkipped by the tests themselves:\n")
        lines += [f"- `{test}`: {why.removeprefix('Skipped: ')}" for test, why in sorted(skipped.items())]
    return "\n".join(lines) + "\n" if lines else ""
