"""Orders about the processes of engines: down to the leaves, and back up for which engines they were carried out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hiersched.core.effects import Link
from hiersched.core.membership import Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.routing import Router
from hiersched.kernels import bitset
from hiersched.limits import INQUIRIES_OPEN_MAX
from hiersched.protocol import messages as m

CarryOut = Callable[[list[Neighbour], m.Order, float], None]


@dataclass(slots=True, eq=False)
class _OpenOrder:
    asker: Link
    awaited: set[Link]
    done: int


class Orders:
    """The orders of one scheduler that are not answered yet.

    carry_out: does it for engines that are its children. starts: it can start others; if not, none are restarted.
    """

    def __init__(self, outbox: Outbox, router: Router, carry_out: CarryOut, *, starts: bool = True) -> None:
        self.open: dict[m.TaskId, _OpenOrder] = {}
        self._outbox = outbox
        self._router = router
        self._carry_out = carry_out
        self._starts = starts

    def on_order(self, link: Link, order: m.Order, now: float) -> None:
        """Do it, or pass it on. Targets that are not there go without an answer; above the bound, all do."""
        in_vain = order.verb == "restart" and not self._starts
        if in_vain or len(self.open) >= INQUIRIES_OPEN_MAX or order.request in self.open:
            self._outbox.send(link, m.Executed(order.request, (0, b"")))
            return
        shares, _ = self._router.split(bitset.from_wire(order.targets))
        engines = [child for child, _ in shares if child.role == "engine"]
        entry = _OpenOrder(link, set(), 0)
        self.open[order.request] = entry
        for child, share in shares:
            if child.role == "engine":
                entry.done |= share
            else:
                entry.awaited.add(child.link)
                own = m.Order(order.request, bitset.to_wire(share, child.least), order.verb, order.number)
                self._outbox.send(child.link, own)
        if engines:
            self._carry_out(engines, order, now)
        self._finish(order.request, entry)

    def on_executed(self, link: Link, executed: m.Executed) -> None:
        """A child has done its part."""
        entry = self.open.get(executed.request)
        if entry is not None and link in entry.awaited:
            entry.awaited.discard(link)
            entry.done |= bitset.from_wire(executed.ranks)
            self._finish(executed.request, entry)

    def forget_child(self, link: Link) -> None:
        """A child is gone: it does nothing more."""
        for request, entry in list(self.open.items()):
            if link in entry.awaited:
                entry.awaited.discard(link)
                self._finish(request, entry)

    def forget_asker(self, link: Link) -> None:
        """Whoever asked is gone."""
        self.open = {request: entry for request, entry in self.open.items() if entry.asker != link}

    def _finish(self, request: m.TaskId, entry: _OpenOrder) -> None:
        if not entry.awaited and self.open.pop(request, None) is not None:
            self._outbox.send(entry.asker, m.Executed(request, bitset.to_wire(entry.done)))
