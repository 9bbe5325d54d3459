"""How near to the ideal do uneven tasks end?

Durations from a heavy-tailed distribution (Pareto, fixed seed), one task each, on 8 engines. The tasks sleep, so that
more engines than cores do not matter. No order of the tasks could end before the ideal: the larger of the longest task
and the sum over the engines. The row compares ours with it, and with peers that hand out single tasks as well.
"""

import random

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import makespan as makespan_of
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Row, Target

ENGINES = 8
TASKS = 1000
SEED = 11
SHAPE = 1.3  # of the distribution: a mean, but no variance
SHORTEST_S, LONGEST_S = 0.01, 2.0
IDEAL_RATIO_MAX = 1.2
PEERS = ("ipyparallel", "dask.distributed")


def durations_s(tasks: int = TASKS) -> list[float]:
    """How long each task takes, seconds."""
    draw = random.Random(SEED)
    return [min(SHORTEST_S * draw.paretovariate(SHAPE), LONGEST_S) for _ in range(tasks)]


def ideal_s(durations: list[float], engines: int) -> float:
    """No schedule ends before this."""
    return max(max(durations), sum(durations) / engines)


def makespan(options: Options) -> Report:
    """Medians of makespans with 8 engines."""
    report = Report("makespan", "Uneven tasks")
    durations = durations_s(TASKS // 4 if options.quick else TASKS)
    ideal = ideal_s(durations, ENGINES)
    load = {"durations": durations}
    races = []
    with Contest(ENGINES, report.missing, allowed=options.peers) as contest:
        for peer in PEERS:
            ours, theirs = (Entry(name, name, makespan_of, load) for name in (OURS, peer))
            races.append(contest.race([ours], peer, [theirs], rounds=1 if options.quick else 3))
    row = Case("makespan", "s").row(ENGINES, ours=OURS, peers=PEERS, races=races)
    report.rows.append(row)
    if row.ours is not None:
        ratio = Row("makespan over the ideal", "x", ENGINES, row.ours / ideal, {}, Target(ours_max=IDEAL_RATIO_MAX))
        report.rows.append(ratio)
    report.notes.append(
        f"{len(durations)} tasks of {min(durations):.2f} to {max(durations):.2f} s; ideal {ideal:.2f} s."
    )
    return report


if __name__ == "__main__":
    main([makespan])
