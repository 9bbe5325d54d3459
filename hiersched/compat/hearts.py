"""Whether engines of ipyparallel's live: they return what they are pinged with.

An engine that has returned a ping is awake; one that then misses too many in a row is lost. Any ping that was sent
since the engine was last heard counts, however late it comes back. Pure: who has the sockets brings pings and pongs.
"""

from __future__ import annotations


class Hearts:
    """The hearts that are listened to, by the identity of their engine. missed_max: more in a row, and it is lost."""

    def __init__(self, missed_max: int) -> None:
        self._missed_max = missed_max
        self._missed: dict[bytes, int] = {}  # pings in a row; -1: none has ever come back

    def __contains__(self, ident: bytes) -> bool:
        return ident in self._missed

    def add(self, ident: bytes) -> None:
        """An engine has registered."""
        self._missed[ident] = -1

    def remove(self, ident: bytes) -> None:
        """An engine is gone."""
        self._missed.pop(ident, None)

    def on_pong(self, ident: bytes) -> bool:
        """A ping has come back. Whether it is the first of this engine."""
        missed = self._missed.get(ident)
        if missed is None:
            return False
        self._missed[ident] = 0
        return missed < 0

    def beat(self) -> list[bytes]:
        """A ping is about to be sent to all. Those that have missed too many of those before."""
        missed = self._missed
        for ident, count in missed.items():
            if count >= 0:
                missed[ident] = count + 1
        return [ident for ident, count in missed.items() if count > self._missed_max + 1]
