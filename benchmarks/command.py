"""The command line that every question shares."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from benchmarks.facts import facts
from benchmarks.peers import PEERS
from benchmarks.report import Report, print_report, write_rows


@dataclass(frozen=True)
class Options:
    """How a question is to be answered. quick: fewer engines and rounds; peers: only these, None for all."""

    quick: bool = False
    peers: tuple[str, ...] | None = None


WIDTH = 140  # characters, when the output goes to a file

Question = Callable[[Options], Report]


def print_facts(console: Console) -> dict[str, str]:
    """Print what the machine is, and give it."""
    machine = facts()
    for name, value in machine.items():
        console.print(f"{name:28}{value}", markup=False, highlight=False)
    return machine


def main(questions: Sequence[Question], arguments: Sequence[str] | None = None) -> tuple[dict[str, str], list[Report]]:
    """Answer `questions` as the command line says; the machine's facts and the reports."""
    parser = argparse.ArgumentParser(description="Measure hiersched against its peers in the same run.")
    if len(questions) > 1:
        names = [question.__name__ for question in questions]
        parser.add_argument("--only", action="append", choices=names, help="only this question; repeatable")
    parser.add_argument("--quick", action="store_true", help="few engines and rounds: a look, not a figure to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    parser.add_argument("--peer", action="append", choices=sorted(PEERS), help="only against this one; repeatable")
    parsed = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # unwinds, so that every peer is stopped
    options = Options(quick=parsed.quick, peers=None if parsed.peer is None else tuple(parsed.peer))
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    machine = print_facts(console)
    reports = []
    only = getattr(parsed, "only", None)
    for question in [question for question in questions if only is None or question.__name__ in only]:
        load = os.getloadavg()[0]
        report = question(options)
        report.notes.append(f"Load average when this began: {load:.1f} on {machine['cores']} cores.")
        print_report(report, console)
        reports.append(report)
    if parsed.json is not None:
        write_rows([row for report in reports for row in report.rows], parsed.json)
    return machine, reports
