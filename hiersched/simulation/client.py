"""A simulated client: calls, tasks and the blobs they need, sent and settled as the real session does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from hiersched.core.effects import PARENT, Link
from hiersched.errors import Bug, ClusterLost, TaskCancelled
from hiersched.kernels import bitset
from hiersched.limits import TASKS_PER_MESSAGE_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames
from hiersched.simulation.network import Edge, Network, Node
from hiersched.simulation.payload import Bulk, frame_bytes, pack_argument, unpack_answer
from hiersched.simulation.requests import ERROR_OF, Outcome, Request
from hiersched.simulation.scheduler import results_in

Blobs = Mapping[m.Digest, int]  # how many bytes each has

NO_BLOBS: Blobs = {}


class SimClient(Node):
    """One client. members: the engines it knows to be there, a bit set of ranks. session: 0 until the root let it in.

    open: its unfinished calls and tasks by id, with the place in their request (-1: a whole call). pins: blobs it must
    be able to supply, [bytes, open ids that need it]. unsent: tasks that wait until the root takes more; in_flight:
    those it has. ended: why it left, or was left.
    """

    def __init__(self, link: Link, host: str, *, network: Network) -> None:
        super().__init__(link, host)
        self.members = 0
        self.session = 0
        self.open: dict[m.TaskId, tuple[Request, int]] = {}
        self.pins: dict[m.Digest, list[int]] = {}
        self.unsent: deque[m.Task] = deque()
        self.in_flight = 0
        self.ended = ""
        self._in_flight_max = 0
        self._network = network
        self._last_id = 0
        self._needs: dict[m.TaskId, tuple[m.Digest, ...]] = {}
        self._supplied: set[m.Digest] = set()
        self._free_s = 0.0

    @property
    def at_rest(self) -> bool:
        """Nothing is outstanding, nothing pinned."""
        return not (self.open or self.pins or self.unsent or self.in_flight)

    # --- asking -------------------------------------------------------------------------------------------------------

    def start(self, cluster: str, key: str) -> None:
        """Say hello."""
        self._send(m.Hello(cluster, key, "client", self.link.decode(), 0, self.host, 0, 0))

    def call(self, request: Request, *, function: m.Digest = m.NO_FUNCTION, blobs: Blobs = NO_BLOBS) -> None:
        """Send a call to the targets of `request`, in shares of their own if it has more than one argument.

        blobs: what every target needs, the function's own included.
        """
        (request_id,) = self._enter(request, [-1], blobs)
        if self.ended or not request.targets:
            self._end_early(request)
            return
        needs = [digest for digest in blobs if digest != function]
        arguments, parts = list(request.arguments), []
        if len(arguments) > 1:
            arguments = [argument for _, argument in sorted(zip(request.targets, arguments, strict=True))]
            parts = [m.Part(1, []) for _ in arguments]
        targets = bitset.to_wire(bitset.of_ranks(request.targets))
        lane = m.CELL_LANE if function == m.NO_FUNCTION else m.CALL_LANE
        frames = [pack_argument(argument) for argument in arguments]
        self._send(m.Call(request_id, targets, lane, function, needs, parts), frames)

    def tasks(self, request: Request, *, function: m.Digest, blobs: Blobs = NO_BLOBS) -> None:
        """Send one load-balanced task for each argument of `request`. blobs: as for `call`."""
        ids = self._enter(request, range(len(request.arguments)), blobs)
        if self.ended:
            self._end_early(request)
            return
        needs = [digest for digest in blobs if digest != function]
        for task_id, argument in zip(ids, request.arguments, strict=True):
            self.unsent.append(m.Task(task_id, function, needs, pack_argument(argument), 0))
        self._send_tasks()

    def cancel(self, ids: Iterable[m.TaskId]) -> None:
        """Withdraw tasks that have not started; they end with TaskCancelled."""
        wanted = {task_id for task_id in ids if task_id in self.open}
        withdrawn = [task.id for task in self.unsent if task.id in wanted]
        self.unsent = deque(task for task in self.unsent if task.id not in wanted)
        for task_id in withdrawn:
            self._settle(task_id, TaskCancelled)
        sent = sorted(wanted.difference(withdrawn))
        for start in range(0, len(sent), TASKS_PER_MESSAGE_MAX):
            self._send(m.Cancel(sent[start : start + TASKS_PER_MESSAGE_MAX]))

    def stop_cluster(self) -> None:
        """End the whole cluster."""
        self._send(m.Stop("a client asked for it"))

    def leave(self) -> None:
        """Say goodbye; what is outstanding ends with ClusterLost."""
        self._send(m.Bye("the client closed its session"))
        self.link_down(PARENT, "the client closed its session")

    def _enter(self, request: Request, places: Sequence[int], blobs: Blobs) -> list[m.TaskId]:
        """Note what is about to be sent, pin its blobs, and send the root those it was not sent before. The ids."""
        self._free_s = max(self._free_s, self._network.timeline.now_s)
        first = self._last_id + 1
        self._last_id += len(places)
        ids = [self.session << m.SESSION_SHIFT | number for number in range(first, self._last_id + 1)]
        request.begin(ids, self._free_s)
        self.open.update((request_id, (request, place)) for request_id, place in zip(ids, places, strict=True))
        if blobs:
            digests = tuple(blobs)
            self._needs.update((request_id, digests) for request_id in ids)
        for digest, size in blobs.items():
            self.pins.setdefault(digest, [size, 0])[1] += len(ids)
            if digest not in self._supplied and not self.ended:
                self._supplied.add(digest)
                self._send(m.Blob(digest), (Bulk(size),))
        return ids

    def _send_tasks(self) -> None:
        """Send tasks, as many as the root takes."""
        while self.unsent and self.in_flight < self._in_flight_max:
            count = min(len(self.unsent), self._in_flight_max - self.in_flight, TASKS_PER_MESSAGE_MAX)
            self.in_flight += count
            self._send(m.Tasks([self.unsent.popleft() for _ in range(count)]))

    def _send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        assert self.uplink is not None
        costs = self._network.weather.costs
        self._free_s = max(self._free_s, self._network.timeline.now_s) + costs.send_s
        self._free_s += costs.byte_s * frame_bytes(frames)
        self.uplink.up.send(self._free_s, message, frames)

    # --- hearing ------------------------------------------------------------------------------------------------------

    def receive(self, edge: Edge, link: Link, message: m.Message, frames: Sequence[Frame]) -> None:
        """Take a message in; it is handled when that has taken its time."""
        costs, timeline = self._network.weather.costs, self._network.timeline
        self._free_s = max(self._free_s, timeline.now_s) + costs.receive_s + costs.result_s * results_in(message)
        timeline.at(self._free_s, self._handle, (message, frames))

    def _handle(self, parcel: tuple[m.Message, Sequence[Frame]]) -> None:
        if self.ended or self.ended_s <= self._network.timeline.now_s:
            return
        message, frames = parcel
        match message:
            case m.Reply():
                self._on_reply(message, frames)
            case m.Results():
                self._on_results(message)
            case m.Members():
                self.members = (self.members | bitset.from_wire(message.joined)) & ~bitset.from_wire(message.left)
            case m.Want():
                self._on_want(message)
            case m.Welcome():
                self.session = message.session
                self._in_flight_max = message.facts["tasks_in_flight_max"]
                self.members |= bitset.from_wire(message.members)
            case m.Bye():
                self.link_down(PARENT, message.reason)
            case m.Refused():
                self.link_down(PARENT, message.text)

    def link_down(self, link: Link, reason: str) -> None:
        """Nothing more will come: what is outstanding ends with ClusterLost."""
        self.ended_s = min(self.ended_s, max(self._free_s, self._network.timeline.now_s))
        self.ended = reason
        self.unsent.clear()
        for request in {id(request): request for request, _ in self.open.values()}.values():
            self._end_early(request)
        self.in_flight = 0

    def _end_early(self, request: Request) -> None:
        """No answer will come, or none is needed."""
        request.settle_rest(ClusterLost, self._free_s)
        for request_id in request.ids:
            if request_id in self.open:
                self._close(request_id)

    def _on_reply(self, reply: m.Reply, frames: Sequence[Frame]) -> None:
        request, last = self._open_request(reply.request)[0], False
        now_s = self._network.timeline.now_s
        pieces = split_frames([chunk.frames for chunk in reply.chunks], frames)
        for chunk, piece in zip(reply.chunks, pieces, strict=True):
            ranks = bitset.ranks_of(bitset.from_wire(chunk.ranks))
            if not chunk.sizes:
                last = request.settle(request.place_of(ranks[0]), unpack_answer(piece[0]), now_s) or last
                continue
            start, body = 0, memoryview(piece[0])
            for rank, size in zip(ranks, chunk.sizes, strict=True):
                answer = unpack_answer(body[start : start + size])
                last = request.settle(request.place_of(rank), answer, now_s) or last
                start += size
        for loss in reply.losses:
            for rank in bitset.ranks_of(bitset.from_wire(loss.ranks)):
                last = request.settle(request.place_of(rank), ERROR_OF[loss.code], now_s) or last
        if last:
            self._close(reply.request)

    def _on_results(self, batch: m.Results) -> None:
        for result in batch.results:
            self.in_flight -= 1
            self._settle(result.id, ERROR_OF[result.code] if result.code else unpack_answer(result.payload))
        self._send_tasks()

    def _on_want(self, want: m.Want) -> None:
        missing = []
        for digest in want.digests:
            pin = self.pins.get(digest)
            if pin is None:
                missing.append(digest)
            else:
                self._send(m.Blob(digest), (Bulk(pin[0]),))
        if missing:
            self._send(m.Missing(missing))

    def _settle(self, task_id: m.TaskId, outcome: Outcome) -> None:
        request, place = self._open_request(task_id)
        request.settle(place, outcome, self._network.timeline.now_s)
        self._close(task_id)

    def _open_request(self, request_id: m.TaskId) -> tuple[Request, int]:
        """The request and place of an id. Raises Bug if it has ended, or never began."""
        entry = self.open.get(request_id)
        if entry is None:
            raise Bug(f"client {self.session} is answered twice, or unasked: {request_id & (1 << m.SESSION_SHIFT) - 1}")
        return entry

    def _close(self, request_id: m.TaskId) -> None:
        """Forget what has ended, and what only it needed."""
        del self.open[request_id]
        for digest in self._needs.pop(request_id, ()):
            pin = self.pins[digest]
            pin[1] -= 1
            if not pin[1]:
                del self.pins[digest]
