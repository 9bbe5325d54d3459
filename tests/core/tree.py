"""A small tree of real scheduler cores, whose messages travel when a test says so.

                root
          0-3         4-7          schedulers of these ranks,
       0-1   2-3   4-5   6-7       leaves, with two engines each

Links are queues: what was sent over one arrives in order, over different ones in any order. A process that is killed
falls silent at once: what it has sent and what has not arrived may be lost from some message on. Its end becomes known
when the nursery `buries` it, as in the real one: whoever had started it is told, with the children that it leaves, and
these are told that they are orphans. Everything that happens is chosen by the test, so a story replays.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

import msgspec

from hiersched.core.effects import (
    PARENT,
    Climb,
    Close,
    Drained,
    Effect,
    Event,
    Exit,
    LinkDown,
    Received,
    Send,
    Spawn,
    Started,
    WakeAt,
    Woke,
    link_of,
)
from hiersched.core.topology import Child
from hiersched.kernels import bitset
from hiersched.limits import BEAT_PERIOD_S
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from tests.core.transcript import hello, over_the_wire, planned
from tests.core.tree_nodes import Engine, Process, Scheduler

CLIENT = b"client"
ENGINES = 8


class Tree:
    """The tree, grown and at rest, with one client. nodes: all processes there ever were.

    targets: of each call; answers: what each rank answered to it, or a code; ends: how each task ended.
    """

    def __init__(self, *, restarts: bool = False) -> None:
        self.plan = planned(ENGINES, leaf_engines=2, fanout=2)
        self.now_s = 0.0
        self.nodes: dict[bytes, Process] = {}
        self.answers: dict[m.TaskId, dict[int, bytes | int]] = {}
        self.ends: dict[m.TaskId, bytes | int] = {}
        self._engines: list[Engine] = []  # all there ever were
        self.targets: dict[m.TaskId, set[int]] = {}
        self._restarts = restarts
        self.root = self._scheduler(Child("scheduler", 0, ENGINES, "here", 0), None)
        self._feed(self.root, Received(CLIENT, hello("client")))
        self.settle()

    @property
    def schedulers(self) -> list[Scheduler]:
        """The root first, the others by level and rank."""
        return [node for node in self.nodes.values() if isinstance(node, Scheduler)]

    @property
    def engines(self) -> list[Engine]:
        """By rank."""
        return [self.engine(rank) for rank in range(ENGINES)]

    def engine(self, rank: int) -> Engine:
        """The latest engine of this rank."""
        return next(engine for engine in reversed(self._engines) if engine.child.first == rank)

    def scheduler(self, first: int, last: int) -> Scheduler:
        """The scheduler of these ranks."""
        (node,) = [node for node in self.schedulers if (node.child.first, node.child.last) == (first, last)]
        return node

    def _scheduler(self, child: Child, starter: Scheduler | None) -> Scheduler:
        node = Scheduler(child, starter, plan=self.plan, restarts=self._restarts)
        self.nodes[node.link] = node
        self._feed(node, Started())
        return node

    def _start(self, starter: Scheduler, child: Child) -> None:
        """Start a child, which says hello."""
        node: Process
        if child.kind == "scheduler":
            node = self._scheduler(child, starter)
        else:
            node = self.nodes[link_of(child)] = Engine(child, starter)
            self._engines.append(node)
        self._connect(node, starter)
        self._say(node, hello(child.kind, child.first, child.last))

    def _connect(self, node: Process, parent: Scheduler) -> None:
        """What is still on its way over the former link never arrives."""
        node.parent = parent
        node.inbox.clear()
        parent.heard[node.link] = deque()

    @property
    def runs(self) -> Counter[m.TaskId | tuple[m.TaskId, int]]:
        """How often each (call, rank) and each task was run."""
        return Counter(
            (item.request, engine.rank) if isinstance(item, m.Call) else item.id
            for engine in self._engines
            for item in engine.runs
        )

    # --- what the client asks -----------------------------------------------------------------------------------------

    def call(self, request: m.TaskId, targets: set[int]) -> None:
        """A call on these ranks reaches the root."""
        self.answers[request] = {}
        self.targets[request] = targets
        wire = bitset.to_wire(bitset.of_ranks(targets))
        self._feed(self.root, Received(CLIENT, m.Call(request, wire, m.CELL_LANE, m.NO_FUNCTION, [], []), [b"code"]))

    def submit(self, *tasks: m.TaskId) -> None:
        """A batch of tasks reaches the root."""
        batch = [m.Task(task, m.NO_FUNCTION, [], b"arguments", 0) for task in tasks]
        self._feed(self.root, Received(CLIENT, m.Tasks(batch)))

    def cancel(self, *ids: m.TaskId) -> None:
        """The client withdraws calls and tasks."""
        self._feed(self.root, Received(CLIENT, m.Cancel(list(ids))))

    def _told(self, message: m.Message, frames: Sequence[Frame]) -> None:
        """The client hears something: nothing is answered twice."""
        if isinstance(message, m.Reply):
            answers = self.answers[message.request]
            rest = list(frames)
            for chunk in message.chunks:
                piece, rest = b"".join(rest[: chunk.frames]), rest[chunk.frames :]
                those = ranks_in(chunk.ranks)
                for rank, size in zip(those, chunk.sizes or [len(piece)], strict=True):
                    assert rank not in answers, f"engine {rank} answers call {message.request} twice"
                    answers[rank], piece = piece[:size], piece[size:]
            for loss in message.losses:
                for rank in ranks_in(loss.ranks):
                    assert rank not in answers, f"engine {rank} answers call {message.request} twice"
                    answers[rank] = loss.code
        elif isinstance(message, m.Results):
            for result in message.results:
                assert result.id not in self.ends, f"task {result.id} ends twice"
                self.ends[result.id] = result.payload if not result.code else result.code

    # --- messages travel ----------------------------------------------------------------------------------------------

    def routes(self) -> list[Callable[[], None]]:
        """Everything that can happen next by itself: a message arrives, an end is told, an orphan looks up."""
        return [step for node in list(self.nodes.values()) for step in self._routes_to(node)]

    def _routes_to(self, node: Process) -> list[Callable[[], None]]:
        """What can happen next to one process."""
        if not node.alive:
            return [] if node.buried else [lambda: self.bury(node)]
        possible: list[Callable[[], None]] = []
        if node.orphaned:
            possible.append(lambda: self._look_up(node))
        if node.inbox:
            possible.append(lambda: self._hear_parent(node))
        if isinstance(node, Scheduler):
            heard = [link for link, queue in node.heard.items() if queue]
            possible += [lambda link=link: self._hear_child(node, link) for link in heard]
            if node.news:
                possible.append(lambda: self._hear_news(node))
            if node.stirred and node.core.unsettled:
                possible.append(lambda: self._feed(node, Drained()))
        return possible

    def goes_on(self, choice: int) -> None:
        """One of the things happens that can, if any."""
        possible = self.routes()
        if possible:
            possible[choice % len(possible)]()
            self._check_acks()

    def catches_up(self, choice: int) -> None:
        """One of the processes hears all there is for it, while the others are elsewhere."""
        node = list(self.nodes.values())[choice % len(self.nodes)]
        while possible := self._routes_to(node):
            possible[0]()
            self._check_acks()

    def settle(self, *, working: bool = True) -> None:
        """Let everything happen that can, until nothing can any more."""
        for _ in range(100_000):
            busy = [engine for engine in self.engines if engine.alive and engine.todo] if working else []
            possible = self.routes()
            if possible:
                possible[0]()
            elif busy:
                self.work(busy[0])
            else:
                return
            self._check_acks()
        raise AssertionError("it never comes to rest")

    def passes(self, seconds: float) -> None:
        """Time goes by."""
        self.now_s += seconds
        for node in self.schedulers:
            if node.alive and node.wake_s <= self.now_s:
                node.wake_s = float("inf")
                self._feed(node, Woke())

    def rests(self) -> None:
        """Everything ends, and the root says that it has it."""
        for _ in range(8):
            self.settle()
            self.passes(BEAT_PERIOD_S)
        self.settle()

    def work(self, engine: Engine, count: int = 1) -> None:
        """An engine runs the next things that it has been given, and answers."""
        for message, frames in engine.run(count):
            self._say(engine, message, frames)

    def _say(self, node: Process, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        """To its parent; lost if that is gone."""
        assert node.parent is not None
        if node.parent.alive and node.link in node.parent.heard:
            node.parent.heard[node.link].append(over_the_wire(message, frames))

    def _hear_child(self, node: Scheduler, link: bytes) -> None:
        message, frames = node.heard[link].popleft()
        if not isinstance(message, m.Hello) or self.nodes[link].alive:  # a driver looks whether who says hello lives
            self._feed(node, Received(link, message, frames))

    def _hear_news(self, node: Scheduler) -> None:
        self._feed(node, node.news.popleft())

    def _hear_parent(self, node: Process) -> None:
        message, frames = node.inbox.popleft()
        if isinstance(node, Scheduler):
            self._feed(node, Received(PARENT, message, frames))
        else:
            assert isinstance(node, Engine)
            for words in node.hears(message):
                self._say(node, *words)

    def _feed(self, node: Scheduler, event: Event) -> None:
        node.stirred = not isinstance(event, Drained)
        for effect in node.core.handle(event, self.now_s):
            self._perform(node, effect)

    def _perform(self, node: Scheduler, effect: Effect) -> None:
        match effect:
            case Send(link=link) if link == PARENT:
                self._say(node, effect.message, effect.frames)
            case Send(link=link) if link == CLIENT:
                self._told(*over_the_wire(effect.message, effect.frames))
            case Send():
                receiver = self.nodes.get(effect.link)
                if receiver is not None and receiver.alive and receiver.parent is node:
                    receiver.inbox.append(over_the_wire(effect.message, effect.frames))
            case WakeAt():
                node.wake_s = min(node.wake_s, effect.time_s)
            case Spawn():
                for child in effect.children:
                    self._start(node, child)
            case Climb():
                self._connect(node, next(one for one in node.above if one.alive))
            case Close():
                node.heard.pop(effect.link, None)
                child = self.nodes.get(effect.link)
                if child is not None and child.alive and child.starter is node:
                    self.kill(child)
                    child.buried = True  # whoever ends a child asks for no news of it
            case Exit():
                raise AssertionError(f"{node.link!r} ends: {effect.reason}")

    # --- processes end ------------------------------------------------------------------------------------------------

    def kill(self, node: Process, *, lost: int = 0) -> None:
        """It ends without a word. lost: how many of its last messages that have not arrived never will."""
        node.alive = False
        node.inbox.clear()
        assert node.parent is not None
        queue = node.parent.heard.get(node.link, deque())
        for _ in range(min(lost, len(queue))):
            queue.pop()
        for other in list(self.nodes.values()):
            if other.parent is node:
                for _ in range(min(lost, len(other.inbox))):
                    other.inbox.pop()

    def bury(self, node: Process) -> None:
        """The nursery sees its end, and tells those whom it concerns."""
        node.buried = True
        heir = node.starter
        assert heir is not None
        orphans = [one for one in list(self.nodes.values()) if one.starter is node and not one.buried]
        for orphan in orphans:
            orphan.starter = heir
            orphan.orphaned = True
        if heir.alive:
            heir.news.append(LinkDown(node.link, "killed", [orphan.child for orphan in orphans]))

    def _look_up(self, node: Process) -> None:
        """An orphan looks whether its parent lives, and climbs if not. What it has not read of it never happened."""
        node.orphaned = False
        assert node.parent is not None
        if node.parent.alive:
            return
        if isinstance(node, Scheduler):
            self._feed(node, LinkDown(PARENT, "killed"))
            return
        assert isinstance(node, Engine)
        self._connect(node, next(one for one in node.above if one.alive))
        introduction = hello("engine", node.rank, node.rank + 1)
        self._say(node, msgspec.structs.replace(introduction, holds=node.holds))
        for message, frames in node.again():
            self._say(node, message, frames)

    # --- what must always hold ----------------------------------------------------------------------------------------

    def _check_acks(self) -> None:
        """Whatever an engine has been told that the root has, the client has been told, or is about to be."""
        for engine in self.engines:
            for number in engine.acked:
                call = self.root.core.calls.gather.open.get(number)
                gathered = call is not None and not call.pending >> engine.rank & 1
                known = gathered or number in self.ends or engine.rank in self.answers.get(number, {})
                assert known, f"{number} was acknowledged to engine {engine.rank} and is not there"
            engine.acked.clear()

    def leftovers(self) -> list[str]:
        """What is still held anywhere."""
        found = []
        for node in self.schedulers:
            if node.alive:
                core = node.core
                held = {
                    "calls": len(core.calls.gather.open),
                    "tasks": len(core.work.dispatcher.flights),
                    "orphans": len(core.orphans),
                    "early ones": len(core.family.early),
                    "receipts": core.receipts.leftovers(),
                    "pieces": len(core.relay),
                }
                found += [f"{node.link.decode()} has {count} {what}" for what, count in held.items() if count]
        for engine in self.engines:
            if engine.alive and engine.holds:
                found.append(f"engine {engine.rank} has {len(engine.todo)}, keeps {engine.keeps}")
        return found


def ranks_in(wire: m.Ranks) -> list[int]:
    """The ranks of a set as it is sent."""
    return bitset.ranks_of(bitset.from_wire(wire))
