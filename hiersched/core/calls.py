"""Calls go down at once, split over the children; their replies go up when complete.

What is meant for an orphan waits for its hello. An orphan that does not hold a call that it owes an answer to is sent
the call again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hiersched.core.blobs import BlobLedger
from hiersched.core.collectives import Finished, Gather, OpenRequest
from hiersched.core.effects import Link
from hiersched.core.membership import Neighbour
from hiersched.core.orphans import Orphans
from hiersched.core.outbox import Outbox
from hiersched.core.routing import Router
from hiersched.core.wording import GOES_ON
from hiersched.kernels import bitset
from hiersched.limits import REQUESTS_OPEN_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames

_PartsByRank = dict[int, tuple[m.Part, Sequence[Frame]]]

SendReply = Callable[[Link, m.Reply, Sequence[Frame]], None]


class Calls:
    """The calls of one scheduler. send_reply: gives a finished reply to whoever asked."""

    def __init__(
        self, outbox: Outbox, router: Router, blobs: BlobLedger, orphans: Orphans, *, send_reply: SendReply
    ) -> None:
        self.gather = Gather()
        self._outbox = outbox
        self._router = router
        self._blobs = blobs
        self._orphans = orphans
        self._send_reply = send_reply

    # --- down ---------------------------------------------------------------------------------------------------------

    def on_call(self, link: Link, call: m.Call, frames: Sequence[Frame], now: float) -> None:
        """Send each child its share, and remember who owes an answer."""
        targets = bitset.from_wire(call.targets)
        self._outbox.counts["requests"] += 1
        refusal = self._refusal(call, targets)
        if refusal is not None:
            self._send_reply(link, m.Reply(call.request, [], [m.Loss(call.targets, m.REFUSED, refusal)]), ())
            return
        digests = _digests_of(call)
        self._blobs.named(link, digests)
        shares, unknown = self._router.split(targets)
        entry = self.gather.begin(call, frames, link, targets)
        entry.epoch = self._orphans.replacements.epoch
        parts = _parts_by_rank(call, frames, targets) if call.parts else {}
        for child, share in shares:
            if share == targets or (not parts and child.role == "engine"):  # an engine knows its own rank
                self._blobs.supply(child.link, digests, self._outbox)
                self._outbox.send(child.link, call, frames)
            else:
                self._send_share(entry, parts, child, share)
        if unknown:
            self._lose_unknown(call.request, unknown & ~self._orphans.ranks, now)

    def _send_share(self, entry: OpenRequest, parts: _PartsByRank, child: Neighbour, share: int) -> None:
        """Send a child its part of a call."""
        call, frames = entry.call, entry.frames
        if parts:
            own = [parts[rank] for rank in bitset.ranks_of(share)]
            frames = [frame for _, piece in own for frame in piece]
            call = _call_on(call, child, share, [part for part, _ in own])
        else:
            call = _call_on(call, child, share, [])
        self._blobs.supply(child.link, _digests_of(call), self._outbox)
        self._outbox.send(child.link, call, frames)

    def _refusal(self, call: m.Call, targets: int) -> str | None:
        if not targets:
            return "a call needs a target"
        if call.parts and len(call.parts) != targets.bit_count():
            return "a call must bring one part per target"
        if len(self.gather.open) >= REQUESTS_OPEN_MAX:
            return f"{REQUESTS_OPEN_MAX} requests are open, as many as there may be"
        if call.request in self.gather.open:
            return "a request of this id is open already"
        return None

    def on_arrival(self, child: Neighbour, hello: m.Hello, now: float, *, doubtful_before: float) -> None:
        """An orphan has come, with what it holds: send it the rest of what it owes an answer to.

        doubtful_before: of what was sent before this epoch, a predecessor may have run what this one does not hold.
        """
        shares = {request: bitset.from_wire(ranks) for request, ranks in hello.shares}
        held = {request: shares.get(request, child.reach) for request, _ in hello.holds}
        told: dict[bool, list[m.TaskId]] = {}
        for request, entry in list(self.gather.open.items()):
            owed = entry.pending & child.reach
            if not owed:
                continue
            if request in held:
                if entry.withdrawn:
                    told.setdefault(entry.interrupted, []).append(request)
                self._lose_unknown(request, owed & ~held[request], now)
            elif entry.withdrawn:
                self._pass_up(self.gather.lose(request, owed, m.CANCELLED, "cancelled before it started", now))
            elif entry.epoch < doubtful_before:
                text = "the engine ended, and what it had answered was lost with its scheduler"
                self._pass_up(self.gather.lose(request, owed, m.ANSWER_LOST, text, now))
            else:
                self._send_again(entry, child, owed & child.members)
                self._lose_unknown(request, owed & ~child.members, now)
        for interrupted, requests in told.items():
            self._outbox.send(child.link, m.Cancel(requests, interrupted))

    def _send_again(self, entry: OpenRequest, child: Neighbour, share: int) -> None:
        if share:
            call = entry.call
            parts = _parts_by_rank(call, entry.frames, entry.targets) if call.parts else {}
            self._send_share(entry, parts, child, share)

    def _lose_unknown(self, request: m.TaskId, ranks: int, now: float) -> None:
        """These engines were gone before the call could come to them."""
        if ranks:
            self._pass_up(self.gather.lose(request, ranks, m.ENGINE_UNKNOWN, "there is no such engine", now))

    def withdraw(self, link: Link, requests: Sequence[m.TaskId], *, running: bool) -> None:
        """Cancel those of these requests that `link` asked for. running: even where they have started."""
        told: dict[Link, list[m.TaskId]] = {}
        for request in requests:
            entry = self.gather.open.get(request)
            if entry is None or entry.asker != link:
                continue
            entry.withdrawn = True
            entry.interrupted |= running
            shares, _ = self._router.split(entry.pending)
            for child, _ in shares:
                told.setdefault(child.link, []).append(request)
        for child_link, theirs in told.items():
            self._outbox.send(child_link, m.Cancel(theirs, running))

    def forget_asker(self, link: Link) -> None:
        """A client is gone: what has not started never will, what runs is interrupted, and nobody wants the answers."""
        self.withdraw(link, self.gather.asked_by(link), running=True)
        self.gather.forget(link)

    # --- up -----------------------------------------------------------------------------------------------------------

    def on_reply(self, reach: int, reply: m.Reply, frames: Sequence[Frame], now: float) -> None:
        """Gather what a child that answers for `reach` says."""
        self._pass_up(self.gather.answer(reply, frames, reach, now))

    def on_lost(self, ranks: int, reason: str, now: float) -> None:
        """These engines are gone: nobody waits for them any more."""
        for finished in self.gather.lose_everywhere(ranks, m.ENGINE_LOST, reason, now):
            self._pass_up(finished)

    def on_time(self, now: float) -> None:
        """Answers that have waited long enough for others go ahead."""
        for reply in self.gather.overdue(now):
            self._pass_up(reply)

    def why(self, request: m.TaskId) -> tuple[str, int] | None:
        """(text, ranks that have not answered) of a call; None if it is not open here."""
        entry = self.gather.open.get(request)
        if entry is None:
            return None
        waiting = entry.pending & self._orphans.ranks
        text = f"no answer yet from engines {bitset.text_of(entry.pending)}"
        if waiting:
            text += f"; the scheduler of {bitset.text_of(waiting)} was lost, they are about to connect elsewhere"
        if entry.interrupted:
            text += f"; {GOES_ON}"
        return text, entry.pending

    def _pass_up(self, finished: Finished | None) -> None:
        if finished is not None:
            self._send_reply(*finished)


def _digests_of(call: m.Call) -> list[m.Digest]:
    """All blobs that the targets of a call need."""
    digests = [] if call.function == m.NO_FUNCTION else [call.function]
    digests.extend(call.needs)
    for part in call.parts:
        digests.extend(part.needs)
    return digests


def _parts_by_rank(call: m.Call, frames: Sequence[Frame], targets: int) -> _PartsByRank:
    """What is each target's own, with its frames."""
    pieces = split_frames([part.frames for part in call.parts], frames)
    return dict(zip(bitset.ranks_of(targets), zip(call.parts, pieces, strict=True), strict=True))


def _call_on(call: m.Call, child: Neighbour, share: int, parts: list[m.Part]) -> m.Call:
    """The call on the targets that one child has."""
    return m.Call(call.request, bitset.to_wire(share, child.least), call.lane, call.function, call.needs, parts)
