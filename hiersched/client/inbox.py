"""What comes from the root, and what it means for the requests of a session."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from hiersched import errors
from hiersched.client.bindings import Bindings
from hiersched.client.losses import NOWHERE, loss_error
from hiersched.client.news import CommNews, OnComm, OutputNews
from hiersched.client.pending import Pending
from hiersched.client.requests import Requests
from hiersched.client.roster import Roster
from hiersched.client.supplies import Supplies
from hiersched.client.task_outbox import TaskOutbox
from hiersched.data.outcomes import lost_outcome
from hiersched.data.outputs import DATA, Comm, Output, unpack_outputs
from hiersched.errors import ClusterLost, HierschedError
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, whole

News = Pending | OutputNews | CommNews


class Inbox:
    """Used under the session's lock, but for `tell`, which runs the callbacks of what has come.

    roster: which engines there are. ended: why nothing will come any more. welcome: the root's, once it was heard.
    answers: to questions that somebody waits for, by id, None until they are here. on_comm: takes messages of the
    engines' widgets, if anybody does.
    """

    def __init__(self, table: Requests, *, supplies: Supplies, bindings: Bindings, outbox: TaskOutbox) -> None:
        self.roster = Roster()
        self.ended: HierschedError | None = None
        self.welcome: m.Welcome | None = None
        self.answers: dict[m.TaskId, m.Census | m.Executed | m.Because | None] = {}
        self.on_comm: OnComm | None = None
        self._table = table
        self._requests = table.open
        self._supplies = supplies
        self._bindings = bindings
        self._outbox = outbox
        self._news: deque[News] = deque()
        self._in_order = threading.Lock()

    def take(self, message: m.Message, frames: Sequence[Frame]) -> None:
        """Act on a message; kinds that no client is sent are ignored."""
        handler = self._handlers.get(type(message))
        if handler is not None:
            handler(self, message, frames)

    def tell(self) -> None:
        """Tell who waits what has come. Who is told may wait for more of it, and so come here again.

        What widgets say is told before the outcomes that came after it, also where several threads tell: a cell must
        not end before that.
        """
        while self._news:
            with self._in_order:  # never held while code of the user's runs
                try:
                    news = self._news.popleft()
                except IndexError:  # another thread is telling
                    return
                if type(news) is CommNews:
                    news.tell()
                    continue
            try:
                news.tell()
            except BaseException:  # an interrupt struck user code: the others are still to be told
                self._news.appendleft(news)
                raise

    # --- outcomes -----------------------------------------------------------------------------------------------------

    def _on_reply(self, reply: m.Reply, frames: Sequence[Frame]) -> None:
        pending = self._requests.get(reply.request)
        if pending is None:
            return
        for ranks, outputs in pending.take(reply, frames):
            self._note_output(pending, ranks, outputs)
        for loss in reply.losses:
            if loss.code in (m.ENGINE_LOST, m.ENGINE_UNKNOWN):
                self.roster.forget(bitset.from_wire(loss.ranks), pending.submitted)
        if pending.complete:
            self._complete(pending)
        elif pending.listeners:
            self._news.append(pending)

    def _on_results(self, batch: m.Results, frames: Sequence[Frame]) -> None:
        self._outbox.seen += len(batch.results)
        requests = self._requests
        start = settled = 0
        for result in batch.results:
            pending = requests.get(result.id)
            end = start + result.frames
            if pending is None:
                start = end
                continue
            settled += 1
            if result.code in _RAN:
                own = whole(result.payload, frames[start:end]) if result.frames else (result.payload,)
                last = pending.take_result(result.rank, own)
                if last:
                    self._note_output(pending, [result.rank], last)
                self._complete(pending)
            else:
                self.lose(pending, result.code, result.rank, result.payload.decode(errors="replace"))
            start = end
        self._outbox.in_flight -= settled

    def lose(self, pending: Pending, code: int, rank: int, text: str) -> None:
        """A task ends with one of the codes on the wire."""
        if rank == m.NO_RANK:
            rank = NOWHERE
        elif code == m.ENGINE_LOST:
            self.roster.forget(1 << rank, pending.submitted)
        bound = pending.terms is not None and bitset.from_wire(pending.terms.targets) != 0
        error = loss_error(code, rank, text, names_engines=bound)
        if code == m.DEPENDENCY:
            error.__cause__ = self._bindings.cause_of(pending)
        pending.settle(rank, lost_outcome(error))
        self._complete(pending)

    def _complete(self, pending: Pending) -> None:
        if pending.digests:
            self._supplies.release(pending)
        if pending.inputs:
            pending.inputs = ()
        self._table.end(pending)
        self._news.append(pending)

    # --- output -------------------------------------------------------------------------------------------------------

    def _on_outputs(self, message: m.Outputs, frames: Sequence[Frame]) -> None:
        for piece, frame in zip(message.pieces, frames, strict=True):
            pending = self._requests.get(piece.request)
            if pending is not None:
                ranks = bitset.ranks_of(bitset.from_wire(piece.ranks))
                outputs = unpack_outputs(frame)
                pending.put_output(ranks, outputs)
                self._note_output(pending, ranks, outputs)

    def _note_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """It is to be told to those who listen; messages of widgets go to theirs."""
        if pending.listeners:
            self._news.append(OutputNews(pending, ranks, outputs))
        if self.on_comm is not None:
            comms = [output for output in outputs if type(output) is Comm and output.msg_type != DATA]
            self._news.extend(CommNews(rank, comm, self.on_comm) for comm in comms for rank in ranks)

    # --- all else -----------------------------------------------------------------------------------------------------

    def _on_members(self, news: m.Members, frames: Sequence[Frame]) -> None:
        self.roster.on_members(news)

    def _on_want(self, want: m.Want, frames: Sequence[Frame]) -> None:
        self._supplies.on_want(want)

    def _on_answer(self, answer: m.Census | m.Executed | m.Because, frames: Sequence[Frame]) -> None:
        if answer.request in self.answers:  # somebody still waits for it
            self.answers[answer.request] = answer

    def _on_welcome(self, welcome: m.Welcome, frames: Sequence[Frame]) -> None:
        """We are in. Of a session joined again, the answers to its requests come next."""
        self.welcome = welcome
        self.roster.begin(bitset.from_wire(welcome.members))
        self._table.ledger.begin(welcome.session, welcome.facts["next"])
        self._outbox.in_flight_max = welcome.facts["tasks_in_flight_max"]
        for request, ranks in welcome.facts["open"]:
            targets = () if ranks is None else tuple(bitset.ranks_of(bitset.from_wire(ranks)))
            self._outbox.in_flight += not targets
            self._requests[request] = self._table.kept[request] = Pending(request, targets)

    def _on_refused(self, refused: m.Refused, frames: Sequence[Frame]) -> None:
        kind = getattr(errors, refused.code, errors.PeerError)
        self.end(kind(refused.text))

    def _on_bye(self, bye: m.Bye, frames: Sequence[Frame]) -> None:
        self.end(ClusterLost(f"the cluster has stopped: {bye.reason}"))

    def end(self, error: HierschedError) -> None:
        """Nothing more will come: every open request ends with `error`, or with what ended the session before."""
        if self.ended is None:
            self.ended = error
        self._outbox.clear()
        for pending in list(self._requests.values()):
            for rank in pending.missing() or (NOWHERE,):
                pending.settle(rank, lost_outcome(self.ended))
            self._complete(pending)

    _handlers: dict[type, Callable[[Inbox, Any, Sequence[Frame]], None]] = {  # noqa: RUF012
        m.Reply: _on_reply,
        m.Results: _on_results,
        m.Outputs: _on_outputs,
        m.Members: _on_members,
        m.Want: _on_want,
        m.Census: _on_answer,
        m.Executed: _on_answer,
        m.Because: _on_answer,
        m.Welcome: _on_welcome,
        m.Refused: _on_refused,
        m.Bye: _on_bye,
    }


_RAN = (0, m.RAISED)  # codes of results that hold an outcome
