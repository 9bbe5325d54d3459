"""How long does one call on one engine take, there and back?

The engines are idle, the function does nothing, the caller waits for each result before the next call. Bare pyzmq with
one Python forwarder in between is the floor: a scheduler in Python cannot do less and still schedule.
"""

from benchmarks.command import Options, main
from benchmarks.contest import Contest, Entry
from benchmarks.figures import one_call
from benchmarks.peer import OURS
from benchmarks.report import Case, Report, Samples, Target

SYSTEMS = ("ProcessPoolExecutor", "loky", "mpi4py.futures", "dask.distributed", "ray")
FORWARDED = "pyzmq, one forwarder"
PING_PONG = "pyzmq ping-pong"
ENGINES = (1, 4)

COMPARISONS: tuple[tuple[Case, tuple[str, ...]], ...] = (
    (Case("one call on one engine", "us", 1e6, Target(ratio_min=12.0)), ("ipyparallel",)),
    (Case("one call, against pools", "us", 1e6), SYSTEMS),
    (Case("one call, against the floor with one forwarder", "us", 1e6, Target(ratio_min=1 / 1.6)), (FORWARDED,)),
    (Case("one call, against the floor without", "us", 1e6), (PING_PONG,)),
)


def hop_latency(options: Options) -> Report:
    """Medians of the latency of one call, with 1 and with 4 engines."""
    report = Report("hop_latency", "One call on one engine")
    rounds = 3 if options.quick else 10
    load = {"calls": 50 if options.quick else 300, "budget_s": 0.2 if options.quick else 0.5}
    ours = [Entry(OURS, OURS, one_call, load)]
    for n in ENGINES:
        with Contest(n, report.missing, allowed=options.peers) as contest:
            for case, peers in COMPARISONS:
                races: list[Samples] = [
                    contest.race(ours, peer, [Entry(peer, peer, one_call, load)], rounds=rounds) for peer in peers
                ]
                report.rows.append(case.row(n, ours=OURS, peers=peers, races=races))
    return report


if __name__ == "__main__":
    main([hop_latency])
