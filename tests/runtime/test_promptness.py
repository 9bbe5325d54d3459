"""Schedulers get a core before the engines do."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from hiersched.runtime import promptness
from hiersched.runtime.promptness import TURN_NS, turn_ns
from tests.runtime.test_nursery import Story


@pytest.fixture
def usual_ns() -> Iterator[int]:
    """How long turns are here. Skips where the kernel does not let a process choose."""
    usual_ns = turn_ns()
    promptness.take_short_turns()
    chosen = turn_ns() == TURN_NS
    promptness.take_usual_turns()
    if not chosen:
        pytest.skip("this kernel gives all processes turns of the same length")
    yield usual_ns
    promptness.take_usual_turns()
    assert turn_ns() == usual_ns


def test_short_turns_are_those_of_the_threads_to_come_as_well(usual_ns):
    turns = []
    promptness.take_short_turns()
    thread = threading.Thread(target=lambda: turns.append(turn_ns()))
    thread.start()
    thread.join()
    assert [*turns, turn_ns()] == [TURN_NS, TURN_NS]


def test_who_asks_for_turns_stays_as_nice_as_it_was(usual_ns):
    found = []

    def be_nice() -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 3)
        promptness.take_short_turns()
        found.append((os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), turn_ns()))

    thread = threading.Thread(target=be_nice)
    thread.start()
    thread.join()
    assert found == [(3, TURN_NS)]


def test_where_the_kernel_cannot_nothing_changes(monkeypatch):
    before_ns = turn_ns()
    monkeypatch.setattr(promptness.platform, "machine", lambda: "pdp11")
    assert not promptness.take_short_turns()
    assert turn_ns() == 0
    monkeypatch.undo()
    assert turn_ns() == before_ns


def test_schedulers_and_the_nursery_take_short_turns_and_engines_usual_ones(usual_ns):
    with Story("family") as story:
        story.until_alive(("root", 0), ("scheduler", 20), ("engine", 12), ("engine", 13))
        turns = {name: turn_ns(process.pid) for name, process in story.alive.items()}
        assert turns["root", 0] == turns["scheduler", 20] == turn_ns(story.pid) == TURN_NS
        assert turns["engine", 12] == turns["engine", 13] == usual_ns


def test_each_scheduler_is_a_session_and_all_engines_are_in_one():
    with Story("family") as story:
        story.until_alive(("root", 0), ("scheduler", 20), ("engine", 12), ("engine", 13))
        sessions = {name: os.getsid(process.pid) for name, process in story.alive.items()}
        assert sessions["scheduler", 20] == story.alive["scheduler", 20].pid
        assert sessions["engine", 12] == sessions["engine", 13] == os.getsid(story.pid)
