"""Does memory stay bounded, however many tasks there were?

One client submits a million no-ops in rounds and drops every result. The client's memory per finished task is what its
allocated blocks grow by over a round, as tracemalloc counts them; that of the root and the engines is their resident
memory after a tenth of the tasks and at the end. Ours only: bounds are wanted here, not ratios.
"""

import gc
import os
import tracemalloc
from typing import Any

import psutil

import hiersched
from benchmarks.command import Options, main
from benchmarks.functions import nothing
from benchmarks.report import Report, Row, Target
from hiersched.runtime import connection

ENGINES = 2
TASKS, QUICK_TASKS = 1_000_000, 100_000
ROUNDS = 10
TRACED_TASKS = 20_000
CLIENT_BYTES_MAX = 2_000.0
GROWTH_MAX = 1.05  # of the root's resident memory, from a tenth of the tasks to all


def memory(options: Options) -> Report:
    """Bytes that a finished task leaves in the client, and how the root's memory grows."""
    report = Report("memory", "Memory over many tasks")
    tasks = QUICK_TASKS if options.quick else TASKS
    cluster = hiersched.Cluster(n=ENGINES)
    with cluster as client:
        view = client.load_balanced_view()
        root = psutil.Process(connection.read(cluster.connection_file).pid)
        engines = [psutil.Process(pid) for pid in client[:].apply_sync(os.getpid)]
        sizes = []
        for _ in range(ROUNDS):
            _run(view, tasks // ROUNDS)
            sizes.append((root.memory_info().rss, sum(engine.memory_info().rss for engine in engines)))
        per_task = _client_bytes_per_task(view)
    report.rows += [
        Row("left in the client by a task", "bytes", ENGINES, per_task, {}, Target(ours_max=CLIENT_BYTES_MAX)),
        Row("growth of the root", "x", ENGINES, sizes[-1][0] / sizes[0][0], {}, Target(ours_max=GROWTH_MAX)),
        Row("growth of the engines", "x", ENGINES, sizes[-1][1] / sizes[0][1], {}, Target(ours_max=GROWTH_MAX)),
    ]
    report.notes.append(f"{tasks:,} tasks; the root has {sizes[-1][0] / 1e6:.0f} MB in the end.")
    return report


def _run(view: Any, tasks: int) -> None:
    """Submit so many and drop each result once it is there."""
    step = 10_000
    for start in range(0, tasks, step):
        results = [view.apply_async(nothing) for _ in range(min(step, tasks - start))]
        for result in results:
            assert result.get() is None


def _client_bytes_per_task(view: Any) -> float:
    """Bytes that stay allocated here per task whose result was dropped."""
    _run(view, TRACED_TASKS)  # what is made once is there
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    _run(view, TRACED_TASKS)
    gc.collect()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return max(after - before, 0) / TRACED_TASKS


if __name__ == "__main__":
    main([memory])
