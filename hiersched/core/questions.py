"""Questions about one task, passed on to where it is, and their answers."""

from __future__ import annotations

from hiersched.core.effects import Link
from hiersched.core.outbox import Outbox
from hiersched.limits import INQUIRIES_OPEN_MAX
from hiersched.protocol import messages as m


class Questions:
    """The questions that one scheduler has passed on. An answer goes back to whoever asked."""

    def __init__(self, outbox: Outbox) -> None:
        self.open: dict[m.TaskId, tuple[Link, Link]] = {}  # (who asked, the child asked)
        self._outbox = outbox

    def pass_on(self, asker: Link, why: m.Why, child: Link) -> None:
        """Ask the child that has the task."""
        if len(self.open) >= INQUIRIES_OPEN_MAX or why.request in self.open:
            text = f"{INQUIRIES_OPEN_MAX} questions are open, as many as there may be: ask again later"
            self._outbox.send(asker, m.Because(why.request, "unknown", text, (0, b"")))
            return
        self.open[why.request] = (asker, child)
        self._outbox.send(child, why)

    def on_because(self, link: Link, because: m.Because) -> None:
        """A child answers."""
        asker, child = self.open.get(because.request, (None, None))
        if asker is not None and child == link:
            del self.open[because.request]
            self._outbox.send(asker, because)

    def forget_child(self, link: Link) -> None:
        """A child is gone, and what it was asked about has just changed hands."""
        for request, (asker, child) in list(self.open.items()):
            if child == link:
                del self.open[request]
                text = "the scheduler that had it was lost just now: ask again"
                self._outbox.send(asker, m.Because(request, "unknown", text, (0, b"")))

    def forget_asker(self, link: Link) -> None:
        """Whoever asked is gone."""
        self.open = {request: entry for request, entry in self.open.items() if entry[0] != link}
