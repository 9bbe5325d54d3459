"""Runs a cluster for ipyparallel's clients and engines, in the place of its ipcontroller.

    python -m hiersched.compat.controller [every flag of ipcontroller]

This process becomes the nursery of the cluster: it ends when the cluster does, and the cluster ends when it is told to.
Libraries with threads of their own read how many they may have when they are imported, and ipyparallel imports numpy;
so that is settled first, for this process and for all that are forked from it.
"""

from __future__ import annotations

import os

from hiersched.nodes.host import THREAD_VARIABLES

_THREADS = "OMP_NUM_THREADS"  # the one that users set


def main(argv: list[str] | None = None) -> None:
    """Run a controller until its cluster ends. argv: its flags; by default this process's. Raises SystemExit."""
    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(engine_threads())
    from hiersched.compat.controller_app import HierschedController

    HierschedController.launch_instance(argv)


def engine_threads() -> int:
    """How many threads a library may have in an engine: as the user says, or one.

    An engine's fair share of the cores is one, where there are as many engines as ipyparallel starts by default.
    """
    said = os.environ.get(_THREADS, "").partition(",")[0]
    return max(1, int(said)) if said.isdecimal() else 1


if __name__ == "__main__":
    main()
