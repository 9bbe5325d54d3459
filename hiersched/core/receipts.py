"""Who is told that the root has an answer.

The root tells its child schedulers: how many of their batches of results it has taken in, and which calls. A scheduler
in between passes that on in its children's own counts: with every batch that it sends up it remembers how many batches
of each child were in. Acknowledgements are gathered: one for many answers. See docs/decisions/0008.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hiersched.core.effects import PARENT, Link
from hiersched.core.kept import Kept
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.outbox import Outbox
from hiersched.kernels import bitset
from hiersched.limits import ACK_BYTES_MAX, ACK_MESSAGES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame


class Receipts:
    """The answers that pass one scheduler. keeping: they are to be kept until the root has them."""

    def __init__(self, outbox: Outbox, membership: Membership, *, is_root: bool) -> None:
        self.kept = Kept()
        self.keeping = not is_root
        self._outbox = outbox
        self._membership = membership
        self._is_root = is_root
        self._sent = 0  # batches of results sent up, over the present link
        self._heard: dict[Link, int] = {}  # counts of children that have risen since the last batch went up
        self._passed: deque[tuple[int, dict[Link, int]]] = deque()  # (own count, counts of children in it)
        self._answered: dict[m.TaskId, int] = {}  # ranks of the calls whose replies went up
        self._owed: dict[Link, list[m.TaskId]] = {}  # at the root: calls to acknowledge, by child
        self._messages = self._bytes = 0  # at the root: taken in since the last acknowledgement

    @property
    def due(self) -> bool:
        """So much has come in that it should be acknowledged now."""
        return self._messages >= ACK_MESSAGES_MAX or self._bytes >= ACK_BYTES_MAX

    # --- up -----------------------------------------------------------------------------------------------------------

    def on_results(self, child: Neighbour, batch: m.Results, frames: Sequence[Frame]) -> None:
        """A child's batch of results has been taken in."""
        child.results_heard += 1
        if self._is_root:
            if child.role != "scheduler":
                return
            self._messages += 1
            if frames:
                self._bytes += sum([len(frame) for frame in frames])
        self._heard[child.link] = child.results_heard

    def on_reply(self, child: Neighbour, request: m.TaskId, frames: Sequence[Frame]) -> None:
        """A child's reply has been taken in."""
        if self._is_root and child.role == "scheduler":
            self._messages += 1
            self._bytes += sum([len(frame) for frame in frames])
            self._owed.setdefault(child.link, []).append(request)

    def results_sent(self, batch: m.Results, frames: Sequence[Frame]) -> None:
        """A batch goes up to the parent, which covers all that was heard so far."""
        self._sent += 1
        if self.keeping:
            self.kept.add_results(batch, frames)
        if self._heard:
            self._passed.append((self._sent, self._heard))
            self._heard = {}

    def reply_sent(self, reply: m.Reply, frames: Sequence[Frame], targets: int) -> None:
        """A reply goes up to the parent."""
        self._answered[reply.request] = targets
        if self.keeping:
            self.kept.add_reply(reply, frames)

    # --- down ---------------------------------------------------------------------------------------------------------

    def acknowledge(self) -> None:
        """At the root: tell the child schedulers what it has."""
        heard, self._heard = self._heard, {}
        owed, self._owed = self._owed, {}
        self._messages = self._bytes = 0
        for link in sorted(heard.keys() | owed.keys()):
            child = self._membership.children.get(link)
            if child is not None:
                self._outbox.send(link, m.Ack(child.results_heard, owed.get(link, [])))

    def on_ack(self, ack: m.Ack) -> None:
        """The root has these: tell the children that sent them."""
        self.kept.on_ack(ack)
        counts: dict[Link, int] = {}
        while self._passed and self._passed[0][0] <= ack.results:
            counts.update(self._passed.popleft()[1])
        requests = [(request, self._answered.pop(request)) for request in ack.requests if request in self._answered]
        asked = 0
        for _, targets in requests:
            asked |= targets
        for child in self._membership.children.values():
            theirs = [request for request, targets in requests if targets & child.reach] if asked & child.reach else []
            if theirs or child.link in counts:
                self._outbox.send(child.link, m.Ack(counts.get(child.link, 0), theirs))

    def on_welcome(self, *, keep: bool) -> None:
        """The parent says whether answers have to be kept."""
        self.keeping = keep
        if not keep:
            self.kept = Kept()

    def send_again(self) -> None:
        """Over a new link to a parent: all that is kept, with counts that begin anew."""
        before = self._sent
        for message, frames in self.kept.again():
            self._outbox.send(PARENT, message, frames)
        self._sent = self.kept.results_sent
        self._passed = deque((count - before + self._sent, counts) for count, counts in self._passed)

    def forget_child(self, link: Link) -> None:
        """A child is gone. Its name may come back, with counts that begin anew."""
        self._heard.pop(link, None)
        self._owed.pop(link, None)
        for _, counts in self._passed:
            counts.pop(link, None)

    def leftovers(self) -> int:
        """Answers that wait to be acknowledged."""
        return len(self._passed) + len(self._answered) + self.kept.held


def targets_of(reply: m.Reply) -> int:
    """The ranks that a reply is from."""
    ranks = 0
    for chunk in reply.chunks:
        ranks |= bitset.from_wire(chunk.ranks)
    for loss in reply.losses:
        ranks |= bitset.from_wire(loss.ranks)
    return ranks
