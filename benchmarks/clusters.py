"""The two systems whose engines are addressed by number: hiersched and stock ipyparallel."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.functions import nothing
from benchmarks.peer import OURS, START_S_MAX, Edges, ExecutorPeer, Function, Items, Peer


class Hiersched(ExecutorPeer):
    """Ours. One call goes to one named engine; submits go through the executor."""

    label = OURS

    def load(self) -> None:
        """Import hiersched."""
        import hiersched

        self._package = hiersched

    def start(self, n: int) -> None:
        """A cluster with the plan it chooses by itself."""
        self._cluster = self._package.Cluster(n=n)
        self._client = self._cluster.start_and_connect_sync()
        self._all = self._client[:]
        assert len(set(self.engine_pids())) == n
        self._one = self._client[0]
        self._balanced = self._client.load_balanced_view()
        self.executor = self._client.executor()

    def stop(self) -> None:
        """Stop the cluster."""
        self._cluster.stop_cluster_sync()

    def engine_pids(self) -> list[int]:
        """Process ids of the engines."""
        return self._all.apply_sync(os.getpid)

    def one_call(self) -> object:
        """A no-op on engine 0."""
        return self._one.apply_sync(nothing)

    def all_call(self, function: Function, *arguments: object, view: str = "") -> list[object]:
        """`function(*arguments)` on every engine. There is one kind of view, so `view` is not used."""
        return self._all.apply_sync(function, *arguments)

    def magic(self, line: str) -> bool:
        """A cell with a magic in a shell of this process. Whether it ran without an error."""
        return run_cell(self._client[:], line)

    def printed(self, code: str) -> list[str]:
        """What `code` prints on every engine, all of it."""
        result = self._all.execute(code)
        result.get()
        return result.stdout

    def run_graph(self, edges: Edges, function: Function) -> list[object]:
        """A task for each entry, whose arguments are the results of those that it names."""
        submit = self._balanced.apply_async
        tasks: list[Any] = []
        for named in edges:
            tasks.append(submit(function, *[tasks[number] for number in named]))
        return [task.get() for task in tasks]

    def ordered_graph(self, edges: Edges, function: Function) -> list[object]:
        """A task for each entry, which starts when those that it names have ended."""
        view, tasks = self._balanced, []
        for named in edges:
            with view.temp_flags(after=[tasks[number] for number in named]):
                tasks.append(view.apply_async(function))
        return [task.get() for task in tasks]

    def submit_sleeps(self, seconds: Sequence[float]) -> list[object]:
        """A task for each, that takes so long."""
        results = [self._balanced.apply_async(time.sleep, duration) for duration in seconds]
        return [result.get() for result in results]

    def push_all(self, value: object, *, view: str = "") -> None:
        """`value` into the namespace of every engine."""
        self._all.push({"value": value}, block=True)

    def pushed(self) -> object:
        """What the last push left on engine 0."""
        return self._one.pull("value", block=True)

    def map_many(self, function: Function, items: Items, *, chunksize: int | None = None) -> list[object]:
        """`function` of each of `items` through the load-balanced view; None chooses the chunks by itself."""
        return self._balanced.map_sync(function, items, chunksize=chunksize)

    def executor_map_many(self, function: Function, items: Items) -> list[object]:
        """`function` of each of `items` through the executor, which chooses the chunks by itself."""
        return list(self.executor.map(function, items))


class Ipyparallel(Peer):
    """Stock ipyparallel with its default controller. `view` is direct, broadcast or coalescing."""

    label = "ipyparallel"
    launchers: Mapping[str, str] = {}

    def load(self) -> None:
        """Import ipyparallel."""
        import ipyparallel

        self._package = ipyparallel

    def start(self, n: int) -> None:
        """A cluster of local processes, as `ipp.Cluster(n=n)` starts it."""
        self._cluster = self._package.Cluster(n=n, log_level=40, engine_timeout=START_S_MAX, **self.launchers)
        self._client = self._cluster.start_and_connect_sync(activate=False)
        self._views = {
            "direct": self._client[:],
            "broadcast": self._client.broadcast_view(),
            "coalescing": self._client.broadcast_view(is_coalescing=True),
        }
        assert len(set(self.engine_pids())) == n
        self._one = self._client[0]
        self._balanced = self._client.load_balanced_view()

    def stop(self) -> None:
        """Close the client and stop the cluster."""
        self._client.close()
        self._cluster.stop_cluster_sync()

    def engine_pids(self) -> list[int]:
        """Process ids of the engines."""
        return self._views["direct"].apply_sync(os.getpid)

    def one_call(self) -> object:
        """A no-op on engine 0 through a DirectView."""
        return self._one.apply_sync(nothing)

    def all_call(self, function: Function, *arguments: object, view: str) -> list[object]:
        """`function(*arguments)` on every engine."""
        return self._views[view].apply_sync(function, *arguments)

    def magic(self, line: str) -> bool:
        """A cell with a magic in a shell of this process. Whether it ran without an error."""
        return run_cell(self._views["direct"], line)

    def printed(self, code: str) -> list[str]:
        """What `code` prints on every engine, all of it: output comes another way than results."""
        result = self._views["direct"].execute(code, silent=False)
        result.get()
        result.wait_for_output()
        return result.stdout

    def submit_sleeps(self, seconds: Sequence[float]) -> list[object]:
        """A task for each, that takes so long."""
        results = [self._balanced.apply_async(time.sleep, duration) for duration in seconds]
        return [result.get() for result in results]

    def push_all(self, value: object, *, view: str) -> None:
        """`value` into the namespace of every engine."""
        self._views[view].push({"value": value}, block=True)

    def pushed(self) -> object:
        """What the last push left on engine 0."""
        return self._one.pull("value", block=True)

    def submit_many(self, count: int) -> list[object]:
        """`count` no-ops through the load-balanced view, one apply_async each."""
        apply_async = self._balanced.apply_async
        results = [apply_async(nothing) for _ in range(count)]
        return [result.get() for result in results]

    def map_many(self, function: Function, items: Items, *, chunksize: int = 1) -> list[object]:
        """`function` of each of `items` through the load-balanced view."""
        return self._balanced.map_sync(function, items, chunksize=chunksize)


class OldClient(Ipyparallel):
    """ipyparallel's own client, unchanged, with our controller and engines."""

    label = "ipyparallel's client on hiersched"
    launchers: Mapping[str, str] = {"controller": "hiersched", "engines": "hiersched"}


def run_cell(view: Any, line: str) -> bool:
    """A cell in this process's shell, with the magics of `view`. Whether it ran without an error."""
    from IPython.core.interactiveshell import InteractiveShell

    shell = InteractiveShell.instance()
    if "px" not in shell.magics_manager.magics["line"]:
        view.block = True
        view.activate()
    return bool(shell.run_cell(line, store_history=False).success)
