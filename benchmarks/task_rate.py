"""How many small tasks per second?

Two ways to hand them in: one `submit` each, all results back, and one `map` over many items, where the system may put
many items into one task. Ours chooses the chunks by itself; its peers get every chunksize of CHUNKSIZES and are judged
by their best, which a user would have to find by trial. Slow peers get fewer tasks, for a rate does not need more.
"""

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import executor_map_rate, map_rate, submit_rate
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Samples, Target

WORKERS = 4
SMALL_NS = (1, 2, 4)
CHUNKSIZES = (10, 100, 1000, 5000, 10_000)
ITEMS = 100_000
TASKS = 10_000
TASKS_OF = {"ipyparallel": 1_000, "dask.distributed": 2_000, "ray": 5_000}
ITEMS_OF = {"dask.distributed": 4_000}
POOLS = ("ProcessPoolExecutor", "loky", "mpi4py.futures", "dask.distributed", "ray")
UNCHUNKED = ("joblib (loky)", "dask.distributed")  # the first batches by itself, the second has no chunks
CHUNKED = ("ProcessPoolExecutor", "loky", "mpi4py.futures", "ray", "ipyparallel")
OUR_EXECUTOR = f"{OURS} executor.map"

SUBMIT = Case("submit of no-ops", "tasks/s", 1.0, Target(ratio_min=3.0))
SUBMIT_STOCK = Case("submit of no-ops, against ipyparallel", "tasks/s", 1.0, Target(ratio_min=8.0))
MAP_POOL = Case("map of no-ops, against ProcessPoolExecutor.map", "items/s", 1.0, Target(ratio_min=0.7))
MAP_EXECUTOR = Case("executor.map of no-ops, against ProcessPoolExecutor.map", "items/s", 1.0, Target(ratio_min=0.7))
MAP_OTHERS = Case("map of no-ops, against the others", "items/s")
MAP_STOCK = Case("map of no-ops, against ipyparallel's default chunks", "items/s", 1.0, Target(ratio_min=8.0))


def task_rate(options: Options) -> Report:
    """Medians of rates with 4 workers, and with 1, 2 and 4 against stock ipyparallel."""
    report = Report("task_rate", "Many small tasks")
    rounds = 2 if options.quick else 5
    shrink = 10 if options.quick else 1
    for n in SMALL_NS:
        with Contest(n, report.missing, allowed=options.peers) as contest:
            _stock(report, contest, rounds=rounds, shrink=shrink)
            if n == WORKERS:
                _submits(report, contest, rounds=rounds, shrink=shrink)
                _maps(report, contest, rounds=rounds, shrink=shrink)
    report.notes.append(
        f"Tasks per round: {TASKS // shrink:,}"
        + "".join(f"; {peer} {count // shrink:,}" for peer, count in TASKS_OF.items())
        + f". Items per map: {ITEMS // shrink:,}"
        + "".join(f"; {peer} {count // shrink:,}" for peer, count in ITEMS_OF.items())
    )
    return report


def _submit_entry(peer: str, shrink: int) -> Entry:
    return Entry(peer, peer, submit_rate, {"count": TASKS_OF.get(peer, TASKS) // shrink})


def _stock(report: Report, contest: Contest, *, rounds: int, shrink: int) -> None:
    """Against ipyparallel as it comes: no chunksize given, which means 1."""
    peer = "ipyparallel"
    submits = contest.race([_submit_entry(OURS, shrink)], peer, [_submit_entry(peer, shrink)], rounds=rounds)
    report.rows.append(SUBMIT_STOCK.row(contest.n, ours=OURS, peers=(peer,), races=[submits]))
    ours = Entry(OURS, OURS, map_rate, {"count": ITEMS // shrink})
    theirs = Entry(peer, peer, map_rate, {"count": TASKS_OF[peer] // shrink})
    maps = contest.race([ours], peer, [theirs], rounds=rounds)
    report.rows.append(MAP_STOCK.row(contest.n, ours=OURS, peers=(peer,), races=[maps]))


def _submits(report: Report, contest: Contest, *, rounds: int, shrink: int) -> None:
    races = [
        contest.race([_submit_entry(OURS, shrink)], peer, [_submit_entry(peer, shrink)], rounds=rounds)
        for peer in POOLS
    ]
    report.rows.append(SUBMIT.row(contest.n, ours=OURS, peers=POOLS, races=races))


def _maps(report: Report, contest: Contest, *, rounds: int, shrink: int) -> None:
    """Each chunked peer races with all its chunksizes at once, each of the others with what it has."""
    count = ITEMS // shrink
    ours = [
        Entry(OURS, OURS, map_rate, {"count": count}),
        Entry(OUR_EXECUTOR, OURS, executor_map_rate, {"count": count}),
    ]
    races: dict[str, Samples] = {}
    names: dict[str, list[str]] = {}
    for peer in CHUNKED:
        entries = [
            Entry(f"{peer}, chunksize {size:,}", peer, map_rate, {"count": count, "chunksize": size})
            for size in CHUNKSIZES
            if peer != "ipyparallel" or size >= 1000
        ]
        names[peer] = [entry.name for entry in entries]
        races[peer] = contest.race(ours, peer, entries, rounds=rounds)
    for peer in UNCHUNKED:
        entry = Entry(peer, peer, map_rate, {"count": ITEMS_OF.get(peer, ITEMS) // shrink})
        names[peer] = [peer]
        races[peer] = contest.race(ours, peer, [entry], rounds=rounds)
    pool = POOLS[0]
    report.rows.append(MAP_POOL.row(contest.n, ours=OURS, peers=names[pool], races=[races[pool]]))
    report.rows.append(MAP_EXECUTOR.row(contest.n, ours=OUR_EXECUTOR, peers=names[pool], races=[races[pool]]))
    others = [peer for peer in races if peer != pool]
    report.rows.append(
        MAP_OTHERS.row(
            contest.n,
            ours=OURS,
            peers=[name for peer in others for name in names[peer]],
            races=[races[peer] for peer in others],
        )
    )


if __name__ == "__main__":
    main([task_rate])
