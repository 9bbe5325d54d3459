"""The command line: hiersched start | stop | status | plan | sim."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from hiersched import __version__
from hiersched.core.topology import Host, TreePlan, levels, plan_tree
from hiersched.errors import ConnectionFileError, HierschedError, PlanError
from hiersched.runtime import connection

_console = Console()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. 0 if it did what was asked; 1, with the reason on standard error, if it could not."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except (HierschedError, TimeoutError) as error:
        print(f"hiersched {options.name}: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hiersched", description="Many Python engines under a tree of schedulers.")
    parser.add_argument("--version", action="version", version=f"hiersched {__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")

    start = commands.add_parser("start", help="start a cluster on this host, and leave it running")
    start.add_argument("-n", type=int, default=None, help="engines; by default one per core")
    start.add_argument("--cluster-id", default=None, help="a name for it; by default one is made")
    start.add_argument("--threads", type=int, default=None, help="BLAS and OpenMP threads of each engine")
    start.add_argument("--preload", action="append", default=[], metavar="MODULE", help="import it before engines fork")
    start.add_argument("--ip", default=None, help="also listen on this address, with CURVE keys")
    _add_shape(start)
    start.set_defaults(command=_start)

    stop = commands.add_parser("stop", help="stop a cluster")
    stop.add_argument("--cluster-id", default=None, help="which; by default the newest")
    stop.add_argument("--all", action="store_true", help="every cluster of this user")
    stop.set_defaults(command=_stop)

    status = commands.add_parser("status", help="what runs, and what it has done")
    status.add_argument("--cluster-id", default=None, help="which; by default all")
    status.set_defaults(command=_status)

    plan = commands.add_parser("plan", help="the tree for a number of engines, with predicted times")
    plan.add_argument("-n", type=int, required=True, help="engines")
    plan.add_argument("--hosts", type=int, default=1, help="hosts they run on")
    plan.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)), help="cores of each host")
    plan.add_argument("--measure", action="store_true", help="measure the costs on this machine first")
    _add_shape(plan)
    plan.set_defaults(command=_plan)

    sim = commands.add_parser("sim", help="simulate a cluster of the real schedulers, seeded")
    sim.set_defaults(command=_sim)
    _add_simulation(sim)
    return parser


def _add_shape(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--fanout", type=int, default=None, help="child schedulers of one scheduler, at most")
    parser.add_argument("--leaf-engines", type=int, default=None, help="engines of one leaf scheduler, at most")


def _add_simulation(parser: argparse.ArgumentParser) -> None:
    """The fields of simulation.report.Scenario."""
    parser.add_argument("--engines", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same run")
    _add_shape(parser)
    parser.add_argument("--slots-per-host", type=int, default=64, help="engines of one host")
    parser.add_argument("--run-s", type=float, default=0.0, help="how long the call runs on each engine, s")
    parser.add_argument("--tasks", type=int, default=0, help="load-balanced tasks besides")
    parser.add_argument("--task-s", type=float, default=0.01, help="how long each of them runs, s")
    parser.add_argument("--kill", type=int, default=0, metavar="N", help="engines that die meanwhile")
    parser.add_argument("--kill-schedulers", type=int, default=0, metavar="N", help="sub-schedulers that die meanwhile")
    parser.add_argument("--slow", type=int, default=0, metavar="N", help="engines that are ten times slower")
    parser.add_argument(
        "--partition",
        action="append",
        default=[],
        dest="partitions",
        metavar="LEVEL[:COUNT[:SECONDS]]",
        help="cut schedulers of a level off from above",
    )
    parser.add_argument("--jitter-s", type=float, default=0.0, help="random delay added to each hop, at most, s")
    parser.add_argument("--breaks", type=float, default=0.0, help="chance that a message breaks its link")
    parser.add_argument(
        "--checked",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="check every invariant after every event; by default if the world is small",
    )


# --- commands ---------------------------------------------------------------------------------------------------------


def _start(options: argparse.Namespace) -> None:
    from hiersched.client.cluster import Cluster

    cluster = Cluster(
        options.n,
        cluster_id=options.cluster_id,
        fanout=options.fanout,
        leaf_engines=options.leaf_engines,
        threads=options.threads,
        preload=options.preload,
        ip=options.ip,
        shutdown_atexit=False,
    )
    with _console.status(f"starting {cluster.n} engines"), cluster.start_and_connect_sync() as client:
        _console.print(f"[bold]{cluster.cluster_id}[/]: {len(client)} engines, {_tree_text(client.plan)}")
    print(f"connect with hiersched.Client(cluster_id={cluster.cluster_id!r}), or {cluster.connection_file}")


def _stop(options: argparse.Namespace) -> None:
    from hiersched.client.cluster import Cluster

    if options.all:
        names = [name for name in connection.names() if _problem(name) is None]
    else:
        names = [options.cluster_id or connection.newest().stem]
    for name in names:
        Cluster.from_file(cluster_id=name).stop_cluster_sync()
        print(f"stopped {name}")


def _status(options: argparse.Namespace) -> None:
    from hiersched.client.client import Client

    names = [options.cluster_id] if options.cluster_id else connection.names()
    if not names:
        print("no cluster runs")
    for name in names:
        problem = _problem(name)
        if problem is not None:
            _console.print(f"[bold]{name}[/]: {problem}")
            continue
        with Client(cluster_id=name) as client:
            status = client.status()
            planned = client.plan.engines
            _console.print(f"[bold]{name}[/]: {len(client)} of {planned} engines, {_tree_text(client.plan)}")
            _console.print(_levels_table(status["levels"]))


def _plan(options: argparse.Namespace) -> None:
    from hiersched.core.costs import Costs
    from hiersched.runtime.probe import measure_costs

    if options.hosts < 1:
        raise PlanError(f"engines need at least one host, not {options.hosts}")
    costs = measure_costs() if options.measure else Costs()
    share, rest = divmod(options.n, options.hosts)
    hosts = [Host(f"host{i}", share + (i < rest), options.cores) for i in range(options.hosts)]
    plan = plan_tree(hosts, costs, fanout=options.fanout, leaf_engines=options.leaf_engines)
    _console.print(
        f"[bold]{options.n} engines on {options.hosts} host{'s' * (options.hosts != 1)}[/]: {_tree_text(plan)}"
    )
    _console.print(
        f"a no-op on all engines: [bold]{plan.latency_s * 1e3:.3g} ms[/] predicted; "
        f"at most {plan.messages_max} messages at one scheduler"
    )
    table = Table("level", "schedulers", "children", "messages of one", "adds, us")
    for depth, level in enumerate(levels(plan)):
        few, many = level.fanout_min, level.fanout_max
        children = str(many) if few == many else f"{few}-{many}"
        row = (str(depth), str(level.schedulers), children, str(level.messages_max), f"{level.time_s * 1e6:.0f}")
        table.add_row(*row)
    _console.print(table)


def _sim(options: argparse.Namespace) -> None:
    from hiersched.simulation.report import Scenario, render, run_simulation

    fields = {name: getattr(options, name) for name in Scenario.__struct_fields__}
    fields["partitions"] = tuple(options.partitions)
    print(render(run_simulation(Scenario(**fields))))


# --- what is shown ----------------------------------------------------------------------------------------------------


def _tree_text(plan: TreePlan) -> str:
    if plan.schedulers == 1:
        return "root only"
    return f"{plan.schedulers} schedulers, depth {plan.depth}, fanout {plan.fanout}, {plan.leaf_engines} engines a leaf"


def _levels_table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table("level", "schedulers", "engines", "messages in", "messages out", "requests", "tasks", "refused")
    for row in rows:
        refused = sum(row.get(kind, 0) for kind in ("refused", "unauthorised", "malformed", "version"))
        fields = ("level", "schedulers", "engines", "messages_in", "messages_out", "requests", "tasks")
        table.add_row(*(f"{row.get(field, 0):,}" for field in fields), f"{refused:,}")
    return table


def _problem(name: str) -> str | None:
    try:
        connection.read(connection.path_of(name))
    except ConnectionFileError as error:
        return str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
