"""Several threads wait, and one of them receives."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator

import pytest

from hiersched.client import pump
from hiersched.client.pump import Pump
from tests.patience import DEADLINE_S, until


class Mail:
    """What comes in: a number, each time that one is sent."""

    def __init__(self) -> None:
        self.descriptor = os.eventfd(0, os.EFD_NONBLOCK)
        self.came = 0
        self.pump = Pump(
            self.descriptor,
            look=self._look,
            again_in_s=lambda: None,
            outstanding=lambda: False,
            closed=lambda: False,
        )
        self._threads: list[threading.Thread] = []

    def send(self) -> None:
        os.eventfd_write(self.descriptor, 1)

    def close(self) -> None:
        for thread in self._threads:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        self.pump.close()
        os.close(self.descriptor)

    def in_thread(self, deed: Callable[[], object]) -> list[object]:
        """Do something in another thread; where its outcome will be."""
        outcome: list[object] = []
        self._threads.append(threading.Thread(target=lambda: outcome.append(deed())))
        self._threads[-1].start()
        return outcome

    def someone_receives(self) -> bool:
        if self.pump._turn.acquire(blocking=False):
            self.pump._turn.release()
            return False
        return True

    def _look(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.came += os.eventfd_read(self.descriptor)


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mail]:
    monkeypatch.setattr(pump, "_TURN_PERIOD_S", 2 * DEADLINE_S)  # nobody finds out by looking again
    mail = Mail()
    yield mail
    mail.close()


def one_receives_and_one_waits(mail: Mail, firsts: int, seconds: int) -> tuple[list[object], list[object]]:
    """Until so many letters have come, each in a thread of its own. What becomes of them."""
    first = mail.in_thread(lambda: mail.pump.receive(lambda: mail.came >= firsts, DEADLINE_S))
    until(mail.someone_receives, "the first receives")
    second = mail.in_thread(lambda: mail.pump.wait(lambda: mail.came >= seconds, DEADLINE_S))
    until(lambda: mail.pump._waiting, "the second waits")
    return first, second


def test_who_waits_while_another_receives_is_told_at_once(mail):
    first, second = one_receives_and_one_waits(mail, 2, 1)
    mail.send()
    until(lambda: second, "the second has what it waited for")
    assert (first, second) == ([], [True])
    mail.send()
    until(lambda: first, "the first has it too")


def test_who_waits_receives_when_the_other_has_done(mail):
    first, second = one_receives_and_one_waits(mail, 1, 2)
    mail.send()
    until(lambda: first and mail.someone_receives(), "the second has taken the turn")
    mail.send()
    until(lambda: second, "the second has what it waited for")
    assert second == [True]


def test_a_wait_ends_in_time_whoever_receives(mail):
    mail.in_thread(lambda: mail.pump.receive(lambda: mail.came >= 1, DEADLINE_S))
    until(mail.someone_receives, "the first receives")
    assert not mail.pump.wait(lambda: False, 0.01)
    mail.send()
