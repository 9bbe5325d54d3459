"""What do users of ipyparallel gain who change nothing but the word for controller and engines?

The same client, unchanged, in the same run: once with ipyparallel's own controller and engines, once with ours. What
the client itself costs is on both sides.
"""

from collections.abc import Callable

from benchmarks.clusters import Ipyparallel, OldClient
from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import NO_OP, all_call, magic, one_call
from benchmarks.report import Case, Report, Target

OURS, STOCK = OldClient.label, Ipyparallel.label
ENGINES = 64
CELL = "%px pass"

Figure = Callable[..., list[float]]
QUESTIONS: dict[str, tuple[Figure, dict[str, object], float]] = {  # figure, its load, how much better it has to be
    "one call on one engine": (one_call, {"calls": 50}, 3.0),
    "no-op on all, DirectView": (all_call, {"kind": NO_OP, "view": "direct", "calls": 10}, 3.0),
    "no-op on all, BroadcastView": (all_call, {"kind": NO_OP, "view": "broadcast", "calls": 10}, 3.0),
    "no-op on all, coalescing": (all_call, {"kind": NO_OP, "view": "coalescing", "calls": 10}, 3.0),
    CELL: (magic, {"line": CELL, "calls": 10}, 5.0),
}


def old_clients(options: Options) -> Report:
    """Medians with 4 and 64 engines."""
    report = Report("old_clients", "ipyparallel's own client")
    rounds, budget_s = (2, 0.5) if options.quick else (5, 1.0)
    for n in (4,) if options.quick else (4, ENGINES):
        with Contest(n, report.missing, allowed=options.peers, ours=OURS) as contest:
            ours, theirs = (_entries(name, budget_s) for name in (OURS, STOCK))
            race = contest.race(ours, STOCK, theirs, rounds=rounds)
        for kind, (figure, _, ratio_min) in QUESTIONS.items():
            samples = {name: race.get(f"{name}, {kind}", []) for name in (OURS, STOCK)}
            target = Target(ratio_min=ratio_min) if n == ENGINES else None
            unit, scale = ("us", 1e6) if figure is one_call else ("ms", 1e3)
            report.rows.append(Case(kind, unit, scale, target).row(n, ours=OURS, peers=(STOCK,), races=[samples]))
    return report


def _entries(name: str, budget_s: float) -> list[Entry]:
    """All questions to one of the two."""
    return [
        Entry(f"{name}, {kind}", name, figure, {**load, "budget_s": budget_s})
        for kind, (figure, load, _) in QUESTIONS.items()
    ]


if __name__ == "__main__":
    main([old_clients])
