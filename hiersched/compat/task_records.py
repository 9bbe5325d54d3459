"""One request of an old client as its database has it: a record of ipyparallel's, a dict of 23 keys.

On its way a request is an `Entry`, which only holds on to what the door has in its hands anyway: parts of messages and
buffers, no copies. What costs something (dates, copies of headers, joined texts) is done when a record is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import zmq

from hiersched.compat.wire import Message
from hiersched.limits import RECORD_OUTPUT_CHARS_MAX
from hiersched.protocol.framing import Frame

Record = dict[str, Any]

_NOTHING: dict[str, Any] = {}
_CUT = "\n[more was printed than is recorded]\n"
_DATES = ("submitted", "started", "completed", "received")


class Answer(NamedTuple):
    """How a request ended. received: seconds since the epoch."""

    header: dict[str, Any]
    metadata: dict[str, Any]
    content: dict[str, Any]
    buffers: Sequence[Frame]
    received: float


class Entry:
    """A request. queue: 'mux', 'task' or 'broadcast'. engine: the uuid of the one that has it, if any is known.

    size: bytes held. saved: the database has it; changed: but not all of it.
    """

    __slots__ = (
        "answer",
        "broadcast",
        "buffers",
        "changed",
        "content",
        "engine",
        "header",
        "metadata",
        "printed",
        "queue",
        "saved",
        "size",
    )

    def __init__(self, message: Message | None, queue: str, engine: str | None, buffers: Sequence[Frame] = ()) -> None:
        if message is None:
            self.header = self.metadata = self.content = _NOTHING
        else:
            self.header, self.metadata, self.content = message.header, message.metadata, message.content
        self.queue = queue
        self.engine = engine
        self.buffers = buffers
        self.size = sum(map(len, buffers)) if buffers else 0
        self.answer: Answer | None = None
        self.printed: Printed | None = None
        self.broadcast: Any = None
        self.saved = self.changed = False

    def let_go(self) -> int:
        """The database has all of it: hold on to no more than is needed until it ends. The bytes that were held."""
        size, self.size = self.size, 0
        self.saved, self.changed = True, False
        self.header = self.metadata = self.content = _NOTHING
        self.buffers = ()
        self.answer = self.printed = None
        return size


class Printed:
    """What a request showed so far. Of each stream RECORD_OUTPUT_CHARS_MAX are kept."""

    def __init__(self, stdout: str = "", stderr: str = "") -> None:
        self._texts = {"stdout": [stdout], "stderr": [stderr]}
        self._room = {name: RECORD_OUTPUT_CHARS_MAX - len(pieces[0]) for name, pieces in self._texts.items()}
        self._shown: Record = {}

    def take(self, msg_type: str, content: dict[str, Any]) -> int:
        """Take in a message of the iopub channel; how much it is, in characters; 0 if it is not recorded."""
        if msg_type == "stream":
            return self._print(str(content.get("name", "stdout")), str(content.get("text", "")))
        if msg_type == "execute_input":
            self._shown["execute_input"] = content.get("code")
        elif msg_type in ("error", "execute_result"):
            self._shown[msg_type] = content
        else:
            return 0
        return _weight(content)

    def _print(self, name: str, text: str) -> int:
        room = self._room.get(name, 0)
        if room <= 0 or not text:
            return 0
        self._texts[name].append(text if len(text) <= room else text[:room] + _CUT)
        self._room[name] = room - len(text)
        return len(text)

    def fields(self) -> Record:
        """The keys of a record that it gives."""
        return {**{name: "".join(pieces) for name, pieces in self._texts.items()}, **self._shown}


def _weight(content: dict[str, Any]) -> int:
    """About how many characters it holds, at least 1."""
    inner = content.get("data")
    values = [*content.values(), *(inner.values() if isinstance(inner, dict) else ())]
    return 1 + sum(len(value) for value in values if isinstance(value, (str, bytes)))


# --- records ----------------------------------------------------------------------------------------------------------


def whole_record(msg_id: str, entry: Entry) -> Record:
    """All 23 keys, for a request that the database does not have yet."""
    submitted = moment(entry.header.get("date"))
    return {
        "msg_id": msg_id,
        "header": {**entry.header, "msg_id": msg_id, "date": submitted},
        "metadata": entry.metadata,
        "content": entry.content,
        "buffers": _plain(entry.buffers),
        "submitted": submitted,
        "client_uuid": str(entry.header.get("session", "")),
        "engine_uuid": None,
        "started": None,
        "completed": None,
        "resubmitted": None,
        "received": None,
        "result_header": None,
        "result_metadata": None,
        "result_content": None,
        "result_buffers": None,
        "queue": entry.queue,
        "execute_input": None,
        "execute_result": None,
        "error": None,
        "stdout": "",
        "stderr": "",
        "label": entry.metadata.get("label"),
        **changes(entry),
    }


def changes(entry: Entry) -> Record:
    """The keys that may have changed since the request came in."""
    found: Record = {} if entry.engine is None else {"engine_uuid": entry.engine}
    if entry.printed is not None:
        found.update(entry.printed.fields())
    answer = entry.answer
    if answer is not None:
        completed = moment(answer.header.get("date"), answer.received)
        started = answer.metadata.get("started")
        found.update(
            result_header={**answer.header, "date": completed},
            result_metadata=answer.metadata,
            result_content=answer.content,
            result_buffers=_plain(answer.buffers),
            started=None if started is None else moment(started, answer.received),
            completed=completed,
            received=datetime.fromtimestamp(answer.received, UTC),
        )
    return found


def told(record: Record) -> Record:
    """A record as it is told to clients: dates are texts, whatever else is in it."""
    found = dict(record)
    for key in _DATES:
        if isinstance(found.get(key), datetime):
            found[key] = found[key].isoformat()
    for key in ("header", "result_header"):
        header = found.get(key)
        if isinstance(header, dict) and isinstance(header.get("date"), datetime):
            found[key] = {**header, "date": header["date"].isoformat()}
    return found


def moment(date: Any, otherwise: float | None = None) -> datetime:
    """A date of a message, with its zone. otherwise: seconds since the epoch, if it is none; by default now."""
    if isinstance(date, str):
        try:
            date = datetime.fromisoformat(date)
        except ValueError:
            date = None
    if not isinstance(date, datetime):
        return datetime.now(UTC) if otherwise is None else datetime.fromtimestamp(otherwise, UTC)
    return date.astimezone() if date.tzinfo is None else date


def _plain(buffers: Sequence[Frame]) -> list[bytes | memoryview]:
    """What the databases can count and write; nothing is copied."""
    return [buffer.buffer if isinstance(buffer, zmq.Frame) else buffer for buffer in buffers]
