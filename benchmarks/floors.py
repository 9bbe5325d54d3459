"""What bare pyzmq does with the same shape of traffic, and nothing of what a scheduler is for."""

from typing import ClassVar

from benchmarks.peer import Function, Peer


class BareZmq(Peer):
    """Bare pyzmq there and back; the floor for anything that uses it."""

    label = "pyzmq ping-pong"
    forwarders: ClassVar[int] = 0

    def load(self) -> None:
        """Import the echo."""
        from benchmarks.zmq_echo import ZmqEcho

        self._echo = ZmqEcho(self.directory, forwarders=self.forwarders)

    def start(self, n: int) -> None:
        """One echo, whatever `n` is."""
        self._echo.start()

    def stop(self) -> None:
        """End the echo."""
        self._echo.stop()

    def one_call(self) -> None:
        """One message there and back."""
        self._echo.call()


class BareZmqForwarded(BareZmq):
    """The same with one Python forwarder in between, as a scheduler is."""

    label = "pyzmq, one forwarder"
    forwarders = 1


class BareZmqTree(Peer):
    """The least that a two-level tree over pyzmq can be."""

    label = "pyzmq tree sketch"

    def load(self) -> None:
        """Import the tree."""
        from benchmarks.zmq_tree import ZmqTree

        self._tree_of = ZmqTree

    def start(self, n: int) -> None:
        """Fork the engines and their leaf schedulers."""
        self._tree = self._tree_of(self.directory, n)
        self._tree.start()

    def stop(self) -> None:
        """End the tree."""
        self._tree.stop()

    def engine_pids(self) -> list[int]:
        """Process ids of the engines."""
        return self._tree.engine_pids

    def all_call(self, function: Function, *arguments: object, view: str = "") -> list[object]:
        """`function(*arguments)` on every engine."""
        return self._tree.all_call(function, *arguments)
