"""The first process of a cluster on a host: imports once, forks the root and then, as the nursery, everybody else.

    python -m hiersched.nodes.host < config.json

The root is forked first, before the slow imports, so that it opens its sockets while the nursery still imports what
engines need. Threads of BLAS and OpenMP libraries are limited before numpy is imported, because they read their limits
only once: each engine gets a fair share of the cores.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from hiersched.core.effects import link_of
from hiersched.core.topology import Child, TreePlan
from hiersched.nodes.facts import ClusterFacts
from hiersched.runtime import connection
from hiersched.runtime.nursery import Nursery
from hiersched.runtime.spawn import HostConfig, log_path, remove_log

if TYPE_CHECKING:
    from hiersched.nodes.scheduler import Lodge

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


def main() -> int:
    """Run the host described on standard input until its cluster ends."""
    return run(msgspec.json.decode(sys.stdin.buffer.read(), type=HostConfig))


def run(config: HostConfig, lodge: Lodge | None = None) -> int:
    """Run a host until its cluster ends; the exit code of this process. lodge: what else its schedulers run.

    There must be no thread and no zmq context in this process.
    """
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(config.threads)
    os.environ.update(config.environ)
    for entry in config.path:
        if entry not in sys.path:
            sys.path.append(entry)
    try:
        return _run(config, {} if lodge is None else {"lodge": lodge})
    finally:
        connection.remove(connection.path_of(config.cluster, config.files), config.key)
        shutil.rmtree(config.directory, ignore_errors=True)


def _run(config: HostConfig, lodging: Mapping[str, Lodge]) -> int:
    root = Child(kind="scheduler", first=0, last=config.engines, host="", level=0)
    facts = ClusterFacts(
        config.cluster,
        config.key,
        config.directory,
        config.plan,
        config.ip,
        config.files,
        link_of(root),
        config.restart,
        config.guests,
    )
    births: dict[str, object] = {}

    def facts_in(plan: TreePlan | None) -> ClusterFacts:
        return facts if plan is None else msgspec.structs.replace(facts, plan=plan)

    def scheduler(child: Child, address: str, plan: TreePlan | None, channel: object) -> None:
        from hiersched.nodes.scheduler import run_root, run_scheduler  # the root imports this beside the nursery's work

        if address:
            run_scheduler(facts_in(plan), child, address, channel, **lodging)  # type: ignore[arg-type]
        else:
            run_root(facts, child, channel, config.ready, **lodging)  # type: ignore[arg-type]

    def engine(child: Child, address: str, plan: TreePlan | None, channel: object) -> None:
        from hiersched.nodes.engine import run_engine

        run_engine(facts_in(plan), child, address, births["shell"])  # type: ignore[arg-type]

    nursery = Nursery(engine, scheduler)
    nursery.start_root(root)
    if config.ready >= 0:
        os.close(config.ready)
    if config.owner >= 0:
        nursery.watch_owner(config.owner)
    births["shell"] = _prepare(config)
    code = nursery.serve()
    if code > 0:
        return code  # the log says why, and is not ours to remove
    remove_log(log_path(config.cluster, config.files), sys.stdout.fileno())
    return 0


def _prepare(config: HostConfig) -> object:
    """Import what those to be forked need, and make the shell that each engine inherits."""
    if config.plan.schedulers > 1 or config.guests:
        importlib.import_module("hiersched.nodes.scheduler")
    importlib.import_module("hiersched.nodes.engine")
    from hiersched.nodes.shell import EngineShell

    shell = EngineShell.instance()  # the one that get_ipython() and display() find
    shell.warm_up()
    for module in config.preload:
        importlib.import_module(module)
    return shell


if __name__ == "__main__":
    sys.exit(main())
