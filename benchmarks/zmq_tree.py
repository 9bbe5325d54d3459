"""The yardstick for a large tree: the least that a two-level tree over pyzmq can be.

One root (in the caller's process), ceil(n / LEAF_ENGINES) leaf schedulers, n forked engines, all over ipc. A scheduler
sends the frames it received to each of its engines and answers once with all their replies. There is no liveness, no
error path, no credit and no second client: hiersched has all of these and is compared with this all the same.
"""

import gc
import os
import pickle
import signal
import traceback
from collections.abc import Callable

import zmq

LEAF_ENGINES = 32
SOCKETS_MAX = 4096
QUIT = b"quit"


class ZmqTree:
    """A tree of `n` engines whose sockets lie in `directory`."""

    def __init__(self, directory: str, n: int) -> None:
        self._directory = directory
        self._leaves = [range(low, min(low + LEAF_ENGINES, n)) for low in range(0, n, LEAF_ENGINES)]
        self._schedulers: list[int] = []
        self._calls = 0
        self.engine_pids: list[int] = []

    def start(self) -> None:
        """Fork every process, then wait until each scheduler reports that its engines are there."""
        gc.freeze()  # or the collector writes to every page that the engines share
        for number, ranks in enumerate(self._leaves):
            address = self._address(f"leaf-{number}")
            for _ in ranks:
                self.engine_pids.append(_fork(run_engine, address))
            self._schedulers.append(_fork(run_leaf, address, self._address("root"), len(ranks)))
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.set_hwm(0)
        self._socket.bind(self._address("root"))
        self._children = [self._socket.recv_multipart()[0] for _ in self._leaves]

    def all_call(self, function: Callable[..., object], *arguments: object) -> list[object]:
        """Results of `function(*arguments)` on every engine, in no particular order."""
        self._calls += 1
        request = b"%d" % self._calls
        call = pickle.dumps((function, arguments))
        for child in self._children:
            self._socket.send_multipart([child, request, call])
        replies: list[bytes] = []
        for _ in self._children:
            replies.extend(self._socket.recv_multipart()[2:])
        return [pickle.loads(reply) for reply in replies]

    def stop(self) -> None:
        """Ask every process to end, and collect it; kill what never became part of the tree."""
        for child in self._children:
            self._socket.send_multipart([child, QUIT, b""])
        for pid in self._schedulers:
            os.waitpid(pid, 0)
        for pid in self.engine_pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        self._context.destroy(linger=0)

    def _address(self, name: str) -> str:
        return f"ipc://{self._directory}/{name}.sock"


def _fork(run: Callable[..., None], *arguments: object) -> int:
    """The pid of a new process that does `run(*arguments)` and ends."""
    pid = os.fork()
    if pid:
        return pid
    try:
        run(*arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def run_engine(parent_address: str) -> None:
    """Answer calls until killed."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(parent_address)
    socket.send(b"hello")
    while True:
        request, call = socket.recv_multipart()
        function, arguments = pickle.loads(call)
        socket.send_multipart([request, pickle.dumps(function(*arguments))])


def run_leaf(address: str, parent_address: str, engines: int) -> None:
    """Pass calls down to `engines` engines and their gathered replies up, until told to quit."""
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
    down, up = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    down.set_hwm(0)
    down.bind(address)
    children = [down.recv_multipart()[0] for _ in range(engines)]
    up.connect(parent_address)
    up.send(b"hello")
    poller = zmq.Poller()
    poller.register(up, zmq.POLLIN)
    poller.register(down, zmq.POLLIN)
    replies: dict[bytes, list[bytes]] = {}
    while True:
        for socket, _ in poller.poll():
            if socket is down:
                _gather(down, up, replies, engines=engines)
                continue
            request, call = up.recv_multipart()
            if request == QUIT:
                return
            replies[request] = []
            for child in children:
                down.send_multipart([child, request, call])


def _gather(down: zmq.Socket, up: zmq.Socket, replies: dict[bytes, list[bytes]], *, engines: int) -> None:
    """Take every reply that has come; send a request's replies up once all `engines` have answered."""
    while True:
        try:
            _, request, reply = down.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        replies[request].append(reply)
        if len(replies[request]) == engines:
            up.send_multipart([request, *replies.pop(request)])
