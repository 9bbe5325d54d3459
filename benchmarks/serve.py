"""The process of one peer: `python -m benchmarks.serve LABEL N ADDRESS`, started by host.py.

It connects to the Unix socket ADDRESS, imports the peer's package, says so, and then does what it is told, one order at
a time: start, measure, stop. Each answer is `("done", value)` or `("failed", text)`; the caller's end of the socket
closed means stop and leave.
"""

import contextlib
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from benchmarks.peer import Peer
from benchmarks.peers import PEERS


class Service:
    """The orders that a host's process takes."""

    def __init__(self, peer: Peer, n: int) -> None:
        self._peer = peer
        self._n = n
        self._started = False

    def load(self) -> None:
        """Import the package."""
        self._peer.load()

    def start(self) -> float:
        """Seconds until all workers have answered."""
        self._started = True
        return _elapsed_s(self._peer.start, self._n)

    def stop(self) -> float:
        """Seconds until the peer says that it has stopped; 0 if it never started."""
        if not self._started:
            return 0.0
        self._started = False
        return _elapsed_s(self._peer.stop)

    def measure(self, figure: Callable[..., list[float]], options: dict[str, object]) -> list[float]:
        """Samples of one round of `figure`."""
        return figure(self._peer, **options)


def _elapsed_s(action: Callable[..., None], *arguments: object) -> float:
    begin = time.perf_counter()
    action(*arguments)
    return time.perf_counter() - begin


def serve(connection: Connection, service: Service) -> None:
    """Carry out orders until the caller hangs up. A failure is the answer to the order that failed."""
    try:
        while True:
            verb, arguments = connection.recv()
            try:
                answer = ("done", getattr(service, verb)(*arguments))
            except Exception as error:
                traceback.print_exc()
                answer = ("failed", f"{type(error).__name__}: {error}")
            connection.send(answer)
    except (EOFError, ConnectionError):
        service.stop()


def main() -> None:
    """Serve the peer that the command line names."""
    label, n, address = sys.argv[1:]
    link = socket.socket(socket.AF_UNIX)
    link.connect(address)
    with contextlib.closing(Connection(link.detach())) as connection:
        directory = str(Path(address).parent)
        serve(connection, Service(PEERS[label](directory), int(n)))


if __name__ == "__main__":
    main()
