"""What ipyparallel's hub answers to clients: who is there, what there is to do, what was done.

Every query gets its reply, or a 'hub_error' that says why not; nothing that a client sends raises here. What is asked
for and not there is told in the reply of the query's own type, as clients of the hub are used to.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hiersched.compat.contents import OK, error_content
from hiersched.compat.dask_on_engines import stand_in
from hiersched.compat.dask_process import DaskProcess
from hiersched.compat.exchange import Exchange
from hiersched.compat.record_queries import Answer, Content, RecordQueries
from hiersched.compat.records import Records
from hiersched.compat.roster import Roster
from hiersched.compat.wire import Message, Wire
from hiersched.data.serialize import Packer
from hiersched.protocol.framing import Frame


class Hub:
    """send: takes the frames of a reply. shut_down: ends the cluster. run_task: takes the message of a task that is to
    run again, as if a client had sent it.
    """

    def __init__(
        self,
        wire: Wire,
        roster: Roster,
        records: Records,
        exchange: Exchange,
        *,
        send: Callable[[list[Frame]], None],
        shut_down: Callable[[], None],
        run_task: Callable[[Message], None],
    ) -> None:
        self._wire, self._roster, self._records = wire, roster, records
        self._exchange, self._packer = exchange, Packer()
        self._send, self._shut_down = send, shut_down
        self._dask: DaskProcess | None = None
        queries = RecordQueries(wire, roster, records, run_task)
        self._of_records: dict[str, Callable[[Content], Answer]] = {
            "result_request": queries.results,
            "history_request": queries.history,
            "db_request": queries.find,
            "purge_request": queries.purge,
            "resubmit_request": queries.resubmit,
        }
        self._of_cluster: dict[str, Callable[[Message], Content | None]] = {
            "connection_request": self._connection,
            "queue_request": self._queues,
            "load_request": self._load,
            "shutdown_request": self._shutdown,
            "become_dask_request": self._become_dask,
            "stop_distributed_request": self._stop_dask,
        }

    def answer(self, message: Message) -> None:
        """Answer a query, now or, if it takes a while, later."""
        try:
            self._answer(message)
        except Exception as error:  # whatever it is, who asked shall know
            self._reply(message, "hub_error", error_content(error))

    def close(self) -> None:
        """End what was started for clients."""
        if self._dask is not None:
            self._dask.close()
            self._dask = None

    def _answer(self, message: Message) -> None:
        kind = message.msg_type
        if kind in self._of_records:
            reply = message.reply_type
            try:
                content, buffers = self._of_records[kind](message.content)
            except LookupError as error:
                content, buffers = error_content(error), ()
            self._send(
                self._wire.pack(reply, content, parent=message.header_raw, idents=message.idents, buffers=buffers)
            )
        elif kind in self._of_cluster:
            told = self._of_cluster[kind](message)
            if told is not None:
                self._reply(message, message.reply_type, told)
        else:
            raise KeyError(f"Bad Message Type: {kind!r}")

    def _reply(self, message: Message, msg_type: str, content: Content) -> None:
        self._send(self._wire.pack(msg_type, content, parent=message.header_raw, idents=message.idents))

    # --- the cluster --------------------------------------------------------------------------------------------------

    def _connection(self, message: Message) -> Content:
        return {**OK, "engines": {str(rank): self._roster.uuid_of(rank) for rank in self._roster.ranks()}}

    def _queues(self, message: Message) -> Content:
        ranks = self._ranks_of(message.content["targets"])
        backlog = self._records.backlog()
        if not message.content.get("verbose", False):
            found = {
                str(rank): {
                    "queue": len(backlog.queue.get(uuid, ())),
                    "completed": self._records.completed[uuid],
                    "tasks": len(backlog.tasks.get(uuid, ())),
                }
                for rank, uuid in self._named(ranks)
            }
            return {**OK, **found, "unassigned": len(backlog.unassigned)}
        ended = self._records.ended_on()
        listed = {
            str(rank): {
                "queue": backlog.queue.get(uuid, []),
                "completed": ended.get(uuid, []),
                "tasks": backlog.tasks.get(uuid, []),
            }
            for rank, uuid in self._named(ranks)
        }
        return {**OK, **listed, "unassigned": backlog.unassigned}

    def _load(self, message: Message) -> Content:
        ranks = self._ranks_of(message.content.get("targets"))
        backlog = self._records.backlog()
        loads = {
            str(rank): len(backlog.queue.get(uuid, ())) + len(backlog.tasks.get(uuid, ()))
            for rank, uuid in self._named(ranks)
        }
        return {**OK, **loads}

    def _shutdown(self, message: Message) -> None:
        self._reply(message, "shutdown_reply", OK)
        self._shut_down()

    def _named(self, ranks: list[int]) -> list[tuple[int, str]]:
        return [(rank, self._roster.uuid_of(rank)) for rank in ranks]

    def _ranks_of(self, targets: Any) -> list[int]:
        """The engines that are meant: ids or uuids, one or several; None: all. Raises IndexError."""
        if targets is None:
            return self._roster.ranks()
        if isinstance(targets, (int, str)):
            targets = [targets]
        ranks: list[int] = []
        bad = []
        for target in targets:
            rank = self._roster.rank_of(target) if isinstance(target, str) else target
            if type(rank) is int and rank in self._roster:
                ranks.append(rank)
            else:
                bad.append(target)
        if bad:
            raise IndexError(f"No Such Engine: {bad!r}")
        if not ranks:
            raise IndexError("No Engines Registered")
        return ranks

    # --- dask ---------------------------------------------------------------------------------------------------------

    def _become_dask(self, message: Message) -> None:
        if self._dask is None or self._dask.ended:
            self._dask = DaskProcess(message.content.get("scheduler_args") or {})
        self._dask.when_known(partial(self._on_dask, message))

    def _on_dask(self, message: Message, content: Content) -> None:
        """A dask scheduler is there, or could not be: prepare our engines for the workers, then tell."""
        ranks = self._roster.ranks()
        if not ranks or content["status"] != "ok":
            self._reply(message, "become_dask_reply", content)
            return
        pending = self._exchange.call(ranks, self._packer.pack_call(stand_in))
        pending.add_done_callback(lambda pending: self._reply(message, "become_dask_reply", content))
        self._exchange.flush()

    def _stop_dask(self, message: Message) -> Content:
        self.close()
        return OK
