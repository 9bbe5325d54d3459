"""hiersched start | stop | engines | scale | signal | clean: what is done to clusters of this host."""

from __future__ import annotations

import argparse
import os
import select
import signal as signals
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hiersched.cli.shown import console, counted, tree_text
from hiersched.client import profiles
from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.client.controller import Controller
from hiersched.client.engine_sets import ranges_of, ranks_in
from hiersched.errors import ConnectionFileError, UserError
from hiersched.protocol.framing import PROTOCOL_VERSION
from hiersched.runtime import connection

_TOLD_TO_END = (signals.SIGINT, signals.SIGTERM, signals.SIGHUP)


def start(options: argparse.Namespace) -> None:
    """Start a cluster on this host."""
    waits = {} if options.engine_timeout is None else {"engine_timeout": options.engine_timeout}
    cluster = Cluster(
        options.n,
        **_named(options),
        fanout=options.fanout,
        leaf_engines=options.leaf_engines,
        threads=options.threads,
        preload=options.preload,
        ip=options.ip,
        restart=options.restart,
        shutdown_atexit=not options.daemonize,
        **waits,
    )
    out = console()
    with cluster.start_and_connect_sync() as client:
        out.print(f"[bold green]{cluster.cluster_id}[/]: {counted(len(client), 'engine')}, {tree_text(client.plan)}")
    profile = "" if cluster.profile == profiles.DEFAULT else f", profile={cluster.profile!r}"
    out.print(
        f"connect with hiersched.Client(cluster_id={cluster.cluster_id!r}{profile}), or {cluster.connection_file}",
        markup=False,
    )
    if not options.daemonize:
        _stay(cluster)


def stop(options: argparse.Namespace) -> None:
    """Stop a cluster, or all of a profile."""
    directory = profiles.directory_of(options.profile, options.profile_dir)
    if options.all:
        paths = [connection.path_of(name, directory) for name in connection.names(directory)]
        paths = [path for path in paths if connection.is_ours(path) and not connection.is_free(path)]
    else:
        paths = [profiles.find(**_named(options))]
    for path in paths:
        if options.force:
            Controller(connection.read_any(path)).kill()
            profiles.sweep(path)
        else:
            _stop(path)
        console().print(f"stopped {path.stem}", markup=False)


def _stop(path: Path) -> None:
    """Have the cluster of this file end. Raises ConnectionFileError, which for one of another version says how to."""
    speaks = connection.read_any(path).protocol
    if speaks != PROTOCOL_VERSION:
        raise ConnectionFileError(
            f"{path} is of a cluster that speaks protocol version {speaks}, this side speaks {PROTOCOL_VERSION}: "
            "stop it with the hiersched that started it, or kill it with --force"
        )
    Cluster.from_file(path).stop_cluster_sync()


def engines(options: argparse.Namespace) -> None:
    """Start engines more."""
    cluster = Cluster.from_file(**_named(options))
    before = set(cluster.engines.ranks())
    count = len(os.sched_getaffinity(0)) if options.n is None else options.n
    key = cluster.start_engines_sync(count, options.set)
    ranks = sorted(set(cluster.engines.ranks(key)) - before)
    with cluster.connect_client_sync() as client:
        client.wait_for_engines(len(cluster.engines.ranks()), timeout=cluster.engine_timeout)
    console().print(f"{cluster.cluster_id}: {_engines_text(ranks)} in set {key}", markup=False)


def scale(options: argparse.Namespace) -> None:
    """Have so many engines."""
    cluster = Cluster.from_file(**_named(options))
    ranks = cluster.scale_sync(options.n)
    which = f": {ranges_of(ranks)}" if ranks else ""
    console().print(f"{cluster.cluster_id}: {counted(len(ranks), 'engine')}{which}", markup=False)


def signal(options: argparse.Namespace) -> None:
    """Send a signal to engines."""
    number = _signal_number(options.signal)
    which = "all" if options.engines is None else ranks_in(options.engines)
    with Client(**_named(options)) as client:
        sent = client.send_signal(number, which)
        console().print(f"{client.cluster_id}: signal {options.signal} to {_engines_text(sent)}", markup=False)


def clean(options: argparse.Namespace) -> None:
    """Remove what clusters that were killed have left."""
    named = options.profile or options.profile_dir
    where = profiles.directory_of(options.profile, options.profile_dir) if named else None
    for path in profiles.clean_cluster_files(where, force=options.force):
        console().print(f"removed {path}", markup=False)


def _named(options: argparse.Namespace) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("cluster_id", "profile", "profile_dir")}


def _engines_text(ranks: Sequence[int]) -> str:
    """'engine 3', 'engines 0-3'."""
    return f"engine{'s' * (len(ranks) != 1)} {ranges_of(ranks) or 'none'}"


def _signal_number(text: str) -> int:
    """INT, SIGINT and 2 are the same. Raises UserError for what is no signal."""
    known = {member.name.removeprefix("SIG"): int(member) for member in signals.Signals}
    name = text.upper().removeprefix("SIG")
    number = int(text) if text.isdecimal() else known.get(name, 0)
    if number not in signals.valid_signals():
        raise UserError(f"{text!r} is no signal: there are {', '.join(known)}")
    return number


def _stay(cluster: Cluster) -> None:
    """Wait for Ctrl-C, SIGTERM or SIGHUP, or until the cluster ends by itself; then stop it."""
    console().print("Ctrl-C stops it")
    with _told_to_end() as told:
        root = os.pidfd_open(cluster.controller.pid)  # type: ignore[union-attr]
        select.select([told, root], [], [])
        os.close(root)
        cluster.stop_cluster_sync()
    console().print(f"stopped {cluster.cluster_id}", markup=False)


@contextmanager
def _told_to_end() -> Iterator[int]:
    """A descriptor that becomes readable when this process is told to end, instead of being ended."""
    told, tells = os.pipe()
    before = {number: signals.signal(number, lambda *_: os.write(tells, b".")) for number in _TOLD_TO_END}
    try:
        yield told
    finally:
        for number, handler in before.items():
            signals.signal(number, handler)
        os.close(told)
        os.close(tells)
