"""What all channels of the front door share: who is there, how to ask, how to answer, and the books.

A request on its way is an errand. It publishes what the engines print, and answers its client when they have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from hiersched.client.pending import Pending
from hiersched.compat.contents import Content, content_of, metadata_of
from hiersched.compat.exchange import Exchange
from hiersched.compat.iopub import IOPub
from hiersched.compat.records import Records
from hiersched.compat.roster import Roster
from hiersched.compat.wire import Message, Wire
from hiersched.data.cells import JupyterReply, unpack_jupyter_reply
from hiersched.data.outcomes import Outcome, lost_outcome
from hiersched.data.outputs import Output
from hiersched.errors import ProtocolError
from hiersched.protocol.framing import Frame

Send = Callable[[str, list[Frame]], None]  # on a channel, by name
Engine = tuple[str, int]  # uuid, rank


@dataclass(slots=True, frozen=True)
class Desk:
    """One front door's."""

    wire: Wire
    roster: Roster
    exchange: Exchange
    iopub: IOPub
    books: Records
    send: Send

    def engine(self, rank: int) -> Engine:
        """An engine by both names; one that has just left by its rank only."""
        return (self.roster.uuid_of(rank) if rank in self.roster else f"engine-{rank}", rank)

    def reply(
        self,
        message: Message,
        content: Content,
        outcome: Outcome,
        *,
        to: tuple[str, Sequence[bytes]],
        of: tuple[str, bytes],
        engine: Engine | None,
        metadata: Content,
        buffers: Sequence[Frame],
    ) -> None:
        """Answer a request, and enter that into the books. outcome: that ended last. to: the channel, and the idents in
        front; without any nobody waits. of: the id and header that are answered.
        """
        header = self.wire.header(f"{message.msg_type.partition('_')[0]}_reply", outcome.ended)
        channel, path = to
        if path:
            frames = self.wire.pack(header, content, parent=of[1], metadata=metadata, idents=path, buffers=buffers)
            self.send(channel, frames)
        uuid = None if engine is None else engine[0]
        self.books.answered(of[0], uuid=uuid, header=header, metadata=metadata, content=content, buffers=buffers)


class Errand:
    """A request of an old client on one engine, or on any. engine: where it runs, None while that is not known.

    channel: where the answer goes; path: the idents in front of it; empty: nobody waits for it.
    """

    __slots__ = ("_desk", "_engine", "_message", "_method", "channel", "path")

    def __init__(self, desk: Desk, message: Message, *, channel: str, path: list[bytes], engine: Engine | None) -> None:
        self._desk = desk
        self._message = message
        self._engine = engine
        self._method = message.msg_type.partition("_")[0]
        self.channel, self.path = channel, path

    def begin(self, pending: Pending) -> None:
        """The request is on its way."""
        pending.listeners = (self,)
        pending.add_done_callback(self._end)
        if self._desk.exchange.ids.enter(pending, self._message.msg_id):
            self._desk.exchange.cancel([pending])
        if self._engine is not None:
            tell_input(self._desk, self._message, of=self._of, engine=self._engine)

    @property
    def _of(self) -> tuple[str, bytes]:
        return self._message.msg_id, self._message.header_raw

    def on_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """Publish what was printed."""
        for rank in ranks:
            self._desk.iopub.tell_all(outputs, of=self._of, engine=self._engine or self._desk.engine(rank))

    def on_parts(self, pending: Pending) -> None:
        """It has one part: `_end` is called next."""

    def _end(self, pending: Pending) -> None:
        self._desk.exchange.ids.leave(pending)
        assert pending.outcomes[0] is not None, "a request that is done has all outcomes"
        outcome = legible(pending.outcomes[0], self._method)
        engine = self._engine
        if engine is None and outcome.engine_id >= 0:
            engine = self._desk.engine(outcome.engine_id)
        content = finished(self._desk, outcome, of=self._of, engine=engine, method=self._method)
        self.answer(content, outcome, engine)

    def answer(self, content: Content, outcome: Outcome, engine: Engine | None) -> None:
        """Tell the client, and the books."""
        message = self._message
        self._desk.reply(
            message,
            content,
            outcome,
            to=(self.channel, self.path),
            of=self._of,
            engine=engine,
            metadata=metadata_of(message.metadata, outcome, engine=engine, status=content["status"]),
            buffers=given(outcome, self._method),
        )


def given(outcome: Outcome, method: str) -> Sequence[Frame]:
    """What a call gave, in buffers; a cell's answer has none."""
    return outcome.buffers if outcome.error is None and method == "apply" else []


def tell_input(desk: Desk, message: Message, *, of: tuple[str, bytes], engine: Engine) -> None:
    """Publish the code of a cell that is shown."""
    if message.msg_type == "execute_request" and not message.content.get("silent", False):
        shown = {"code": message.content.get("code", ""), "execution_count": 0}
        desk.iopub.tell("execute_input", shown, of=of, engine=engine)


def finished(desk: Desk, outcome: Outcome, *, of: tuple[str, bytes], engine: Engine | None, method: str) -> Content:
    """Publish how one engine's part ended, and that no more output comes. The content of the reply."""
    content = told(desk, outcome, of=of, engine=engine, method=method)
    if engine is not None and (outcome.started is not None or content.get("engine_info")):
        desk.iopub.idle(of=of, engine=engine)
    return content


def told(desk: Desk, outcome: Outcome, *, of: tuple[str, bytes], engine: Engine | None, method: str) -> Content:
    """Publish how one engine's part ended. The content of the reply."""
    content = content_of(outcome, engine=engine, method=method)
    reply = None
    if method == "execute" and outcome.error is None:
        reply = unpack_jupyter_reply(b"".join(outcome.buffers))
        content = _executed(reply)
    if engine is None:
        return content
    if reply is not None and reply.execute_result is not None:
        shown = {**reply.execute_result, "execution_count": reply.execution_count}
        desk.iopub.tell("execute_result", shown, of=of, engine=engine)
    elif content["status"] == "error" and content["engine_info"]:
        desk.iopub.tell("error", content, of=of, engine=engine)
    return content


def legible(outcome: Outcome, method: str) -> Outcome:
    """The outcome; or, if what the engine gave cannot be told to a client, one that says so."""
    if outcome.error is not None or method not in ("apply", "execute"):
        return outcome
    try:
        buffers = outcome.buffers
        if method == "execute":
            unpack_jupyter_reply(b"".join(buffers))
    except ProtocolError as error:
        return lost_outcome(error)
    return outcome


def _executed(reply: JupyterReply) -> Content:
    return {
        "status": "ok",
        "execution_count": reply.execution_count,
        "payload": [],
        "user_expressions": reply.user_expressions,
    }
