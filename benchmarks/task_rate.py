"""How many small tasks per second?

Two ways to hand them in: one `submit` each, all results back, and one `map` over many items, where the system may put
many items into one task. Ours chooses the chunks by itself; its peers get every chunksize of CHUNKSIZES and are judged
by their best, which a user would have to find by trial. Slow peers get fewer tasks, for a rate does not need more.
"""

from dataclasses import dataclass

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import MAP_ECHO, map_rate, submit_rate
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Samples, Target

POOL = "ProcessPoolExecutor"
STOCK = "ipyparallel"
WORKERS = 4
CHUNKSIZES = (10, 100, 1000, 5000, 10_000)
LARGE_CHUNKSIZES = (1000, 10_000)  # all there is time for in a quick run, and for a peer that is slow per task
ITEMS = 100_000
TASKS = 10_000
TASKS_OF = {STOCK: 500, "dask.distributed": 1_000, "ray": 5_000}
ITEMS_OF = {"dask.distributed": 1_000}
POOLS = (POOL, "loky", "mpi4py.futures", "dask.distributed", "ray")
UNCHUNKED = ("joblib (loky)", "dask.distributed")  # the first batches by itself, the second has no chunks
CHUNKED = (POOL, "loky", "mpi4py.futures", "ray", STOCK)
SLOW_PER_TASK = (STOCK, "ray")
OUR_EXECUTOR = f"{OURS} executor.map"

SUBMIT = Case("submit of no-ops", "tasks/s", 1.0, Target(ratio_min=3.0))
SUBMIT_STOCK = Case("submit of no-ops, against ipyparallel", "tasks/s", 1.0, Target(ratio_min=8.0))
MAP_POOL = Case("map of no-ops, against ProcessPoolExecutor.map", "items/s", 1.0, Target(ratio_min=0.7))
MAP_EXECUTOR = Case("executor.map of no-ops, against ProcessPoolExecutor.map", "items/s", 1.0, Target(ratio_min=0.7))
MAP_STRINGS = Case("map of an echo over strings, against ProcessPoolExecutor.map", "items/s")
MAP_OTHERS = Case("map of no-ops, against the others", "items/s")
MAP_STOCK = Case("map of no-ops, against ipyparallel's default chunks", "items/s", 1.0, Target(ratio_min=8.0))


@dataclass(frozen=True)
class Effort:
    """How much is done per race. shrink: tasks of a round are divided by this, items of a map never are."""

    rounds: int
    shrink: int
    chunksizes: tuple[int, ...]
    workers: tuple[int, ...]  # against stock ipyparallel

    def tasks(self, peer: str) -> int:
        """Tasks of one round of `peer`."""
        return TASKS_OF.get(peer, TASKS) // self.shrink

    def submits(self, peer: str) -> Entry:
        """`peer` with as many submits."""
        return Entry(peer, peer, submit_rate, {"count": self.tasks(peer)})


FULL = Effort(rounds=5, shrink=1, chunksizes=CHUNKSIZES, workers=(1, 2, WORKERS))
QUICK = Effort(rounds=2, shrink=4, chunksizes=LARGE_CHUNKSIZES, workers=(1, WORKERS))


def task_rate(options: Options) -> Report:
    """Medians of rates with 4 workers, and with 1, 2 and 4 against stock ipyparallel."""
    report = Report("task_rate", "Many small tasks")
    effort = QUICK if options.quick else FULL
    for n in effort.workers:
        with Contest(n, report.missing, allowed=options.peers) as contest:
            _stock(report, contest, effort)
            if n == WORKERS:
                _submits(report, contest, effort)
                _maps(report, contest, effort)
                _map_strings(report, contest, effort)
    slow = [f"{peer} {effort.tasks(peer):,}" for peer in TASKS_OF]
    report.notes.append(f"Tasks per round: {effort.tasks(OURS):,}; {'; '.join(slow)}.")
    slow = [f"{peer} {count:,}" for peer, count in ITEMS_OF.items()]
    report.notes.append(f"Items per map: {ITEMS:,}; {'; '.join(slow)}; ipyparallel with default chunks as its tasks.")
    return report


def _stock(report: Report, contest: Contest, effort: Effort) -> None:
    """Against ipyparallel as it comes: no chunksize given, which means 1."""
    submits = contest.race([effort.submits(OURS)], STOCK, [effort.submits(STOCK)], rounds=effort.rounds)
    report.rows.append(SUBMIT_STOCK.row(contest.n, ours=OURS, peers=(STOCK,), races=[submits]))
    ours = Entry(OURS, OURS, map_rate, {"count": ITEMS})
    theirs = Entry(STOCK, STOCK, map_rate, {"count": effort.tasks(STOCK)})
    maps = contest.race([ours], STOCK, [theirs], rounds=effort.rounds)
    report.rows.append(MAP_STOCK.row(contest.n, ours=OURS, peers=(STOCK,), races=[maps]))


def _submits(report: Report, contest: Contest, effort: Effort) -> None:
    races = [contest.race([effort.submits(OURS)], peer, [effort.submits(peer)], rounds=effort.rounds) for peer in POOLS]
    report.rows.append(SUBMIT.row(contest.n, ours=OURS, peers=POOLS, races=races))


def _maps(report: Report, contest: Contest, effort: Effort) -> None:
    """Each peer races once, with all its chunksizes."""
    ours = [
        Entry(OURS, OURS, map_rate, {"count": ITEMS}),
        Entry(OUR_EXECUTOR, OURS, map_rate, {"count": ITEMS, "verb": "executor_map_many"}),
    ]
    entries_of = {peer: _map_entries(peer, effort) for peer in (*CHUNKED, *UNCHUNKED)}
    races: dict[str, Samples] = {
        peer: contest.race(ours, peer, entries, rounds=effort.rounds) for peer, entries in entries_of.items()
    }
    names = {peer: [entry.name for entry in entries] for peer, entries in entries_of.items()}
    report.rows.append(MAP_POOL.row(contest.n, ours=OURS, peers=names[POOL], races=[races[POOL]]))
    report.rows.append(MAP_EXECUTOR.row(contest.n, ours=OUR_EXECUTOR, peers=names[POOL], races=[races[POOL]]))
    others = [peer for peer in races if peer != POOL]
    other_names = [name for peer in others for name in names[peer]]
    row = MAP_OTHERS.row(contest.n, ours=OURS, peers=other_names, races=[races[peer] for peer in others])
    report.rows.append(row)


def _map_strings(report: Report, contest: Contest, effort: Effort) -> None:
    """The same with items and results that must really travel: a range and a list of None pack into next to nothing."""
    work = {"count": ITEMS, "work": MAP_ECHO}
    entries = [
        Entry(f"{POOL}, chunksize {size:,}", POOL, map_rate, {**work, "chunksize": size}) for size in effort.chunksizes
    ]
    race = contest.race([Entry(OURS, OURS, map_rate, work)], POOL, entries, rounds=effort.rounds)
    names = [entry.name for entry in entries]
    report.rows.append(MAP_STRINGS.row(contest.n, ours=OURS, peers=names, races=[race]))


def _map_entries(peer: str, effort: Effort) -> list[Entry]:
    """One entry per chunksize, or the only way that `peer` has."""
    if peer in UNCHUNKED:
        return [Entry(peer, peer, map_rate, {"count": ITEMS_OF.get(peer, ITEMS)})]
    chunksizes = LARGE_CHUNKSIZES if peer in SLOW_PER_TASK else effort.chunksizes
    return [
        Entry(f"{peer}, chunksize {size:,}", peer, map_rate, {"count": ITEMS, "chunksize": size}) for size in chunksizes
    ]


if __name__ == "__main__":
    main([task_rate])
