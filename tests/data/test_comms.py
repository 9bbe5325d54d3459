"""Messages of a front end reach the comm that they are for; what it raises, the caller is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import comm
import comm.base_comm
import pytest

from hiersched.data.comms import deliver_comm
from hiersched.errors import UserError


class Silent(comm.base_comm.BaseComm):
    """Keeps what it would send."""

    def publish_msg(self, msg_type: str, *args: Any, **kwargs: Any) -> None:
        self.sent = [*getattr(self, "sent", []), msg_type]


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> Iterator[comm.base_comm.CommManager]:
    manager = comm.base_comm.CommManager()
    monkeypatch.setattr(comm, "get_comm_manager", lambda: manager)
    monkeypatch.setattr(comm, "create_comm", Silent)
    yield manager
    for opened in list(manager.comms.values()):
        opened._closed = True


@pytest.fixture
def opened(manager: comm.base_comm.CommManager) -> Silent:
    return Silent(comm_id="c1", target_name="t")


def test_a_message_reaches_its_comm_with_its_buffers(opened: Silent) -> None:
    messages: list[dict[str, Any]] = []
    opened.on_msg(messages.append)
    deliver_comm("comm_msg", {"comm_id": "c1", "data": {"x": 1}}, [b"abc"], {"m": 1})
    (message,) = messages
    assert message["content"]["data"] == {"x": 1}
    assert (message["metadata"], message["header"]["msg_type"]) == ({"m": 1}, "comm_msg")
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"abc"]


def test_what_the_comm_raises_is_raised(opened: Silent) -> None:
    def fails(message: object) -> None:
        raise ValueError("in the widget")

    opened.on_msg(fails)
    with pytest.raises(ValueError, match="in the widget"):
        deliver_comm("comm_msg", {"comm_id": "c1", "data": {}})


def test_a_comm_that_its_peer_closes_is_gone_and_says_nothing(
    opened: Silent, manager: comm.base_comm.CommManager
) -> None:
    closed: list[Any] = []
    opened.on_close(closed.append)
    opened.sent = []
    deliver_comm("comm_close", {"comm_id": "c1", "data": {}})
    assert len(closed) == 1
    assert manager.comms == {}
    opened.close()
    assert opened.sent == []


def test_a_front_end_may_open_one(manager: comm.base_comm.CommManager) -> None:
    opened: list[Any] = []
    manager.register_target("t", lambda new, message: opened.append((new, message["content"]["data"])))
    deliver_comm("comm_open", {"comm_id": "c2", "target_name": "t", "data": {"x": 1}})
    assert opened == [(manager.comms["c2"], {"x": 1})]


def test_one_for_an_unknown_target_is_closed_again(manager: comm.base_comm.CommManager) -> None:
    manager.register_target("known", lambda new, message: None)
    with pytest.raises(UserError, match=r"no comm target 'other' here; registered: .*known"):
        deliver_comm("comm_open", {"comm_id": "c2", "target_name": "other", "data": {}})
    assert manager.comms == {}


@pytest.mark.parametrize("msg_type", ["comm_msg", "comm_close"])
def test_an_unknown_comm_is_named(manager: comm.base_comm.CommManager, msg_type: str) -> None:
    with pytest.raises(UserError, match="no comm 'c9' here"):
        deliver_comm(msg_type, {"comm_id": "c9", "data": {}})


def test_only_messages_of_comms_are_delivered(opened: Silent) -> None:
    with pytest.raises(UserError, match="'execute_request' is no message for a comm"):
        deliver_comm("execute_request", {"comm_id": "c1"})
