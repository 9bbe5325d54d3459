"""How long from nothing to n engines that have answered, and how long to stop them?

Packages are imported before the clock starts, and every start is in a fresh process. Ours and its peer take turns, and
nothing else is alive meanwhile. Pools are shown for information: their workers have no address, no namespace and nobody
who watches them.
"""

from collections.abc import Sequence

from benchmarks.command import Options, main
from benchmarks.contest import Contest
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Samples, Target

STOCK = ("ipyparallel",)
POOLS = ("ProcessPoolExecutor", "loky", "dask.distributed", "ray")
POOL_N = 4
LARGE_N = 1000
SLOW_N = 16  # from here on two rounds and none to warm up: a stock start takes about a second per engine
SMALL_TARGET = Target(ratio_min=8.0)
START_TARGETS = {1: SMALL_TARGET, 2: SMALL_TARGET, 4: SMALL_TARGET, 64: Target(ratio_min=15.0)}
STOP_TARGETS = {1: SMALL_TARGET, 2: SMALL_TARGET, 4: SMALL_TARGET}


def start_time(options: Options) -> Report:
    """Medians of starts and stops of 1 to 64 engines against ipyparallel, of 4 against pools, and of 1,000 of ours."""
    report = Report("start_time", "Start and stop")
    for n in (1, 4, 8) if options.quick else (1, 2, 4, 64):
        starts, stops = _measure(report, options, n, STOCK)
        report.rows.append(Case("start", "s", 1.0, START_TARGETS.get(n)).row(n, ours=OURS, peers=STOCK, races=starts))
        report.rows.append(Case("stop", "s", 1.0, STOP_TARGETS.get(n)).row(n, ours=OURS, peers=STOCK, races=stops))
    starts, stops = _measure(report, options, POOL_N, POOLS)
    report.rows.append(Case("start, against pools", "s").row(POOL_N, ours=OURS, peers=POOLS, races=starts))
    report.rows.append(Case("stop, against pools", "s").row(POOL_N, ours=OURS, peers=POOLS, races=stops))
    if not options.quick:
        starts, stops = _measure(report, options, LARGE_N, ())
        report.rows.append(Case("start", "s").row(LARGE_N, ours=OURS, peers=(), races=starts))
        report.rows.append(Case("stop", "s").row(LARGE_N, ours=OURS, peers=(), races=stops))
    return report


def _measure(report: Report, options: Options, n: int, peers: Sequence[str]) -> tuple[list[Samples], list[Samples]]:
    """Start and stop samples in seconds, a race for each of `peers`, or of ours alone if there are none."""
    slow = n >= SLOW_N
    counted = 1 if options.quick else (2 if slow else 3)
    starts, stops = [], []
    for peer in peers or (None,):
        race: tuple[Samples, Samples] = ({}, {})
        for number in range(counted if slow else counted + 1):
            for label in filter(None, (OURS, peer)):
                seconds = _start_and_stop(label, n, report, options)
                if seconds is not None and (slow or number > 0):
                    for samples, value in zip(race, seconds, strict=True):
                        samples.setdefault(label, []).append(value)
        starts.append(race[0])
        stops.append(race[1])
    return starts, stops


def _start_and_stop(label: str, n: int, report: Report, options: Options) -> tuple[float, float] | None:
    """Seconds of one start and of one stop; None, with the reason kept, if `label` cannot start here."""
    contest = Contest(n, report.missing, allowed=options.peers)
    host = contest.start(label)
    if host is None:
        return None
    stopped_s = contest.stop(host)
    return None if stopped_s is None else (host.started_s, stopped_s)


if __name__ == "__main__":
    main([start_time])
