"""The first client brings %px along, and the magics themselves come when they are used."""

from __future__ import annotations

import gc

import pytest
from IPython.core.error import UsageError

from hiersched.client.activation import offer_magics
from hiersched.client.direct_view import DirectView
from tests.client.fake_session import FakeClient, FakeSession
from tests.client.test_magics import Shell


class Client(FakeClient):
    """A client that can activate its magics."""

    def __init__(self) -> None:
        super().__init__(FakeSession())
        self.activated = 0

    def activate(self) -> None:
        self.activated += 1
        DirectView(self, block=True).activate()


@pytest.fixture
def shell(monkeypatch):
    shell = Shell()
    for place in ("activation", "magics"):
        monkeypatch.setattr(f"hiersched.client.{place}.current_shell", lambda: shell)
    return shell


def test_the_first_use_activates_the_client(shell):
    client = Client()
    offer_magics(client)
    assert client.activated == 0
    shell.run_line_magic("px", "a = 5")
    shell.run_cell_magic("px", "", "a += 1")
    assert client.activated == 1
    assert DirectView(client)["a"] == [6] * 4


def test_a_cell_may_be_the_first_use(shell):
    client = Client()
    offer_magics(client)
    shell.user_ns["x"] = "here"
    shell.run_cell_magic("px", "", "a = '{x}'")
    assert DirectView(client)["a"] == ["{x}"] * 4


def test_who_came_first_keeps_them(shell):
    first, second = Client(), Client()
    offer_magics(first)
    offer_magics(second)
    shell.run_line_magic("px", "a = 5")
    assert (first.activated, second.activated) == (1, 0)
    DirectView(second, block=True).activate()
    shell.run_line_magic("px", "a = 6")
    assert DirectView(second)["a"] == [6] * 4


def test_a_client_that_is_gone_gives_them_back(shell):
    client = Client()
    offer_magics(client)
    del client
    gc.collect()
    with pytest.raises(UsageError, match="%px: its client is gone"):
        shell.run_line_magic("px", "a = 5")
    another = Client()
    offer_magics(another)
    shell.run_line_magic("pxconfig", "--noblock")
    assert another.activated == 1


def test_a_client_that_is_closed_gives_them_back(shell):
    client = Client()
    offer_magics(client)
    client.session.closed = True
    with pytest.raises(UsageError, match="its client is gone"):
        shell.run_cell_magic("px", "", "a = 5")


def test_outside_of_ipython_there_is_nothing_to_do(monkeypatch):
    monkeypatch.setattr("hiersched.client.activation.current_shell", lambda: None)
    offer_magics(Client())
