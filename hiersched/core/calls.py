"""Calls go down at once, split over the children; their replies go up when complete."""

from __future__ import annotations

from collections.abc import Sequence

from hiersched.core.blobs import BlobLedger
from hiersched.core.collectives import Gather
from hiersched.core.effects import Link
from hiersched.core.membership import Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.routing import Router
from hiersched.kernels import bitset
from hiersched.limits import REQUESTS_OPEN_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames


class Calls:
    """The calls of one scheduler."""

    def __init__(self, outbox: Outbox, router: Router, blobs: BlobLedger) -> None:
        self.gather = Gather()
        self._outbox = outbox
        self._router = router
        self._blobs = blobs

    def on_call(self, link: Link, call: m.Call, frames: Sequence[Frame], now: float) -> None:
        """Send each child its share, and remember who owes an answer."""
        targets = bitset.from_wire(call.targets)
        self._outbox.counts["requests"] += 1
        refusal = self._refusal(call, targets)
        if refusal is not None:
            self._outbox.send(link, m.Reply(call.request, [], [m.Loss(call.targets, m.REFUSED, refusal)]))
            return
        digests = _digests_of(call)
        self._blobs.named(link, digests)
        shares, unknown = self._router.split(targets)
        self.gather.begin(call.request, link, targets)
        parts = _parts_by_rank(call, frames, targets) if call.parts else {}
        for child, share in shares:
            own_call, own_frames, own_digests = call, frames, digests
            if parts and share != targets:
                own_call, own_frames = _call_with_parts(call, parts, child, share)
                own_digests = _digests_of(own_call)
            elif share != targets and child.role != "engine":  # an engine knows its own rank
                own_call = _call_on(call, child, share, [])
            self._blobs.supply(child.link, own_digests, self._outbox)
            self._outbox.send(child.link, own_call, own_frames)
        if unknown:
            self._pass_up(self.gather.lose(call.request, unknown, m.ENGINE_UNKNOWN, "there is no such engine"))

    def on_reply(self, reach: int, reply: m.Reply, frames: Sequence[Frame]) -> None:
        """Gather what a child that answers for `reach` says."""
        self._pass_up(self.gather.answer(reply, frames, reach))

    def on_lost(self, ranks: int, reason: str) -> None:
        """These engines are gone: nobody waits for them any more."""
        for finished in self.gather.lose_everywhere(ranks, m.ENGINE_LOST, reason):
            self._pass_up(finished)

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

    def _pass_up(self, finished: tuple[Link, m.Reply, Sequence[Frame]] | None) -> None:
        if finished is not None:
            self._outbox.send(*finished)


def _digests_of(call: m.Call) -> list[m.Digest]:
    """All blobs that the targets of a call need."""
    digests = [] if call.function == m.NO_FUNCTION else [call.function]
    digests.extend(call.needs)
    for part in call.parts:
        digests.extend(part.needs)
    return digests


def _parts_by_rank(call: m.Call, frames: Sequence[Frame], targets: int) -> dict[int, tuple[m.Part, Sequence[Frame]]]:
    """What is each target's own, with its frames."""
    pieces = split_frames([part.frames for part in call.parts], frames)
    return dict(zip(bitset.ranks_of(targets), zip(call.parts, pieces, strict=True), strict=True))


def _call_with_parts(
    call: m.Call, parts: dict[int, tuple[m.Part, Sequence[Frame]]], child: Neighbour, share: int
) -> tuple[m.Call, list[Frame]]:
    """The call that goes to one child, with its targets' own parts."""
    own = [parts[rank] for rank in bitset.ranks_of(share)]
    frames = [frame for _, piece in own for frame in piece]
    return _call_on(call, child, share, [part for part, _ in own]), frames


def _call_on(call: m.Call, child: Neighbour, share: int, parts: list[m.Part]) -> m.Call:
    """The call on the targets that one child has."""
    return m.Call(call.request, bitset.to_wire(share, child.first), call.lane, call.function, call.needs, parts)
