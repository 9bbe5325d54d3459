"""The far end of the probe's links: forks processes that answer every call, on a loop as schedulers have it.

    python -m hiersched.runtime.echo ADDRESS

Each line on standard input names a link: a process is forked that connects to ADDRESS under that name. It says hello,
then answers each call by its lane: see `Lane`. All end when standard input does, so none outlives the probe.
"""

from __future__ import annotations

import enum
import os
import pickle
import signal
import sys
import time
import traceback
from collections.abc import Sequence

from tornado.ioloop import IOLoop

from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Beat, Call, Chunk, Reply
from hiersched.runtime.zmq_link import Uplink, context


class Lane(enum.IntEnum):
    """What to do with a call."""

    ECHO = 0  # unpickle its payload, pickle and answer it: what an engine does for a no-op
    SWALLOW = 1  # nothing
    BURST = 2  # answer as many times as the payload says
    CPU = 3  # answer the CPU time used so far, in seconds


def main() -> int:
    """Fork a link per line of standard input until it ends."""
    address, me, children = sys.argv[1], os.getpid(), []
    for line in sys.stdin.buffer:
        child = os.fork()
        if child == 0:
            _be_link(address, line.strip(), me)
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return 0


def _be_link(address: str, name: bytes, parent: int) -> None:
    """In the forked process: connect, and answer until the parent ends. Never returns."""
    status = 1
    try:
        parent_end = os.pidfd_open(parent)
        link = Uplink(context(), address, name)
        link.send(Beat())
        loop = IOLoop.current()

        def drain(*_: object) -> None:
            while (received := link.receive_nowait()) is not None:
                _answer(link, received[1], received[2])

        loop.add_handler(parent_end, lambda *_: loop.stop(), IOLoop.READ)
        loop.add_handler(link.fileno(), drain, IOLoop.READ)
        loop.add_callback(drain)
        loop.start()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _answer(link: Uplink, call: object, frames: Sequence[Frame]) -> None:
    assert isinstance(call, Call)
    reply = Reply(call.request, [Chunk(call.targets, [], 1)], [])
    if call.lane == Lane.ECHO:
        link.send(reply, [pickle.dumps(pickle.loads(frames[0]))])
    elif call.lane == Lane.BURST:
        for _ in range(pickle.loads(frames[0])):
            link.send(reply, frames)
    elif call.lane == Lane.CPU:
        link.send(reply, [pickle.dumps(time.process_time())])


if __name__ == "__main__":
    sys.exit(main())
