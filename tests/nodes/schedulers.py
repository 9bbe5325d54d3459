"""Schedulers that tests play, for real engines over real sockets."""

from __future__ import annotations

import base64
import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from hiersched.core.effects import link_of
from hiersched.core.topology import Child, Host, plan_tree, route
from hiersched.data.outcomes import Outcome, unpack_outcome
from hiersched.data.outputs import Output, unpack_outputs
from hiersched.data.reports import read_report
from hiersched.data.serialize import Packer
from hiersched.kernels import bitset
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, whole
from hiersched.runtime.doorbell import DOORBELL_SIGNAL
from hiersched.runtime.zmq_link import Port, Unreachable, context
from tests.patience import DEADLINE_S

ROOT = Path(__file__).parents[2]
RANK = 3
PLAN = plan_tree([Host("here", 8, 2)], fanout=2, leaf_engines=2)  # root, two schedulers, four leaves
ABOVE = [Child("scheduler", 0, 8, "here", 0), *route(PLAN, RANK)[:-1]]  # the root first
ENGINE = route(PLAN, RANK)[-1]


class EngineHost:
    """A process that forks engines."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.nodes.engine_host"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "IPYTHONDIR": str(directory), "PYTHONPATH": str(ROOT)},
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def start(self, facts: ClusterFacts, address: str) -> int:
        """The pid of a new engine under the scheduler at `address`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        birth = base64.b64encode(msgspec.msgpack.encode((facts, ENGINE, address))).decode()
        print(birth, file=self.process.stdin, flush=True)
        return int(self.process.stdout.readline())

    def close(self) -> None:
        """End it, with its engines."""
        self.process.communicate()


class Cluster:
    """One engine, and the schedulers above it, of which those in `alive` listen: 0 is the root."""

    def __init__(self, host: EngineHost, directory: Path, *, alive: Sequence[int] = (0, 1, 2)) -> None:
        self.facts = ClusterFacts("cluster", "key", str(directory), PLAN, root=link_of(ABOVE[0]))
        self._context = context()
        self.above = {level: Scheduler(Port(self._context, self._address(level))) for level in alive}
        self.pid = host.start(self.facts, self._address(max(alive)))
        self.parent = self.above[max(alive)]
        self.hello = self.parent.expect(m.Hello)[0]
        self.parent.send(m.Welcome(0, (0, b""), {"keep": max(alive) > 0}))

    def _address(self, level: int) -> str:
        return self.facts.address(link_of(ABOVE[level]))

    def ring(self) -> None:
        """Ring the engine's doorbell."""
        os.kill(self.pid, DOORBELL_SIGNAL)

    def ended(self) -> bool:
        """Whether the engine's process ends in time."""
        descriptor = os.pidfd_open(self.pid)
        try:
            return bool(select.select([descriptor], [], [], DEADLINE_S)[0])
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """End the engine."""
        for scheduler in self.above.values():
            if not scheduler.port.socket.closed:
                scheduler.stop()
        self._context.destroy(linger=1000)


class Scheduler:
    """One that does what a test says."""

    def __init__(self, port: Port) -> None:
        self.port = port
        self.heard: list[tuple[m.Message, Sequence[Frame]]] = []
        self.pieces: dict[int, list[Output]] = {}
        self._packer = Packer()
        self._sent: set[bytes] = set()
        self._number = 0

    # --- to the engine ------------------------------------------------------------------------------------------------

    def send(self, message: m.Message, frames: Sequence[Frame] = ()) -> None:
        self.port.send(link_of(ENGINE), message, frames)

    def stop(self) -> None:
        """End the engine if it is here, and stop listening."""
        if any(type(message) is m.Hello for message, _ in self.heard):
            with contextlib.suppress(Unreachable):  # it has ended by itself
                self.send(m.Stop("the end of the test"))
            self.port.socket.linger = 1000
        self.port.close()

    def die(self) -> None:
        """Stop listening, without a word."""
        self.port.close()

    def call(self, function: Any, *args: Any, **kwargs: Any) -> int:
        """Send a call; its number."""
        packed = self._packed(function, args, kwargs)
        needs = [digest for digest in packed.blobs if digest != packed.function]
        self._number += 1
        call = m.Call(self._number, bitset.to_wire(1 << RANK), m.CALL_LANE, packed.function, needs, [])
        self.send(call, packed.frames)
        return self._number

    def cell(self, code: str) -> int:
        """Send a cell; its number."""
        self._number += 1
        cell = msgspec.msgpack.encode((code, False))
        self.send(m.Call(self._number, bitset.to_wire(1 << RANK), m.CELL_LANE, m.NO_FUNCTION, [], []), [cell])
        return self._number

    def tasks(self, *calls: tuple[Any, ...]) -> list[int]:
        """Send a batch of tasks, each a function and its arguments; their numbers."""
        batch = []
        for function, *args in calls:
            packed = self._packed(function, args, {})
            self._number += 1
            batch.append(m.Task(self._number, packed.function, [], bytes(packed.frames[0]), 0))
        self.send(m.Tasks(batch))
        return [task.id for task in batch]

    def _packed(self, function: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        packed = self._packer.pack_call(function, args, kwargs)
        for digest, blob in packed.blobs.items():
            if digest not in self._sent:
                self._sent.add(digest)
                self.send(m.Blob(digest), [blob])
        return packed

    # --- from the engine ----------------------------------------------------------------------------------------------

    def expect(self, kind: type[m.Message], which: Callable[[Any], bool] = lambda message: True) -> Any:
        """The next message of this kind for which `which` holds, with its frames; what came before it is kept."""
        for place, (message, frames) in enumerate(self.heard):
            if type(message) is kind and which(message):
                if kind is not m.Hello:
                    del self.heard[place]
                return message, frames
        ends_at = time.monotonic() + DEADLINE_S
        while self.port.wait(max(0.0, ends_at - time.monotonic())):
            _, message, frames = self.port.receive()
            if type(message) is m.Outputs:
                for piece, frame in zip(message.pieces, frames, strict=True):
                    self.pieces.setdefault(piece.request, []).extend(unpack_outputs(bytes(frame)))
            if type(message) is kind and which(message):
                if kind is m.Hello:
                    self.heard.append((message, frames))
                return message, frames
            self.heard.append((message, frames))
        raise AssertionError(f"no {kind.__name__} came; heard {self.heard}")

    def reply(self, request: int) -> Outcome | m.Loss:
        """How a call ended, with what was said ahead."""
        reply, frames = self.expect(m.Reply, lambda reply: reply.request == request)
        if reply.losses:
            return reply.losses[0]
        outcome = unpack_outcome([bytes(frame) for frame in frames[: reply.chunks[0].frames]])
        for report in frames[reply.chunks[0].frames :]:
            outcome.take(read_report(bytes(report)))
        assert outcome.complete
        outcome.take_output(self.pieces.get(request, []))
        return outcome

    def result(self, task: int) -> tuple[int, Any]:
        """(code, outcome or text) of a task whose result leads its batch."""
        batch, frames = self.expect(m.Results, lambda batch: any(result.id == task for result in batch.results))
        start = 0
        for result in batch.results:
            if result.id == task:
                break
            start += result.frames
        if result.code not in (0, m.RAISED):
            return result.code, result.payload.decode()
        own = [bytes(frame) for frame in frames[start : start + result.frames]]
        outcome = unpack_outcome(whole(result.payload, own))
        outcome.take_output(self.pieces.get(task, []))
        return result.code, outcome
