"""A simulated client: calls, tasks and the blobs they need, sent and settled as the real session does it.

A detached session outlives its client: another one joins it, and then has to be told everything that the first one was
not, each once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

import msgspec

from hiersched.core.conditions import named_by
from hiersched.core.effects import PARENT, Link
from hiersched.errors import Bug, ClusterLost, TaskCancelled
from hiersched.kernels import bitset
from hiersched.limits import TASKS_PER_MESSAGE_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames, whole
from hiersched.simulation.hearing import Listener, answers_in, check_reports
from hiersched.simulation.network import Edge, Network, Node
from hiersched.simulation.payload import Bulk, frame_bytes, pack_argument, unpack_answer
from hiersched.simulation.requests import ERROR_OF, Asked, Outcome, Question, Request, TaskEnd, ToldAgain
from hiersched.simulation.scheduler import results_in

Blobs = Mapping[m.Digest, int]  # how many bytes each has
TermsOf = Callable[[Sequence[m.TaskId]], Sequence[m.Terms]]  # from the ids of tasks: what each asks for

NO_BLOBS: Blobs = {}
SEEN_UNTOLD_MAX = 1_000  # results taken in before the root is told so, if no task is


class ClientLog(Protocol):
    """Is told what tasks ask for, and knows what the root has read."""

    def on_submit(self, task: m.TaskId, terms: m.Terms) -> None:
        """This task is about to be sent."""

    def has_reached_root(self, request: m.TaskId) -> bool:
        """Whether the root has read this call or task."""


class SimClient(Node):
    """One client. members: the engines it knows to be there, a bit set of ranks. session: 0 until the root let it in.

    open: its unfinished calls and tasks by id, with the place in their request (-1: a whole call). pins: blobs it must
    be able to supply, [bytes, open ids that need it]. unsent: tasks that wait until the root takes more; in_flight:
    those it has. asked: all it ever asked for. ends: how its tasks ended; terms: what they asked for; withdrawn: calls
    and tasks that it has cancelled; unmet: tasks that do not suit all engines. ended: why it left, or was left.
    predecessor: whose session it joins.
    """

    def __init__(self, link: Link, host: str, *, network: Network, predecessor: SimClient | None = None) -> None:
        super().__init__(link, host)
        self.members = 0
        self.session = 0
        self.open: dict[m.TaskId, tuple[Request, int]] = {}
        self.questions: dict[m.TaskId, Question] = {}
        self.pins: dict[m.Digest, list[int]] = {}
        self.unsent: deque[m.Task] = deque()
        self.in_flight = 0
        self.ends: dict[m.TaskId, TaskEnd] = {}
        self.terms: dict[m.TaskId, m.Terms] = {}
        self.withdrawn: set[m.TaskId] = set()
        self.unmet: set[m.TaskId] = set()
        self.heard = Listener()
        self.ended = ""
        self.detached = False
        self.predecessor = predecessor
        self.log: ClientLog | None = None
        self.asked: dict[m.TaskId, Asked] = {}
        self._told_again = ToldAgain()
        self._in_flight_max = 0
        self._seen = self._seen_told = 0
        self._network = network
        self._last_id = 0
        self._needs: dict[m.TaskId, tuple[m.Digest, ...]] = {}
        self._supplied: set[m.Digest] = set()
        self._free_s = 0.0

    @property
    def at_rest(self) -> bool:
        """Nothing is outstanding, nothing pinned."""
        return not (self.open or self.questions or self.pins or self.unsent or self.in_flight)

    @property
    def gone(self) -> bool:
        """It has left, or was left, or was killed."""
        return bool(self.ended) or self.ended_s <= self._network.timeline.now_s

    # --- asking -------------------------------------------------------------------------------------------------------

    def start(self, cluster: str, key: str, *, detached: bool = False) -> None:
        """Say hello. detached: the session is to outlive this client."""
        self.detached = detached
        name = self.link.decode()
        self._send(m.Hello(cluster, key, "client", name, 0, self.host, 0, 0, detached=detached))

    def call(self, request: Request, *, function: m.Digest = m.NO_FUNCTION, blobs: Blobs = NO_BLOBS) -> None:
        """Send a call to the targets of `request`, in shares of their own if it has more than one argument.

        blobs: what every target needs, the function's own included.
        """
        (request_id,) = self._enter(request, [-1], blobs)
        if self.gone or not request.targets:
            self._end_early(request)
            return
        needs = [digest for digest in blobs if digest != function]
        arguments, parts = list(request.arguments), []
        if len(arguments) > 1:
            by_rank = sorted(zip(request.targets, arguments, strict=True), key=lambda pair: pair[0])
            arguments = [argument for _, argument in by_rank]
            parts = [m.Part(1, []) for _ in arguments]
        targets = bitset.to_wire(bitset.of_ranks(request.targets))
        lane = m.CELL_LANE if function == m.NO_FUNCTION else m.CALL_LANE
        frames = [pack_argument(argument) for argument in arguments]
        self._send(m.Call(request_id, targets, lane, function, needs, parts), frames)

    def tasks(
        self, request: Request, *, function: m.Digest, blobs: Blobs = NO_BLOBS, terms_of: TermsOf | None = None
    ) -> None:
        """Send one load-balanced task for each argument of `request`. blobs: as for `call`."""
        ids = self._enter(request, range(len(request.arguments)), blobs)
        if self.gone:
            self._end_early(request)
            return
        needs = [digest for digest in blobs if digest != function]
        all_terms = [None] * len(ids) if terms_of is None else terms_of(ids)
        for task_id, argument, terms in zip(ids, request.arguments, all_terms, strict=True):
            if terms is not None:
                argument = msgspec.structs.replace(argument, inputs=tuple(terms.inputs))
                self.terms[task_id] = terms
                if argument.unmet[1]:
                    self.unmet.add(task_id)
                if self.log is not None:
                    self.log.on_submit(task_id, terms)
            self.unsent.append(m.Task(task_id, function, needs, pack_argument(argument), 0, terms))
        self._send_tasks()

    def _knowing(self, task: m.Task) -> m.Task:
        """The task, with what is known here of how those ended that it depends on."""
        if task.terms is None:
            return task
        ends = {named: end for named in named_by(task.terms) if (end := self.ends.get(named)) is not None}
        known = [(named, not end.code, end.rank if end.ran else -1) for named, end in ends.items()]
        return msgspec.structs.replace(task, terms=msgspec.structs.replace(task.terms, known=known))

    def cancel(self, ids: Iterable[m.TaskId], *, running: bool = False) -> None:
        """Withdraw calls and tasks that have not started. running: interrupt those that have."""
        wanted = {task_id for task_id in ids if task_id in self.open}
        self.withdrawn |= wanted
        withdrawn = [task.id for task in self.unsent if task.id in wanted]
        self.unsent = deque(task for task in self.unsent if task.id not in wanted)
        for task_id in withdrawn:
            self._settle(task_id, TaskCancelled)
            self.ends[task_id] = TaskEnd(m.CANCELLED, 0, b"")
        sent = sorted(wanted.difference(withdrawn))
        for start in range(0, len(sent), TASKS_PER_MESSAGE_MAX):
            self._send(m.Cancel(sent[start : start + TASKS_PER_MESSAGE_MAX], running))

    def order(self, ranks: Iterable[int], verb: str, number: int = 0) -> Question:
        """Signal, stop or restart engines."""
        targets = bitset.to_wire(bitset.of_ranks(ranks))
        return self._ask(lambda request: m.Order(request, targets, verb, number))  # type: ignore[arg-type]

    def grow(self, engines: int) -> Question:
        """Add engines."""
        return self._ask(lambda request: m.Grow(request, engines))

    def survey(self, ranks: Iterable[int] = ()) -> Question:
        """Ask for all counters, and the queues of these engines."""
        targets = bitset.to_wire(bitset.of_ranks(ranks))
        return self._ask(lambda request: m.Survey(request, targets))

    def why(self, task: m.TaskId) -> Question:
        """Ask why a task or call has not ended."""
        return self._ask(lambda request: m.Why(request, task))

    def stop_cluster(self) -> None:
        """End the whole cluster."""
        self._send(m.Stop("a client asked for it"))

    def leave(self, *, stays: bool = False) -> None:
        """Say goodbye. Unless the session stays, what is outstanding ends with ClusterLost."""
        self._send(m.Bye("the client closed its session", stays))
        self.detached &= stays
        self.link_down(PARENT, "the client closed its session")

    def _ask(self, message_of: Callable[[m.TaskId], m.Message]) -> Question:
        question = Question()
        self._last_id += 1
        request = self.session << m.SESSION_SHIFT | self._last_id
        if not self.gone:
            self.questions[request] = question
            self._send(message_of(request))
        return question

    def _enter(self, request: Request, places: Sequence[int], blobs: Blobs) -> list[m.TaskId]:
        """Note what is about to be sent, pin its blobs, and send the root those it was not sent before. The ids."""
        self._free_s = max(self._free_s, self._network.timeline.now_s)
        first = self._last_id + 1
        self._last_id += len(places)
        ids = [self.session << m.SESSION_SHIFT | number for number in range(first, self._last_id + 1)]
        request.begin(ids, self._free_s)
        for request_id, place in zip(ids, places, strict=True):
            self.open[request_id] = (request, place)
            self.asked[request_id] = Asked(request, place)
        if blobs:
            digests = tuple(blobs)
            self._needs.update((request_id, digests) for request_id in ids)
        for digest, size in blobs.items():
            self.pins.setdefault(digest, [size, 0])[1] += len(ids)
            if digest not in self._supplied and not self.gone:
                self._supplied.add(digest)
                self._send(m.Blob(digest), (Bulk(size),))
        return ids

    def _send_tasks(self) -> None:
        """Send tasks, as many as the root takes; or word of the results that have come, if there are many."""
        while self.unsent and self.in_flight < self._in_flight_max:
            count = min(len(self.unsent), self._in_flight_max - self.in_flight, TASKS_PER_MESSAGE_MAX)
            self.in_flight += count
            batch = [self._knowing(self.unsent.popleft()) for _ in range(count)]
            self._send(m.Tasks(batch, self._seen))
            self._seen_told = self._seen
        if self._seen - self._seen_told >= SEEN_UNTOLD_MAX:
            self._send(m.Tasks([], self._seen))
            self._seen_told = self._seen

    def _send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        assert self.uplink is not None
        costs = self._network.weather.costs
        self._free_s = max(self._free_s, self._network.timeline.now_s) + costs.send_s
        self._free_s += costs.byte_s * frame_bytes(frames)
        self.uplink.up.send(self._free_s, message, frames)

    # --- hearing ------------------------------------------------------------------------------------------------------

    def receive(self, edge: Edge, link: Link, message: m.Message, frames: Sequence[Frame]) -> None:
        costs, now_s = self._network.weather.costs, self._network.timeline.now_s
        self._free_s = max(self._free_s, now_s) + costs.receive_s + costs.result_s * results_in(message)
        self._network.timeline.at(self._free_s, self._handle, (message, frames))

    def _handle(self, parcel: tuple[m.Message, Sequence[Frame]]) -> None:
        if self.gone:
            return
        message, frames = parcel
        match message:
            case m.Reply():
                self._on_reply(message, frames)
            case m.Results():
                self._on_results(message, frames)
            case m.Outputs():
                self._on_outputs(message, frames)
            case m.Members():
                self.members = self.members & ~bitset.from_wire(message.left) | bitset.from_wire(message.joined)
            case m.Want():
                self._on_want(message)
            case m.Census() | m.Executed() | m.Because():
                self.questions.pop(message.request).answer = message
            case m.Welcome():
                self._on_welcome(message)
            case m.Bye():
                self.link_down(PARENT, message.reason)
            case m.Refused():
                self.link_down(PARENT, message.text)

    def link_down(self, link: Link, reason: str) -> None:
        """Nothing more will come here: what is outstanding ends with ClusterLost, unless somebody may join later."""
        self.ended_s = min(self.ended_s, max(self._free_s, self._network.timeline.now_s))
        self.ended = reason
        self.questions.clear()
        if self.detached:
            return
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

    def _on_welcome(self, welcome: m.Welcome) -> None:
        self.session = welcome.session
        self._in_flight_max = welcome.facts["tasks_in_flight_max"]
        self.members |= bitset.from_wire(welcome.members)
        if self.predecessor is not None:
            self._last_id = welcome.facts["next"] - 1
            self._take_over(self.predecessor, {request for request, _ in welcome.facts["open"]})

    def _take_over(self, former: SimClient, ids: set[m.TaskId]) -> None:
        """Wait for the outcomes of the session that this client has joined.

        Raises Bug if something that the root must have had is not among them.
        """
        while not former.session and former.predecessor is not None:  # it was gone before it was let in
            former = former.predecessor
        for request_id in former.open.keys() - ids:
            request, place = former.open[request_id]
            if self.log is not None and self.log.has_reached_root(request_id):
                raise Bug(f"session {self.session} was joined again, and request {request_id} is unknown there")
            for part in range(len(request.outcomes)) if place < 0 else [place]:
                request.settle(part, ClusterLost, self._network.timeline.now_s)
        for request_id in ids:
            asked = self.asked[request_id] = former.asked[request_id]
            self.open[request_id] = (asked.request, asked.place)
            self._told_again.expect(request_id, asked.request, asked.place)
            self.in_flight += asked.place >= 0
        self.ends.update(former.ends)
        self.terms.update(former.terms)
        self.withdrawn |= former.withdrawn
        self.unmet |= former.unmet

    def _on_reply(self, reply: m.Reply, frames: Sequence[Frame]) -> None:
        request = self._open_request(reply.request)[0]
        check_reports(request, reply, frames)
        for answer in answers_in(reply, frames):
            self._settle_part(reply.request, request, request.place_of(answer.rank), answer)
        for loss in reply.losses:
            for rank in bitset.ranks_of(bitset.from_wire(loss.ranks)):
                self._settle_part(reply.request, request, request.place_of(rank), ERROR_OF[loss.code])
        if None not in request.outcomes and not self._told_again.expects(reply.request):
            self._close(reply.request)

    def _on_results(self, batch: m.Results, frames: Sequence[Frame]) -> None:
        pieces = split_frames([result.frames for result in batch.results], frames)
        for result, piece in zip(batch.results, pieces, strict=True):
            self.in_flight -= 1
            self._seen += 1
            outcome: Outcome = ERROR_OF[result.code] if result.code else ClusterLost
            frame: Frame = b""
            if result.code in (0, m.RAISED):
                frame = whole(result.payload, piece)[0]
                outcome = unpack_answer(frame)
                if outcome.failed != (result.code == m.RAISED) or outcome.rank != result.rank:
                    raise Bug(f"task {result.id} ends with code {result.code} of engine {result.rank} and {outcome}")
            self.ends[result.id] = TaskEnd(result.code, result.rank, frame)
            self._settle(result.id, outcome)
        self._send_tasks()

    def _on_outputs(self, outputs: m.Outputs, frames: Sequence[Frame]) -> None:
        for piece, frame in zip(outputs.pieces, frames, strict=True):
            request, place = self._open_request(piece.request)
            ranks = bitset.from_wire(piece.ranks)
            if place < 0:
                places = [request.place_of(rank) for rank in bitset.ranks_of(ranks)]
                ended = [part for part in places if request.outcomes[part] is not None]
                if any(not self._told_again.expects(piece.request, part) for part in ended):
                    raise Bug(f"output of engines {bitset.text_of(ranks)} for {piece.request} after their answers")
            self.heard.hear(piece.request, ranks, frame, again=place >= 0)

    def _on_want(self, want: m.Want) -> None:
        missing = []
        for digest in want.digests:
            pin = self.pins.get(digest)
            end = self.ends.get(int.from_bytes(digest[-8:], "big"))
            if pin is not None:
                self._send(m.Blob(digest), (Bulk(pin[0]),))
            elif end is not None and digest == m.result_digest(int.from_bytes(digest[-8:], "big")):
                self._send(m.Blob(digest), (end.outcome,))
            else:
                missing.append(digest)
        if missing:
            self._send(m.Missing(missing))

    def _settle(self, task_id: m.TaskId, outcome: Outcome) -> None:
        """A task has ended."""
        request, place = self._open_request(task_id)
        self._settle_part(task_id, request, place, outcome)
        self._close(task_id)

    def _settle_part(self, request_id: m.TaskId, request: Request, place: int, outcome: Outcome) -> None:
        """A part has its outcome, unless the client before this one had it already."""
        if not self._told_again.take(request_id, place):
            request.settle(place, outcome, self._network.timeline.now_s)

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
