"""The broadcast channel: one request for many engines, which is one multicast down the tree.

A client that wants an answer from each engine gets one for each, as they come; one that wants a single answer gets all
results in the order of its targets, or, if some failed, one error that tells of all that did.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from hiersched.client.pending import Pending
from hiersched.compat.calls import PACKED
from hiersched.compat.contents import ABORTED, Content, error_content, metadata_of, plain_error
from hiersched.compat.desk import Desk, Engine, finished, given, legible, tell_input, told
from hiersched.compat.wire import Message
from hiersched.data.outcomes import Outcome, lost_outcome
from hiersched.data.outputs import Output
from hiersched.errors import ProtocolError, UnknownEngine
from hiersched.kernels import bitset
from hiersched.limits import ENGINES_MAX
from hiersched.protocol.framing import Frame

_SHOWN_MAX = 8  # different errors that one tells of


class Broadcasts:
    """Requests to many engines."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take(self, message: Message) -> None:
        """A request has come: idents are its client."""
        if not message.idents or message.msg_type not in PACKED:
            raise ProtocolError(f"a broadcast is a call or a cell, not {message.msg_type!r}")
        kind = _Coalesced if message.metadata.get("is_coalescing") else _Separate
        errand = kind(self._desk, message, _targets_of(message))
        errand.note()
        pack, lane = PACKED[message.msg_type]
        try:
            packed = pack(message)
        except ProtocolError as error:
            errand.lose(error, errand.engines)
            return
        here: list[int] = []
        absent: list[Engine] = []
        for uuid, rank in errand.engines:
            if self._desk.roster.rank_of(uuid) == rank:
                here.append(rank)
            else:
                absent.append((uuid, rank))
        if here:
            errand.begin(self._desk.exchange.call(here, packed, lane=lane))
        if absent:
            errand.lose(UnknownEngine("the engine is not there any more"), absent)


def _targets_of(message: Message) -> list[Engine]:
    """The (uuid, rank) of each target, once. Raises ProtocolError for what are none."""
    try:
        targets = dict.fromkeys((str(uuid), int(rank)) for uuid, rank in message.metadata.get("targets", ()))
    except (TypeError, ValueError, OverflowError):
        raise ProtocolError("the targets of a broadcast are pairs of an engine's uuid and id") from None
    ranks = {rank for _, rank in targets}
    if not ranks or min(ranks) < 0 or max(ranks) >= ENGINES_MAX or len(ranks) < len(targets):
        raise ProtocolError("a broadcast has targets, each an engine of its own")
    return list(targets)


class _Broadcast(ABC):
    """A broadcast on its way. engines: in the order of its targets."""

    def __init__(self, desk: Desk, message: Message, engines: list[Engine]) -> None:
        self.engines = engines
        self._desk = desk
        self._message = message
        self._method = message.msg_type.partition("_")[0]
        self._by_rank = {rank: (uuid, rank) for uuid, rank in engines}
        self._left = set(self._by_rank)

    @abstractmethod
    def note(self) -> None:
        """Enter it into the books."""

    def begin(self, pending: Pending) -> None:
        """The request is on its way."""
        pending.listeners = (self,)
        pending.add_done_callback(self._desk.exchange.ids.leave)
        if self._desk.exchange.ids.enter(pending, *self._ids(pending.targets)):
            self._desk.exchange.cancel([pending])
        for rank in pending.targets:
            tell_input(self._desk, self._message, of=self._of(rank), engine=self._by_rank[rank])

    @abstractmethod
    def _ids(self, ranks: Sequence[int]) -> list[str]:
        """What the client calls the parts of these engines; one id if it knows only the whole."""

    @abstractmethod
    def _of(self, rank: int) -> tuple[str, bytes]:
        """The id and header that one engine's output is told under."""

    def on_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """Publish what was printed."""
        for rank in ranks:
            self._desk.iopub.tell_all(outputs, of=self._of(rank), engine=self._by_rank[rank])

    def on_parts(self, pending: Pending) -> None:
        """Some engines have answered."""
        for rank, outcome in zip(pending.targets, pending.outcomes, strict=True):
            if outcome is not None and rank in self._left:
                self._left.discard(rank)
                self._end(self._by_rank[rank], legible(outcome, self._method))

    def lose(self, error: ProtocolError | UnknownEngine, engines: Sequence[Engine]) -> None:
        """These will not answer."""
        for engine in engines:
            self._left.discard(engine[1])
            self._end(engine, lost_outcome(error))

    @abstractmethod
    def _end(self, engine: Engine, outcome: Outcome) -> None:
        """One engine's part has ended so."""

    def _reply(self, content: Content, outcome: Outcome, *, of: tuple[str, bytes], **rest: Any) -> None:
        to = ("broadcast", self._message.idents[:1])
        self._desk.reply(self._message, content, outcome, to=to, of=of, **rest)

    def _metadata(self, outcome: Outcome, engine: Engine | None, content: Content) -> Content:
        asked = {**self._message.metadata, "original_msg_id": self._message.msg_id}
        return metadata_of(asked, outcome, engine=engine, status=content["status"])


class _Separate(_Broadcast):
    """Each engine's answer is one of its own, to the request's id with the engine's uuid behind it."""

    def note(self) -> None:
        self._desk.books.asked_all(self._message, {uuid: self._id(uuid) for uuid, _ in self.engines})

    def _id(self, uuid: str) -> str:
        return f"{self._message.msg_id}_{uuid}"

    def _ids(self, ranks: Sequence[int]) -> list[str]:
        return [self._id(self._by_rank[rank][0]) for rank in ranks]

    def _of(self, rank: int) -> tuple[str, bytes]:
        name = self._id(self._by_rank[rank][0])
        return name, self._desk.wire.encode({**self._message.header, "msg_id": name})

    def _end(self, engine: Engine, outcome: Outcome) -> None:
        of = self._of(engine[1])
        content = finished(self._desk, outcome, of=of, engine=engine, method=self._method)
        metadata = self._metadata(outcome, engine, content)
        buffers = given(outcome, self._method)
        self._reply(content, outcome, of=of, engine=engine, metadata=metadata, buffers=buffers)


class _Coalesced(_Broadcast):
    """One answer for all, in the order of the targets."""

    def __init__(self, desk: Desk, message: Message, engines: list[Engine]) -> None:
        super().__init__(desk, message, engines)
        self._outcomes: dict[Engine, Outcome] = {}
        self._contents: dict[Engine, Content] = {}

    def note(self) -> None:
        self._desk.books.asked(self._message, queue="broadcast")

    def _ids(self, ranks: Sequence[int]) -> list[str]:
        return [self._message.msg_id]

    def _of(self, rank: int) -> tuple[str, bytes]:
        return self._message.msg_id, self._message.header_raw

    def _end(self, engine: Engine, outcome: Outcome) -> None:
        self._outcomes[engine] = outcome
        self._contents[engine] = told(self._desk, outcome, of=self._of(engine[1]), engine=engine, method=self._method)
        if len(self._outcomes) == len(self.engines):
            self._answer([self._outcomes[each] for each in self.engines])

    def _answer(self, outcomes: list[Outcome]) -> None:
        buffers: list[Frame] = []
        content = self._contents[self.engines[0]]
        if any(outcome.error is not None for outcome in outcomes):
            content = _joined(self.engines, outcomes, [self._contents[each] for each in self.engines])
        elif self._method == "apply":
            buffers = [buffer for outcome in outcomes for buffer in outcome.buffers]
        last = max(outcomes, key=lambda outcome: outcome.ended or 0.0)
        metadata = self._metadata(last, None, content)
        metadata["broadcast_targets"] = [list(engine) for engine in self.engines]
        of = self._of(0)
        self._desk.iopub.idle(of=of, engine=self.engines[0])  # for all: their output has come before
        self._reply(content, last, of=of, engine=None, metadata=metadata, buffers=buffers)


def _joined(engines: Sequence[Engine], outcomes: Sequence[Outcome], contents: Sequence[Content]) -> Content:
    """One error that tells of all that failed. contents: what each engine's own answer would be."""
    failed = [
        (engine, content if content["status"] == "error" else error_content(outcome.error))
        for engine, outcome, content in zip(engines, outcomes, contents, strict=True)
        if outcome.error is not None
    ]
    if all(content["status"] != "error" for content in contents):
        return ABORTED
    first_engine, first = failed[0]
    if len(outcomes) == 1:
        return first
    texts: dict[str, int] = {}
    for (_, rank), content in failed:
        text = f"{content['ename']}: {content['evalue']}"
        texts[text] = texts.get(text, 0) | 1 << rank
    lines = [f"[{bitset.text_of(ranks)}] {text}" for text, ranks in texts.items()]
    if len(lines) > _SHOWN_MAX:
        lines[_SHOWN_MAX:] = [f"and {len(lines) - _SHOWN_MAX} other errors"]
    names = {content["ename"] for _, content in failed}
    evalue = "\n".join([f"{len(failed)} of {len(outcomes)} engines failed", *lines])
    engine, method = (first_engine, first["engine_info"].get("method", "")) if first["engine_info"] else (None, "")
    name = names.pop() if len(names) == 1 else "CompositeError"
    return plain_error(name, evalue, first["traceback"], engine=engine, method=method)
