"""What a simulated engine holds: blobs, and its own large results for tasks that take them as arguments.

Work that names a blob which is not here waits for it, with all work behind it, until it has come, until it is known to
be nowhere, or until it has been waited for too long.
"""

from __future__ import annotations

from collections.abc import Sequence

from hiersched.core.blobs import BlobStore
from hiersched.errors import Bug
from hiersched.limits import BLOB_ENGINE_BYTES_MAX, RESULTS_HELD_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.simulation.payload import Argument, unpack_answer


class Holdings:
    """asked: blobs were asked for, for the work at hand. awaited: those of them that may still come."""

    __slots__ = ("_at_hand", "_blobs", "_lost", "_results", "asked", "awaited")

    def __init__(self) -> None:
        self.asked = False
        self.awaited: set[m.Digest] = set()
        self._blobs = BlobStore(BLOB_ENGINE_BYTES_MAX)
        self._results = BlobStore(RESULTS_HELD_BYTES_MAX)
        self._at_hand: dict[m.Digest, Frame] = {}  # what was waited for stays, even if it is more than the stores hold
        self._lost = False

    def want(self, digests: Sequence[m.Digest]) -> list[m.Digest]:
        """Those that are not here, which are awaited from now on."""
        wanted = [digest for digest in digests if self._get(digest) is None]
        self.asked = bool(wanted)
        self._at_hand = {digest: blob for digest in digests if (blob := self._get(digest)) is not None}
        self.awaited.update(wanted)
        return wanted

    def put(self, digest: m.Digest, blob: Frame) -> None:
        """A blob has come."""
        self._blobs.put(digest, blob)
        if digest in self.awaited:
            self.awaited.discard(digest)
            self._at_hand[digest] = blob

    def hold_result(self, task: m.TaskId, outcome: Frame) -> None:
        """Keep a large result that was made here."""
        self._results.put(m.result_digest(task), outcome)

    def miss(self, digests: Sequence[m.Digest]) -> None:
        """Nobody holds these: if one is awaited, there is nothing more to wait for."""
        if not self.awaited.isdisjoint(digests):
            self._lost = True
            self.awaited.clear()

    def end_wait(self) -> bool:
        """Whether what was waited for is lost. The wait is over."""
        lost, self._lost, self.asked = self._lost, False, False
        self.awaited.clear()
        return lost

    def check_inputs(self, task: m.Task, argument: Argument) -> None:
        """Raises Bug unless all results that the task takes are here, and are those that it asked for."""
        given = dict(task.given)
        for source in argument.inputs:
            frame = given.get(source) or self._get(m.result_digest(source))
            if frame is None:
                raise Bug(f"task {task.id} is to run without the result of {source}, which it takes")
            answer = unpack_answer(frame)
            if answer.request != source or answer.failed:
                raise Bug(f"task {task.id} takes the result of {source} and is given {answer}")

    def _get(self, digest: m.Digest) -> Frame | None:
        for store in (self._at_hand, self._blobs, self._results):
            blob = store.get(digest)
            if blob is not None:
                return blob
        return None
