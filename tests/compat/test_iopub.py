"""Output reaches old clients as messages of Jupyter's, one for each, under the request that made it."""

from __future__ import annotations

from typing import Any

import pytest
from jupyter_client.session import Session

from hiersched.compat.iopub import IOPub
from hiersched.compat.wire import Wire
from hiersched.data.outputs import Clear, Comm, Output, Shown, Text

KEY = b"key"
OF = ("the-request", b'{"msg_id": "the-request", "msg_type": "apply_request"}')
ENGINE = ("uuid", 12)


class Listener:
    """Who hears all of it. kept: what the books were told."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, dict[str, Any]]] = []
        self.kept: list[tuple[str, str, dict[str, Any]]] = []
        self.iopub = IOPub(Wire(KEY), self._hear, lambda *told: self.kept.append(told))
        self._session = Session(key=KEY)

    def _hear(self, frames: list[Any]) -> None:
        (topic,), parts = self._session.feed_identities(frames)
        message = self._session.deserialize(parts)
        assert message["parent_header"]["msg_id"] == "the-request"
        assert message["metadata"] == {"engine": "uuid"}
        self.heard.append((topic, message))

    def told(self, *outputs: Output) -> tuple[bytes, str, dict[str, Any]]:
        """The only message that tells of these."""
        self.iopub.tell_all(outputs, of=OF, engine=ENGINE)
        topic, message = self.heard.pop()
        assert not self.heard
        return topic, message["msg_type"], message["content"]


@pytest.fixture
def listener() -> Listener:
    return Listener()


def test_printed_text(listener: Listener) -> None:
    assert listener.told(Text("stderr", "w\ud800")) == (
        b"engine.12.stream",
        "stream",
        {"name": "stderr", "text": "w\\ud800"},
    )


def test_what_is_displayed_and_brought_up_to_date(listener: Listener) -> None:
    shown = Shown({"text/plain": "x"}, {"a": 1}, {"display_id": "d"})
    content = {"data": {"text/plain": "x"}, "metadata": {"a": 1}, "transient": {"display_id": "d"}}
    assert listener.told(shown) == (b"engine.12.display_data", "display_data", content)
    update = Shown(shown.data, shown.metadata, shown.transient, update=True)
    assert listener.told(update) == (b"engine.12.update_display_data", "update_display_data", content)


def test_clearing(listener: Listener) -> None:
    assert listener.told(Clear(wait=True)) == (b"engine.12.clear_output", "clear_output", {"wait": True})


def test_a_widgets_messages_keep_their_buffers(listener: Listener) -> None:
    listener.iopub.tell_all([Comm("comm_msg", {"comm_id": "c"}, {}, [b"one", b"two"])], of=OF, engine=ENGINE)
    ((topic, message),) = listener.heard
    assert (topic, message["content"]) == (b"engine.12.comm_msg", {"comm_id": "c"})
    assert [bytes(buffer) for buffer in message["buffers"]] == [b"one", b"two"]


def test_the_order_is_that_of_the_outputs_and_idle_ends_them(listener: Listener) -> None:
    listener.iopub.tell_all([Text("stdout", "1"), Clear(), Text("stdout", "2")], of=OF, engine=ENGINE)
    listener.iopub.idle(of=OF, engine=ENGINE)
    assert [message["msg_type"] for _, message in listener.heard] == ["stream", "clear_output", "stream", "status"]
    assert listener.heard[-1][1]["content"] == {"execution_state": "idle"}


def test_the_books_are_told_of_what_they_keep(listener: Listener) -> None:
    listener.iopub.tell_all([Text("stdout", "1"), Clear(), Comm("comm_msg", {}), Shown({})], of=OF, engine=ENGINE)
    listener.iopub.idle(of=OF, engine=ENGINE)
    assert [(msg_id, kind) for msg_id, kind, _ in listener.kept] == [
        ("the-request", "stream"),
        ("the-request", "display_data"),
    ]
