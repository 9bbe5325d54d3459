"""The leaf door: who is let in, when an engine is there, and when it is gone."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hiersched.compat.door_config import DoorConfig
from hiersched.compat.leafdoor import LeafDoor
from hiersched.core import effects as e
from hiersched.core.bare_root import bare_root
from hiersched.core.topology import Child, Host
from hiersched.kernels import bitset
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from tests.compat.old_engine import OldEngine
from tests.patience import DEADLINE_S, LOOK_EVERY_S

KEY = b"secret"
LEAF = Child("scheduler", m.NO_RANK, m.NO_RANK, "here", 1)
FACTS = ClusterFacts("cluster", "key", "/nowhere", bare_root(Host("here", 0, 1)))


class FakeDriver:
    """Gives ranks from 0 on, and notes what the door says. heard: by link; down: links that were lost, and why."""

    def __init__(self) -> None:
        self.rooms: dict[bytes, Callable[[m.Message, Sequence[Frame]], None]] = {}
        self.signals: dict[bytes, Callable[[int], None]] = {}
        self.heard: dict[bytes, list[m.Message]] = {}
        self.down: dict[bytes, str] = {}
        self.dropped = 0
        self.full = False

    context = None  # the door's sockets have one of their own

    def take_in(self, link: bytes, deliver: Callable[..., None], signal: Callable[[int], None]) -> None:
        self.rooms[link], self.signals[link] = deliver, signal

    def hear(self, link: bytes, *said: tuple[m.Message, Sequence[Frame]]) -> None:
        for message, _ in said:
            self.heard.setdefault(link, []).append(message)
            if isinstance(message, m.Enrol):
                rank = message.wanted if message.wanted >= 0 else len(self.rooms) - 1
                self.rooms[link](m.Enrolled(message.guest, m.NO_RANK if self.full else rank), ())

    def step(self, event: e.Event) -> None:
        if isinstance(event, e.LinkDown):
            self.down[event.link] = event.reason
        elif isinstance(event, e.Dropped):
            self.dropped += 1

    def said(self, link: bytes, kind: type) -> list[Any]:
        return [message for message in self.heard.get(link, []) if isinstance(message, kind)]


class Scene:
    """A door, and engines that come to it."""

    def __init__(self, **settings: Any) -> None:
        self.driver = FakeDriver()
        config = DoorConfig(**{"key": KEY, "heartbeat_ms": 50, "max_missed_beats": 3, **settings})
        self.door = LeafDoor(self.driver, FACTS, LEAF, config)  # type: ignore[arg-type]
        self.engines: list[OldEngine] = []

    def engine(self, uuid: str, key: bytes = KEY) -> OldEngine:
        engine = OldEngine(self.door.ports, key, uuid)
        self.engines.append(engine)
        return engine

    async def comes(self, uuid: str, wanted: int | None = None) -> OldEngine:
        """An engine that has registered, and is connected."""
        engine = self.engine(uuid)
        engine.register(wanted)
        await self.reply(engine)
        engine.connect()
        return engine

    async def reply(self, engine: OldEngine) -> dict[str, Any]:
        """The answer to an engine's registration."""
        found: list[dict[str, Any]] = []
        await self.until(lambda: found.append(content) if (content := engine.registered()) else found)
        return found[0]

    async def until(self, condition: Callable[[], object]) -> None:
        ends_at = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < ends_at, (self.driver.heard, self.driver.down)
            for engine in self.engines:
                engine.live()
            await asyncio.sleep(LOOK_EVERY_S)

    async def there(self, link: bytes) -> m.Hello:
        """The hello of an engine."""
        await self.until(lambda: self.driver.said(link, m.Hello))
        (hello,) = self.driver.said(link, m.Hello)
        return hello


def played(story: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        scene = Scene(**settings)
        try:
            await story(scene)
        finally:
            for rank in range(10):
                scene.engine(f"nanny of {rank}").unregister(rank)
            scene.door.close()
            for engine in scene.engines:
                engine.close()

    asyncio.run(whole())


# --- engines come -----------------------------------------------------------------------------------------------------


def test_an_engine_gets_its_rank_and_is_there_when_it_can_be_reached() -> None:
    async def story(scene: Scene) -> None:
        engine = scene.engine("one")
        engine.register(5)
        content = await scene.reply(engine)
        assert (content["status"], content["id"], content["hb_period"]) == ("ok", 5, 50)
        assert scene.driver.heard == {b"guest-1": [m.Enrol("guest-1", 5)]}
        engine.connect()
        hello = await scene.there(b"guest-1")
        assert (hello.role, hello.first, hello.last, hello.pid) == ("engine", 5, 6, os.getpid())
        assert (hello.cluster, hello.key) == ("cluster", "key")

    played(story)


def test_an_engine_is_not_there_before_it_has_returned_a_ping_and_an_answer() -> None:
    async def story(scene: Scene) -> None:
        engine = scene.engine("one")
        engine.beats = engine.answers = False
        engine.register()
        await scene.reply(engine)
        engine.connect()
        other = await scene.comes("two")
        await scene.there(b"guest-2")
        assert other.uuid == "two"
        assert not scene.driver.said(b"guest-1", m.Hello)
        engine.beats = True
        await scene.comes("three")
        await scene.there(b"guest-3")
        assert not scene.driver.said(b"guest-1", m.Hello)
        engine.answers = True
        await scene.there(b"guest-1")

    played(story)


def test_a_uuid_in_use_is_refused_and_its_owner_stays() -> None:
    async def story(scene: Scene) -> None:
        await scene.comes("one")
        await scene.there(b"guest-1")
        again = scene.engine("nanny")
        again.says("registration", "registration_request", {"uuid": "one"})
        content = await scene.reply(again)
        assert (content["status"], content["ename"], content["evalue"]) == ("error", "KeyError", "uuid 'one' in use")
        assert scene.driver.down == {}
        assert list(scene.driver.rooms) == [b"guest-1"]

    played(story)


def test_where_there_is_no_room_an_engine_is_told_so() -> None:
    async def story(scene: Scene) -> None:
        scene.driver.full = True
        engine = scene.engine("one")
        engine.register()
        content = await scene.reply(engine)
        assert content["status"] == "error"
        scene.driver.full = False
        engine.register()  # its uuid is not in use
        assert (await scene.reply(engine))["status"] == "ok"

    played(story)


def test_an_engine_that_does_not_come_up_in_time_is_given_up() -> None:
    async def story(scene: Scene) -> None:
        engine = scene.engine("one")
        engine.register()
        await scene.reply(engine)
        await scene.until(lambda: scene.driver.down)
        assert scene.driver.down == {b"guest-1": "it did not come up in time"}
        engine.register()
        assert (await scene.reply(engine))["status"] == "ok"

    played(story, registration_timeout_s=0.01)


# --- engines go -------------------------------------------------------------------------------------------------------


def test_an_engine_is_lost_at_once_when_its_nanny_says_so_however_often() -> None:
    async def story(scene: Scene) -> None:
        await scene.comes("one", wanted=3)
        await scene.there(b"guest-1")
        nanny = scene.engine("nanny of one")
        for rank in (3, 3, 99, None, "3"):
            nanny.says("registration", "unregistration_request", {"id": rank})
        await scene.until(lambda: scene.driver.down)
        assert scene.driver.down == {b"guest-1": "its process ended"}
        again = await scene.comes("one", wanted=3)
        assert again.uuid == "one"
        await scene.there(b"guest-2")

    played(story)


def test_an_engine_that_leaves_while_it_registers_is_gone() -> None:
    async def story(scene: Scene) -> None:
        engine = scene.engine("one")
        engine.register(3)
        await scene.reply(engine)
        engine.unregister(3)
        await scene.until(lambda: scene.driver.down)
        assert list(scene.driver.down) == [b"guest-1"]

    played(story)


def test_an_engine_that_falls_silent_is_lost_and_the_others_are_not() -> None:
    async def story(scene: Scene) -> None:
        silent, other = await scene.comes("one"), await scene.comes("two")
        await scene.there(b"guest-1")
        await scene.there(b"guest-2")
        silent.beats = False
        await scene.until(lambda: scene.driver.down)
        assert scene.driver.down == {b"guest-1": "it missed 3 heartbeats"}
        assert other.beats

    played(story, heartbeat_ms=200)


# --- what passes ------------------------------------------------------------------------------------------------------


def test_calls_signals_and_output_pass_the_door() -> None:
    async def story(scene: Scene) -> None:
        engine = await scene.comes("one", wanted=0)
        hello = await scene.there(b"guest-1")
        assert hello.first == 0
        link, wire_rank = b"guest-1", bitset.to_wire(1)
        function = b"p" + b"canned"
        scene.driver.rooms[link](m.Blob(b"f" * 16), (function,))
        scene.driver.rooms[link](m.Call(1, wire_rank, m.CALL_LANE, b"f" * 16, [], []), (b"arguments",))
        scene.driver.signals[link](15)
        await scene.until(lambda: engine.requests and engine.signals)
        (request,), (signal,) = engine.requests, engine.signals
        assert (request.msg_type, request.buffers) == ("apply_request", [b"canned", b"arguments"])
        assert (signal.msg_type, signal.content) == ("signal_request", {"sig": 15})
        engine.publish(request, "stream", {"name": "stdout", "text": "hello"})
        engine.answer(request, "apply_reply", {"status": "ok"}, b"value")
        await scene.until(lambda: scene.driver.said(link, m.Reply))
        assert [type(one) for one in scene.driver.heard[link]] == [m.Enrol, m.Hello, m.Outputs, m.Reply]

    played(story)


def test_engines_that_are_there_are_told_to_end_with_the_cluster_and_heard_until_they_have() -> None:
    async def story(scene: Scene) -> None:
        engine = await scene.comes("one", wanted=4)
        await scene.there(b"guest-1")
        scene.driver.rooms[b"guest-1"](m.Stop("the end"), ())
        await scene.until(lambda: engine.signals)
        assert [(one.msg_type, one.content) for one in engine.signals] == [("shutdown_request", {"restart": False})]
        engine.unregister(4)
        scene.door.close()
        assert scene.driver.down == {}

    played(story)


def test_a_controller_that_is_started_again_lets_its_engines_in_under_their_ids(tmp_path: Path) -> None:
    kept = {"state_file": str(tmp_path / "engines.json"), "reuse": True}

    async def before(scene: Scene) -> None:
        await scene.comes("one", wanted=4)
        await scene.there(b"guest-1")
        scene.door.close()
        scene.engines[0].live()
        assert scene.engines[0].signals == []

    async def after(scene: Scene) -> None:
        scene.engine("one").connect()  # it never registers again
        hello = await scene.there(b"guest-1")
        assert (hello.first, scene.driver.said(b"guest-1", m.Enrol)) == (4, [m.Enrol("guest-1", 4)])

    played(before, **kept)
    played(after, **kept, restore=True)


def test_engines_that_do_not_come_back_are_given_up(tmp_path: Path) -> None:
    state = tmp_path / "engines.json"
    state.write_text('{"engines": {"3": "gone"}, "next_id": 4}')

    async def story(scene: Scene) -> None:
        await scene.until(lambda: scene.driver.down)
        assert scene.driver.down == {b"guest-1": "it did not come up in time"}

    played(story, state_file=str(state), restore=True, registration_timeout_s=0.2)


def test_a_state_that_cannot_be_read_restores_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    state = tmp_path / "engines.json"
    state.write_text("no json")

    async def story(scene: Scene) -> None:
        await scene.comes("one")
        await scene.there(b"guest-1")

    played(story, state_file=str(state), restore=True)
    assert "no engines are restored" in caplog.text


def test_the_connection_file_says_where_engines_find_the_door(tmp_path: Path) -> None:
    async def story(scene: Scene) -> None:
        found = msgspec.json.decode(path.read_bytes())
        assert found["broadcast"] == [scene.door.ports["broadcast"]]
        assert {channel: found[channel] for channel in ("mux", "hb_ping", "iopub")} == {
            channel: scene.door.ports[channel] for channel in ("mux", "hb_ping", "iopub")
        }

    path = tmp_path / "ipcontroller-engine.json"
    played(story, engine_file=str(path))


# --- bad input --------------------------------------------------------------------------------------------------------


def test_what_is_signed_wrongly_or_sent_twice_is_dropped_and_counted() -> None:
    async def story(scene: Scene) -> None:
        stranger = scene.engine("stranger", key=b"guessed")
        stranger.register()
        engine = scene.engine("one")
        frames = engine.says("registration", "registration_request", {"uuid": "one"})
        engine.sends("registration", frames)
        engine.says("registration", "connection_request", {})
        engine.says("registration", "registration_request", {"uuid": 7})
        await scene.until(lambda: scene.driver.dropped == 4)
        assert list(scene.driver.rooms) == [b"guest-1"]

    played(story)


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["registration", "mux", "control", "iopub", "hb_pong"]),
            st.lists(st.one_of(st.binary(max_size=12), st.just(b"<IDS|MSG>"), st.just(b"{}")), min_size=1, max_size=8),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_no_frames_that_anybody_sends_bring_the_door_down(messages: list[tuple[str, list[bytes]]]) -> None:
    async def story(scene: Scene) -> None:
        engine = await scene.comes("one")
        for channel, frames in messages:
            engine.sends(channel, [b"mux", *frames] if channel in ("mux", "control") else frames)
        await scene.there(b"guest-1")
        engine.unregister(0)
        await scene.until(lambda: scene.driver.down)

    played(story)
