"""Run ipyparallel's own tests on our side of the wire, and write docs/compatibility.md.

    python -m tests.ipyparallel_suite [--only client|controller] [--configuration default|curve|any-ip] [-k WORDS]

Two parts: its client with our controller and engines, in three configurations; our client in the place of its, on a
cluster of ours. A test that fails has its reason in differences.toml, or the run fails; so does it where a reason is
given for a test that passes. What runs of other parts came to is kept, so that the page always has all of it; a run of
some tests only (-k, or files that are named) says what it has seen, and writes nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from tests.ipyparallel_suite import differences, page
from tests.ipyparallel_suite.fetch import CACHE, SuiteError, source_tree
from tests.ipyparallel_suite.runs import CONFIGURATIONS, Run, package_of, run

CLIENT_SHARE_MIN = 0.95  # of the tests with our client, so many pass


def main() -> int:
    """Run what was asked for. 0 if everything is as the reasons say."""
    asked = _arguments()
    try:
        tree = source_tree()
    except SuiteError as error:
        print(f"ipyparallel's tests cannot be run: {error}", file=sys.stderr)
        return 2
    filtered = bool(asked.select or asked.files)
    runs = []
    for part, configuration in _wanted(asked):
        print(f"{part}, {configuration}:", flush=True)
        made = run(part, configuration, tree, select=asked.select, files=tuple(asked.files))
        runs.append(made)
        if not filtered:
            _keep(made)
    reasons = differences.read()
    wrong = [f"{made.name}: {trouble}" for made in runs for trouble in made.troubles]
    if filtered:
        wrong += [line for line in differences.contradictions(runs, reasons) if "and nothing says why" in line]
    else:
        wrong += differences.contradictions(runs, reasons)
        wrong += _too_few(runs)
        page.write(_kept(), package_of(tree), reasons)
    print(*wrong, *map(_said, runs), sep="\n")
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.ipyparallel_suite", description=__doc__)
    parser.add_argument("--only", choices=("client", "controller"), help="one part")
    parser.add_argument("--configuration", choices=tuple(CONFIGURATIONS), help="of the part with our controller")
    parser.add_argument("-k", dest="select", default="", help="tests whose names have these words, as pytest's -k")
    parser.add_argument("files", nargs="*", help="files of tests, as in: view magics")
    return parser.parse_args()


def _wanted(asked: argparse.Namespace) -> list[tuple[str, str]]:
    """The parts and configurations to run."""
    wanted = [("controller", name) for name in CONFIGURATIONS if asked.configuration in (None, name)]
    if asked.configuration in (None, "default"):
        wanted.append(("client", "default"))
    return [pair for pair in wanted if asked.only in (None, pair[0])]


def _too_few(runs: list[Run]) -> list[str]:
    return [
        f"{made.name}: {page.share_passed(made):.1%} passed, and {CLIENT_SHARE_MIN:.0%} must"
        for made in runs
        if made.part == "client" and page.share_passed(made) < CLIENT_SHARE_MIN
    ]


def _said(made: Run) -> str:
    return f"{made.name}: {page.share_passed(made):.1%} of {len(made.outcomes)} tests passed, in {made.seconds:.0f} s"


def _place(part: str, configuration: str) -> Path:
    return CACHE / "runs" / f"{part}-{configuration}.json"


def _keep(made: Run) -> None:
    place = _place(made.part, made.configuration)
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(msgspec.json.encode(made))


def _kept() -> list[Run]:
    """What all runs came to, the last of each kind."""
    places = [
        _place(part, name) for part, name in [*(("controller", name) for name in CONFIGURATIONS), ("client", "default")]
    ]
    return [msgspec.json.decode(place.read_bytes(), type=Run) for place in places if place.exists()]


if __name__ == "__main__":
    sys.exit(main())
