"""How long does one call on all engines take, all results back?

Against the three views of stock ipyparallel on one cluster of the same size: direct (the client sends to each engine),
broadcast (its binary tree of schedulers), and coalescing (the tree also gathers the replies).
"""

from collections.abc import Callable

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import ARGUMENT, ECHO, NO_OP, all_call, push
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Target

VIEWS = {
    "ipyparallel DirectView": "direct",
    "ipyparallel BroadcastView": "broadcast",
    "ipyparallel BroadcastView, coalescing": "coalescing",
}
SMALL_N = 4  # up to here a tree must not cost anything
SMALL_TARGET = Target(ratio_min=8.0)
TARGETS = {(NO_OP, 64): Target(ratio_min=12.0)}
PUSH = "push of 1 MB to all"
KINDS: dict[str, tuple[Callable[..., list[float]], dict[str, str]]] = {
    kind: (all_call, {"kind": kind}) for kind in (NO_OP, ARGUMENT, ECHO)
} | {PUSH: (push, {})}


def broadcast(options: Options) -> Report:
    """Medians of calls on all of 1 to 64 engines."""
    report = Report("broadcast", "One call on all engines")
    rounds = 3 if options.quick else 6
    load = {"calls": 5 if options.quick else 10, "budget_s": 0.25 if options.quick else 0.5}
    for n in (1, 4, 8) if options.quick else (1, 2, 4, 16, 64):
        ours, theirs = [], []
        for kind, (figure, options_of_kind) in KINDS.items():
            ours.append(Entry(f"{OURS}, {kind}", OURS, figure, {**options_of_kind, **load}))
            for name, view in VIEWS.items():
                theirs.append(
                    Entry(f"{name}, {kind}", "ipyparallel", figure, {"view": view, **options_of_kind, **load})
                )
        with Contest(n, report.missing, allowed=options.peers) as contest:
            race = contest.race(ours, "ipyparallel", theirs, rounds=rounds)
        for kind in KINDS:
            target = SMALL_TARGET if n <= SMALL_N else TARGETS.get((kind, n))
            suffix = f", {kind}"
            of_kind = {name.removesuffix(suffix): samples for name, samples in race.items() if name.endswith(suffix)}
            row = Case(kind, "ms", 1e3, target).row(n, ours=OURS, peers=tuple(VIEWS), races=[of_kind])
            report.rows.append(row)
    return report


if __name__ == "__main__":
    main([broadcast])
