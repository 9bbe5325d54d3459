"""What old clients asked for and how it ended: the book-keeping of ipyparallel's hub.

The door tells it of every request, answer and piece of output, so that must cost next to nothing: references are noted,
and records are built and written only when somebody queries them (`save` comes first then), or when too much waits.
What a database in memory would drop at once, because newer records fill it, is never written at all; one on disk is
written to in batches. A broadcast is one note until its parts end one by one.

A database that fails costs records, never requests: failures are counted, the first is logged, queries tell of them.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import sqlite3
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from ipyparallel.controller.dictdb import BaseDB, DictDB, NoDB
from ipyparallel.controller.sqlitedb import SQLiteDB

from hiersched.compat.task_records import Answer, Entry, Printed, Record, changes, whole_record
from hiersched.compat.wire import Message
from hiersched.limits import (
    ENGINES_MAX,
    RECORDS_ENDED_MAX,
    RECORDS_LOCK_TIMEOUT_S,
    RECORDS_PENDING_MAX,
    RECORDS_UNSAVED_BYTES_MAX,
    RECORDS_UNSAVED_MAX,
)
from hiersched.protocol.framing import Frame

_log = logging.getLogger("hiersched.compat.records")


class Broadcast:
    """One request to many engines. msg_ids: by engine; all the same if one answer is to come for all of them.

    left: answers to come.
    """

    __slots__ = ("_engines", "left", "message", "msg_ids", "shared")

    def __init__(self, message: Message, msg_ids: Mapping[str, str]) -> None:
        self.message = msgspec.structs.replace(message, buffers=[])
        self.msg_ids = msg_ids
        self.left = len(set(msg_ids.values()))
        self.shared = self.left < len(msg_ids)
        self._engines: dict[str, str] | None = None

    def entry(self, engine: str | None) -> Entry:
        """The part of one engine. Without payload, which the database would count, or write, once for each engine."""
        entry = Entry(self.message, "broadcast", None if self.shared else engine)
        entry.broadcast = self
        return entry

    def engine_of(self, msg_id: str) -> str | None:
        """The engine that answers under this id."""
        if self._engines is None:
            self._engines = {own: uuid for uuid, own in self.msg_ids.items()}
        return self._engines.get(msg_id)


@dataclass
class Backlog:
    """Ids of what has not ended. queue, tasks: by uuid of the engine that has it."""

    queue: dict[str, list[str]] = field(default_factory=dict)
    tasks: dict[str, list[str]] = field(default_factory=dict)
    unassigned: list[str] = field(default_factory=list)


class Records:
    """db: one of ipyparallel's. failures: how often it failed. dropped: records that were lost by that.

    completed: by uuid, how many requests ended on that engine. keeps: whether the database keeps anything at all.
    """

    def __init__(self, db: BaseDB) -> None:
        self.db = db
        self.failures = self.dropped = 0
        self.completed: Counter[str] = Counter()
        self._pending: dict[str, Entry | Broadcast] = {}
        self._broadcasts: dict[str, Broadcast] = {}  # open ones, by the id that the client gave them
        self._done: OrderedDict[str, Entry] = OrderedDict()  # ended, and not saved as they are
        self._ended: OrderedDict[str, str | None] = OrderedDict()  # the ids of the latest, and their engines
        self._held_bytes = 0
        self.keeps = not isinstance(db, NoDB)
        limit = db.record_limit if isinstance(db, DictDB) else RECORDS_UNSAVED_MAX + 1
        self._forgets = limit <= RECORDS_UNSAVED_MAX
        self._done_max = limit if self._forgets else RECORDS_UNSAVED_MAX // 4
        self._is_failing = False
        if isinstance(db, SQLiteDB):  # who else has it open shall not hold up the door
            db._db.execute(f"PRAGMA busy_timeout = {round(1000 * RECORDS_LOCK_TIMEOUT_S)}")

    # --- told by the door ---------------------------------------------------------------------------------------------

    def asked(self, message: Message, *, queue: str, msg_id: str | None = None, engine: str | None = None) -> None:
        """A request came in. queue: 'mux', 'task' or 'broadcast'. engine: the uuid of the one it is for."""
        entry = Entry(message, queue, engine, message.buffers) if self.keeps else Entry(None, queue, engine)
        self._pending[message.header["msg_id"] if msg_id is None else msg_id] = entry
        self._hold(entry.size)

    def asked_all(self, message: Message, msg_ids: Mapping[str, str]) -> None:
        """A request to many engines came in. msg_ids: by uuid, under which each answers."""
        if msg_ids:
            self._broadcasts[message.msg_id] = broadcast = Broadcast(message, msg_ids)
            self._pending.update(dict.fromkeys(msg_ids.values(), broadcast))
            self._hold(0)

    def assigned(self, msg_id: str, uuid: str) -> None:
        """A task was given to this engine."""
        entry = self._pending.get(msg_id)
        if isinstance(entry, Entry):
            entry.engine = uuid
            entry.changed = True

    def answered(
        self,
        msg_id: str,
        *,
        uuid: str | None,
        header: dict[str, Any],
        metadata: dict[str, Any],
        content: dict[str, Any],
        buffers: Sequence[Frame],
    ) -> None:
        """A request ended. uuid: the engine it ended on, if any."""
        entry = self._end(msg_id, uuid)
        if metadata.get("status") != "aborted" and content.get("status") != "aborted":
            self._count(entry, uuid)
        self._ended[msg_id] = uuid
        if len(self._ended) > RECORDS_ENDED_MAX:
            self._ended.popitem(last=False)
        if self.keeps:
            entry.answer = Answer(header, metadata, content, buffers, time.time())
            self._settle(msg_id, entry, sum(map(len, buffers)))

    def printed(self, msg_id: str, msg_type: str, content: dict[str, Any]) -> None:
        """A request printed or displayed something, perhaps after it ended."""
        if not self.keeps:
            return
        entry = self._entry_of(msg_id)
        if entry is None:
            return
        if entry.printed is None:
            entry.printed = self._printed_before(msg_id) if entry.saved else Printed()
        size = entry.printed.take(msg_type, content)
        if not size:
            return
        if msg_id in self._pending:
            entry.changed = True
            entry.size += size
            self._hold(size)
        else:
            self._settle(msg_id, entry, size)

    # --- asked by the hub ---------------------------------------------------------------------------------------------

    def is_pending(self, msg_id: str) -> bool:
        """It has not ended."""
        return msg_id in self._pending

    def has_ended(self, msg_id: str) -> bool:
        """It has, lately, and was not purged."""
        return msg_id in self._ended

    def backlog(self) -> Backlog:
        """What has not ended, by engine."""
        found = Backlog()
        for msg_id, entry in self._pending.items():
            if isinstance(entry, Broadcast) or entry.broadcast is not None:
                continue
            if entry.queue == "task" and entry.engine is None:
                found.unassigned.append(msg_id)
            elif entry.engine is not None:
                lists = found.tasks if entry.queue == "task" else found.queue
                lists.setdefault(entry.engine, []).append(msg_id)
        for broadcast in self._broadcasts.values():
            for uuid, msg_id in broadcast.msg_ids.items():
                if msg_id in self._pending:
                    found.queue.setdefault(uuid, []).append(msg_id)
        return found

    def ended_on(self) -> dict[str, list[str]]:
        """Ids of what ended lately and was not purged, by uuid of the engine."""
        found: dict[str, list[str]] = {}
        for msg_id, uuid in self._ended.items():
            if uuid is not None:
                found.setdefault(uuid, []).append(msg_id)
        return found

    def forget(self, msg_ids: Iterable[str] | None = None, *, engine: str | None = None) -> None:
        """The records of these, or of an engine, or by default of all that ended, were purged."""
        if engine is not None:
            msg_ids = [msg_id for msg_id, uuid in self._ended.items() if uuid == engine]
        for msg_id in list(self._ended) if msg_ids is None else msg_ids:
            self._ended.pop(msg_id, None)

    # --- the database -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write everything to the database. Raises what it raises, and stops there; one record is lost with it."""
        if not self.keeps:
            return
        try:
            self._save_all()
        except Exception as error:  # of a foreign class, over a disk or a network
            self._note_failure(error)
            raise
        self._is_failing = False
        self._held_bytes = 0

    def save_quietly(self) -> None:
        """Write everything. If the database fails, that is counted, and logged the first time."""
        with contextlib.suppress(Exception):  # `save` has noted it
            self.save()

    def keep_on_disk(self) -> None:
        """Write everything if the database outlives this process. To be called every RECORDS_SAVE_PERIOD_S."""
        if not self._forgets and (self._done or self._pending):
            self.save_quietly()

    def close(self) -> None:
        """Write everything if it outlives this process, and leave the database."""
        self.keep_on_disk()
        try:
            self.db.close()
        except Exception as error:  # of a foreign class, over a disk or a network
            self._note_failure(error)

    def _save_all(self) -> None:
        while self._done:
            msg_id, entry = self._done.popitem(last=False)
            self._write(msg_id, entry)
        for broadcast in self._broadcasts.values():
            for uuid, msg_id in broadcast.msg_ids.items():
                if self._pending.get(msg_id) is broadcast:
                    self._pending[msg_id] = broadcast.entry(uuid)
        for msg_id, left in self._pending.items():
            if isinstance(left, Entry) and (left.changed or not left.saved):
                self._write(msg_id, left)
        if isinstance(self.db, DictDB) and len(self.db._culled_ids) > RECORDS_ENDED_MAX:
            self.db._culled_ids.clear()  # which it does itself for none of all that it ever had

    def _write(self, msg_id: str, entry: Entry) -> None:
        try:
            if not entry.saved:
                self._add(msg_id, whole_record(msg_id, entry))
            else:
                with contextlib.suppress(KeyError):  # it was culled or purged meanwhile
                    self.db.update_record(msg_id, changes(entry))
        except Exception:
            self.dropped += 1
            raise
        finally:  # written or lost: if the record is what is bad, the others shall not wait for it
            self._held_bytes -= entry.let_go()

    def _add(self, msg_id: str, record: Record) -> None:
        try:
            self.db.add_record(msg_id, record)
        except (KeyError, sqlite3.IntegrityError):  # its client has used this id before
            self.db.update_record(msg_id, record)

    def _note_failure(self, error: Exception) -> None:
        self.failures += 1
        self._is_failing = True
        if self.failures == 1:
            _log.error("the task database fails, requests go on without records: %s: %s", type(error).__name__, error)

    # --- bounds -------------------------------------------------------------------------------------------------------

    def _hold(self, size: int) -> None:
        """So much more is held for a request that has not ended."""
        self._held_bytes += size
        if self._held_bytes > RECORDS_UNSAVED_BYTES_MAX or len(self._pending) > RECORDS_PENDING_MAX:
            self._shed()

    def _settle(self, msg_id: str, entry: Entry, size: int) -> None:
        """It ended and waits to be written. If too much does: write it, or forget the oldest."""
        entry.changed = True
        entry.size += size
        self._held_bytes += size
        self._done[msg_id] = entry
        if len(self._done) > self._done_max:
            if self._forgets:
                self._outdate()
            elif not self._is_failing:
                self.save_quietly()
            elif len(self._done) > RECORDS_UNSAVED_MAX:
                self._drop_oldest()
        if self._held_bytes > RECORDS_UNSAVED_BYTES_MAX:
            self._shed()

    def _shed(self) -> None:
        """Hold less: write it down, or, where the database fails, let it go."""
        self.save_quietly()
        if self._is_failing:
            while self._done:
                self._drop_oldest()
            for entry in self._pending.values():
                if isinstance(entry, Entry):
                    entry.buffers, entry.size = (), 0
            self._held_bytes = 0
        if len(self._pending) > RECORDS_PENDING_MAX:
            for msg_id in list(itertools.islice(self._pending, RECORDS_PENDING_MAX // 8)):
                self._end(msg_id, None)  # its answer finds the record in the database

    def _outdate(self) -> None:
        """Newer records fill the database: the oldest would be gone from it as soon as it were written."""
        msg_id, entry = self._done.popitem(last=False)
        self._held_bytes -= entry.size
        if entry.saved:
            with contextlib.suppress(KeyError):  # it was culled already
                self.db.drop_record(msg_id)

    def _drop_oldest(self) -> None:
        _, entry = self._done.popitem(last=False)
        self._held_bytes -= entry.size
        self.dropped += 1

    # --- entries ------------------------------------------------------------------------------------------------------

    def _end(self, msg_id: str, uuid: str | None) -> Entry:
        """Take it out of what is pending. What was not is one that only the database may know."""
        entry = self._pending.pop(msg_id, None)
        if entry is None:
            entry = Entry(None, "", uuid)
            entry.saved = True
            return entry
        if isinstance(entry, Broadcast):
            entry = entry.entry(uuid)
        elif uuid is not None and entry.broadcast is None:
            entry.engine = uuid
        broadcast: Broadcast | None = entry.broadcast
        if broadcast is not None:
            broadcast.left -= 1
            if not broadcast.left and self._broadcasts.get(broadcast.message.msg_id) is broadcast:
                del self._broadcasts[broadcast.message.msg_id]
        return entry

    def _count(self, entry: Entry, uuid: str | None) -> None:
        if entry.broadcast is not None and entry.broadcast.shared:
            self.completed.update(list(entry.broadcast.msg_ids))
        elif uuid is not None:
            self.completed[uuid] += 1
        while len(self.completed) > 2 * ENGINES_MAX:  # those of engines long gone
            del self.completed[next(iter(self.completed))]

    def _entry_of(self, msg_id: str) -> Entry | None:
        """Where to note what it printed; None if nobody knows of it."""
        entry = self._pending.get(msg_id)
        if isinstance(entry, Broadcast):
            entry = self._pending[msg_id] = entry.entry(entry.engine_of(msg_id))
        if entry is None:
            entry = self._done.get(msg_id)
        if entry is None and msg_id in self._ended:
            entry = Entry(None, "", None)
            entry.saved = True
        return entry

    def _printed_before(self, msg_id: str) -> Printed:
        """What the database has of it."""
        try:
            found: Record = self.db.get_record(msg_id)
        except KeyError:  # it is not kept any more
            return Printed()
        except Exception as error:
            self._note_failure(error)
            return Printed()
        return Printed(found["stdout"] or "", found["stderr"] or "")
