"""What engines print and display, as messages of ipyparallel's iopub channel, and when there is no more of it.

Merged output of many engines is told apart again here: each old client's request is one engine's, and so is each
message. That code is busy is not told: what clients wait for is `idle`, which comes after all output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from hiersched.compat.wire import Wire
from hiersched.data.outputs import Clear, Comm, Output, Shown, Text
from hiersched.protocol.framing import Frame

Publish = Callable[[list[Frame]], None]
OnPrinted = Callable[[str, str, dict[str, Any]], None]  # msg_id, type, content


class IOPub:
    """publish: sends frames to all who listen. on_printed: keeps the books of what requests print."""

    def __init__(self, wire: Wire, publish: Publish, on_printed: OnPrinted) -> None:
        self._wire = wire
        self._publish = publish
        self._on_printed = on_printed

    def tell(
        self,
        msg_type: str,
        content: dict[str, Any],
        *,
        of: tuple[str, bytes],
        engine: tuple[str, int],
        buffers: Iterable[bytes] = (),
    ) -> None:
        """One message. of: the request's id and header; engine: its (uuid, rank)."""
        uuid, rank = engine
        topic = f"engine.{rank}.{msg_type}".encode()
        metadata = {"engine": uuid}
        frames = self._wire.pack(
            msg_type, content, parent=of[1], metadata=metadata, idents=(topic,), buffers=list(buffers)
        )
        self._publish(frames)
        if msg_type in _KEPT:
            self._on_printed(of[0], msg_type, content)

    def tell_all(self, outputs: Iterable[Output], *, of: tuple[str, bytes], engine: tuple[str, int]) -> None:
        """Outputs of one engine, in order."""
        for output in outputs:
            if type(output) is Comm:
                self.tell(output.msg_type, output.content, of=of, engine=engine, buffers=output.buffers)
            else:
                msg_type, content = _plain(output)
                self.tell(msg_type, content, of=of, engine=engine)

    def idle(self, *, of: tuple[str, bytes], engine: tuple[str, int]) -> None:
        """No more output of this request comes from this engine."""
        self.tell("status", {"execution_state": "idle"}, of=of, engine=engine)


_KEPT = frozenset({"stream", "error", "execute_input", "execute_result", "display_data"})


def _plain(output: Output) -> tuple[str, dict[str, Any]]:
    """The type and content of the message that tells of an output."""
    if isinstance(output, Text):
        return "stream", {"name": output.stream, "text": output.text}
    if isinstance(output, Clear):
        return "clear_output", {"wait": output.wait}
    assert isinstance(output, Shown), "comms have messages of their own"
    shown = {"data": output.data, "metadata": output.metadata, "transient": output.transient}
    return "update_display_data" if output.update else "display_data", shown
