"""An engine sleeps on its link until there is mail, its doorbell rings, or the time is over; and it climbs."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from hiersched.nodes.line import Line
from hiersched.protocol import messages as m
from hiersched.runtime.doorbell import DOORBELL_SIGNAL
from hiersched.runtime.zmq_link import Port, Uplink, context
from tests.patience import DEADLINE_S


class Stage:
    """A line to `parent`, whose parent is `above`."""

    def __init__(self, directory: Path) -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = context()
        self.parent = Port(self.context, f"ipc://{directory}/parent")
        self.above = Port(self.context, f"ipc://{directory}/above")
        self.line = Line(Uplink(self.context, self.parent.address, b"engine-0", ancestors=[self.above.address]))

    def close(self) -> None:
        self.line.close()
        for port in (self.parent, self.above):
            if not port.socket.closed:
                port.close()
        self.context.term()


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    stage = Stage(tmp_path)
    yield stage
    stage.close()


def meet(stage: Stage, port: Port) -> None:
    """Let the parent learn of the engine."""
    stage.line.uplink.send(m.Beat())
    assert port.wait(DEADLINE_S)
    port.receive()


def sleep(line: Line) -> None:
    """Until there is mail, as an engine does."""
    while not line.wait(DEADLINE_S):
        pass


def test_mail_ends_the_wait(stage: Stage) -> None:
    meet(stage, stage.parent)
    stage.parent.send(b"engine-0", m.Beat())
    sleep(stage.line)
    assert type(stage.line.uplink.receive()[1]) is m.Beat


def test_mail_that_is_there_already_needs_no_wait(stage: Stage) -> None:
    meet(stage, stage.parent)
    for _ in range(2):
        stage.parent.send(b"engine-0", m.Beat())
    for _ in range(2):
        sleep(stage.line)
        stage.line.uplink.receive()
    assert not stage.line.wait(0.0)


def test_without_mail_the_wait_ends_in_time(stage: Stage) -> None:
    assert not stage.line.wait(0.001)


def test_a_call_to_wake_is_never_lost(stage: Stage) -> None:
    stage.line.wake()
    stage.line.wake()
    assert not stage.line.wait(DEADLINE_S)
    assert not stage.line.wait(0.001)


def test_a_signal_ends_the_wait_through_its_handler(stage: Stage) -> None:
    before = signal.signal(DOORBELL_SIGNAL, lambda *_: stage.line.wake())
    try:
        timer = threading.Timer(0.01, signal.pthread_kill, [threading.get_ident(), DOORBELL_SIGNAL])
        timer.start()
        assert not stage.line.wait(DEADLINE_S)
        timer.join()
    finally:
        signal.signal(DOORBELL_SIGNAL, before)


def test_an_orphan_climbs_and_hears_from_above(stage: Stage) -> None:
    meet(stage, stage.parent)
    assert not stage.line.orphaned()
    stage.parent.close()
    assert stage.line.orphaned()
    assert stage.line.climb()
    meet(stage, stage.above)
    stage.above.send(b"engine-0", m.Beat())
    sleep(stage.line)


def test_at_the_top_there_is_nowhere_to_climb(stage: Stage) -> None:
    stage.parent.close()
    stage.above.close()
    assert not stage.line.climb()
