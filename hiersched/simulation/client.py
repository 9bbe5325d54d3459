"""A simulated client: calls, tasks and the blobs they need, as the real session sends and settles them.

Each request is settled part by part, and refuses to be settled twice, by an answer of another request or by an answer
that was meant for another place: "every request ends exactly once, in the order of its targets" is checked here, always.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from math import nan

import msgspec

from hiersched.core.effects import Link
from hiersched.errors import BlobLost, Bug, CapacityError, ClusterLost, EngineLost, HierschedError, TaskCancelled
from hiersched.errors import UnknownEngine as EngineUnknown
from hiersched.kernels import bitset
from hiersched.limits import TASKS_PER_MESSAGE_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames
from hiersched.simulation.network import Edge, Network, Node
from hiersched.simulation.payload import Answer, Argument, Bulk, digest_of, pack_argument, unpack_answer
from hiersched.simulation.scheduler import results_in

Outcome = Answer | type[HierschedError]

_LOSSES: dict[int, type[HierschedError]] = {
    m.ENGINE_LOST: EngineLost,
    m.ENGINE_UNKNOWN: EngineUnknown,
    m.BLOB_LOST: BlobLost,
    m.CANCELLED: TaskCancelled,
    m.REFUSED: CapacityError,
}


class Request:
    """A call on `targets`, or a batch of tasks: places 0..n-1, each of which is to be settled exactly once.

    outcomes: (places,) an Answer or the class of an error, None while not known. sent_s, ended_s: virtual times.
    """

    def __init__(self, targets: Sequence[int], tokens: Sequence[int]) -> None:
        self.targets = targets
        self.tokens = tokens
        self.outcomes: list[Outcome | None] = [None] * len(tokens)
        self.sent_s = nan
        self.ended_s = nan
        self._open = len(tokens)

    def done(self) -> bool:
        """Every place is settled."""
        return not self._open

    @property
    def results(self) -> list[Answer | None]:
        """The answers in the order of the targets, None where there is an error or nothing yet."""
        return [outcome if isinstance(outcome, Answer) else None for outcome in self.outcomes]

    @property
    def errors(self) -> dict[int, type[HierschedError]]:
        """{target of a call, or place of a task: class of its error}."""
        keys = self.targets or range(len(self.outcomes))
        return {
            key: outcome for key, outcome in zip(keys, self.outcomes, strict=True) if isinstance(outcome, type)
        }

    @property
    def took_s(self) -> float:
        """From its sending to its last outcome, virtual seconds."""
        return self.ended_s - self.sent_s

    def settle(self, place: int, outcome: Outcome, now_s: float) -> bool:
        """Take in the outcome of one place; True if it was the last. Raises Bug if the place has one, or is another's."""
        if self.outcomes[place] is not None:
            raise Bug(f"place {place} is settled twice: {self.outcomes[place]} and {outcome}")
        if isinstance(outcome, Answer):
            if outcome.token != self.tokens[place]:
                raise Bug(f"place {place} was sent token {self.tokens[place]} and got {outcome}")
            if self.targets and outcome.rank != self.targets[place]:
                raise Bug(f"place {place} belongs to engine {self.targets[place]} and got {outcome}")
        self.outcomes[place] = outcome
        self._open -= 1
        self.ended_s = now_s
        return not self._open


class SimClient(Node):
    """One client. members: ranks of the engines that it knows to be there."""

    def __init__(self, link: Link, host: str, network: Network) -> None:
        super().__init__(link, host)
        self.members = 0
        self.open: dict[int, tuple[Request, int]] = {}  # id: (request, place of a task or -1 for a call)
        self.received = self.sent = 0
        self.pins: dict[m.Digest, list[int]] = {}  # digest: [size, open requests that need it]
        self.on_end: Callable[[SimClient], None] = lambda client: None
        self._network = network
        self._session = 0
        self._next_id = 0
        self._in_flight_max = 0
        self._in_flight = 0
        self._outbox: deque[m.Task] = deque()
        self._digests: dict[int, tuple[m.Digest, ...]] = {}
        self._held: set[m.Digest] = set()
        self._free_s = 0.0

    @property
    def is_in(self) -> bool:
        """The root has let it in."""
        return bool(self._session)

    @property
    def at_rest(self) -> bool:
        """Nothing is outstanding and nothing held."""
        return not (self.open or self.pins or self._outbox or self._in_flight)

    # --- asking -------------------------------------------------------------------------------------------------------

    def start(self, cluster: str, key: str) -> None:
        """Say hello."""
        self._send(m.Hello(cluster, key, "client", self.link.decode(), 0, self.host, 0, 0))

    def call(
        self,
        request: Request,
        arguments: Sequence[Argument],
        *,
        function: m.Digest = m.NO_FUNCTION,
        blobs: Sequence[tuple[m.Digest, int]] = (),
    ) -> None:
        """Send a call to the request's targets. arguments: one for all, or (targets,). blobs: (digest, bytes) needed."""
        ids = self._begin([request], [-1], [digest for digest, _ in blobs])
        self._supply(blobs)
        needs = [digest for digest, _ in blobs if digest != function]
        parts: list[m.Part] = []
        shares = list(arguments)
        if len(arguments) > 1:
            ordered = sorted(zip(request.targets, arguments, strict=True))
            shares = [argument for _, argument in ordered]
            parts = [m.Part(1, []) for _ in shares]
        targets = bitset.to_wire(bitset.of_ranks(request.targets))
        lane = m.CELL_LANE if function == m.NO_FUNCTION else m.CALL_LANE
        frames = [pack_argument(argument) for argument in shares]
        self._send(m.Call(ids[0], targets, lane, function, needs, parts), frames)

    def tasks(
        self,
        request: Request,
        arguments: Sequence[Argument],
        function: m.Digest,
        *,
        blobs: Sequence[tuple[m.Digest, int]] = (),
    ) -> list[m.TaskId]:
        """Send one load-balanced task for each place of the request. Their ids."""
        places = range(len(arguments))
        ids = self._begin([request] * len(arguments), places, [digest for digest, _ in blobs])
        self._supply(blobs)
        needs = [digest for digest, _ in blobs if digest != function]
        for task_id, argument in zip(ids, arguments, strict=True):
            self._outbox.append(m.Task(task_id, function, needs, pack_argument(argument), 0))
        self._flush()
        return ids

    def cancel(self, ids: Iterable[m.TaskId]) -> None:
        """Withdraw tasks that have not started."""
        wanted = {task_id for task_id in ids if task_id in self.open}
        unsent = {task.id for task in self._outbox} & wanted
        self._outbox = deque(task for task in self._outbox if task.id not in unsent)
        for task_id in sorted(unsent):
            self._settle_task(task_id, TaskCancelled)
        sent = sorted(wanted - unsent)
        for start in range(0, len(sent), TASKS_PER_MESSAGE_MAX):
            self._send(m.Cancel(sent[start : start + TASKS_PER_MESSAGE_MAX]))

    def stop_cluster(self) -> None:
        """End the whole cluster."""
        self._send(m.Stop("a client asked for it"))

    def leave(self) -> None:
        """Say goodbye; what is outstanding ends with ClusterLost."""
        self._send(m.Bye("the client closed its session"))
        self.link_down(b"", "the client closed its session")

    def _begin(self, requests: Sequence[Request], places: Sequence[int], digests: Sequence[m.Digest]) -> list[int]:
        """Enter what is about to be sent. Its ids."""
        self._free_s = max(self._free_s, self._network.timeline.now_s)
        ids = []
        for request, place in zip(requests, places, strict=True):
            request.sent_s = self._free_s
            self._next_id += 1
            request_id = self._session << m.SESSION_SHIFT | self._next_id
            self.open[request_id] = (request, place)
            if digests:
                self._digests[request_id] = tuple(digests)
            ids.append(request_id)
        return ids

    def _supply(self, blobs: Sequence[tuple[m.Digest, int]]) -> None:
        """Pin what the newest requests need, and send the root what it has not been sent before."""
        for digest, size in blobs:
            pin = self.pins.setdefault(digest, [size, 0])
            pin[1] = sum(digest in digests for digests in self._digests.values())
            if digest not in self._held:
                self._held.add(digest)
                self._send(m.Blob(digest), (Bulk(size, digest),))

    def _flush(self) -> None:
        """Send waiting tasks, as many as the root takes."""
        while self._outbox and self._in_flight < self._in_flight_max:
            count = min(len(self._outbox), self._in_flight_max - self._in_flight, TASKS_PER_MESSAGE_MAX)
            self._in_flight += count
            self._send(m.Tasks([self._outbox.popleft() for _ in range(count)]))
