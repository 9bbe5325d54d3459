"""Does the tree hold up at a thousand real engines on one machine, and what does an engine cost in memory?

The yardstick is the least that a two-level tree over pyzmq can be (zmq_tree.py). Memory is proportional (Pss): engines
forked from one process share most of their pages, and a shared page counts for each its part only.
"""

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import NO_OP, all_call, engine_memory
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Target

SKETCH = "pyzmq tree sketch"
MEMORY = Case("memory of one engine", "MB", 1.0, Target(ours_max=12.0))
LARGE_N = 1000
STOCK_N = 4  # its memory per engine does not depend on the number of engines


def tree_scale(options: Options) -> Report:
    """Medians of a no-op on all of up to 1,000 engines, and the memory of one."""
    report = Report("tree_scale", "A tree of many engines")
    _stock_memory(report, options)
    rounds = 3 if options.quick else 10
    load = {"kind": NO_OP, "calls": 5 if options.quick else 10, "budget_s": 1.0}
    for n in (8, 64) if options.quick else (64, 256, LARGE_N):
        target = Target(ratio_min=1 / 1.5) if n == LARGE_N else None
        with Contest(n, report.missing, allowed=options.peers) as contest:
            calls = contest.race(
                [Entry(OURS, OURS, all_call, load)], SKETCH, [Entry(SKETCH, SKETCH, all_call, load)], rounds=rounds
            )
            memory = contest.race(
                [Entry(OURS, OURS, engine_memory)], SKETCH, [Entry(SKETCH, SKETCH, engine_memory)], rounds=1
            )
        report.rows.append(Case(NO_OP, "ms", 1e3, target).row(n, ours=OURS, peers=(SKETCH,), races=[calls]))
        report.rows.append(MEMORY.row(n, ours=OURS, peers=(SKETCH,), races=[memory]))
    return report


def _stock_memory(report: Report, options: Options) -> None:
    """The memory of an engine, beside one of stock ipyparallel."""
    peer = "ipyparallel"
    with Contest(STOCK_N, report.missing, allowed=options.peers) as contest:
        race = contest.race([Entry(OURS, OURS, engine_memory)], peer, [Entry(peer, peer, engine_memory)], rounds=1)
    report.rows.append(MEMORY.row(STOCK_N, ours=OURS, peers=(peer,), races=[race]))


if __name__ == "__main__":
    main([tree_scale])
