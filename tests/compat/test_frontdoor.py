"""The front door: every request reaches who answers it, and whatever else comes is counted and breaks nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ipyparallel.serialize import pack_apply_message
from jupyter_client.session import Session

from hiersched.compat import frontdoor as frontdoor_module
from hiersched.compat.door_config import CLIENT_CHANNELS, DoorConfig
from hiersched.compat.frontdoor import FrontDoor
from hiersched.compat.wire import DELIMITER
from hiersched.core.effects import link_of
from hiersched.errors import UserError
from hiersched.limits import EVENTS_PER_STEP_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from tests.compat.stage import CLIENT, SIGNING_KEY, Said, Stage
from tests.compat.test_calls import JSON, double
from tests.compat.test_connection_files import root
from tests.core.transcript import engine_child
from tests.patience import DEADLINE_S, LOOK_EVERY_S

ASKED = ("mux", "task", "broadcast", "control", "registration")


class FakeSockets:
    """Sockets that are lists. waiting: what came on each channel."""

    def __init__(self, ip: str, channels: dict[str, int], **options: Any) -> None:
        self.ports = dict.fromkeys(channels, 1)
        self.waiting: dict[str, deque[list[Frame]]] = {channel: deque() for channel in channels}
        self.sent: list[tuple[str, list[Frame]]] = []
        self.closed = False

    def listen(self, loop: asyncio.AbstractEventLoop, on_readable: Callable[[str], bool]) -> None:
        self.on_readable = on_readable

    def receive(self, channel: str) -> list[Frame] | None:
        return self.waiting[channel].popleft() if self.waiting[channel] else None

    def send(self, channel: str, frames: list[Frame]) -> None:
        assert not self.closed
        assert all(isinstance(frame, bytes | memoryview) for frame in frames)
        self.sent.append((channel, frames))

    def close(self) -> None:
        self.closed = True


class Entrance:
    """A whole front door on a stage, with sockets that are lists."""

    def __init__(self, **config: Any) -> None:
        self.stage = Stage(2)
        options = {"key": SIGNING_KEY, "db": "ipyparallel.controller.dictdb.DictDB", **config}
        self.door = FrontDoor(self.stage, self.stage.facts, DoorConfig(**options), root())  # type: ignore[arg-type]
        self.stage.exchange = self.door._exchange
        self.sockets: FakeSockets = self.door._sockets  # type: ignore[assignment]
        self.session = Session(key=SIGNING_KEY, session="the-client")

    def uuid(self, rank: int) -> str:
        return self.door._roster.uuid_of(rank)

    def comes(self, channel: str, frames: list[Frame]) -> None:
        """A message comes, behind its sender's name."""
        self.sockets.waiting[channel].append([CLIENT, *frames])
        assert self.sockets.on_readable(channel)

    def says(
        self, channel: str, kind: str, content: Any, *, to: str = "", buffers: Any = (), metadata: Any = None
    ) -> str:
        """A client says something; the id of its message."""
        message = self.session.msg(kind, content=content, metadata=metadata)
        path = [to.encode()] if to else None
        self.comes(channel, [*self.session.serialize(message, ident=path), *buffers])
        return str(message["header"]["msg_id"])

    async def heard(self, *channels: str) -> list[Said]:
        """What clients were sent since the last look, on these channels or all."""
        for _ in range(5):
            await asyncio.sleep(0)
            for engine in self.stage.engines:
                engine.listen()
        taken = [each for each in self.sockets.sent if not channels or each[0] in channels]
        self.sockets.sent = [each for each in self.sockets.sent if channels and each[0] not in channels]
        return [self._read(*each) for each in taken]

    async def notified(self, count: int) -> list[Said]:
        """The next notifications, so many."""
        told: list[Said] = []
        ends_at = time.monotonic() + DEADLINE_S
        while len(told) < count:
            assert time.monotonic() < ends_at, told
            await asyncio.sleep(LOOK_EVERY_S)
            told += await self.heard("notification")
        return told

    def _read(self, channel: str, frames: list[Frame]) -> Said:
        path, parts = self.session.feed_identities([bytes(frame) for frame in frames])
        return Said(channel, path, self.session.deserialize(parts))


def entered(story: Callable[[Entrance], Awaitable[None]], **config: Any) -> None:
    """Run a story at a front door."""

    async def whole() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(frontdoor_module, "ChannelSockets", FakeSockets)
            entrance = Entrance(**config)
        try:
            await story(entrance)
        finally:
            entrance.door.close()

    asyncio.run(whole())


# --- requests ---------------------------------------------------------------------------------------------------------


def test_every_channel_leads_to_who_answers_there() -> None:
    async def story(entrance: Entrance) -> None:
        called = pack_apply_message(double, (4,), {})
        targets = {"targets": [[entrance.uuid(1), 1]], "is_broadcast": True, "is_coalescing": True}
        asked = {
            "mux": entrance.says("mux", "apply_request", {}, to=entrance.uuid(1), buffers=called),
            "broadcast": entrance.says("broadcast", "apply_request", {}, metadata=targets, buffers=called),
            "registration": entrance.says("registration", "connection_request", {}),
        }
        (said,) = await entrance.heard()
        assert said.content["engines"] == {"0": entrance.uuid(0), "1": entrance.uuid(1)}
        assert (said.kind, said.to, said.path) == ("connection_reply", asked["registration"], [CLIENT])
        engine = entrance.stage.engines[1]
        while engine.held:
            engine.runs()
        asked["task"] = entrance.says("task", "apply_request", {}, buffers=called)
        await entrance.heard()
        for engine in entrance.stage.engines:
            while engine.held:
                engine.runs()
        answers = {said.channel: said for said in await entrance.heard("task")}
        assert (answers["task"].to, answers["task"].values()) == (asked["task"], [8])

    entered(story)


def test_what_comes_in_one_burst_leaves_in_one_step() -> None:
    async def story(entrance: Entrance) -> None:
        called = pack_apply_message(double, (4,), {})
        for _ in range(EVENTS_PER_STEP_MAX + 1):
            message = entrance.session.msg("apply_request", content={})
            frames = entrance.session.serialize(message, ident=[CLIENT, entrance.uuid(0).encode()])
            entrance.sockets.waiting["mux"].append([*frames, *called])
        heard: list[int] = []
        hear = entrance.stage.hear
        entrance.stage.hear = lambda link, *said: heard.append(len(said)) or hear(link, *said)  # type: ignore
        assert not entrance.sockets.on_readable("mux")  # there is more: others are heard in between
        assert entrance.sockets.on_readable("mux")
        assert heard == [EVENTS_PER_STEP_MAX + 1, 1]  # one of the first is the function

    entered(story)


def test_a_task_is_submitted_again_by_the_hub() -> None:
    async def story(entrance: Entrance) -> None:
        asked = entrance.says("task", "apply_request", {}, buffers=pack_apply_message(double, (4,), {}))
        for _ in range(2):
            await entrance.heard()
            (engine,) = [engine for engine in entrance.stage.engines if engine.held]
            engine.runs()
            if asked:
                assert len(await entrance.heard("task")) == 1
                entrance.says("registration", "resubmit_request", {"msg_ids": [asked]})
                (said,) = await entrance.heard("registration")
                again, asked = said.content["resubmitted"][asked], ""
        assert await entrance.heard("task") == []
        entrance.says("registration", "result_request", {"msg_ids": [again], "status_only": False})
        (said,) = await entrance.heard("registration")
        assert (said.content["completed"], said.values()) == ([again], [8])

    entered(story)


# --- who is there -----------------------------------------------------------------------------------------------------


def test_a_departure_is_told_after_what_was_owed_and_an_arrival_at_once() -> None:
    async def story(entrance: Entrance) -> None:
        gone = entrance.uuid(0)
        asked = entrance.says("mux", "apply_request", {}, to=gone, buffers=pack_apply_message(double, (4,), {}))
        await entrance.heard()
        entrance.stage.engines[0].dies()
        (said,) = await entrance.heard()
        assert (said.to, said.content["ename"]) == (asked, "EngineError")
        (said,) = await entrance.notified(1)
        assert (said.kind, said.content) == ("unregistration_notification", {"id": 0, "uuid": gone})
        entrance.stage.root.does()
        entrance.stage.root.engines(0, birth=1)
        entrance.stage.step()
        (said,) = await entrance.notified(1)
        assert (said.kind, said.content) == ("registration_notification", {"id": 0, "uuid": entrance.uuid(0)})
        assert entrance.uuid(0) != gone

    entered(story)


def test_a_successor_that_comes_at_once_is_told_after_the_departure() -> None:
    async def story(entrance: Entrance) -> None:
        for birth in (1, 2):
            entrance.stage.engines[0].dies()
            await entrance.heard("mux")
            entrance.stage.root.does()
            entrance.stage.root.engines(0, birth=birth)
            entrance.stage.engines[0].link = link_of(engine_child(0, birth))
            entrance.stage.step()
        told = await entrance.notified(4)
        assert [said.kind.partition("_")[0] for said in told] == ["unregistration", "registration"] * 2
        assert told[1].content["uuid"] == told[2].content["uuid"]
        assert told[3].content["uuid"] == entrance.uuid(0)

    entered(story)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_client_may_end_all_and_the_others_are_told() -> None:
    async def story(entrance: Entrance) -> None:
        entrance.says("registration", "shutdown_request", {})
        kinds = [said.kind for said in await entrance.heard("registration", "notification")]
        assert kinds[0] == "shutdown_reply"
        assert "shutdown_notification" in kinds
        assert entrance.stage.asked[m.Stop] == 1
        assert entrance.stage.root.does()

    entered(story)


def test_who_is_connected_when_it_closes_is_told_once() -> None:
    async def story(entrance: Entrance) -> None:
        entrance.door.close()
        entrance.door.close()
        assert [said.kind for said in await entrance.heard("notification")] == ["shutdown_notification"]
        assert entrance.sockets.closed

    entered(story)


def test_the_connection_file_names_all_channels_and_goes_with_the_door(tmp_path: Path) -> None:
    file = tmp_path / "client.json"

    async def story(entrance: Entrance) -> None:
        written = json.loads(file.read_text())
        assert {channel: written[channel] for channel in CLIENT_CHANNELS} == dict.fromkeys(CLIENT_CHANNELS, 1)
        assert written["key"] == SIGNING_KEY.decode()

    entered(story, client_file=str(file))
    assert not file.exists()


@pytest.mark.parametrize("db", ["no.such.module.DB", "ipyparallel.controller.dictdb.Nothing"])
def test_a_database_that_is_not_there_is_told(db: str) -> None:
    async def story(entrance: Entrance) -> None:
        raise AssertionError("it must not open")

    with pytest.raises(UserError, match="no database for records"):
        entered(story, db=db)


# --- what is wrong ----------------------------------------------------------------------------------------------------


def test_nothing_is_done_for_a_wrong_signature() -> None:
    async def story(entrance: Entrance) -> None:
        entrance.session = Session(key=b"another")
        called = pack_apply_message(double, (4,), {})
        entrance.says("mux", "apply_request", {}, to=entrance.uuid(0), buffers=called)
        entrance.says("task", "apply_request", {}, buffers=called)
        entrance.says("control", "shutdown_request", {}, to=entrance.uuid(0))
        entrance.says("registration", "shutdown_request", {})
        entrance.session = Session(key=SIGNING_KEY)
        (said,) = await entrance.heard()  # nobody is told on the others: it may be another cluster's client
        assert (said.channel, said.kind, said.path) == ("registration", "hub_error", [CLIENT])
        assert "signature is wrong" in said.content["evalue"]
        assert not any(engine.held for engine in entrance.stage.engines)
        assert not entrance.stage.asked.keys() & {m.Call, m.Tasks, m.Stop, m.Order}
        assert entrance.door.counts == {"malformed": 4}

    entered(story)


@pytest.mark.parametrize("channel", ASKED)
def test_a_message_that_was_sent_twice_is_heard_once(channel: str) -> None:
    async def story(entrance: Entrance) -> None:
        frames = entrance.session.serialize(entrance.session.msg("some_request", content={}))
        entrance.comes(channel, frames)
        first = await entrance.heard()
        assert len(first) == 1
        assert first[0].content["status"] == "error"
        entrance.comes(channel, frames)
        again = await entrance.heard()
        assert [said.kind for said in again] == (["hub_error"] if channel == "registration" else [])

    entered(story)


@pytest.mark.parametrize("channel", ["mux", "task", "broadcast"])
def test_a_good_message_that_makes_no_sense_is_answered(channel: str) -> None:
    async def story(entrance: Entrance) -> None:
        asked = entrance.says(channel, "strange_request", {})
        (said,) = await entrance.heard()
        assert (said.kind, said.to, said.path) == ("strange_reply", asked, [CLIENT])
        assert said.content["ename"] == "ProtocolError"
        assert entrance.door.counts == {"malformed": 1}

    entered(story)


def test_a_bug_of_ours_is_told_to_who_asked_and_the_door_stays_open(caplog: pytest.LogCaptureFixture) -> None:
    async def story(entrance: Entrance) -> None:
        def breaks(message: object) -> None:
            raise RuntimeError("a bug")

        whole = entrance.door._take["task"]
        entrance.door._take["task"] = breaks
        entrance.says("task", "apply_request", {})
        (said,) = await entrance.heard()
        assert (said.kind, said.content["ename"]) == ("apply_reply", "RuntimeError")
        assert entrance.door.counts == {"failed": 1}
        assert "a bug" in caplog.text
        entrance.door._take["task"] = whole
        entrance.says("task", "apply_request", {}, buffers=pack_apply_message(double, (4,), {}))
        assert await entrance.heard() == []

    entered(story)


KINDS = st.sampled_from(
    (
        *("apply_request", "execute_request", "comm_msg", "connection_request", "queue_request", "result_request"),
        *("history_request", "db_request", "purge_request", "resubmit_request", "load_request", "x", ""),
        *("signal_request", "abort_request", "clear_request", "usage_request", "interrupt_request"),
    )
)
CONTENT = st.dictionaries(
    st.sampled_from(["msg_ids", "engine_ids", "targets", "query", "keys", "status_only", "verbose", "sig", "code"]),
    JSON,
)
METADATA = st.dictionaries(st.sampled_from(["targets", "is_coalescing", "after", "retries", "label"]), JSON)


@given(
    st.lists(
        st.tuples(st.sampled_from(ASKED), KINDS, CONTENT, METADATA, st.booleans(), st.lists(st.binary(), max_size=3)),
        max_size=4,
    )
)
def test_whatever_is_well_formed_breaks_nothing(said):
    async def story(entrance: Entrance) -> None:
        for channel, kind, content, metadata, named, buffers in said:
            to = entrance.uuid(0) if named else ""
            entrance.says(channel, kind, content, to=to, metadata=metadata, buffers=buffers)
        for told in await entrance.heard(*ASKED):
            assert told.path[0] == CLIENT
        assert entrance.door.counts["failed"] == 0

    entered(story)


NOISE = st.binary(max_size=12) | st.sampled_from(
    [DELIMITER, b"{}", b"[]", b'{"msg_id":"1","msg_type":"apply_request"}']
)


@given(st.lists(st.tuples(st.sampled_from(ASKED), st.lists(NOISE, max_size=9), st.booleans()), max_size=6))
def test_whatever_is_not_is_counted(said):
    async def story(entrance: Entrance) -> None:
        for channel, frames, signed in said:
            good = [DELIMITER, entrance.door._wire._sign(frames[:4])] if signed else []
            entrance.comes(channel, [*good, *frames])
        await entrance.heard()
        assert entrance.door.counts["failed"] == 0
        assert not entrance.stage.asked.keys() & {m.Stop, m.Order, m.Tasks}

    entered(story)
