"""Load-balanced work: tasks wait for credit and go down in batches, results come up in batches."""

from __future__ import annotations

from collections.abc import Sequence

from hiersched.core.blobs import BlobLedger
from hiersched.core.dispatch import Dispatcher, Flight
from hiersched.core.effects import PARENT, Link
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.outbox import Outbox
from hiersched.limits import CLIENTS_MAX, TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, batches


class Work:
    """The tasks of one scheduler, and the results it is about to pass on."""

    def __init__(self, outbox: Outbox, membership: Membership, blobs: BlobLedger) -> None:
        self.dispatcher = Dispatcher()
        self._outbox = outbox
        self._membership = membership
        self._blobs = blobs
        self._results: dict[Link, tuple[list[m.Result], list[Frame]]] = {}

    def on_tasks(self, link: Link, batch: m.Tasks, frames: Sequence[Frame], now: float) -> None:
        """Take on a batch."""
        self._outbox.counts["tasks"] += len(batch.tasks)
        if len(self.dispatcher.flights) + len(batch.tasks) > TASKS_IN_FLIGHT_PER_CLIENT_MAX * CLIENTS_MAX:
            for task in batch.tasks:
                self._end(link, task.id, m.REFUSED, "the scheduler holds as many tasks as it may")
            return
        self._blobs.named(link, _digests_of(batch.tasks))
        self.dispatcher.submit(batch.tasks, frames, link)

    def on_results(self, child: Neighbour, batch: m.Results, frames: Sequence[Frame]) -> None:
        """Take in what a child's engines answer."""
        start = 0
        for result, flight in zip(batch.results, self.dispatcher.settle(child, batch.results), strict=True):
            end = start + result.frames
            if flight is None:
                self._outbox.counts["late"] += 1
            elif result.code == m.ENGINE_UNKNOWN and self._membership.members:
                self.dispatcher.requeue(flight)  # it did not run there; it can elsewhere
            else:
                results, result_frames = self._results_for(flight.owner)
                results.append(result)
                result_frames.extend(frames[start:end])
            start = end

    def on_cancel(self, link: Link, cancel: m.Cancel, frames: Sequence[Frame], now: float) -> None:
        """Withdraw what waits here; pass on the rest to where it is."""
        for flight in self._withdraw(cancel.tasks, link):
            self._end(flight.owner, flight.task.id, m.CANCELLED, "cancelled before it started")

    def on_lost(self, child: Neighbour, reason: str) -> None:
        """A child is gone, with the tasks it held."""
        for flight in self.dispatcher.lose(child):
            self._end(flight.owner, flight.task.id, m.ENGINE_LOST, reason, child.first)

    def forget_owner(self, link: Link) -> None:
        """A client is gone: what has not started never will, and nobody wants the other results."""
        self._withdraw(self.dispatcher.owned_by(link), link)
        self._results.pop(link, None)

    @property
    def busy(self) -> bool:
        """Something waits to be handed out or passed on."""
        return bool(self.dispatcher.flights or self._results)

    def hand_out(self) -> None:
        """Give waiting tasks to children that have credit."""
        if not len(self.dispatcher):
            return
        for child, flights in self.dispatcher.assign(self._membership.children.values()):
            tasks = [flight.task for flight in flights]
            frames = [frame for flight in flights for frame in flight.frames]
            for these, theirs in batches(tasks):
                self._blobs.supply(child.link, sorted(_digests_of(tasks[these])), self._outbox)
                self._outbox.send(child.link, m.Tasks(tasks[these]), frames[theirs])
        if len(self.dispatcher) and not self._membership.members:
            for flight in self.dispatcher.drain():  # to be run elsewhere, or reported
                self._end(flight.owner, flight.task.id, m.ENGINE_UNKNOWN, "no engine is left")

    def pass_on(self) -> None:
        """Send the results that have gathered to those who still wait for them."""
        for link, (results, frames) in self._results.items():
            if link == PARENT or link in self._membership.clients:
                for these, theirs in batches(results):
                    self._outbox.send(link, m.Results(results[these]), frames[theirs])
        self._results.clear()

    def _withdraw(self, ids: Sequence[m.TaskId], owner: Link) -> list[Flight]:
        withdrawn, further = self.dispatcher.cancel(ids, owner)
        for child, their_ids in further.items():
            self._outbox.send(child, m.Cancel(their_ids))
        return withdrawn

    def _end(self, owner: Link, task: m.TaskId, code: int, text: str, rank: int = 0) -> None:
        results, _ = self._results_for(owner)
        results.append(m.Result(task, rank, 0, code, text.encode(), 0))

    def _results_for(self, owner: Link) -> tuple[list[m.Result], list[Frame]]:
        entry = self._results.get(owner)
        if entry is None:
            entry = self._results[owner] = ([], [])
        return entry


def _digests_of(tasks: Sequence[m.Task]) -> set[m.Digest]:
    digests = {task.function for task in tasks}
    for task in tasks:
        if task.needs:
            digests.update(task.needs)
    return digests
