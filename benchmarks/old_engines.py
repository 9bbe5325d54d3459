"""What do engines of ipyparallel's own cost those they are connected to?

The same engines and the same client, unchanged, in turn: with ipyparallel's controller, and with ours, where they are
guests of a leaf scheduler. Of each controller's processes the one with the most descriptors counts against our root.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import ipyparallel
import psutil

from benchmarks.command import Options, main
from benchmarks.peer import START_S_MAX
from benchmarks.report import Report, Row, Target
from hiersched.runtime import connection

ENGINES, FEW_ENGINES = 64, 4
STOCK = "ipyparallel's controller, its busiest process"


def old_engines(options: Options) -> Report:
    """Open descriptors while 64 engines of ipyparallel's are there."""
    report = Report("old_engines", "Engines of ipyparallel's own")
    n = FEW_ENGINES if options.quick else ENGINES
    root, leaf = _ours(n)
    stock = max(_stock(n))
    target = None if options.quick else Target(ratio_min=4.0)
    report.rows.append(Row("descriptors at the root", "", n, root, {STOCK: stock}, target))
    report.notes.append(f"The leaf that {n} of them are guests of has {leaf} descriptors.")
    return report


def _ours(n: int) -> tuple[int, int]:
    """Descriptors of the root, and of the leaf for guests."""
    with _running(n, controller="hiersched") as cluster:
        root = psutil.Process(connection.read(Path(cluster.controller.connection_files["client"])).pid)
        (leaf,) = [process for process in psutil.Process(root.ppid()).children() if process.pid != root.pid]
        return root.num_fds(), leaf.num_fds()


def _stock(n: int) -> list[int]:
    """Descriptors of each process of ipyparallel's controller."""
    with _running(n) as cluster:
        controller = psutil.Process(cluster.controller.pid)
        return [process.num_fds() for process in (controller, *controller.children(recursive=True))]


@contextlib.contextmanager
def _running(n: int, **launchers: str) -> Iterator[ipyparallel.Cluster]:
    """A cluster whose engines, all of them ipyparallel's, have come."""
    cluster = ipyparallel.Cluster(n=n, engines="local", log_level=40, engine_timeout=START_S_MAX, **launchers)
    client = cluster.start_and_connect_sync(activate=False)
    try:
        assert len(client.ids) == n
        yield cluster
    finally:
        client.close()
        cluster.stop_cluster_sync()


if __name__ == "__main__":
    main([old_engines])
