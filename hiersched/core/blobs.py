"""Which blobs are here, which neighbour holds which, and who waits for one.

A blob goes down each edge at most once: a scheduler remembers what it sent to each child and attaches a blob only
before the first message that names it. What a child has dropped since, it asks for (`Want`); the parent answers from
its own store or asks upward once, however many children wait. At the root the question goes to the clients that have
named the digest, one after the other. What nobody holds any more is `Missing`, and the calls that need it end with
BLOB_LOST.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from hiersched.core.effects import PARENT, Link
from hiersched.core.origins import Origins
from hiersched.core.outbox import Outbox
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


@dataclass(slots=True, eq=False)
class _Wanted:
    """A blob that is on its way here. asked: who is to send it; waiting: the children that lack it."""

    asked: Link
    waiting: set[Link]


class BlobLedger:
    """The blobs of one scheduler and of its children."""

    def __init__(self, *, is_root: bool, bytes_max: int = BLOB_STORE_BYTES_MAX) -> None:
        self.store = BlobStore(bytes_max)
        self._is_root = is_root
        self._held: dict[Link, OrderedDict[Digest, None]] = {}
        self._wanted: dict[Digest, _Wanted] = {}
        self._origins = Origins()

    @property
    def waiting(self) -> int:
        """Blobs that somebody below waits for."""
        return len(self._wanted)

    def named(self, link: Link, digests: Iterable[Digest]) -> None:
        """A message from above names these digests: at the root, ask its sender if they are ever missing."""
        if self._is_root:
            self._origins.add(link, digests)

    def supply(self, link: Link, digests: Iterable[Digest], outbox: Outbox) -> None:
        """Before a message that names `digests` goes to a child, send it those it does not hold."""
        held = self._held_by(link)
        for digest in digests:
            if digest in held:
                continue
            blob = self.store.get(digest)
            if blob is not None:  # otherwise the child asks when it finds it missing
                self._send(link, digest, blob, outbox)

    def on_blob(self, digest: Digest, blob: Frame, outbox: Outbox) -> None:
        """A blob came from above: keep it and pass it on to who waits for it."""
        self.store.put(digest, blob)
        for link in self._pop_waiting(digest):
            self._send(link, digest, blob, outbox)

    def on_want(self, link: Link, digests: Iterable[Digest], outbox: Outbox) -> None:
        """A child lacks blobs: send what is here, ask above for the rest, once each."""
        asked: dict[Link, list[Digest]] = {}
        missing = []
        for digest in digests:
            blob = self.store.get(digest)
            source = self._origins.of(digest) if self._is_root else PARENT
            if blob is not None:
                self._send(link, digest, blob, outbox)
            elif digest in self._wanted:
                self._wanted[digest].waiting.add(link)
            elif source is None:
                missing.append(digest)
            else:
                self._wanted[digest] = _Wanted(source, {link})
                asked.setdefault(source, []).append(digest)
        if missing:
            outbox.send(link, Missing(missing))
        for source, wanted in asked.items():
            outbox.send(source, Want(wanted))

    def on_missing(self, source: Link, digests: Iterable[Digest], outbox: Outbox) -> None:
        """Who was asked for these does not have them: ask another client that may, or tell who waits."""
        asked: dict[Link, list[Digest]] = {}
        told: dict[Link, list[Digest]] = {}
        for digest in digests:
            self._origins.disclaim(source, digest)
            wanted = self._wanted.get(digest)
            if wanted is None or wanted.asked != source:
                continue
            other = self._origins.of(digest)
            if other is not None:
                wanted.asked = other
                asked.setdefault(other, []).append(digest)
                continue
            for link in self._pop_waiting(digest):
                told.setdefault(link, []).append(digest)
        for link, missing in told.items():
            outbox.send(link, Missing(missing))
        for other, others in asked.items():
            outbox.send(other, Want(others))

    def forget_child(self, link: Link) -> None:
        """A child is gone, with all it held and waited for."""
        self._held.pop(link, None)
        for digest, wanted in list(self._wanted.items()):
            wanted.waiting.discard(link)
            if not wanted.waiting:
                del self._wanted[digest]

    def ask_again(self, outbox: Outbox) -> None:
        """There is another parent: ask it for what the former one was asked for."""
        wanted = self._asked_of(PARENT)
        if wanted:
            outbox.send(PARENT, Want(wanted))

    def forget_client(self, link: Link, outbox: Outbox) -> None:
        """A client is gone: what it was to send is asked of another that has named it, or missing."""
        self._origins.forget(link)
        self.on_missing(link, self._asked_of(link), outbox)

    def _asked_of(self, link: Link) -> list[Digest]:
        return [digest for digest, wanted in self._wanted.items() if wanted.asked == link]

    def _pop_waiting(self, digest: Digest) -> list[Link]:
        wanted = self._wanted.pop(digest, None)
        return [] if wanted is None else sorted(wanted.waiting)

    def _held_by(self, link: Link) -> OrderedDict[Digest, None]:
        held = self._held.get(link)
        if held is None:
            held = self._held[link] = OrderedDict()
        return held

    def _send(self, link: Link, digest: Digest, blob: Frame, outbox: Outbox) -> None:
        outbox.send(link, Blob(digest), (blob,))
        held = self._held_by(link)
        held[digest] = None
        if len(held) > BLOBS_HELD_MAX:
            held.popitem(last=False)
