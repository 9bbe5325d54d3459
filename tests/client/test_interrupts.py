"""Ctrl-C waits for the end of a block, and never gets lost."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from hiersched.client import interrupts
from hiersched.client.interrupts import Held, Released
from hiersched.limits import INTERRUPT_HELD_S_MAX


def strike() -> None:
    """Ctrl-C: has been taken note of, or raised, when it returns."""
    os.kill(os.getpid(), signal.SIGINT)


@pytest.fixture(autouse=True)
def python_handles_interrupts() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert (interrupts._blocks, interrupts._struck_s) == ([], None)
    signal.signal(signal.SIGINT, before)


def test_what_strikes_in_a_block_is_raised_at_its_end():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with Held():
            strike()
            steps.append("whole")
        steps.append("never")
    assert steps == ["whole"]


def test_many_strikes_are_one():
    with pytest.raises(KeyboardInterrupt), Held():
        for _ in range(10):
            strike()


def test_a_block_in_a_block_ends_with_the_outer_one():
    steps = []
    with pytest.raises(KeyboardInterrupt), Held():
        with Held():
            strike()
        steps.append("whole")
    assert steps == ["whole"]


def test_what_struck_before_a_block_does_not_wait_for_its_end():
    with pytest.raises(KeyboardInterrupt):
        strike()
        with Held():
            pytest.fail("it was raised before")


def test_a_block_may_let_it_strike_for_a_while():
    steps = []
    with pytest.raises(KeyboardInterrupt), Held():
        try:
            with Released():
                strike()
                steps.append("never")
        finally:
            strike()  # this one waits
            steps.append("held again")
    assert steps == ["held again"]


def test_what_waits_strikes_as_soon_as_it_may():
    with pytest.raises(KeyboardInterrupt), Held(), Held():
        strike()
        with Released():
            pytest.fail("it was raised before")


def test_what_strikes_while_another_is_on_its_way_is_raised_behind_it():
    steps = []
    with pytest.raises(KeyboardInterrupt):
        with Held():
            try:
                with Released():
                    strike()
            except KeyboardInterrupt:
                steps.append("first")
            strike()
            steps.append("held")
        steps.append("never")
    assert steps == ["first", "held"]


def test_a_release_without_a_block_changes_nothing():
    with Released(), Released():
        with pytest.raises(KeyboardInterrupt):
            strike()
        with Held(), Released(), Released(), pytest.raises(KeyboardInterrupt):
            strike()


def test_after_a_release_in_a_release_it_is_held_again():
    steps = []
    with pytest.raises(KeyboardInterrupt), Held():
        with Released(), Released():
            pass
        strike()
        steps.append("whole")
    assert steps == ["whole"]


def test_an_error_ends_a_block_as_well():
    with pytest.raises(ValueError, match="own"), Held():
        raise ValueError("own")
    with pytest.raises(KeyboardInterrupt):
        strike()


def test_who_insists_is_heard(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    steps = []
    with pytest.raises(KeyboardInterrupt), Held():
        strike()
        now[0] += INTERRUPT_HELD_S_MAX + 0.1
        strike()
        steps.append("never")
    assert steps == []


def test_a_program_that_handles_interrupts_itself_goes_on_doing_so():
    struck = []
    signal.signal(signal.SIGINT, lambda number, frame: struck.append(number))
    with Held(), Released():
        strike()
    with Held():
        strike()
    assert len(struck) == 2
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_a_handler_that_is_set_while_it_may_strike_stays():
    with Held():
        with Released():
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        strike()
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_other_threads_hold_nothing_back():
    depths = []

    def story() -> None:
        with Held(), Released(), Held():
            depths.append(len(interrupts._blocks))

    thread = threading.Thread(target=story)
    thread.start()
    thread.join()
    assert depths == [0]
