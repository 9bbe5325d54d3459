"""Signals strike the user's code, and never ours: what comes meanwhile is done when the floor goes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest

from hiersched.nodes import floor as module
from hiersched.nodes.floor import BORROWED, OURS, THEIRS, Floor
from hiersched.runtime.doorbell import DOORBELL_SIGNAL


class Bells:
    """What a floor was told. busy: somebody else has the link."""

    def __init__(self, floor: Floor) -> None:
        self.floor = floor
        self.answered: list[int] = []
        self.idle = 0
        floor.on_bell, floor.on_idle_bell = self.answer, self.wake

    def answer(self) -> None:
        self.floor.borrow(self.look)

    def look(self) -> None:
        if self.floor.take_link():
            self.floor.rung = False
            self.answered.append(self.floor.state)
            self.floor.give_link()

    def wake(self) -> None:
        self.idle += 1


@pytest.fixture
def floor(monkeypatch: pytest.MonkeyPatch) -> Floor:
    monkeypatch.setattr(module.time, "monotonic", lambda: 100.0)
    return Floor()


@pytest.fixture
def bells(floor: Floor) -> Bells:
    return Bells(floor)


def lend(floor: Floor) -> None:
    """The user's code begins."""
    floor.lend_link()
    floor.state = THEIRS


def reclaim(floor: Floor) -> None:
    """It has ended."""
    floor.state = OURS
    floor.reclaim_link()


def test_an_interrupt_means_nothing_between_calls(floor: Floor) -> None:
    floor.on_interrupt()
    lend(floor)
    assert floor.state == THEIRS
    with pytest.raises(KeyboardInterrupt):
        floor.on_interrupt()
    reclaim(floor)
    floor.on_interrupt()


def test_an_interrupt_waits_until_the_floor_is_given_back(floor: Floor) -> None:
    states: list[int] = []

    def send() -> None:
        floor.on_interrupt()
        states.append(floor.state)

    lend(floor)
    with pytest.raises(KeyboardInterrupt):
        floor.borrow(send)
    assert states == [BORROWED]
    floor.borrow(lambda: None)  # it strikes once


def test_an_interrupt_for_the_last_call_does_not_strike_the_next(floor: Floor) -> None:
    lend(floor)
    floor.state = BORROWED
    floor.on_interrupt()
    reclaim(floor)
    lend(floor)
    floor.borrow(lambda: None)


def test_a_doorbell_is_answered_at_once_while_the_users_code_runs(floor: Floor, bells: Bells) -> None:
    lend(floor)
    floor.on_doorbell()
    assert bells.answered == [BORROWED]
    assert not floor.rung
    assert floor.alert_s == 100.0 + module.MAIL_TIMEOUT_S


def test_a_doorbell_in_our_own_code_is_noted(floor: Floor, bells: Bells) -> None:
    floor.on_doorbell()
    assert (bells.answered, bells.idle, floor.rung) == ([], 1, True)


def test_a_doorbell_while_borrowed_is_answered_afterwards(floor: Floor, bells: Bells) -> None:
    lend(floor)
    floor.borrow(floor.on_doorbell)
    assert bells.answered == [BORROWED]
    assert bells.idle == 0


def test_mail_that_is_seen_while_borrowed_is_read_afterwards(floor: Floor, bells: Bells) -> None:
    lend(floor)
    floor.borrow(floor.on_mail)
    assert bells.answered == [BORROWED]


# --- the link ---------------------------------------------------------------------------------------------------------


def test_the_link_is_lent_with_the_floor(floor: Floor) -> None:
    assert not floor.take_link()
    lend(floor)
    assert floor.take_link()
    assert not floor.take_link()
    floor.give_link()
    reclaim(floor)
    assert not floor.take_link()


def test_nobody_takes_the_link_of_code_that_has_just_ended(floor: Floor) -> None:
    lend(floor)
    floor.state = OURS
    assert not floor.take_link()
    floor.reclaim_link()


@pytest.fixture
def rings(floor: Floor) -> Iterator[None]:
    """The signal reaches the floor."""
    before = signal.signal(DOORBELL_SIGNAL, floor.on_doorbell)
    yield
    signal.signal(DOORBELL_SIGNAL, before)


def test_a_doorbell_while_another_has_the_link_is_rung_again(floor: Floor, bells: Bells, rings: None) -> None:
    lend(floor)
    takes = threading.Thread(target=floor.take_link)
    takes.start()
    takes.join()
    floor.on_doorbell()
    assert bells.answered == []
    floor.alert_s = 0.0
    gives = threading.Thread(target=floor.give_link)
    gives.start()
    gives.join()
    assert bells.answered == [BORROWED]
    assert floor.alert_s == 0.0  # nothing new was announced


def test_only_the_main_thread_is_the_main_thread(floor: Floor) -> None:
    found: list[bool] = []
    other = threading.Thread(target=lambda: found.append(floor.is_main()))
    other.start()
    other.join()
    assert (floor.is_main(), found) == (True, [False])
