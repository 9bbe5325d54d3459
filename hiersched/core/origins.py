"""Which clients may have a blob: those that have named it, of whom the latest is asked first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from hiersched.core.effects import Link
from hiersched.limits import BLOBS_HELD_MAX
from hiersched.protocol.messages import Digest


class Origins:
    """Of the blobs named last, as many as are remembered."""

    def __init__(self) -> None:
        self._clients: OrderedDict[Digest, tuple[Link, ...]] = OrderedDict()  # the latest last

    def add(self, client: Link, digests: Iterable[Digest]) -> None:
        """A client names these."""
        clients = self._clients
        for digest in digests:
            known = clients.get(digest, ())
            if not known or known[-1] != client:
                clients[digest] = (*(one for one in known if one != client), client)
            clients.move_to_end(digest)
        while len(clients) > BLOBS_HELD_MAX:
            clients.popitem(last=False)

    def of(self, digest: Digest) -> Link | None:
        """The client to ask; None if none is known."""
        return self._clients[digest][-1] if digest in self._clients else None

    def disclaim(self, client: Link, digest: Digest) -> None:
        """A client does not have it any more."""
        others = tuple(one for one in self._clients.get(digest, ()) if one != client)
        if others:
            self._clients[digest] = others
        else:
            self._clients.pop(digest, None)

    def forget(self, client: Link) -> None:
        """A client is gone."""
        for digest in [digest for digest, those in self._clients.items() if client in those]:
            self.disclaim(client, digest)
