"""hiersched status | list: what runs, what waits, what was done."""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from hiersched.cli.shown import console, counted, table, tree_text
from hiersched.client import profiles
from hiersched.client.cluster import Cluster
from hiersched.client.engine_sets import EngineSets, ranges_of
from hiersched.core.topology import TreePlan
from hiersched.errors import HierschedError, UserError
from hiersched.runtime import connection

_REFUSALS = ("refused", "unauthorised", "malformed", "version")
_FIELDS = ("level", "schedulers", "engines", "messages_in", "messages_out", "requests", "tasks")
_TROUBLES = ("restarts", "refused")


class Seen(msgspec.Struct, kw_only=True):
    """A cluster as it was seen. problem: why nothing more is known of it.

    planned: engines that were started and not stopped. levels: as in Client.status; queues: as in Client.queue_status,
    by engine.
    """

    cluster_id: str
    file: str
    problem: str = ""
    engines: int = 0
    planned: int = 0
    plan: TreePlan | None = None
    levels: list[dict[str, Any]] = []
    queues: dict[int, dict[str, int]] = {}
    unassigned: int = 0


def status(options: argparse.Namespace) -> None:
    """Show the clusters of a profile, or one; with --watch again and again.

    Raises ConnectionFileError for a cluster that does not exist.
    """
    if options.cluster_id:
        profiles.find(cluster_id=options.cluster_id, profile=options.profile, profile_dir=options.profile_dir)
    if options.watch is None:
        _show(_look(options), as_json=options.json)
        return
    if options.watch <= 0:
        raise UserError(f"--watch takes seconds above 0, not {options.watch}")
    if options.json or not console().is_terminal:
        for seen in _looks(options):
            _show(seen, as_json=options.json)
        return
    with Live(console=console(), auto_refresh=False, transient=False) as live:
        for seen in _looks(options):
            live.update(shown(seen), refresh=True)


def list(options: argparse.Namespace) -> None:  # the name of the command
    """Show one line for each cluster of all profiles, or of one."""
    clusters = Cluster.list(profile=options.profile, profile_dir=options.profile_dir)
    if options.json:
        print(json.dumps([cluster.to_dict() for cluster in clusters]))
        return
    if not clusters:
        print("no cluster runs")
        return
    rows = table("profile", "cluster", "state", "connection file", "engines", numbers=1)
    for cluster in clusters:
        state = "running" if cluster.controller is not None and cluster.controller.running else "ended"
        rows.add_row(
            escape(cluster.profile),
            f"[bold]{escape(cluster.cluster_id)}[/]",
            state,
            escape(cluster.cluster_file),
            f"{len(cluster.engines.ranks()):,}",
        )
    console().print(rows)


# --- looking ----------------------------------------------------------------------------------------------------------


def _looks(options: argparse.Namespace) -> Iterator[Sequence[Seen]]:
    """Look until nothing runs any more, or as often as was asked."""
    left = options.looks
    while left is None or left > 0:
        seen = _look(options)
        yield seen
        left = None if left is None else left - 1
        if all(cluster.problem for cluster in seen):
            return
        if left != 0:
            time.sleep(options.watch)


def _look(options: argparse.Namespace) -> Sequence[Seen]:
    directory = profiles.directory_of(options.profile, options.profile_dir)
    names = [options.cluster_id] if options.cluster_id else connection.names(directory)
    return [_seen(name, connection.path_of(name, directory)) for name in names]


def _seen(name: str, path: Path) -> Seen:
    from hiersched.client.client import Client

    seen = Seen(cluster_id=name, file=str(path))
    try:
        found = connection.read(path)
        with Client(found) as client:
            seen.engines, seen.plan = len(client), client.plan
            seen.planned = len(EngineSets.from_text(found.sets).ranks())
            seen.levels = client.status()["levels"]
            queues = client.queue_status()
            seen.unassigned = queues.pop("unassigned", 0)
            seen.queues = queues
    except (HierschedError, TimeoutError) as error:
        seen.problem = str(error)
    return seen


# --- showing ----------------------------------------------------------------------------------------------------------


def _show(clusters: Sequence[Seen], *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(clusters).decode())
    else:
        console().print(shown(clusters))


def shown(clusters: Sequence[Seen]) -> RenderableType:
    if not clusters:
        return "no cluster runs"
    return Group(*(part for seen in clusters for part in _parts(seen)))


def _parts(seen: Seen) -> Iterator[RenderableType]:
    if seen.plan is None:
        yield Text.assemble((seen.cluster_id, "bold yellow"), f": {seen.problem}")
        return
    few = seen.engines < seen.planned
    of_planned = f" of {seen.planned:,}" if seen.planned else ""
    yield Text.assemble(
        (seen.cluster_id, "bold green"),
        ": ",
        (
            f"{seen.engines:,}{of_planned} engine{'s' * (seen.engines != 1 or bool(of_planned))}",
            "yellow" if few else "",
        ),
        f", {tree_text(seen.plan)}",
    )
    yield _levels_table(seen.levels)
    if seen.queues:
        yield _queues_table(seen.queues)
    if seen.unassigned:
        yield f"{counted(seen.unassigned, 'task')} of all clients waiting at the root"


def _levels_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each level. What should not happen has a column only where it did: so all of it fits on a terminal."""
    counts = [{**row, "refused": sum(row.get(kind, 0) for kind in _REFUSALS)} for row in rows]
    troubles = [field for field in _TROUBLES if any(row.get(field) for row in counts)]
    fields = [*_FIELDS, *troubles]
    shown = table(*(field.replace("_", " ") for field in fields), numbers=len(fields))
    for row in counts:
        texts = [f"{row.get(field, 0):,}" for field in _FIELDS]
        shown.add_row(*texts, *(f"[red]{row.get(field, 0):,}[/]" if row.get(field) else "0" for field in troubles))
    return shown


def _queues_table(queues: Mapping[int, Mapping[str, int]]) -> Table:
    """Engines that have equally much to do share a row, the busiest first."""
    alike: defaultdict[tuple[int, int], dict[int, int]] = defaultdict(dict)
    for rank, queue in queues.items():
        alike[queue["queue"], queue["tasks"]][rank] = queue["completed"]
    shown = table("engines", "calls waiting", "tasks waiting", "completed", numbers=3)
    for (calls, tasks), completed in sorted(alike.items(), key=lambda item: (-sum(item[0]), min(item[1]))):
        style = "bold" if calls or tasks else "dim"
        shown.add_row(ranges_of(completed), f"{calls:,}", f"{tasks:,}", f"{sum(completed.values()):,}", style=style)
    return shown
