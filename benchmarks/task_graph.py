"""How many tasks per second, where each needs the results of two others?

A graph of no-ops, each task after the first two needing two drawn from the 1,000 before it. Ours hands the tasks in
one by one, with the futures of others as arguments, or with `after`, which passes no results. dask.distributed gets
them one by one and as one graph. Ours runs 100,000 tasks with 200,000 edges; dask gets fewer: a rate needs no more.
"""

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import graph_rate
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Target

DASK = "dask.distributed"
WORKERS = 4
TASKS, DASK_TASKS = 100_000, 2_000
BY_RESULT, BY_ORDER = f"{OURS}, futures as arguments", f"{OURS}, after"
ONE_BY_ONE, AS_A_GRAPH = f"{DASK}, one submit each", f"{DASK}, as one graph"
TARGET = Target(ratio_min=5.0)


def task_graph(options: Options) -> Report:
    """Medians of rates with 4 workers."""
    report = Report("task_graph", "A graph of tasks")
    shrink = 10 if options.quick else 1
    ours = [
        Entry(BY_RESULT, OURS, graph_rate, {"tasks": TASKS // shrink, "verb": "run_graph"}),
        Entry(BY_ORDER, OURS, graph_rate, {"tasks": TASKS // shrink, "verb": "ordered_graph"}),
    ]
    theirs = [
        Entry(ONE_BY_ONE, DASK, graph_rate, {"tasks": DASK_TASKS // shrink, "verb": "run_graph"}),
        Entry(AS_A_GRAPH, DASK, graph_rate, {"tasks": DASK_TASKS // shrink, "verb": "whole_graph"}),
    ]
    with Contest(WORKERS, report.missing, allowed=options.peers) as contest:
        race = contest.race(ours, DASK, theirs, rounds=1 if options.quick else 3)
    peers = (ONE_BY_ONE, AS_A_GRAPH)
    for name, case in ((BY_RESULT, "tasks that take results of others"), (BY_ORDER, "tasks that wait for others")):
        report.rows.append(Case(case, "tasks/s", 1.0, TARGET).row(WORKERS, ours=name, peers=peers, races=[race]))
    report.notes.append(f"Tasks per round: {TASKS // shrink:,}; dask.distributed {DASK_TASKS // shrink:,}.")
    return report


if __name__ == "__main__":
    main([task_graph])
