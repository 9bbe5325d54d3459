"""The floor: the same message over bare pyzmq, with 0 or 1 forwarders in between.

Client (DEALER) -> [forwarder: ROUTER, ROUTER] -> echo (DEALER), all over ipc, one message at a time. The forwarder does
what a scheduler must do at least: poll both sides, receive, put another address in front, send. A message is a header
and a body of about the size of a small call.
"""

import multiprocessing

import zmq

HEADER = b"h" * 100
BODY = b"b" * 200


class ZmqEcho:
    """A client, `forwarders` (0 or 1) and an echo, in a process each."""

    def __init__(self, directory: str, *, forwarders: int) -> None:
        assert forwarders in (0, 1)
        self._back = f"ipc://{directory}/echo-back.sock"
        self._front = f"ipc://{directory}/echo-front.sock" if forwarders else self._back
        fork = multiprocessing.get_context("fork")
        self._processes = [fork.Process(target=_echo, args=(self._back,), daemon=True)]
        if forwarders:
            self._processes.append(fork.Process(target=_forward, args=(self._front, self._back), daemon=True))

    def start(self) -> None:
        """Fork the processes and wait for the first answer. Forks come first: no context may be open before."""
        for process in self._processes:
            process.start()
        self._context = zmq.Context()
        if self._front == self._back:
            self._socket = self._context.socket(zmq.ROUTER)
            self._socket.bind(self._front)
            self._address = self._socket.recv_multipart()[:1]
        else:
            self._socket = self._context.socket(zmq.DEALER)
            self._socket.connect(self._front)
            self._address = []
        self.call()

    def call(self) -> None:
        """One message there and back."""
        self._socket.send_multipart([*self._address, HEADER, BODY])
        *_, body = self._socket.recv_multipart()
        assert body == BODY

    def stop(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.join()
        self._context.destroy(linger=0)


def _echo(parent: str) -> None:
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(parent)
    socket.send(b"hello")
    while True:
        socket.send_multipart(socket.recv_multipart())


def _forward(front_address: str, back_address: str) -> None:
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    back.bind(back_address)
    engine = back.recv_multipart()[0]
    front.bind(front_address)
    poller = zmq.Poller()
    poller.register(front, zmq.POLLIN)
    poller.register(back, zmq.POLLIN)
    client = b""
    while True:
        for socket, _ in poller.poll():
            sender, *message = socket.recv_multipart()
            if socket is front:
                client = sender
                back.send_multipart([engine, *message])
            else:
                front.send_multipart([client, *message])
