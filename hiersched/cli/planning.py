"""hiersched plan | sim: trees and worlds that need no process."""

from __future__ import annotations

import argparse

from hiersched.cli.shown import console, counted, table, tree_text
from hiersched.core.costs import ORDINARY, Costs
from hiersched.core.topology import Host, levels, plan_tree
from hiersched.errors import PlanError


def plan(options: argparse.Namespace) -> None:
    """The tree for a number of engines, with predicted times."""
    if options.hosts < 1:
        raise PlanError(f"engines need at least one host, not {options.hosts}")
    costs = _measured() if options.measure else ORDINARY
    share, rest = divmod(options.n, options.hosts)
    hosts = [Host(f"host{i}", share + (i < rest), options.cores) for i in range(options.hosts)]
    tree = plan_tree(hosts, costs, fanout=options.fanout, leaf_engines=options.leaf_engines)
    where = counted(options.hosts, "host")
    out = console()
    out.print(f"[bold]{options.n} engines on {where}[/]: {tree_text(tree)}")
    out.print(
        f"a no-op on all engines: [bold]{tree.latency_s * 1e3:.3g} ms[/] predicted; "
        f"at most {tree.messages_max} messages at one scheduler"
    )
    rows = table("level", "schedulers", "children", "messages of one", "adds, us", numbers=5)
    for depth, level in enumerate(levels(tree)):
        few, many = level.fanout_min, level.fanout_max
        children = str(many) if few == many else f"{few}-{many}"
        row = (str(depth), str(level.schedulers), children, str(level.messages_max), f"{level.time_s * 1e6:.0f}")
        rows.add_row(*row)
    out.print(rows)


def _measured() -> Costs:
    from hiersched.runtime.probe import measure_costs  # imports the schedulers

    return measure_costs()


def sim(options: argparse.Namespace) -> None:
    """Simulate a cluster."""
    from hiersched.simulation.report import Scenario, render, run_simulation

    fields = {name: getattr(options, name) for name in Scenario.__struct_fields__}
    fields["partitions"] = tuple(options.partitions)
    print(render(run_simulation(Scenario(**fields))))
