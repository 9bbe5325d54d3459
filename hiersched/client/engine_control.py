"""What a client does to the engines of its cluster, beside calling functions on them."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from hiersched.client.direct_view import DirectView
from hiersched.client.names import name_of, part_ids
from hiersched.client.signals import signal_number
from hiersched.client.targets import is_single, resolve_targets
from hiersched.data.namespace import clear
from hiersched.errors import NoEngines
from hiersched.limits import STOP_TIMEOUT_S

if TYPE_CHECKING:
    import distributed

    from hiersched.client.session import Session


class EngineControl:
    """The engines of one cluster. targets: an id, several, a slice, 'all' or None, which means all as well."""

    session: Session
    block: bool

    def _ids_of(self, targets: Any) -> tuple[int, ...]:
        """The engines that are meant. Raises UnknownEngine, NoEngines."""
        return resolve_targets(targets, self.session.engine_ids())

    def queue_status(self, targets: Any = "all", verbose: bool = False) -> dict[Any, Any]:
        """{engine id: {'queue', 'tasks', 'completed'}}, calls and tasks that it has to do and that it has done.

        Of all clients together. 'unassigned': tasks that no engine was given yet. Of a single id, its entry alone.
        verbose: ids in the places of counts, but of this client's last calls only, for schedulers keep no lists; where
        a task runs is known when it has ended, and until then it is among 'unassigned'.
        """
        ids = self._ids_of(targets)
        status = self._own_queues(ids) if verbose else self._queues(ids)
        return status[ids[0]] if is_single(targets) else status

    def _queues(self, ids: tuple[int, ...]) -> dict[Any, Any]:
        """How much these engines have to do."""
        queues = self.session.queues(ids)
        status: dict[Any, Any] = {
            queue.rank: {"queue": queue.calls, "tasks": queue.tasks, "completed": queue.completed}
            for queue in queues.engines
        }
        return {**status, "unassigned": queues.unassigned}

    def _own_queues(self, ids: tuple[int, ...]) -> dict[Any, Any]:
        """What these engines have to do for this client."""
        status: dict[Any, Any] = {engine: {"queue": [], "tasks": [], "completed": []} for engine in ids}
        unassigned = []
        for request, _, pending, end in self.session.records():
            name = name_of(request)
            if pending is None:
                parts = [] if end is None else [(name, end[1], True)]
            elif not pending.targets:
                unassigned.append(name)
                continue
            else:
                ended = [outcome is not None for outcome in pending.outcomes]
                parts = list(zip(part_ids(request, pending.targets), pending.targets, ended, strict=True))
            for part, engine, is_done in parts:
                if engine in status:
                    status[engine]["completed" if is_done else "queue"].append(part)
        return {**status, "unassigned": unassigned}

    def clear(self, targets: Any = None, block: bool | None = None) -> Any:
        """Empty the namespaces of these engines. An AsyncResult unless it blocks."""
        view = DirectView(self, "all" if targets is None else targets)  # type: ignore[arg-type]
        return view.apply_sync(clear) if self._blocks(block) else view.apply_async(clear)

    def send_signal(self, sig: int | str, targets: Any = None, block: bool | None = None) -> list[int]:
        """Send a signal, by number or name, to these engines; the ids of those to which it was sent.

        SIGINT stops whatever runs there. Raises UserError for what is no signal.
        """
        return self.session.order(self._ids_of(targets), "signal", signal_number(sig))

    def interrupt(self, targets: Any = None) -> list[int]:
        """`send_signal(SIGINT)`: KeyboardInterrupt is raised in what runs on these engines; the ids of those reached.

        To stop one call and nothing else, use its `AsyncResult.interrupt`.
        """
        return self.send_signal(signal.SIGINT, targets)

    def shutdown(
        self, targets: Any = "all", restart: bool = False, hub: bool = False, block: bool | None = None
    ) -> list[int]:
        """End these engines; the ids of those that were told to.

        restart: start others in their places, with the same ids. hub: end the whole cluster, schedulers and all. block:
        wait until they are gone, or with `restart` until the others are there.
        """
        session = self.session
        if hub:
            session.stop_cluster()
            return []
        try:
            ids = self._ids_of(targets)
        except NoEngines:
            return []
        before = session.arrivals(ids)
        told = session.order(ids, "restart" if restart else "stop")
        if self._blocks(block):
            gone = set(told)
            came = (
                (lambda: session.arrivals(told) >= before + len(told))
                if restart
                else (lambda: gone.isdisjoint(session.engine_ids()))
            )
            if not session.wait_for(came, 2 * STOP_TIMEOUT_S):
                raise TimeoutError(f"not all engines did so within {2 * STOP_TIMEOUT_S:.0f} s")
        return told

    def become_dask(
        self,
        targets: Any = "all",
        port: int = 0,
        nanny: bool = False,
        scheduler_args: dict[str, Any] | None = None,
        **worker_args: Any,
    ) -> distributed.Client:
        """A dask client of a dask.distributed cluster with a worker in each of these engines. See client.dask."""
        from hiersched.client import dask

        return dask.become_dask(self, targets, port, nanny, scheduler_args, **worker_args)  # type: ignore[arg-type]

    def stop_dask(self, targets: Any = "all") -> None:
        """End the dask workers of these engines, and with the last of them dask's scheduler."""
        from hiersched.client import dask

        dask.stop_dask(self, targets)  # type: ignore[arg-type]

    become_distributed = become_dask
    stop_distributed = stop_dask

    def _blocks(self, block: bool | None) -> bool:
        return self.block if block is None else block
