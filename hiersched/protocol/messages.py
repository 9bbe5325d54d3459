"""One struct per message between neighbours of the tree.

A request (`Call`) is a multicast down; its `Reply` is a reduction up. Load-balanced work travels in batches (`Tasks`,
`Results`), where every level picks the child. Blobs are content-addressed: a message names digests, the bytes follow
once per link (`Blob`), and who lacks them asks its parent (`Want`). Payload frames ride behind the header and are never
looked into by a scheduler; small task payloads ride inside it. What code prints while it runs goes up as `Outputs`.

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
Try = tuple[TaskId, Count]  # a task, and how many times it had run in vain before; of a call, its request and 0
Ranks = tuple[
    Annotated[int, msgspec.Meta(ge=0, le=ENGINES_MAX // 8)],
    Annotated[bytes, msgspec.Meta(max_length=ENGINES_MAX // 8 + 1)],
]

SIGNALS_MAX = 64  # of Linux
SESSION_SHIFT = 40  # a session numbers 2**40 tasks

Role = Literal["client", "engine", "scheduler"]

# Why a part of a request has no answer from the user's code.
ENGINE_LOST = 1  # the engine ended while it held the call; it may have run
ENGINE_UNKNOWN = 2  # no such engine; it did not run
BLOB_LOST = 3  # data it refers to is gone; it did not run
CANCELLED = 4  # withdrawn before it started
REFUSED = 5  # a bound was reached; it did not run
RAISED = 6  # of a task: the user's code raised; the outcome follows as if it had returned
UNMET = 7  # of a task: this engine lacks what it depends on; it did not run, and may elsewhere
DEPENDENCY = 8  # of a task: what it depends on failed, is unknown, or can never be; it did not run
TIMED_OUT = 9  # of a task: what it depends on was not there in time; it did not run
ANSWER_LOST = 10  # it ran, and its answer was lost on the way
INTERRUPTED = 11  # withdrawn while it ran, and interrupted

CALL_LANE = 0
CELL_LANE = 1
NO_FUNCTION = bytes(16)  # the function of a cell
NO_RANK = ENGINES_MAX  # in the place of a rank: no engine in particular
_RESULT = b"\0result\0"


def result_digest(task: TaskId) -> Digest:
    """The name under which the result of a task can be asked for as a blob. It is no hash, and hits none by chance."""
    return _RESULT + task.to_bytes(8, "big")


def task_of(digest: Digest) -> TaskId | None:
    """The task whose result the digest names; None if it names anything else."""
    return int.from_bytes(digest[len(_RESULT) :], "big") if digest.startswith(_RESULT) else None


class Hello(msgspec.Struct, array_like=True, tag=1, frozen=True):
    """First message on every link, from child or client to parent. [first, last): the ranks it stands for.

    holds: of a child whose former parent is gone, the calls and tasks that it has or whose answers it keeps; shares: of
    a scheduler, the ranks that it was asked for by each of these calls.
    detached: of a client, whether its session outlives it. A client of the same uuid joins that session again. joins:
    it is about to, over another link than this one: whoever is in that session now has to leave it.
    """

    cluster: str
    key: str
    role: Role
    uuid: str
    pid: int
    host: str
    first: Rank
    last: Rank
    holds: list[Try] = []
    detached: bool = False
    shares: list[tuple[TaskId, Ranks]] = []
    joins: bool = False


class Welcome(msgspec.Struct, array_like=True, tag=2, frozen=True):
    """The parent's answer: a client's session number, who is there, and facts about the cluster.

    facts, for a client: plan; tasks_in_flight_max; next, the counter of its next task; open, [id, targets as Ranks] of
    all requests of a session joined again, whose answers come or come again; the targets of a task are null. For a
    child: keep, whether it has to keep answers until they are acknowledged.
    """

    session: int
    members: Ranks
    facts: dict[str, Any]


class Refused(msgspec.Struct, array_like=True, tag=3, frozen=True):
    """The parent will not have this peer, or will not do what it asked. code: an exception's name in errors.py."""

    code: str
    text: str


class Bye(msgspec.Struct, array_like=True, tag=4, frozen=True):
    """The sender leaves of its own will, or has answered a hello that `joins`. stays: of a client, whether its detached
    session goes on without it.
    """

    reason: str
    stays: bool = False


class Beat(msgspec.Struct, array_like=True, tag=5, frozen=True):
    """The sender is alive; between schedulers and from remote clients."""


class Members(msgspec.Struct, array_like=True, tag=6, frozen=True):
    """Engines of the sender's subtree that left, then those that joined; from the root to clients: of the cluster.

    expected: all that have left, lately or before, and are being replaced. births: of those that joined in the place of
    others, by rank; no two of a rank are the same.
    """

    joined: Ranks
    left: Ranks
    reason: str
    expected: Ranks = (0, b"")
    births: list[tuple[Rank, int]] = []


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


class Report(msgspec.Struct, array_like=True, frozen=True):
    """What these ranks have in common beside their answers: an error, or what they printed. One frame.

    Equal reports of several ranks become one on the way up.
    """

    ranks: Ranks


class Reply(msgspec.Struct, array_like=True, tag=8, frozen=True):
    """What a subtree answers to a call: all of it, or what has waited PARTIAL_REPLY_S for the rest. Ranks answer once.

    The frames of the chunks come first, then one frame for each report.
    """

    request: TaskId
    chunks: list[Chunk]
    losses: list[Loss]
    reports: list[Report] = []


class Dependency(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Tasks that another waits for. all: all of them, or any; success, failure: which ends count."""

    tasks: list[TaskId]
    all: bool = True
    success: bool = True
    failure: bool = False


class Terms(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a task asks for beyond being run.

    targets: ranks that it may run on; none: any. hint: the rank that it had best run on; -1: any. priority: higher ones
    first. retries: how many times it may run again after it failed or its engine was lost.
    For the root alone: inputs: tasks whose results are among its arguments; after: tasks to wait for; follow: tasks on
    whose engines it must run; timeout_s: how long it waits for them, 0 for ever; known: (task, whether it succeeded,
    rank) of those among them that the client has seen end.
    """

    targets: Ranks = (0, b"")
    hint: int = -1
    priority: int = 0
    retries: Count = 0
    inputs: list[TaskId] = []
    after: Dependency | None = None
    follow: Dependency | None = None
    timeout_s: float = 0.0
    known: list[tuple[TaskId, bool, int]] = []


class Task(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One load-balanced call.

    needs: digests besides the function. payload: its first frame, if that is small; frames: how many others follow.
    given: results of other tasks among its arguments, with the outcome's only frame, where that is small; a large one
    is among the needs, as `result_digest` names it. attempt: how many times it has run in vain before.
    """

    id: TaskId
    function: Digest
    needs: list[Digest]
    payload: bytes
    frames: Count
    terms: Terms | None = None
    given: list[tuple[TaskId, bytes]] = []
    attempt: Count = 0


def try_of(work: Call | Task) -> Try:
    """What runs where this work does."""
    return (work.id, work.attempt) if type(work) is Task else (work.request, 0)  # type: ignore[union-attr]


class Tasks(msgspec.Struct, array_like=True, tag=9, frozen=True):
    """A batch of tasks; their further frames follow in the same order.

    seen: from a client, how many results have reached it so far.
    """

    tasks: list[Task]
    seen: int = 0


class Result(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How one task ended. rank: where it ran; NO_RANK: nowhere, or it is not known. code: 0, or one of those above.

    With 0 and RAISED, payload is the outcome's first frame; with any other code a text. attempt: the task's.
    """

    id: TaskId
    rank: Rank
    duration_us: int
    code: int
    payload: bytes
    frames: Count
    attempt: Count = 0


class Results(msgspec.Struct, array_like=True, tag=10, frozen=True):
    """A batch of results; their further frames follow in the same order."""

    results: list[Result]


class Cancel(msgspec.Struct, array_like=True, tag=11, frozen=True):
    """Withdraw these tasks and calls where they have not started. running: interrupt those that have."""

    tasks: list[TaskId]
    running: bool = False


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
    """Ask every scheduler of the subtree for its counters, and for the queues of the engines in `targets`."""

    request: TaskId
    targets: Ranks = (0, b"")


class Queue(msgspec.Struct, array_like=True, frozen=True):
    """What one engine has to do: calls and tasks sent to it and not answered, and how many it has answered."""

    rank: Rank
    calls: int
    tasks: int
    completed: int


class Census(msgspec.Struct, array_like=True, tag=16, frozen=True):
    """A subtree's counters merged by level. levels: [[level, schedulers, {counter: total}, {counter: maximum}]]."""

    request: TaskId
    levels: list[tuple[int, int, dict[str, int], dict[str, int]]]
    queues: list[Queue] = []


class Stop(msgspec.Struct, array_like=True, tag=17, frozen=True):
    """End the whole subtree."""

    reason: str


class Order(msgspec.Struct, array_like=True, tag=18, frozen=True):
    """Do something about the processes of these engines.

    verb: 'signal', with the signal's number; 'stop': end them for good; 'restart': end them and start others.
    """

    request: TaskId
    targets: Ranks
    verb: Literal["signal", "stop", "restart"]
    number: Annotated[int, msgspec.Meta(ge=0, le=SIGNALS_MAX)] = 0


class Grow(msgspec.Struct, array_like=True, tag=19, frozen=True):
    """Client to root: start so many engines more."""

    request: TaskId
    engines: Annotated[int, msgspec.Meta(ge=1, le=ENGINES_MAX)]


class Executed(msgspec.Struct, array_like=True, tag=20, frozen=True):
    """The answer to an order: for which engines it was carried out; to `Grow`: the ranks of the engines to come."""

    request: TaskId
    ranks: Ranks


class Why(msgspec.Struct, array_like=True, tag=21, frozen=True):
    """Ask why a task or call has not ended."""

    request: TaskId
    task: TaskId


class Because(msgspec.Struct, array_like=True, tag=22, frozen=True):
    """The answer. state: 'dependency', 'waiting', 'sent', 'running' or 'unknown'; ranks: the engines it is about."""

    request: TaskId
    state: str
    text: str
    ranks: Ranks


class Piece(msgspec.Struct, array_like=True, frozen=True):
    """Output that these engines made for a request or task, in the one frame that follows for each piece."""

    request: TaskId
    ranks: Ranks


class Outputs(msgspec.Struct, array_like=True, tag=23, frozen=True):
    """Output of code that still runs. The pieces of one rank come in their order; equal ones of several are merged."""

    pieces: list[Piece]


class Ack(msgspec.Struct, array_like=True, tag=24, frozen=True):
    """Parent to child: the root has what you answered.

    results: how many of the `Results` that came over this link; requests: calls whose replies it has.
    """

    results: int
    requests: list[TaskId]


class Enrol(msgspec.Struct, array_like=True, tag=25, frozen=True):
    """A guest asks for a rank, at run time and at the leaf for guests; that one asks the root.

    guest: the name of its link. wanted: the rank that it would like to have; -1: any.
    """

    guest: str
    wanted: Annotated[int, msgspec.Meta(ge=-1, le=ENGINES_MAX - 1)] = -1


class Enrolled(msgspec.Struct, array_like=True, tag=26, frozen=True):
    """The guest's rank, wanted or not; NO_RANK: there is no room for it."""

    guest: str
    rank: Rank


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
    | Order
    | Grow
    | Executed
    | Why
    | Because
    | Outputs
    | Ack
    | Enrol
    | Enrolled
)
