"""What an engine has of what calls need beside their own message: blobs, and results of tasks that it ran itself.

Both drop the least recently used above their bounds; what is dropped is asked for again. A result of a task is a need
like any other, under the name that `result_digest` gives it: kept as the frames it was made of, or come as one blob.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hiersched.core.blobs import BlobStore
from hiersched.data.recent import Recent
from hiersched.data.serialize import unpack_result
from hiersched.errors import ProtocolError
from hiersched.limits import BLOB_ENGINE_BYTES_MAX, BLOBS_HELD_MAX, RESULTS_HELD_BYTES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

Supplies = Mapping[m.Digest, Any]  # a blob as a buffer, or the frames of a result made here
Outcomes = Mapping[m.TaskId, Sequence[Frame]]


class Stock:
    """The blobs and results of one engine. missing: blobs that nobody above has."""

    def __init__(self) -> None:
        self.missing: set[m.Digest] = set()
        self._blobs = BlobStore(BLOB_ENGINE_BYTES_MAX)
        self._results: Recent[m.Digest, Sequence[Frame]] = Recent(
            count_max=BLOBS_HELD_MAX, bytes_max=RESULTS_HELD_BYTES_MAX
        )

    def put(self, digest: m.Digest, blob: Frame) -> None:
        """A blob has come."""
        self._blobs.put(digest, blob if isinstance(blob, bytes) else blob.buffer)

    def get(self, digest: m.Digest) -> Any:
        """A blob, or the frames of a result; None if it is not here."""
        blob = self._blobs.get(digest)
        return blob if blob is not None else self._results.get(digest)

    def keep_result(self, task: m.TaskId, frames: Sequence[Frame]) -> None:
        """Hold the outcome of a task that ran here, which is too large to be given to those that take it."""
        self._results.put(m.result_digest(task), frames, size=sum([len(frame) for frame in frames]))


def results_among(supplies: Supplies, needs: Iterable[m.Digest], given: Iterable[tuple[m.TaskId, bytes]]) -> Outcomes:
    """The outcomes that a call takes as arguments, by task: what came with it, and what it needs besides.

    One whose blob is not what its name says is left out: the call will say so.
    """
    results: dict[m.TaskId, Sequence[Frame]] = {task: [frame] for task, frame in given}
    for digest in needs:
        task = m.task_of(digest)
        if task is not None:
            supply = supplies[digest]
            with contextlib.suppress(ProtocolError):
                results[task] = supply if isinstance(supply, list) else unpack_result(supply)
    return results
