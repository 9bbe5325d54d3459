"""Widgets of engines speak with the notebook of the client, and it with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from comm import base_comm

from hiersched.client import comms
from hiersched.client.comms import CommRelay
from hiersched.data.outputs import Comm
from hiersched.data.serialize import Packer, Unpacker


class Kernel:
    """As much of an IPython kernel as a relay uses. sent: what went to the frontend."""

    def __init__(self) -> None:
        self.iopub_socket = object()
        self.session = self
        self.sent: list[tuple[str, dict[str, Any]]] = []

    def send(self, socket: object, msg_type: str, **parts: Any) -> None:
        self.sent.append((msg_type, parts))

    def get_parent(self, channel: str) -> str:
        return f"the cell that runs, by {channel}"


class Calls:
    """A session that notes what is called on engines."""

    def __init__(self) -> None:
        self.packer = Packer()
        self.made: list[tuple[tuple[int, ...], tuple[Any, ...]]] = []

    def call(self, targets: tuple[int, ...], packed: Any) -> None:
        args, _ = Unpacker({}).arguments(packed.frames, packed.blobs)
        self.made.append((targets, args))


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    kernel = Kernel()
    monkeypatch.setattr(comms, "current_shell", lambda: SimpleNamespace(kernel=kernel))
    return kernel


@pytest.fixture
def manager(monkeypatch: pytest.MonkeyPatch) -> base_comm.CommManager:
    """The stand-ins of this process."""
    import comm

    manager = base_comm.CommManager()
    monkeypatch.setattr(comm, "get_comm_manager", lambda: manager)
    return manager


OPENED = Comm("comm_open", {"comm_id": "7", "target_name": "widget", "data": {"a": 1}}, {"version": 2}, [b"bytes"])


def test_what_an_engine_sends_goes_to_the_frontend(kernel, manager):
    relay = CommRelay(Calls())
    relay(3, OPENED)
    relay(3, Comm("comm_msg", {"comm_id": "7", "data": {"a": 2}}))
    (opened, parts), (changed, _) = kernel.sent
    assert (opened, changed) == ("comm_open", "comm_msg")
    assert parts["content"] == OPENED.content
    assert (parts["metadata"], parts["buffers"]) == ({"version": 2}, [b"bytes"])
    assert parts["parent"] == "the cell that runs, by shell"


def test_what_the_frontend_sends_goes_to_the_engine(kernel, manager):
    calls = Calls()
    CommRelay(calls)(3, OPENED)
    content = {"comm_id": "7", "data": {"a": 2}}
    manager.comm_msg(None, None, {"content": content, "buffers": [memoryview(b"more")], "metadata": {"version": 2}})
    manager.comm_close(None, None, {"content": {"comm_id": "7"}})
    assert calls.made == [
        ((3,), ("comm_msg", content, [b"more"], {"version": 2})),
        ((3,), ("comm_close", {"comm_id": "7"}, [], None)),
    ]


def test_without_a_frontend_nothing_is_relayed(monkeypatch, manager):
    monkeypatch.setattr(comms, "current_shell", lambda: None)
    calls = Calls()
    CommRelay(calls)(3, OPENED)
    assert (calls.made, manager.comms) == ([], {})
