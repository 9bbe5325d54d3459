"""The front door: ipyparallel's clients, unmodified, at the root.

It runs on the root's own loop and is one client of its core. Each channel of the protocol is a socket here: requests
come on `mux` (one engine), `task` (any), `broadcast` (many), `control` and `registration` (queries); `notification`
tells which engines come and go, `iopub` what they print. What is malformed, signed wrongly or sent twice is dropped and
counted, as the protocol has it; queries are told.
"""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import Counter, deque
from collections.abc import Callable

from ipyparallel.controller.dictdb import BaseDB
from traitlets.utils.importstring import import_item

from hiersched.compat import connection_files
from hiersched.compat.broadcasts import Broadcasts
from hiersched.compat.calls import Calls
from hiersched.compat.contents import OK, error_content
from hiersched.compat.control import Control
from hiersched.compat.desk import Desk
from hiersched.compat.door_config import CLIENT_CHANNELS, DoorConfig
from hiersched.compat.exchange import Exchange
from hiersched.compat.hub import Hub
from hiersched.compat.iopub import IOPub
from hiersched.compat.records import Records
from hiersched.compat.roster import Roster
from hiersched.compat.sockets import ChannelSockets
from hiersched.compat.tasks import Tasks
from hiersched.compat.wire import NO_PARENT, Message, Wire
from hiersched.errors import ProtocolError, UserError
from hiersched.limits import EVENTS_PER_STEP_MAX, OLD_DEPARTURE_DELAY_S, RECORDS_SAVE_PERIOD_S
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Members
from hiersched.runtime.connection import Connection
from hiersched.runtime.driver import Driver

_PUBLISHED = ("notification", "iopub")
_log = logging.getLogger(__name__)


class FrontDoor:
    """counts: of messages that were dropped, by what was wrong with them."""

    def __init__(self, driver: Driver, facts: ClusterFacts, config: DoorConfig, found: Connection) -> None:
        self.counts: Counter[str] = Counter()
        self._config = config
        self._loop = asyncio.get_running_loop()
        self._wire = Wire(config.key, signature_scheme=config.signature_scheme, pack=config.pack, unpack=config.unpack)
        roster, records = Roster(), Records(_database(config, self._wire.session))
        self._sockets = ChannelSockets(
            config.client_ip,
            {channel: config.client_ports.get(channel, 0) for channel in CLIENT_CHANNELS},
            published=_PUBLISHED,
            curve=(config.curve_publickey, config.curve_secretkey) if config.curve else None,
            own=driver.context,
        )
        exchange = Exchange(driver, facts, call_soon=self._loop.call_soon, on_members=self._on_members)
        send = self._sockets.send
        iopub = IOPub(self._wire, lambda frames: send("iopub", frames), records.printed)
        self._desk = desk = Desk(self._wire, roster, exchange, iopub, records, send)
        self._exchange, self._roster = exchange, roster
        tasks = Tasks(desk)
        hub = Hub(
            self._wire,
            roster,
            records,
            exchange,
            send=lambda frames: send("registration", frames),
            shut_down=self._shut_down,
            run_task=tasks.take,
        )
        control = Control(self._wire, roster, exchange, send=lambda frames: send("control", frames))
        self._take: dict[str, Callable[[Message], None]] = {
            "mux": Calls(desk).take,
            "task": tasks.take,
            "broadcast": Broadcasts(desk).take,
            "control": control.answer,
            "registration": hub.answer,
        }
        self._hub, self._records, self._closed = hub, records, False
        self._news: deque[tuple[float, str, list[tuple[int, str]]]] = deque()  # with the time when each is due
        roster.begin(exchange.members)
        self._sockets.listen(self._loop, self._on_readable)
        self._saving = self._loop.call_later(RECORDS_SAVE_PERIOD_S, self._save)
        connection_files.write_client(config, self._sockets.ports, hiersched=found)

    # --- in -----------------------------------------------------------------------------------------------------------

    def _on_readable(self, channel: str) -> bool:
        """Take what waits on a channel; False if more may wait."""
        for _ in range(EVENTS_PER_STEP_MAX):
            frames = self._sockets.receive(channel)
            if frames is None:
                break
            self._take_one(channel, frames)
        self._exchange.flush()
        return frames is None

    def _take_one(self, channel: str, frames: list[Frame]) -> None:
        """Handle a message, or say why not."""
        try:
            message = self._wire.unpack(frames)
        except ProtocolError as error:
            self._drop(channel, error, getattr(error, "idents", [])[:1])
            return
        try:
            self._take[channel](message)
        except ProtocolError as error:
            self._drop(channel, error, message.idents[:1], message)
        except Exception as error:  # a door that breaks would take the whole root with it: whoever asked is told
            _log.error("a message on %s could not be handled:\n%s", channel, traceback.format_exc())
            self._drop(channel, error, message.idents[:1], message)

    def _drop(self, channel: str, error: Exception, path: list[bytes], message: Message | None = None) -> None:
        """Count what could not be handled. Whoever is known to wait for an answer is told."""
        self.counts["malformed" if isinstance(error, ProtocolError) else "failed"] += 1
        _log.warning("dropped a message on %s: %s", channel, error)
        if not path or (message is None and channel != "registration"):
            return
        kind = "hub_error" if message is None or channel == "registration" else message.reply_type
        parent = NO_PARENT if message is None else message.header_raw
        self._sockets.send(channel, self._wire.pack(kind, error_content(error), parent=parent, idents=path))

    # --- who is there -------------------------------------------------------------------------------------------------

    def _on_members(self, news: Members) -> None:
        left, came = self._roster.on_members(news)
        if left:  # what they owed is on its way to the clients: it should be there first
            self._plan("unregistration_notification", left, OLD_DEPARTURE_DELAY_S)
        if came:
            self._plan("registration_notification", came, 0.0)

    def _plan(self, kind: str, engines: list[tuple[int, str]], delay_s: float) -> None:
        """Tell all clients that engines have come or gone, after that, and after all that is to be told before it."""
        due_s = self._loop.time() + delay_s
        if self._news:
            due_s = max(due_s, self._news[-1][0])
        self._news.append((due_s, kind, engines))
        self._loop.call_at(due_s, self._tell_news, due_s)

    def _tell_news(self, due_s: float) -> None:
        """Tell what was due by then."""
        while self._news and self._news[0][0] <= due_s and not self._closed:
            _, kind, engines = self._news.popleft()
            for rank, uuid in engines:
                self._sockets.send("notification", self._wire.pack(kind, {"id": rank, "uuid": uuid}))

    # --- the end ------------------------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        """A client has asked for the end of all: tell the others, then go."""
        self._sockets.send("notification", self._wire.pack("shutdown_notification", OK))
        self._exchange.stop("a client asked for it")

    def _save(self) -> None:
        """Have the database write what has gathered, now and then."""
        self._records.keep_on_disk()
        self._saving = self._loop.call_later(RECORDS_SAVE_PERIOD_S, self._save)

    def close(self) -> None:
        """Tell the clients, and leave."""
        if self._closed:
            return
        self._sockets.send("notification", self._wire.pack("shutdown_notification", OK))
        self._closed = True
        self._saving.cancel()
        self._exchange.close()
        self._hub.close()
        self._sockets.close()
        self._records.close()
        connection_files.remove(self._config)


def _database(config: DoorConfig, session: str) -> BaseDB:
    """The database that keeps the records. Raises UserError for a name of nothing that is there."""
    try:
        return import_item(config.db)(**{"session": session, **config.db_arguments})
    except (ImportError, TypeError) as error:
        raise UserError(f"{config.db!r} is no database for records: {error}") from None
