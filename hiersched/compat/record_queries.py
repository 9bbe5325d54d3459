"""What old clients ask of the task database: results, history, records; to purge some, to run some again."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hiersched.compat import db_queries
from hiersched.compat.records import Records
from hiersched.compat.roster import Roster
from hiersched.compat.task_records import Record, told
from hiersched.compat.wire import Message, Wire, date_text
from hiersched.limits import RECORDS_PER_QUERY_MAX
from hiersched.protocol.framing import Frame

Content = dict[str, Any]
Answer = tuple[Content, Sequence[Frame]]

_IO_KEYS = ("execute_input", "execute_result", "error", "stdout", "stderr")
_RESULT_KEYS = ("header", "metadata", "result_metadata", "result_header", "result_content", "received")


class RecordQueries:
    """Each query takes a request's content and gives the reply's, with buffers.

    All raise KeyError or IndexError for what is not there, TypeError for a content that is no query, and what the
    database raises. run_task: takes the message of a task that is to run again.
    """

    def __init__(self, wire: Wire, roster: Roster, records: Records, run_task: Callable[[Message], None]) -> None:
        self._wire, self._roster, self._records = wire, roster, records
        self._run_task = run_task

    def results(self, content: Content) -> Answer:
        """The state of these requests, and how those ended that have; buffers in the order of sorted ids."""
        msg_ids = sorted(set(_texts(content["msg_ids"])))
        only_status = bool(content.get("status_only", False))
        records = self._records
        records.save()
        reply: Content = {"status": "ok", "pending": [], "completed": []}
        buffers: list[Frame] = []
        for msg_id in msg_ids:
            if records.is_pending(msg_id):
                reply["pending"].append(msg_id)
            elif only_status and records.has_ended(msg_id):
                reply["completed"].append(msg_id)
            else:
                record = records.db.get_record(msg_id)
                reply["completed" if record["completed"] else "pending"].append(msg_id)
                if record["completed"] and not only_status:
                    reply[msg_id] = _result_of(record)
                    buffers += record["result_buffers"] or ()
        return reply, buffers

    def history(self, content: Content) -> Answer:
        """The ids of all requests that are in the database, by the time they were submitted."""
        self._records.save()
        return {"status": "ok", "history": self._records.db.get_history()}, ()

    def find(self, content: Content) -> Answer:
        """The records that match a query, of each the keys asked for; buffers only where they were."""
        query = db_queries.rewritten(content.get("query", {}))
        keys = content.get("keys")
        keys = None if keys is None else [keys] if isinstance(keys, str) else list(_texts(keys))
        self._records.save()
        found = self._records.db.find_records(query, None if keys is None else list(keys))
        lengths: dict[str, list[int] | None] = {
            key: [] if keys is not None and key in keys else None for key in ("buffers", "result_buffers")
        }
        buffers: list[Frame] = []
        for record in found:
            for key, counted in lengths.items():
                own = record.pop(key, None) or ()
                if counted is not None:
                    counted.append(len(own))
                    buffers += own
        reply = {
            "status": "ok",
            "records": [told(record) for record in found],
            "buffer_lens": lengths["buffers"],
            "result_buffer_lens": lengths["result_buffers"],
        }
        return reply, buffers

    def purge(self, content: Content) -> Answer:
        """Forget the records of these requests, or of 'all' that ended, and what ended on these engines.

        Nothing is forgotten if one of the requests has not ended, or one of the engines is not there.
        """
        msg_ids = content.get("msg_ids", [])
        engines = [self._uuid_of(engine) for engine in content.get("engine_ids") or ()]
        records = self._records
        if msg_ids == "all":
            records.save()
            records.db.drop_matching_records({"completed": {"$ne": None}})
            records.forget()
        else:
            msg_ids = list(_texts(msg_ids))
            pending = next((msg_id for msg_id in msg_ids if records.is_pending(msg_id)), None)
            if pending is not None:
                raise IndexError(f"msg pending: {pending!r}")
            records.save()
            for part in _in_parts(msg_ids):
                records.db.drop_matching_records({"msg_id": {"$in": part}})
            records.forget(msg_ids)
        for engine in engines:
            records.db.drop_matching_records({"engine_uuid": {"$eq": engine}, "completed": {"$ne": None}})
            records.forget(engine=engine)
        return {"status": "ok"}, ()

    def resubmit(self, content: Content) -> Answer:
        """Run these tasks again, under new ids: {old: new}. Those that have not ended too."""
        msg_ids = list(dict.fromkeys(_texts(content["msg_ids"])))
        records = self._records
        records.save()
        found = {msg_id: record for msg_id in msg_ids if (record := self._record_of(msg_id)) is not None}
        missing = [msg_id for msg_id in msg_ids if msg_id not in found]
        if missing:
            raise KeyError(f"No such msg(s): {missing!r}")
        others = [msg_id for msg_id, record in found.items() if record["queue"] != "task"]
        if others:
            raise ValueError(f"only load-balanced tasks can be run again, these are none: {others!r}")
        resubmitted = {msg_id: self._run_again(record) for msg_id, record in found.items()}
        for old, new in resubmitted.items():
            records.db.update_record(old, {"resubmitted": new})
        return {"status": "ok", "resubmitted": resubmitted}, ()

    def _run_again(self, record: Record) -> str:
        msg_id = uuid.uuid4().hex
        header = {**record["header"], "msg_id": msg_id, "date": date_text()}
        message = Message([], header, self._wire.encode(header), {}, {}, record["content"], record["buffers"] or [])
        self._run_task(message)
        return msg_id

    def _record_of(self, msg_id: str) -> Record | None:
        try:
            return self._records.db.get_record(msg_id)  # type: ignore[no-any-return]
        except KeyError:
            if not self._records.keeps:
                raise  # it says that this database keeps nothing
            return None

    def _uuid_of(self, engine: Any) -> str:
        if type(engine) is not int or engine not in self._roster:
            raise IndexError(f"No such engine: {engine!r}")
        return self._roster.uuid_of(engine)


def _result_of(record: Record) -> Content:
    record = told(record)
    return {**{key: record[key] for key in _RESULT_KEYS}, "io": {key: record[key] for key in _IO_KEYS}}


def _texts(items: Any) -> Iterator[str]:
    """The same, if they are a list of texts. Raises TypeError."""
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise TypeError(f"a list of texts was expected, not {items!r:.200}")
    return iter(items)


def _in_parts(items: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(items)
    while part := list(itertools.islice(rest, RECORDS_PER_QUERY_MAX)):
        yield part
