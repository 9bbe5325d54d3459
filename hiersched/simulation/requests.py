"""What a simulated client has asked for, and what came of it.

A request is settled part by part, and refuses to be settled twice, or by an answer that belongs elsewhere: "every
request ends exactly once, with its results in the order of its targets" is checked here, in every run. Only the client
that joins the session of another is told again what that one had been told, and that once (`ToldAgain`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import NamedTuple

from hiersched.data.losses import ERROR_OF as LOSSES
from hiersched.errors import Bug, HierschedError, RemoteError
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame
from hiersched.simulation.payload import Answer, Argument

Outcome = Answer | type[HierschedError]

ERROR_OF = LOSSES | {m.RAISED: RemoteError}


class Request:
    """A call on `targets`, or a batch of tasks (no targets).

    arguments: one for each target or task, or a single one for all targets. outcomes: (targets,) or (tasks,) an Answer
    or the class of an error, None while not known. ids: of the call, or (tasks,) of the tasks, once it is sent.
    sent_s, ended_s: virtual times, NaN while not known.
    """

    def __init__(self, targets: Sequence[int] | None, arguments: Sequence[Argument]) -> None:
        self.arguments = arguments
        self.ids: Sequence[m.TaskId] = ()
        self.sent_s = nan
        self.ended_s = nan
        self.is_call = targets is not None
        self.aim(targets or ())

    def aim(self, targets: Sequence[int]) -> None:
        """Take these targets instead, before anything is sent."""
        self.targets = tuple(targets)
        self.outcomes: list[Outcome | None] = [None] * len(targets if self.is_call else self.arguments)
        self._open = len(self.outcomes)
        self._places = {rank: place for place, rank in enumerate(self.targets)}

    def begin(self, ids: Sequence[m.TaskId], now_s: float) -> None:
        """It is sent under these ids. A call on nobody is over at once."""
        self.ids = ids
        self.sent_s = self.ended_s = now_s

    def done(self) -> bool:
        """It was sent, and every part has its outcome."""
        return not self._open and bool(self.ids)

    @property
    def results(self) -> list[Answer | None]:
        """The answers in the order of the targets or tasks, None where there is an error or nothing yet."""
        return [outcome if isinstance(outcome, Answer) else None for outcome in self.outcomes]

    @property
    def errors(self) -> dict[int, type[HierschedError]]:
        """{rank of a target, or place of a task: class of its error}."""
        keys = self.targets if self.is_call else range(len(self.outcomes))
        return {key: outcome for key, outcome in zip(keys, self.outcomes, strict=True) if isinstance(outcome, type)}

    @property
    def took_s(self) -> float:
        """From its sending to its last outcome, virtual seconds."""
        return self.ended_s - self.sent_s

    def argument_of(self, rank: int) -> Argument:
        """What this target of a call was sent. Raises Bug if it is no target."""
        return self.arguments[self.place_of(rank) if len(self.arguments) > 1 else 0]

    def place_of(self, rank: int) -> int:
        """Where the answer of this target belongs. Raises Bug if it is no target."""
        place = self._places.get(rank)
        if place is None:
            raise Bug(f"engine {rank} answers a call that was not for it")
        return place

    def settle(self, place: int, outcome: Outcome, now_s: float) -> bool:
        """Take in one outcome; True if it was the last. Raises Bug if this part has one, or it is another part's."""
        if self.outcomes[place] is not None:
            raise Bug(f"part {place} of {len(self.outcomes)} ends twice: {self.outcomes[place]}, then {outcome}")
        if isinstance(outcome, Answer):
            token = self.arguments[place if len(self.arguments) > 1 else 0].token
            request = self.ids[0 if self.is_call else place]
            rank = self.targets[place] if self.is_call else outcome.rank
            if outcome[:3] != (request, rank, token):
                raise Bug(f"part {place} of request {request} gets {outcome}: wanted {(request, rank, token)}")
            if outcome.failed:
                outcome = RemoteError
        self.outcomes[place] = outcome
        self._open -= 1
        self.ended_s = now_s
        return not self._open

    def settle_rest(self, outcome: Outcome, now_s: float) -> None:
        """Every part that has no outcome yet gets this one."""
        for place, known in enumerate(self.outcomes):
            if known is None:
                self.settle(place, outcome, now_s)


class Asked(NamedTuple):
    """What one id stands for. place: of a task in its request, -1 for a whole call."""

    request: Request
    place: int


class TaskEnd(NamedTuple):
    """How a task ended. code: as in its result. outcome: the frame, if there is one."""

    code: int
    rank: int
    outcome: Frame

    @property
    def ran(self) -> bool:
        """Whether it started, or may have."""
        return self.code in (0, m.RAISED, m.ENGINE_LOST, m.ANSWER_LOST, m.INTERRUPTED)


class Question:
    """Something asked that has one answer. answer: a Census, Executed or Because; None until it comes."""

    def __init__(self) -> None:
        self.answer: m.Message | None = None

    def done(self) -> bool:
        """It is answered."""
        return self.answer is not None


class ToldAgain:
    """Outcomes that one client had, and that the next of its session is to be told once more."""

    def __init__(self) -> None:
        self._places: dict[m.TaskId, set[int]] = {}

    def expect(self, request_id: m.TaskId, request: Request, place: int) -> None:
        """Those of a request that are there already; of the part at `place` only, unless that is -1."""
        places = range(len(request.outcomes)) if place < 0 else [place]
        had = {part for part in places if request.outcomes[part] is not None}
        if had:
            self._places[request_id] = had

    def expects(self, request_id: m.TaskId, place: int | None = None) -> bool:
        """Whether this part, or any, is still to be told again."""
        places = self._places.get(request_id, ())
        return bool(places) if place is None else place in places

    def take(self, request_id: m.TaskId, place: int) -> bool:
        """A part has been told. Whether it was one of these; it is no more."""
        if not self.expects(request_id, place):
            return False
        places = self._places[request_id]
        places.discard(place)
        if not places:
            del self._places[request_id]
        return True
