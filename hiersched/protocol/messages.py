"""One struct per message between neighbours of the tree.

A request (`Call`) is a multicast down; its `Reply` is a reduction up. Load-balanced work travels in batches (`Tasks`,
`Results`), where every level picks the child. Blobs are content-addressed: a message names digests, the bytes follow
once per link (`Blob`), and who lacks them asks its parent (`Want`). Payload frames ride behind the header and are never
looked into by a scheduler; small task payloads ride inside it.

Sets of ranks are `Ranks`: (zero bytes skipped, bitmap bytes), see kernels.bitset.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from hiersched.limits import ENGINES_MAX, FRAMES_MAX

Digest = Annotated[bytes, msgspec.Meta(min_length=16, max_length=16)]  # blake3, cut to 128 bits
Rank = Annotated[int, msgspec.Meta(ge=0, le=ENGINES_MAX)]
Count = Annotated[int, msgspec.Meta(ge=0, le=FRAMES_MAX)]
TaskId = int  # session << SESSION_SHIFT | counter; also the id of a request
Ranks = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=ENGINES_MAX // 8)],
    Annotated[bytes, msgspec.Meta(max_length=ENGINES_MAX // 8 + 1)],
]

SESSION_SHIFT = 40  # a session numbers 2**40 tasks

Role = Literal["client", "engine", "scheduler"]

# Why a part of a request has no answer from the user's code.
ENGINE_LOST = 1  # the engine ended while it held the call; it may have run
ENGINE_UNKNOWN = 2  # no such engine; it did not run
BLOB_LOST = 3  # data it refers to is gone; it did not run
CANCELLED = 4  # withdrawn before it started
REFUSED = 5  # a bound was reached; it did not run

CALL_LANE = 0
CELL_LANE = 1
NO_FUNCTION = bytes(16)  # the function of a cell


class Hello(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """First message on every link, from child or client to parent. [first, last): the ranks it stands for."""

    cluster: str
    key: str
    role: Role
    uuid: str
    pid: int
    host: str
    first: Rank
    last: Rank


class Welcome(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """The parent's answer: a client's session number, who is there, and facts about the cluster."""

    session: int
    members: Ranks
    facts: dict[str, Any]


class Refused(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """The parent will not have this peer, or will not do what it asked. code: an exception's name in errors.py."""

    code: str
    text: str


class Bye(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """The sender leaves of its own will."""

    reason: str


class Beat(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """The sender is alive; between schedulers and from remote clients."""


class Members(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """Engines of the sender's subtree that left, then those that joined; from the root to clients: of the cluster."""

    joined: Ranks
    left: Ranks
    reason: str


class Part(msgspec.Struct, array_like=True, frozen=True):
    """One target's own share of a call: how many of the frames are its own, and which further digests it needs."""

    frames: Count
    needs: list[Digest]


class Call(msgspec.Struct, array_like=True, tag=7, frozen=True):
    """Run `function` on every target.

    parts: empty when all targets share the payload frames; else one per target, ascending, and the frames follow in
    that order. needs: digests, besides the function's, that every target needs.
    """

    request: TaskId
    targets: Ranks
    lane: int
    function: Digest
    needs: list[Digest]
    parts: list[Part]


class Chunk(msgspec.Struct, array_like=True, frozen=True):
    """Answers of some ranks, ascending.

    sizes: bytes of each rank's answer within the chunk's only frame; empty when the chunk is one rank's answer in
    `frames` frames of its own.
    """

    ranks: Ranks
    sizes: list[Annotated[int, msgspec.Meta(ge=0)]]
    frames: Count


class Loss(msgspec.Struct, array_like=True, frozen=True):
    """Ranks that cannot answer, with one of the codes above."""

    ranks: Ranks
    code: int
    text: str


class Reply(msgspec.Struct, array_like=True, tag=8, frozen=True):
    """What a subtree answers to a call, at most one message per child and request."""

    request: TaskId
    chunks: list[Chunk]
    losses: list[Loss]


class Task(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One load-balanced call.

    needs: digests besides the function. payload: its first frame, if that is small; frames: how many others follow.
    """

    id: TaskId
    function: Digest
    needs: list[Digest]
    payload: bytes
    frames: Count


class Tasks(msgspec.Struct, array_like=True, tag=9, frozen=True):
    """A batch of tasks; their further frames follow in the same order."""

    tasks: list[Task]


class Result(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How one task ended. code: 0, or one of the codes above and then payload is a text. rank: where it ran."""

    id: TaskId
    rank: Rank
    duration_us: int
    code: int
    payload: bytes
    frames: Count


class Results(msgspec.Struct, array_like=True, tag=10, frozen=True):
    """A batch of results; their further frames follow in the same order."""

    results: list[Result]


class Cancel(msgspec.Struct, array_like=True, tag=11, frozen=True):
    """Withdraw these tasks where they have not started."""

    tasks: list[TaskId]


class Blob(msgspec.Struct, array_like=True, tag=12, frozen=True):
    """The bytes of a digest, in the one frame that follows."""

    digest: Digest


class Want(msgspec.Struct, array_like=True, tag=13, frozen=True):
    """The sender lacks these blobs."""

    digests: list[Digest]


class Missing(msgspec.Struct, array_like=True, tag=14, frozen=True):
    """Nobody above holds these blobs any more."""

    digests: list[Digest]


class Survey(msgspec.Struct, array_like=True, tag=15, frozen=True):
    """Ask every scheduler of the subtree for its counters."""

    request: TaskId


class Census(msgspec.Struct, array_like=True, tag=16, frozen=True):
    """A subtree's counters merged by level. levels: [[level, schedulers, {counter: total}, {counter: maximum}]]."""

    request: TaskId
    levels: list[tuple[int, int, dict[str, int], dict[str, int]]]


class Stop(msgspec.Struct, array_like=True, tag=17, frozen=True):
    """End the whole subtree."""

    reason: str


Message = (
    Hello
    | Welcome
    | Refused
    | Bye
    | Beat
    | Members
    | Call
    | Reply
    | Tasks
    | Results
    | Cancel
    | Blob
    | Want
    | Missing
    | Survey
    | Census
    | Stop
)
