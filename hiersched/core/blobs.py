"""Which blobs are here, which neighbour holds which, and who waits for one.

A blob goes down each edge at most once: a scheduler remembers what it sent to each child and attaches a blob only
before the first message that names it. What a child has dropped since, it asks for (`Want`); the parent answers from
its own store or asks upward once, however many children wait. At the root the question goes to the client that last
named the digest. What nobody holds any more is `Missing`, and the calls that need it end with BLOB_LOST.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from hiersched.core.effects import PARENT, Effect, Link, Send
from hiersched.limits import BLOB_STORE_BYTES_MAX, BLOBS_HELD_MAX
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Blob, Digest, Missing, Want


class BlobStore:
    """Blobs by digest, the least recently used dropped above a bound in bytes; the newest always stays."""

    def __init__(self, bytes_max: int = BLOB_STORE_BYTES_MAX) -> None:
        self.bytes = 0
        self._bytes_max = bytes_max
        self._blobs: OrderedDict[Digest, Frame] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blobs)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._blobs

    def get(self, digest: Digest) -> Frame | None:
        """The blob, now the most recently used; None if it is not here."""
        blob = self._blobs.get(digest)
        if blob is not None:
            self._blobs.move_to_end(digest)
        return blob

    def put(self, digest: Digest, blob: Frame) -> None:
        """Keep a blob; others may be dropped for it."""
        if digest in self._blobs:
            self._blobs.move_to_end(digest)
            return
        self._blobs[digest] = blob
        self.bytes += len(blob)
        while self.bytes > self._bytes_max and len(self._blobs) > 1:
            _, dropped = self._blobs.popitem(last=False)
            self.bytes -= len(dropped)


class BlobLedger:
    """The blobs of one scheduler and of its children."""

    def __init__(self, *, is_root: bool, bytes_max: int = BLOB_STORE_BYTES_MAX) -> None:
        self.store = BlobStore(bytes_max)
        self._is_root = is_root
        self._held: dict[Link, OrderedDict[Digest, None]] = {}
        self._waiting: dict[Digest, set[Link]] = {}
        self._origin: OrderedDict[Digest, Link] = OrderedDict()

    def named(self, link: Link, digests: Iterable[Digest]) -> None:
        """A client's message names these digests: ask this client if they are ever missing."""
        for digest in digests:
            self._origin[digest] = link
            self._origin.move_to_end(digest)
        while len(self._origin) > BLOBS_HELD_MAX:
            self._origin.popitem(last=False)

    def supply(
        self, link: Link, digests: Iterable[Digest], effects: list[Effect]
    ) -> None:
        """Before a message that names `digests` goes to a child, send it those it does not hold."""
        held = self._held.get(link)
        if held is None:
            held = self._held[link] = OrderedDict()
        for digest in digests:
            if digest in held:
                continue
            blob = self.store.get(digest)
            if blob is not None:  # otherwise the child asks when it finds it missing
                effects.append(Send(link, Blob(digest), (blob,)))
                self._holds(held, digest)

    def on_blob(self, digest: Digest, blob: Frame, effects: list[Effect]) -> None:
        """A blob came from above: keep it and pass it on to who waits for it."""
        self.store.put(digest, blob)
        for link in sorted(self._waiting.pop(digest, ())):
            effects.append(Send(link, Blob(digest), (blob,)))
            held = self._held.get(link)
            if held is not None:
                self._holds(held, digest)

    def on_want(
        self, link: Link, digests: Iterable[Digest], effects: list[Effect]
    ) -> None:
        """A child lacks blobs: send what is here, ask above for the rest, once each."""
        asked: dict[Link, list[Digest]] = {}
        missing = []
        for digest in digests:
            blob = self.store.get(digest)
            source = self._origin.get(digest) if self._is_root else PARENT
            if blob is not None:
                effects.append(Send(link, Blob(digest), (blob,)))
            elif source is None:
                missing.append(digest)
            elif digest in self._waiting:
                self._waiting[digest].add(link)
            else:
                self._waiting[digest] = {link}
                asked.setdefault(source, []).append(digest)
        if missing:
            effects.append(Send(link, Missing(missing)))
        effects.extend(Send(source, Want(wanted)) for source, wanted in asked.items())

    def on_missing(self, digests: Iterable[Digest], effects: list[Effect]) -> None:
        """Above, nobody holds these: tell who waits."""
        told: dict[Link, list[Digest]] = {}
        for digest in digests:
            for link in sorted(self._waiting.pop(digest, ())):
                told.setdefault(link, []).append(digest)
        effects.extend(Send(link, Missing(missing)) for link, missing in told.items())

    def forget_child(self, link: Link) -> None:
        """A child is gone, with all it held and waited for."""
        self._held.pop(link, None)
        for digest in [
            digest for digest, waiting in self._waiting.items() if link in waiting
        ]:
            self._waiting[digest].discard(link)
            if not self._waiting[digest]:
                del self._waiting[digest]

    def forget_client(self, link: Link, effects: list[Effect]) -> None:
        """A client is gone: what only it could supply is missing now."""
        gone = [digest for digest, origin in self._origin.items() if origin == link]
        for digest in gone:
            del self._origin[digest]
        self.on_missing(gone, effects)

    def _holds(self, held: OrderedDict[Digest, None], digest: Digest) -> None:
        held[digest] = None
        if len(held) > BLOBS_HELD_MAX:
            held.popitem(last=False)
