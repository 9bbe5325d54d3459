"""Where the results go: docs/benchmarks/ (results.json and the pictures) and docs/benchmarks.md.

What was not measured this time stays as it was. `python -m benchmarks.publication` draws the pictures again from
results.json, without measuring.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.plots import draw_all
from benchmarks.report import Report, markdown, read_results, write_results

DOCS = Path(__file__).resolve().parent.parent / "docs"
DIRECTORY = DOCS / "benchmarks"
RESULTS = DIRECTORY / "results.json"
PAGE = DOCS / "benchmarks.md"

_PART = "\n## "

PREFACE = """# Benchmarks

Written by `make bench`; benchmarks/README.md says how to read and repeat it. Every figure is a median of interleaved
rounds against the peer, on the machine below. "Times better" above 1 means that hiersched is better, for times, sizes
and rates alike.
"""


def publish(machine: Mapping[str, str], reports: Sequence[Report]) -> None:
    """Write the results, the pictures and the page."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    write_results(machine, reports, RESULTS)
    draw_all(reports, DIRECTORY)
    PAGE.write_text(page(machine, reports, PAGE.read_text() if PAGE.exists() else ""))


def page(machine: Mapping[str, str], reports: Sequence[Report], before: str = "") -> str:
    """The Markdown page. before: as it was; its parts about other questions stay."""
    facts = ["| | |", "| --- | --- |", *[f"| {name} | {value} |" for name, value in machine.items()]]
    _, *others = before.split(_PART)
    parts = {part.partition("\n")[0]: part for part in others}
    for report in reports:
        _, _, body = markdown(report).partition("\n")
        parts[report.title] = f"{report.title}\n\n![{report.title}](benchmarks/{report.question}.png)\n{body}"
    return "\n".join([PREFACE, "\n".join(facts), *[_PART + part.rstrip("\n") for part in parts.values()]]) + "\n"


if __name__ == "__main__":
    draw_all(read_results(RESULTS), DIRECTORY)
