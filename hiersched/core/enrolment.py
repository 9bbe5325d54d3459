"""Engines that nobody here starts: guests. They come whenever they like, and their ranks are given at run time.

All guests are children of one leaf scheduler, a child of the root without a place in any plan: its first and last rank
are NO_RANK, and the ranks that it answers for grow. A guest asks the leaf for a rank, and the leaf asks the root
(`Enrol`); with the rank (`Enrolled`) it says hello as any engine does. From then on nobody but the root and the leaf
knows a difference. A rank is new, and higher than all others, unless the guest wants one that is free: of a guest that
has left, or one which was passed over because somebody had wanted a higher one. What belongs to a plan is never free.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from hiersched.core.effects import PARENT, Close, Link
from hiersched.core.topology import Child
from hiersched.kernels import bitset
from hiersched.limits import CHILDREN_MAX, ENGINES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

if TYPE_CHECKING:
    from hiersched.core.scheduler import SchedulerCore


def is_for_guests(child: Child) -> bool:
    """Whether this is the leaf for guests."""
    return child.kind == "scheduler" and child.first == m.NO_RANK


class Enrolment:
    """The ranks that `core` has given at run time, if it is the root, or was given, if it is the leaf for guests."""

    def __init__(self, core: SchedulerCore) -> None:
        self._core = core
        self._ranks = 0  # at the leaf: all that it was ever given; at the root: all below the last that no plan has
        self._asking: dict[Link, int] = {}  # at the leaf: who has asked and not said hello; the rank, -1: not known yet

    def __len__(self) -> int:
        return len(self._asking)

    def admits(self, link: Link, hello: m.Hello) -> bool:
        """Whether this hello is of a guest, with the rank that it was given; or at the root of the leaf for guests."""
        if self._core.place.guests:
            return hello.role == "scheduler" and hello.first == hello.last == m.NO_RANK
        given = self._asking.get(link, -1)
        return given >= 0 and hello.role == "engine" and (hello.first, hello.last) == (given, given + 1)

    # --- at the root --------------------------------------------------------------------------------------------------

    def on_enrol(self, link: Link, enrol: m.Enrol, frames: Sequence[Frame], now: float) -> None:
        """The leaf for guests asks for a rank."""
        core = self._core
        leaf = core.membership.children[link]
        if leaf.first != m.NO_RANK:
            core.outbox.counts["malformed"] += 1
            return
        rank = self._chosen(enrol.wanted)
        if rank != m.NO_RANK:
            leaf.range |= 1 << rank
        core.outbox.send(link, m.Enrolled(enrol.guest, rank))

    def _chosen(self, wanted: int) -> int:
        """The rank that is wanted, if it is free; else the next after all others; NO_RANK if there is none."""
        core = self._core
        last = core.place.last
        if 0 <= wanted < last and self._ranks >> wanted & 1 and core.membership.has_range(wanted, wanted + 1) is None:
            return wanted
        rank = max(wanted, last)
        if rank >= ENGINES_MAX:
            return m.NO_RANK
        self._ranks |= bitset.of_range(last, rank + 1)
        core.place = msgspec.structs.replace(core.place, last=rank + 1)
        return rank

    # --- at the leaf for guests ---------------------------------------------------------------------------------------

    def concerns(self, link: Link, message: m.Message) -> bool:
        """Whether this is said by a guest that has not said hello yet."""
        return self._core.place.is_for_guests and type(message) is m.Enrol

    def on_guest(self, link: Link, enrol: m.Enrol, frames: Sequence[Frame], now: float) -> None:
        """A guest asks for a rank."""
        core = self._core
        if link in self._asking or enrol.guest.encode() != link:
            core.outbox.counts["malformed"] += 1
        elif len(core.membership.children) + len(self._asking) >= CHILDREN_MAX:
            self._decline(link, enrol.guest)
        elif enrol.wanted >= 0 and self._free() >> enrol.wanted & 1:
            self._asking[link] = enrol.wanted
            core.outbox.send(link, m.Enrolled(enrol.guest, enrol.wanted))
        else:
            self._asking[link] = -1
            core.outbox.send(PARENT, enrol)

    def on_enrolled(self, link: Link, enrolled: m.Enrolled, frames: Sequence[Frame], now: float) -> None:
        """The root has given a rank, or has none."""
        guest = enrolled.guest.encode()
        if enrolled.rank != m.NO_RANK:
            self._ranks |= 1 << enrolled.rank
        if guest not in self._asking:  # it has left, and the rank is there for whoever wants it
            return
        if enrolled.rank == m.NO_RANK:
            del self._asking[guest]
            self._decline(guest, enrolled.guest)
        else:
            self._asking[guest] = enrolled.rank
            self._core.outbox.send(guest, enrolled)

    def _decline(self, link: Link, guest: str) -> None:
        self._core.outbox.send(link, m.Enrolled(guest, m.NO_RANK))
        self._core.outbox.add(Close(link))

    def forget(self, link: Link) -> None:
        """A neighbour is gone, perhaps a guest that has not said hello."""
        if self._asking.pop(link, None) is not None:
            self._core.outbox.add(Close(link))

    def on_arrival(self, link: Link) -> None:
        """Somebody has said hello."""
        self._asking.pop(link, None)

    def _free(self) -> int:
        """The ranks that the leaf was given and that nobody has."""
        pending = bitset.of_ranks(rank for rank in self._asking.values() if rank >= 0)
        return self._ranks & ~self._core.membership.members & ~pending
