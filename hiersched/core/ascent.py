"""What a scheduler does when its parent is gone: it goes on under the nearest ancestor (docs/decisions/0008).

It closes the old link, so what it has not read there never happens, and tells the new parent what it holds, who is
below it, what it waits for, and again what the root may not have. What comes after goes there as if nothing had been.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hiersched.core.effects import PARENT, Climb, link_of
from hiersched.core.topology import Child
from hiersched.kernels import bitset
from hiersched.protocol import messages as m

if TYPE_CHECKING:
    from hiersched.core.scheduler import SchedulerCore


def climb(core: SchedulerCore, reason: str, now: float) -> None:
    """Go on under another parent."""
    core.membership.heard_parent(now)
    core.outbox.add(Climb(reason))
    core.outbox.send(PARENT, _introduction(core))
    here = core.membership.members
    absent = bitset.of_range(core.place.first, core.place.last) & ~here
    expected, births = bitset.to_wire(core.work.expected), core.membership.replacements.among(here)
    core.outbox.send(
        PARENT, m.Members(bitset.to_wire(here), bitset.to_wire(absent), "it left meanwhile", expected, births)
    )
    core.family.take_news()  # all of it was in there
    core.inquiries.forget_asker(PARENT)  # that was another one
    core.blobs.ask_again(core.outbox)
    core.relay.flush()  # output goes before the answers that it belongs to
    core.receipts.send_again()


def _introduction(core: SchedulerCore) -> m.Hello:
    """Who this scheduler is, and what it holds: all that was sent to it and of which the root may not know the end."""
    place = core.place
    asked = core.receipts.shares() | {request: entry.targets for request, entry in core.calls.gather.open.items()}
    name = link_of(Child("scheduler", place.first, place.last, "", place.level)).decode()
    return m.Hello(
        place.cluster,
        place.key,
        "scheduler",
        name,
        core.facts.get("pid", 0),
        core.facts.get("host", ""),
        place.first,
        place.last,
        holds=[*[(request, 0) for request in asked], *core.work.tries(), *core.receipts.kept.tasks()],
        shares=[(request, bitset.to_wire(ranks)) for request, ranks in asked.items()],
    )
