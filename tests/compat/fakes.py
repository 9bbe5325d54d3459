"""Stand-ins for what surrounds the hub and the control channel, and messages as old clients send them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipyparallel.controller.dictdb import BaseDB, DictDB, NoDB
from ipyparallel.controller.sqlitedb import SQLiteDB

from hiersched.client.pending import Pending
from hiersched.compat.ids import OldIds
from hiersched.compat.roster import Roster
from hiersched.compat.wire import Message, Wire
from hiersched.data.serialize import PackedCall

CLIENT = b"a-client"
_ids = (f"m{number}" for number in itertools.count())  # databases in memory share what they remember of culled ones


def a_roster(engines: int) -> Roster:
    roster = Roster()
    roster.begin((1 << engines) - 1)
    return roster


class Mailbox:
    """Takes what is sent, as frames; gives it as messages."""

    def __init__(self) -> None:
        self._wire = Wire(b"the key")
        self.frames: list[list[Any]] = []

    def __call__(self, frames: list[Any]) -> None:
        self.frames.append(frames)

    def only(self) -> Message:
        """The one message that was sent since the last look."""
        assert len(self.frames) == 1, f"{len(self.frames)} messages were sent"
        return self._wire.unpack(self.frames.pop())


class Messages:
    """Makes messages with a wire's own key. Dates are a second apart."""

    def __init__(self) -> None:
        self.wire = Wire(b"the key")
        self._numbers = itertools.count()

    def make(
        self,
        msg_type: str,
        content: Any = None,
        *,
        idents: Sequence[bytes] = (CLIENT,),
        metadata: dict[str, Any] | None = None,
        buffers: Sequence[bytes] = (),
    ) -> Message:
        header = {
            "msg_id": next(_ids),
            "msg_type": msg_type,
            "username": "somebody",
            "session": "a-session",
            "date": self.date(),
            "version": "5.3",
        }
        raw = self.wire.encode(header)
        return Message(list(idents), header, raw, {}, metadata or {}, {} if content is None else content, list(buffers))

    def date(self) -> str:
        seconds = next(self._numbers)
        return f"2026-01-01T{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.000000+00:00"


class FakeExchange:
    """Notes what is asked of the core. orders: (ranks, verb, number); calls: what the test has to end."""

    def __init__(self) -> None:
        self.ids = OldIds()
        self.orders: list[tuple[list[int], str, int]] = []
        self.obeyed = True
        self.calls: list[tuple[Pending, PackedCall]] = []
        self.cancelled: list[Pending] = []
        self.flushed = 0

    def call(self, ranks: Sequence[int], packed: PackedCall) -> Pending:
        pending = Pending(len(self.calls) + 1, tuple(ranks))
        self.calls.append((pending, packed))
        return pending

    def order(self, ranks: Iterable[int], verb: str, number: int, on_done: Any) -> None:
        ranks = list(ranks)
        self.orders.append((ranks, verb, number))
        on_done(ranks if self.obeyed else [])

    def cancel(self, pendings: Iterable[Pending]) -> None:
        self.cancelled += pendings

    def flush(self) -> None:
        self.flushed += 1


class BrokenDB(BaseDB):
    """A database on a full disk."""

    def _refuse(self, *args: Any) -> Any:
        raise OSError("no space left on device")

    add_record = get_record = update_record = drop_record = _refuse
    drop_matching_records = find_records = get_history = close = _refuse


@contextmanager
def a_database(kind: str, directory: Path) -> Iterator[BaseDB]:
    """One of ipyparallel's databases: 'memory', 'disk' or 'none'."""
    if kind != "disk":
        yield DictDB() if kind == "memory" else NoDB()
        return
    loop = asyncio.new_event_loop()  # the database commits on one
    asyncio.set_event_loop(loop)
    db = SQLiteDB(location=str(directory), filename="tasks.db")
    try:
        yield db
    finally:
        db.close()
        asyncio.set_event_loop(None)
        loop.close()
