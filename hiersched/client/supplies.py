"""The blobs that a client's requests need: sent to the root once, kept while a request may ask for them again.

The results of other tasks are among them, under names of their own: a task that takes one holds it here until it ends,
in case all engines that had it are gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hiersched.client.pending import Pending
from hiersched.core.blobs import BlobStore
from hiersched.errors import BlobLost
from hiersched.limits import BLOBS_HELD_MAX
from hiersched.protocol.messages import Blob, Digest, Missing, Want
from hiersched.runtime.zmq_link import Uplink

Source = Callable[[], Any]  # gives the blob, or None if it is not to be had


class Supplies:
    """What the root holds of ours, and what we hold for it. Used under the session's lock."""

    def __init__(self, link: Uplink) -> None:
        self._link = link
        self._recent = BlobStore()
        self._pinned: dict[Digest, list[Any]] = {}  # digest -> [blob or its source, requests that need it]
        self._held: OrderedDict[Digest, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._pinned)

    def provide(self, pending: Pending, blobs: Mapping[Digest, Any]) -> None:
        """Keep what a request needs at hand until `release`, and send the root what it was not sent before."""
        pending.digests += tuple(blobs)
        for digest, data in blobs.items():
            pin = self._pinned.get(digest)
            if pin is None:
                pin = self._pinned[digest] = [self._keep(digest, data), 0]
            pin[1] += 1
            if digest not in self._held:
                self._held[digest] = None
                if len(self._held) > BLOBS_HELD_MAX:
                    self._held.popitem(last=False)
                self._link.send(Blob(digest), (pin[0],))

    def renew(self, pending: Pending, digests: Iterable[Digest]) -> None:
        """Provide a request with what others needed before. Raises BlobLost for what is not here any more."""
        found = {digest: self._find(digest) for digest in digests}
        if None in found.values():
            raise BlobLost("data that the call refers to is no longer at hand; call the function again")
        self.provide(pending, found)

    def remember(self, blobs: Mapping[Digest, Any]) -> None:
        """Have at hand, if there is room, what a request would have needed that was withdrawn."""
        for digest, data in blobs.items():
            self._keep(digest, data)

    def promise(self, pending: Pending, digest: Digest, source: Source) -> None:
        """Have what a request may need at hand until `release`; it is only made when somebody asks for it."""
        self._pinned.setdefault(digest, [source, 0])[1] += 1
        pending.digests += (digest,)

    def release(self, pending: Pending) -> None:
        """A request is complete, and needs nothing any more."""
        for digest in pending.digests:
            pin = self._pinned[digest]
            pin[1] -= 1
            if not pin[1]:
                del self._pinned[digest]
        pending.digests = ()

    def on_want(self, want: Want) -> None:
        """The root, or somebody below it, lacks these: send them again."""
        missing = []
        for digest in want.digests:
            blob = self._find(digest)
            if blob is None:
                missing.append(digest)
            else:
                self._link.send(Blob(digest), (blob,))
        if missing:
            self._link.send(Missing(missing))

    def _find(self, digest: Digest) -> Any:
        pin = self._pinned.get(digest)
        if pin is None:
            return self._recent.get(digest)
        return pin[0]() if callable(pin[0]) else pin[0]

    def _keep(self, digest: Digest, data: Any) -> Any:
        blob = self._recent.get(digest)
        if blob is None:
            blob = data if type(data) is bytes else bytes(data)  # the caller may change it while it is on the way
            self._recent.put(digest, blob)
        return blob
