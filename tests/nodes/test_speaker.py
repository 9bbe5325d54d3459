"""Output goes ahead when there is much of it or the code runs on; and announced mail is looked out for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from hiersched.data.outputs import Text, unpack_outputs
from hiersched.nodes import speaker as module
from hiersched.nodes.floor import OURS, THEIRS, Floor
from hiersched.nodes.speaker import Speaker
from hiersched.nodes.transcript import Transcript
from hiersched.protocol import messages as m
from hiersched.runtime.doorbell import DOORBELL_SIGNAL
from tests.nodes.fakes import FakeLine
from tests.patience import until


class Stage:
    """A speaker with all that it needs."""

    def __init__(self, line: FakeLine) -> None:
        self.line = line
        self.floor = Floor()
        self.transcript = Transcript()
        self.speaker = Speaker(line, self.floor, self.transcript, 5)  # type: ignore[arg-type]

    def begin(self, request: int = 1) -> None:
        """The user's code begins."""
        self.speaker.request = request
        self.floor.lend_link()
        self.floor.state = THEIRS

    def end(self) -> None:
        """It has ended."""
        self.floor.state = OURS
        self.floor.reclaim_link()

    def said(self) -> list[tuple[int, str]]:
        """(request, text) of what was sent."""
        words = []
        for outputs, *frames in self.line.said:
            for piece, frame in zip(outputs.pieces, frames, strict=True):
                for output in unpack_outputs(frame):
                    assert isinstance(output, Text)
                    words.append((piece.request, output.text))
        return words


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(module, "OUTPUT_PIECE_BYTES_MAX", 10)
    line = FakeLine()
    stage = Stage(line)
    yield stage
    stage.speaker.close()
    line.close()


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread never finds it time."""
    monkeypatch.setattr(module, "OUTPUT_FLUSH_S", 1000.0)


def test_code_that_ends_soon_sends_nothing(stage: Stage, slow: None) -> None:
    stage.begin()
    stage.transcript.write("stdout", "few")
    stage.end()
    assert stage.said() == []
    assert stage.transcript.size == 3


def test_much_is_sent_by_whoever_printed_it_always_cut_alike(stage: Stage, slow: None) -> None:
    for request in (1, 2):
        stage.begin(request)
        for word in ("abcd", "efgh", "ijkl", "mnop", "qrst"):
            stage.transcript.write("stdout", word)
        stage.end()
        stage.transcript.finish()
    assert stage.said() == [(1, "abcdefghijkl"), (2, "abcdefghijkl")]


def test_what_runs_on_is_heard_after_a_while(stage: Stage) -> None:
    stage.begin()
    stage.transcript.write("stdout", "one")
    until(stage.said, "the first words were sent")
    stage.transcript.write("stdout", "two")
    until(lambda: len(stage.said()) == 2, "the next words were sent")
    assert stage.said() == [(1, "one"), (1, "two")]


def test_it_sleeps_and_wakes_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OUTPUT_FLUSH_S", 0.001)
    stage.begin()
    for number in range(1, 4):
        stage.transcript.write("stdout", "x")
        until(lambda number=number: len(stage.said()) == number, "it was sent")  # type: ignore[misc]
        until(lambda: not stage.speaker._awake, "nobody has to look any more")


def test_what_is_printed_between_calls_waits_for_the_next(stage: Stage, slow: None) -> None:
    stage.transcript.write("stdout", "much, but nobody's yet")
    assert stage.said() == []
    stage.begin(7)
    stage.transcript.write("stdout", "!")
    assert stage.said() == [(7, "much, but nobody's yet!")]


def test_the_last_words_leave_by_the_engine(stage: Stage, slow: None) -> None:
    stage.begin()
    stage.transcript.write("stdout", "last")
    stage.end()
    stage.speaker.speak(last=True)
    stage.speaker.speak(last=True)
    assert stage.said() == [(1, "last")]


def test_an_interrupt_while_it_sends_strikes_when_it_has_sent(stage: Stage, slow: None) -> None:
    stage.line.answers[m.Outputs] = lambda outputs: stage.floor.on_interrupt()
    stage.begin()
    with pytest.raises(KeyboardInterrupt):
        stage.transcript.write("stdout", "much of it")
    assert stage.said() == [(1, "much of it")]


def test_a_forked_process_has_no_speaker(stage: Stage, slow: None) -> None:
    stage.begin()
    stage.speaker.silence()
    stage.transcript.write("stdout", "much, but not from the engine")
    assert stage.said() == []


# --- the lookout ------------------------------------------------------------------------------------------------------


@pytest.fixture
def rung(stage: Stage) -> Iterator[list[int]]:
    """How often the doorbell was rung from within."""
    rung: list[int] = []
    before = signal.signal(DOORBELL_SIGNAL, lambda number, _: rung.append(number))
    yield rung
    signal.signal(DOORBELL_SIGNAL, before)


def test_mail_that_comes_while_code_runs_is_announced_again(stage: Stage, rung: list[int]) -> None:
    stage.begin()
    stage.speaker.watch(module.time.monotonic() + 1000.0)
    stage.speaker.watch(module.time.monotonic() + 2000.0)
    os.eventfd_write(stage.line.fileno(), 1)
    until(lambda: rung, "the doorbell rang")
    assert stage.speaker._watch_until_s == 0.0


def test_mail_that_comes_between_calls_is_not_announced(stage: Stage, rung: list[int]) -> None:
    stage.speaker.watch(module.time.monotonic() + 1000.0)
    os.eventfd_write(stage.line.fileno(), 1)
    until(lambda: stage.speaker._watch_until_s == 0.0, "the lookout ended")
    assert rung == []


def test_a_lookout_ends(stage: Stage, rung: list[int]) -> None:
    stage.begin()
    stage.speaker.watch(module.time.monotonic() + 0.005)
    until(lambda: stage.speaker._watch_until_s == 0.0, "the lookout ended")
    os.eventfd_write(stage.line.fileno(), 1)
    assert rung == []
