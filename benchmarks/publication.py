"""Where the results go: docs/benchmarks/ (results.json and the pictures) and docs/benchmarks.md.

`python -m benchmarks.publication` draws the pictures again from results.json, without measuring.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.plots import draw_all
from benchmarks.report import Report, markdown, read_results, write_results

DOCS = Path(__file__).resolve().parent.parent / "docs"
DIRECTORY = DOCS / "benchmarks"
RESULTS = DIRECTORY / "results.json"
PAGE = DOCS / "benchmarks.md"

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
    PAGE.write_text(page(machine, reports))


def page(machine: Mapping[str, str], reports: Sequence[Report]) -> str:
    """The Markdown page."""
    facts = ["| | |", "| --- | --- |", *[f"| {name} | {value} |" for name, value in machine.items()]]
    parts = [PREFACE, "\n".join(facts) + "\n"]
    for report in reports:
        heading, _, body = markdown(report).partition("\n")
        picture = f"![{report.title}](benchmarks/{report.question}.png)"
        parts.append(f"{heading}\n\n{picture}\n{body}")
    return "\n".join(parts)


if __name__ == "__main__":
    draw_all(read_results(RESULTS), DIRECTORY)
