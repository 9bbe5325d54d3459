"""How long does a notebook wait: for a cell on all engines, and for what they print?

Against ipyparallel's own magics and views. A cell is run by a shell in the client's process, as a notebook's kernel
would. Printed text counts when all of it has arrived, in order: 1 MB in lines of 100 characters from each engine.
"""

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import magic, printing
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Target

STOCK = "ipyparallel"
CELL = "%px pass"
PRINT = "1 MB printed by each"
TARGETS = {CELL: Target(ratio_min=10.0), PRINT: Target(ratio_min=3.0)}
ENGINES, MANY_ENGINES = 16, 64
MANY_TARGET = Target(ratio_min=5.0)


def notebook(options: Options) -> Report:
    """Medians with 4, 16 and, of cells, 64 engines."""
    report = Report("notebook", "A cell on all engines")
    rounds = 2 if options.quick else 5
    loads = {
        CELL: (magic, {"line": CELL, "calls": 10, "budget_s": 1.0}),
        PRINT: (printing, {"calls": 2, "budget_s": 2.0}),
    }
    for n in (4,) if options.quick else (4, ENGINES, MANY_ENGINES):
        with Contest(n, report.missing, allowed=options.peers) as contest:
            for kind, (figure, load) in loads.items():
                if n == MANY_ENGINES and kind != CELL:
                    continue
                ours, theirs = (Entry(name, name, figure, load) for name in (OURS, STOCK))
                race = contest.race([ours], STOCK, [theirs], rounds=rounds)
                target = {ENGINES: TARGETS[kind], MANY_ENGINES: MANY_TARGET}.get(n)
                report.rows.append(Case(kind, "ms", 1e3, target).row(n, ours=OURS, peers=(STOCK,), races=[race]))
    return report


if __name__ == "__main__":
    main([notebook])
