"""The front door's channels without a socket or a process: a real core, and engines and clients that a test moves.

The stage is the driver: it steps the core with what the door says, and gives the door what the core says to it. Engines
run what they were asked when a test has them do so, with ipyparallel's own conventions. A client packs and reads its
messages with the code of real clients. What is called on the loop's next turn is called by `Stage.turn`.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from ipyparallel.serialize import deserialize_object, pack_apply_message
from jupyter_client.session import Session

from hiersched.compat.broadcasts import Broadcasts
from hiersched.compat.calls import Calls
from hiersched.compat.desk import Desk
from hiersched.compat.exchange import DOOR, Exchange
from hiersched.compat.iopub import IOPub
from hiersched.compat.roster import Roster
from hiersched.compat.tasks import Tasks
from hiersched.compat.wire import Message, Wire
from hiersched.data.applied import Applied, pack_applied
from hiersched.data.cells import Cell, JupyterReply, pack_jupyter_reply
from hiersched.data.outcomes import PackedOutcome, pack_outcome_buffers, pack_outcome_error
from hiersched.data.outputs import Output, Text, pack_output, pack_outputs
from hiersched.kernels import bitset
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, inline, split_frames, whole
from tests.core.transcript import CLUSTER, KEY, Transcript, planned

SIGNING_KEY = b"the clients' key"
CLIENT = b"old-client"
Work = tuple[m.Call | m.Task, Sequence[Frame]]


class StagedEngine:
    """An engine that runs when it is told to. held: what it was asked and has not answered. functions: digests of the
    blobs it was sent, in order. told: whatever else it was told.
    """

    def __init__(self, stage: Stage, rank: int, link: bytes) -> None:
        self.rank, self.link = rank, link
        self.namespace: dict[str, Any] = {"__name__": "__main__", "rank": rank}
        self.held: deque[Work] = deque()
        self.functions: list[bytes] = []
        self.told: list[m.Message] = []
        self._blobs: dict[bytes, bytes] = {}
        self._stage = stage

    def listen(self) -> None:
        """Take in what its scheduler has said."""
        for word in self._stage.root.says(self.link):
            message, *frames = word if isinstance(word, tuple) else (word,)
            match message:
                case m.Blob():
                    self.functions.append(message.digest)
                    self._blobs[message.digest] = bytes(frames[0])
                case m.Call():
                    self.held.append((message, frames))
                case m.Tasks():
                    pieces = split_frames([task.frames for task in message.tasks], frames)
                    self.held.extend(zip(message.tasks, pieces, strict=True))
                case m.Cancel():
                    self.told.append(message)
                    self._withdraw(message)
                case _:
                    self.told.append(message)

    def runs(self, *, printing: Sequence[Output] = ()) -> None:
        """Run what came first, and answer. printing: what goes with the answer."""
        self.listen()
        work, frames = self.held.popleft()
        self.answers(work, self._outcome(work, frames, [pack_output(output) for output in printing]))

    def prints(self, text: str) -> None:
        """Print while it runs what came first."""
        self.listen()
        work = self.held[0][0]
        piece = m.Piece(_id_of(work), bitset.to_wire(1 << self.rank))
        self._stage.hears(self.link, m.Outputs([piece]), [pack_outputs([Text("stdout", text)])])
        self._stage.root.passes(0.1)  # equal words of others are waited for
        self._stage.step()

    def refuses(self, code: int, text: str = "") -> None:
        """Answer what came first without an outcome."""
        self.listen()
        self._answer_without(self.held.popleft()[0], code, text)

    def answers(self, work: m.Call | m.Task, packed: PackedOutcome) -> None:
        """Answer with this outcome."""
        wire_rank = bitset.to_wire(1 << self.rank)
        if isinstance(work, m.Call):
            chunks = [m.Chunk(wire_rank, [], len(packed.frames))]
            reply = m.Reply(work.request, chunks, [], [m.Report(wire_rank)] * len(packed.reports))
            self._stage.hears(self.link, reply, packed.whole)
            return
        payload, frames = inline(packed.frames)
        frames = [*frames, *packed.reports]
        result = m.Result(work.id, self.rank, 10, packed.code, payload, len(frames), work.attempt)
        self._stage.hears(self.link, m.Results([result]), frames)

    def dies(self) -> None:
        """Its process ends."""
        self.held.clear()
        self._stage.root.loses(self.link)
        self._stage.step()

    def _withdraw(self, cancel: m.Cancel) -> None:
        withdrawn = [work for work, _ in self.held if _id_of(work) in cancel.tasks]
        self.held = deque(entry for entry in self.held if entry[0] not in withdrawn)
        for work in withdrawn:
            self._answer_without(work, m.CANCELLED, "cancelled")

    def _answer_without(self, work: m.Call | m.Task, code: int, text: str) -> None:
        if isinstance(work, m.Call):
            losses = [m.Loss(bitset.to_wire(1 << self.rank), code, text)]
            self._stage.hears(self.link, m.Reply(work.request, [], losses), ())
        else:
            result = m.Result(work.id, self.rank, 0, code, text.encode(), 0, work.attempt)
            self._stage.hears(self.link, m.Results([result]), ())

    def _outcome(self, work: m.Call | m.Task, frames: Sequence[Frame], printed: list[msgspec.Raw]) -> PackedOutcome:
        times = {"started": 100.0 + self.rank, "ended": 200.0 + self.rank}
        try:
            if isinstance(work, m.Call) and work.lane == m.CELL_LANE:
                return pack_outcome_buffers([self._cell(frames)], printed=printed, **times)
            own = frames if isinstance(work, m.Call) else whole(work.payload, frames)
            function, args, kwargs = Applied(self._blobs[work.function]).bind(own, self.namespace)
            return pack_outcome_buffers(pack_applied(function(*args, **kwargs)), printed=printed, **times)
        except Exception as error:
            return pack_outcome_error(error, printed=printed, **times)

    def _cell(self, frames: Sequence[Frame]) -> bytes:
        """A cell's value, if it is an expression, as IPython would show it."""
        cell = msgspec.msgpack.decode(frames[0], type=Cell)
        assert cell.jupyter
        shown = {name: {"status": "ok", "data": {"text/plain": "1"}} for name in cell.expressions}
        try:
            value = eval(cell.code, self.namespace)
        except SyntaxError:
            exec(cell.code, self.namespace)
            return pack_jupyter_reply(JupyterReply(7, None, shown))
        return pack_jupyter_reply(JupyterReply(7, {"data": {"text/plain": repr(value)}, "metadata": {}}, shown))


class NotedBooks:
    """asked, answered, printed: what was entered, in order. ids: those asked for and not answered."""

    def __init__(self) -> None:
        self.asked_for: list[tuple[str, str, str | None]] = []
        self.ended: dict[str, tuple[str | None, dict[str, Any]]] = {}
        self.prints: list[tuple[str, str]] = []
        self.open: set[str] = set()

    def asked(self, message: Message, *, queue: str, msg_id: str | None = None, engine: str | None = None) -> None:
        self.asked_for.append((msg_id or message.msg_id, queue, engine))
        self.open.add(msg_id or message.msg_id)

    def asked_all(self, message: Message, msg_ids_by_uuid: dict[str, str]) -> None:
        self.asked_for += [(msg_id, "broadcast", uuid) for uuid, msg_id in msg_ids_by_uuid.items()]
        self.open.update(msg_ids_by_uuid.values())

    def answered(self, msg_id: str, *, uuid: str | None, content: dict[str, Any], **_: Any) -> None:
        assert msg_id not in self.ended, "a request ends once"
        self.ended[msg_id] = (uuid, content)
        self.open.discard(msg_id)

    def printed(self, msg_id: str, msg_type: str, content: dict[str, Any]) -> None:
        self.prints.append((msg_id, msg_type))


class Said:
    """One message that a client has received. channel: where. topic: on iopub."""

    def __init__(self, channel: str, path: list[bytes], message: dict[str, Any]) -> None:
        self.channel, self.path = channel, path
        self.kind: str = message["header"]["msg_type"]
        self.to: str = message["parent_header"].get("msg_id", "")
        self.content: dict[str, Any] = message["content"]
        self.metadata: dict[str, Any] = message["metadata"]
        self.buffers: list[Any] = message["buffers"]

    def values(self) -> list[Any]:
        """What its buffers hold, one value after the other."""
        values, left = [], list(self.buffers)
        while left:
            value, left = deserialize_object(left)
            values.append(value)
        return values

    def __repr__(self) -> str:
        return f"<{self.channel}: {self.kind} {self.content}>"


class Stage:
    """engines: by rank. books: what was entered. asked: how many messages the core was sent by the door, by type.
    members: the news of engines that the door was told. session: the client's own packer.
    """

    def __init__(self, engines: int = 4) -> None:
        self.root = Transcript(0, engines)
        self.books = NotedBooks()
        self.members: list[m.Members] = []
        self.asked: Counter[type[m.Message]] = Counter()
        self._turn: deque[Callable[[], None]] = deque()
        self._sent: list[tuple[str, list[Frame]]] = []
        links = self.root.engines(*range(engines))
        self.engines = [StagedEngine(self, rank, link) for rank, link in enumerate(links)]
        self.facts = ClusterFacts(CLUSTER, KEY, "", planned(engines))
        self.session = Session(key=SIGNING_KEY, session="the-client")

    def open(self) -> Stage:
        """Build the door's pieces, all but its sockets."""
        self.wire, self.roster = Wire(SIGNING_KEY), Roster()
        self.exchange = Exchange(self, self.facts, call_soon=self.call_soon, on_members=self._on_members)  # type: ignore[arg-type]
        self.roster.begin(self.exchange.members)
        iopub = IOPub(self.wire, lambda frames: self.send("iopub", frames), self.books.printed)
        self.desk = Desk(self.wire, self.roster, self.exchange, iopub, self.books, self.send)
        tasks = Tasks(self.desk)
        self.channels = {"mux": Calls(self.desk).take, "task": tasks.take, "broadcast": Broadcasts(self.desk).take}
        return self

    context = None  # the doors' sockets are lists

    # --- as a driver and a loop ---------------------------------------------------------------------------------------

    def take_in(self, link: bytes, deliver: Callable[[m.Message, Sequence[Frame]], None], signal: Any = None) -> None:
        assert link == DOOR
        self._deliver = deliver

    def hear(self, link: bytes, *said: tuple[m.Message, Sequence[Frame]]) -> None:
        for message, frames in said:
            self.asked[type(message)] += 1
            self.root.hears(link, message, *[bytes(frame) for frame in frames])
        self.step()

    def hears(self, link: bytes, message: m.Message, frames: Sequence[Frame]) -> None:
        """An engine says something."""
        self.root.hears(link, message, *[bytes(frame) for frame in frames])
        self.step()

    def step(self) -> None:
        """Let the core settle, and deliver what it says to the door."""
        self.root.drains()
        for word in self.root.says(DOOR):
            message, *frames = word if isinstance(word, tuple) else (word,)
            self._deliver(message, frames)

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._turn.append(callback)

    def turn(self) -> None:
        """Turn the loop until nothing is left to be called, and let the engines hear what was sent to them."""
        self.exchange.flush()
        while self._turn:
            self._turn.popleft()()
        for engine in self.engines:
            engine.listen()
        if self._turn:
            self.turn()

    def _on_members(self, news: m.Members) -> None:
        self.members.append(news)
        self.roster.on_members(news)

    # --- as a client --------------------------------------------------------------------------------------------------

    def send(self, channel: str, frames: list[Frame]) -> None:
        """Something leaves the door."""
        self._sent.append((channel, frames))

    def heard(self, *channels: str) -> list[Said]:
        """What clients were sent since the last look, on these channels or all, in order."""
        self.turn()
        taken = [sent for sent in self._sent if not channels or sent[0] in channels]
        self._sent = [sent for sent in self._sent if channels and sent[0] not in channels]
        return [self._read(channel, frames) for channel, frames in taken]

    def _read(self, channel: str, frames: list[Frame]) -> Said:
        path, parts = self.session.feed_identities([bytes(frame) for frame in frames])
        return Said(channel, path, self.session.deserialize(parts))

    def says(self, channel: str, msg_type: str, content: Any, *, to: str = "", **rest: Any) -> str:
        """A client sends a message; its id. to: the engine's uuid. rest: metadata, buffers, msg_id."""
        return self.takes(channel, self.built(msg_type, content, **rest), to=to)

    def built(self, msg_type: str, content: Any, *, metadata: Any = None, msg_id: str = "") -> dict[str, Any]:
        """A message of a client."""
        message: dict[str, Any] = self.session.msg(msg_type, content=content, metadata=metadata)
        if msg_id:
            message["header"]["msg_id"] = msg_id
        return message

    def takes(self, channel: str, message: dict[str, Any], *, to: str = "", buffers: Sequence[Frame] = ()) -> str:
        """The door takes a client's message; its id."""
        idents = [CLIENT, to.encode()] if to else [CLIENT]
        frames = [*self.session.serialize(message, ident=idents), *buffers]
        self.channels[channel](self.wire.unpack(frames))
        return str(message["header"]["msg_id"])

    def uuid(self, rank: int) -> str:
        """What clients call an engine."""
        return self.roster.uuid_of(rank)

    def apply(self, rank: int, function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
        """A client calls a function on one engine."""
        message = self.built("apply_request", {}, metadata={"label": "mine"})
        return self.takes("mux", message, to=self.uuid(rank), buffers=pack_apply_message(function, args, kwargs))

    def execute(self, rank: int, code: str, **content: Any) -> str:
        """A client runs a cell on one engine."""
        asked = {"code": code, "silent": False, "user_expressions": {}, **content}
        return self.says("mux", "execute_request", asked, to=self.uuid(rank))

    def submit(self, function: Callable[..., Any], *args: Any, **metadata: Any) -> str:
        """A client submits a task. metadata: what it asks for."""
        message = self.built("apply_request", {}, metadata=metadata)
        return self.takes("task", message, buffers=pack_apply_message(function, args, {}))

    def broadcast(
        self,
        targets: Sequence[tuple[str, int]],
        function: Callable[..., Any],
        *args: Any,
        coalescing: bool = False,
    ) -> str:
        """A client calls a function on many engines. targets: (uuid, rank)."""
        message = self.built("apply_request", {}, metadata=self.broadcast_metadata(targets, coalescing))
        return self.takes("broadcast", message, buffers=pack_apply_message(function, args, {}))

    def broadcast_cell(self, targets: Sequence[tuple[str, int]], code: str, *, coalescing: bool = False) -> str:
        """A client runs a cell on many engines."""
        asked = {"code": code, "silent": False, "user_expressions": {}}
        metadata = self.broadcast_metadata(targets, coalescing)
        return self.says("broadcast", "execute_request", asked, metadata=metadata)

    @staticmethod
    def broadcast_metadata(targets: Sequence[tuple[str, int]], coalescing: bool) -> dict[str, Any]:
        """As a client writes it."""
        return {"targets": [list(target) for target in targets], "is_broadcast": True, "is_coalescing": coalescing}

    def targets(self, *ranks: int) -> list[tuple[str, int]]:
        """The engines of these ranks, or all, as a client's broadcast names them."""
        return [(self.uuid(rank), rank) for rank in ranks or range(len(self.engines))]

    def aborts(self, *msg_ids: str) -> None:
        """A client withdraws what it knows by these ids."""
        self.exchange.abort(msg_ids)
        self.turn()

    # --- the end ------------------------------------------------------------------------------------------------------

    def is_over(self) -> bool:
        """Nothing is open, here or in the core, and the books are closed."""
        self.turn()
        core = self.root.core
        within = core.calls.gather.open or core.work.dispatcher.flights
        return not (len(self.exchange) or len(self.exchange.ids) or self.books.open or within)


def _id_of(work: m.Call | m.Task) -> m.TaskId:
    return work.request if isinstance(work, m.Call) else work.id
