"""Rows, ratios and tables.

A row is one figure at one number of engines: ours beside every peer, and how many times better ours is than the best
peer. A ratio above 1 always means that ours is better: for times and sizes it is best peer / ours, for rates (units
that end in "/s") ours / best peer. What could not be measured is None, shown as "missing"; it never counts as zero.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MISSING = "missing"
NOT_MEASURED = "-"

Samples = dict[str, list[float]]  # entry name -> its samples in one race; entries that failed are absent


@dataclass(frozen=True)
class Target:
    """What a row should reach: at least `ratio_min` times better than the best peer, or at most `ours_max`, or both."""

    ratio_min: float | None = None
    ours_max: float | None = None

    def reached_by(self, row: "Row") -> bool | None:
        """Whether `row` reaches this; None if it lacks the figure that decides."""
        decided = []
        if self.ratio_min is not None:
            decided.append(None if row.ratio is None else row.ratio >= self.ratio_min)
        if self.ours_max is not None:
            decided.append(None if row.ours is None else row.ours <= self.ours_max)
        return None if None in decided else all(decided)

    def __str__(self) -> str:
        parts = []
        if self.ratio_min is not None:
            parts.append(f">= {self.ratio_min:.3g}x")
        if self.ours_max is not None:
            parts.append(f"<= {show(self.ours_max)}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Row:
    """One figure at one number of engines. None is what could not be measured."""

    case: str
    unit: str
    n: int
    ours: float | None
    peers: dict[str, float | None]
    target: Target | None = None

    @property
    def higher_is_better(self) -> bool:
        """Rates; everything else is a time or a size."""
        return self.unit.endswith("/s")

    @property
    def best_peer(self) -> float | None:
        """The best figure among the peers that have one."""
        return best(self.peers.values(), higher_is_better=self.higher_is_better)

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than the best peer; above 1 ours is better."""
        if self.ours is None or self.best_peer is None:
            return None
        return self.ours / self.best_peer if self.higher_is_better else self.best_peer / self.ours

    def as_json(self) -> dict[str, Any]:
        """The row as it is written to files."""
        return {
            "case": self.case,
            "unit": self.unit,
            "n": self.n,
            "ours": self.ours,
            "peers": self.peers,
            "ratio_to_best_peer": self.ratio,
        }


@dataclass
class Report:
    """The answer to one question."""

    question: str  # the module's name
    title: str
    rows: list[Row] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)  # peer or entry -> why it has no figure
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Case:
    """How the samples of races become a row: its name, its unit, and what the samples are multiplied by to be in it."""

    name: str
    unit: str
    scale: float = 1.0
    target: Target | None = None

    def row(self, n: int, *, ours: str, peers: Sequence[str], races: Sequence[Samples]) -> Row:
        """Medians of `races`. Ours is that of the race against the best peer, so that the ratio is of one race."""
        higher = self.unit.endswith("/s")
        values = {peer: self._median(peer, races) for peer in peers}
        best_value = best(values.values(), higher_is_better=higher)
        against_best = [race for race in races if best_value is not None and self._best_in(race, values, best_value)]
        return Row(self.name, self.unit, n, self._median(ours, against_best or races), values, self.target)

    def _best_in(self, race: Samples, values: dict[str, float | None], best_value: float) -> bool:
        return any(values[name] == best_value for name in race if name in values)

    def _median(self, name: str, races: Sequence[Samples]) -> float | None:
        samples = [sample for race in races for sample in race.get(name, [])]
        return self.scale * statistics.median(samples) if samples else None


def best(values: Iterable[float | None], *, higher_is_better: bool) -> float | None:
    """The best of those `values` that are not None; None if there are none."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return max(known) if higher_is_better else min(known)


def show(value: float | None) -> str:
    """Three significant digits, thousands separated; "missing" for None."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def grid(rows: Sequence[Row]) -> list[list[str]]:
    """One case as text: a line per contender, a column per number of engines; the first line is the head."""
    engines = sorted({row.n for row in rows})
    row_at = {row.n: row for row in rows}
    ordered = [row_at[n] for n in engines]
    names = list(dict.fromkeys(name for row in ordered for name in row.peers))
    lines = [[f"{rows[0].case} ({rows[0].unit})", *[f"n={n}" for n in engines]]]
    lines.append(["hiersched", *[show(row.ours) for row in ordered]])
    for name in names:
        lines.append([name, *[show(row.peers[name]) if name in row.peers else NOT_MEASURED for row in ordered]])
    lines.append(["times better than the best peer", *[_show_ratio(row) for row in ordered]])
    if any(row.target for row in ordered):
        lines.append(["wanted", *[_show_target(row) for row in ordered]])
    return lines


def _show_ratio(row: Row) -> str:
    if not row.peers:
        return NOT_MEASURED
    return MISSING if row.ratio is None else f"{show(row.ratio)}x"


def _show_target(row: Row) -> str:
    if row.target is None:
        return NOT_MEASURED
    verdict = {True: "reached", False: "not reached", None: "not decided"}[row.target.reached_by(row)]
    return f"{row.target} {verdict}"


def by_case(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Rows by case, in the order of first appearance."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        grouped.setdefault(row.case, []).append(row)
    return grouped


def print_report(report: Report, console: Console) -> None:
    """Print a table per case, then notes, then who is missing and why."""
    console.rule(report.title)
    for rows in by_case(report.rows).values():
        head, *lines = grid(rows)
        table = Table(*head)
        for column in table.columns[1:]:
            column.justify = "right"
        for line in lines:
            table.add_row(*line)
        console.print(table)
    for note in report.notes:
        console.print(note, markup=False)
    for name, reason in report.missing.items():
        console.print(f"{MISSING}: {name}: {reason}", markup=False)


def markdown(report: Report) -> str:
    """The same as Markdown tables."""
    parts = [f"## {report.title}\n"]
    for rows in by_case(report.rows).values():
        head, *lines = grid(rows)
        rule = ["---", *["---:"] * (len(head) - 1)]
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in [head, rule, *lines]) + "\n")
    remarks = [*report.notes, *[f"{MISSING}: {name}: {reason}" for name, reason in report.missing.items()]]
    parts.append("\n".join(f"- {remark}" for remark in remarks) + "\n")
    return "\n".join(parts)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write `rows` as a JSON array."""
    path.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")


def write_results(machine: Mapping[str, str], reports: Sequence[Report], path: Path) -> None:
    """Write everything that a run has found as one JSON object. Answers to other questions that are there stay."""
    answers = (
        {answer["question"]: answer for answer in json.loads(path.read_text())["reports"]} if path.exists() else {}
    )
    for report in reports:
        answers[report.question] = {
            "question": report.question,
            "title": report.title,
            "rows": [row.as_json() for row in report.rows],
            "missing": report.missing,
            "notes": report.notes,
        }
    path.write_text(json.dumps({"machine": dict(machine), "reports": list(answers.values())}, indent=1) + "\n")


def read_results(path: Path) -> list[Report]:
    """The reports that `write_results` wrote, without their targets."""
    return [
        Report(
            answer["question"],
            answer["title"],
            [Row(row["case"], row["unit"], row["n"], row["ours"], row["peers"]) for row in answer["rows"]],
            answer["missing"],
            answer["notes"],
        )
        for answer in json.loads(path.read_text())["reports"]
    ]
