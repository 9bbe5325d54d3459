"""Who holds the cluster's key gets in over tcp; everybody else is refused and counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import zmq
from msgspec.structs import astuple

from hiersched.protocol import messages as m
from hiersched.runtime.keys import CurveKeys, Gate
from hiersched.runtime.zmq_link import Port, Uplink, context
from tests.patience import DEADLINE_S, LOOK_EVERY_S


@dataclass
class Door:
    """A tcp port behind a gate, in the running loop."""

    own: zmq.Context[zmq.Socket[bytes]] = field(default_factory=context)
    refusals: int = 0
    outside: list[object] = field(default_factory=list)  # who drops a socket closes it

    def open(self) -> None:
        self.gate = Gate(self.own, self._count)
        self.gate.start()
        self.port = Port(self.own, "tcp://127.0.0.1:*", self.gate)

    def _count(self) -> None:
        self.refusals += 1

    def knock(self, keys: CurveKeys | None) -> None:
        """Say something from outside. keys: None for a peer that speaks no CURVE at all."""
        if keys is not None:
            uplink = Uplink(self.own, self.port.address, b"guest", keys)
            uplink.send(m.Beat())
            self.outside.append(uplink)
            return
        plain = self.own.socket(zmq.DEALER)
        plain.connect(self.port.address)
        plain.send(b"hello?")
        self.outside.append(plain)

    def close(self) -> None:
        self.gate.close()
        self.port.close()
        self.own.destroy(0)


def at_the_door(story: Callable[[Door], Awaitable[None]]) -> None:
    """Tell a story in a loop of its own."""

    async def whole() -> None:
        door = Door()
        door.open()
        try:
            await story(door)
        finally:
            door.close()

    asyncio.run(whole())


async def until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_at
        await asyncio.sleep(LOOK_EVERY_S)


def test_whoever_holds_the_key_gets_in() -> None:
    async def story(door: Door) -> None:
        door.knock(door.gate.keys)
        await until(door.port.readable)
        assert door.port.receive()[:2] == (b"guest", m.Beat())
        assert door.refusals == 0

    at_the_door(story)


def test_whoever_has_another_key_is_refused_and_counted() -> None:
    public, secret = (key.decode() for key in zmq.curve_keypair())

    async def story(door: Door) -> None:
        door.knock(CurveKeys(door.gate.keys.server_public, public, secret))
        await until(lambda: door.refusals)
        assert not door.port.readable()

    at_the_door(story)


def test_whoever_speaks_no_curve_is_refused_and_counted() -> None:
    async def story(door: Door) -> None:
        door.knock(None)
        await until(lambda: door.refusals)
        assert not door.port.readable()

    at_the_door(story)


def test_the_keys_of_another_server_open_nothing() -> None:
    async def story(door: Door) -> None:
        other = Gate(door.own, lambda: None)
        wrong = CurveKeys(other.keys.server_public, door.gate.keys.client_public, door.gate.keys.client_secret)
        door.knock(wrong)
        await until(lambda: door.refusals)
        assert not door.port.readable()

    at_the_door(story)


def test_a_crowd_outside_does_not_keep_guests_out() -> None:
    async def story(door: Door) -> None:
        for _ in range(20):
            door.knock(None)
        door.knock(door.gate.keys)
        await until(door.port.readable)
        await until(lambda: door.refusals >= 20)
        assert door.port.receive()[0] == b"guest"

    at_the_door(story)


def test_every_gate_has_keys_of_its_own() -> None:
    own = context()
    try:
        first, second = Gate(own, lambda: None).keys, Gate(own, lambda: None).keys
    finally:
        own.term()
    assert len({*astuple(first), *astuple(second)}) == 6


@pytest.mark.parametrize("field_name", ["client_public", "client_secret"])
def test_half_a_key_is_none(field_name: str) -> None:
    async def story(door: Door) -> None:
        public, secret = (key.decode() for key in zmq.curve_keypair())
        other = {"client_public": public, "client_secret": secret}
        keys = door.gate.keys
        mixed = {"client_public": keys.client_public, "client_secret": keys.client_secret} | {
            field_name: other[field_name]
        }
        door.knock(CurveKeys(keys.server_public, **mixed))
        await until(lambda: door.refusals)
        assert not door.port.readable()

    at_the_door(story)
