"""Who is told that the root has an answer.

The root tells its child schedulers how many of their batches of results it has taken in, and which calls they have
answered in full. A scheduler in between passes that on in its children's own counts: when all that it has heard has
gone up, it notes how many batches of each child that was, and by how many of its own they have gone: when the root has
these, it has those. Acknowledgements are gathered: one for many answers. See docs/decisions/0008.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from hiersched.core.collectives import Gather
from hiersched.core.effects import PARENT, Link
from hiersched.core.kept import Kept
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.outbox import Outbox
from hiersched.kernels import bitset
from hiersched.limits import ACK_BYTES_MAX, ACK_MESSAGES_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame


class Receipts:
    """The answers that pass one scheduler, to calls in `gather` and to tasks.

    keeping: they are to be kept until the root has them.
    """

    def __init__(self, outbox: Outbox, membership: Membership, gather: Gather, *, is_root: bool) -> None:
        self.kept = Kept()
        self.keeping = not is_root
        self._outbox = outbox
        self._membership = membership
        self._gather = gather
        self._is_root = is_root
        self._heard: dict[Link, int] = {}  # counts of children that have risen and are not noted or told yet
        # Below the root:
        self._sent = 0  # batches of results sent up, over the present link
        self._acked = 0  # of these, those that the root has
        self._passed: deque[tuple[int, dict[Link, int]]] = deque()  # (own count, counts of children in it)
        self._answered: dict[m.TaskId, int] = {}  # ranks of the calls whose replies went up
        # At the root:
        self._owed: dict[Link, list[m.TaskId]] = {}  # calls to acknowledge, by child
        self._bytes = 0  # taken in since the last acknowledgement
        self._full = False  # it is time: a child has as many answers unacknowledged as it may

    @property
    def due(self) -> bool:
        """There is something to do when nothing more waits to be heard: so much has come in, or all of it went up."""
        if self._is_root:
            return self._full or self._bytes >= ACK_BYTES_MAX
        return bool(self._heard)

    # --- up -----------------------------------------------------------------------------------------------------------

    def on_results(self, child: Neighbour, batch: m.Results, frames: Sequence[Frame]) -> None:
        """A child's batch of results has been taken in."""
        child.results_heard += 1
        if self._is_root:
            if child.role != "scheduler":
                return
            self._take_in(child, frames)
            self._bytes += sum([len(result.payload) for result in batch.results])
        self._heard[child.link] = child.results_heard

    def on_reply(self, child: Neighbour, request: m.TaskId, frames: Sequence[Frame]) -> None:
        """A child's reply has been gathered."""
        if self._is_root:
            if child.role != "scheduler":
                return
            self._take_in(child, frames)
            if not self._gather.owes(request, child.reach):
                self._owed.setdefault(child.link, []).append(request)
        elif request not in self._answered and request not in self._gather.open:
            self._outbox.send(child.link, m.Ack(0, [request]))  # it came again, and the root has said it has it

    def _take_in(self, child: Neighbour, frames: Sequence[Frame]) -> None:
        child.unacknowledged += 1
        if child.unacknowledged >= ACK_MESSAGES_MAX:
            self._full = True
        for frame in frames:
            self._bytes += len(frame)

    def results_sent(self, batch: m.Results, frames: Sequence[Frame]) -> None:
        """A batch goes up to the parent."""
        self._sent += 1
        if self.keeping:
            self.kept.add_results(batch, frames)

    def reply_sent(self, reply: m.Reply, frames: Sequence[Frame], targets: int) -> None:
        """A reply goes up to the parent."""
        self._answered[reply.request] = self._answered.get(reply.request, 0) | targets
        if self.keeping:
            self.kept.add_reply(reply, frames)

    def on_drained(self) -> None:
        """All that was heard has been passed on; at the root, it has come where it is to be."""
        if not self.due:
            return
        if self._is_root:
            self.acknowledge()
        elif self._sent > self._acked:
            self._passed.append((self._sent, self._heard))
            self._heard = {}
        else:  # it all came again, and the root has it
            self._tell_children(self._heard, {})
            self._heard = {}

    # --- down ---------------------------------------------------------------------------------------------------------

    def acknowledge(self) -> None:
        """At the root: tell the child schedulers what it has."""
        heard, self._heard = self._heard, {}
        owed, self._owed = self._owed, {}
        self._bytes, self._full = 0, False
        for link in sorted(heard.keys() | owed.keys()):
            child = self._membership.children.get(link)
            if child is not None:
                child.unacknowledged = 0
                self._outbox.send(link, m.Ack(child.results_heard, owed.get(link, [])))

    def on_ack(self, ack: m.Ack) -> None:
        """The root has these: tell the children that sent them."""
        self.kept.on_ack(ack)
        self._acked = max(self._acked, ack.results)
        counts: dict[Link, int] = {}
        while self._passed and self._passed[0][0] <= ack.results:
            counts.update(self._passed.popleft()[1])
        answered = {request: self._answered.pop(request) for request in ack.requests if request in self._answered}
        self._tell_children(counts, answered)

    def _tell_children(self, counts: dict[Link, int], answered: dict[m.TaskId, int]) -> None:
        """counts: of batches, by child; answered: the ranks of calls."""
        asked = 0
        for targets in answered.values():
            asked |= targets
        for link, child in self._membership.children.items():
            reach = child.reach if asked else 0
            theirs = [request for request, ranks in answered.items() if ranks & reach] if asked & reach else []
            if theirs or link in counts:
                self._outbox.send(link, m.Ack(counts.get(link, 0), theirs))

    # --- neighbours change --------------------------------------------------------------------------------------------

    def on_welcome(self, *, keep: bool) -> None:
        """The parent says whether answers have to be kept."""
        self.keeping = keep
        if not keep:
            self.kept = Kept()

    def send_again(self) -> None:
        """Over a new link to a parent: all that is kept, with counts that begin anew."""
        for message, frames in self.kept.again():
            self._outbox.send(PARENT, message, frames)
        told = self._sent - self.kept.results_sent
        self._passed = deque((count - told, counts) for count, counts in self._passed)
        self._sent, self._acked = self.kept.results_sent, 0

    def forget_child(self, link: Link) -> None:
        """A child is gone. Its name may come back, with counts that begin anew."""
        self._heard.pop(link, None)
        self._owed.pop(link, None)
        for _, counts in self._passed:
            counts.pop(link, None)

    def shares(self) -> dict[m.TaskId, int]:
        """The ranks that have answered a call, of all whose answers the root is not known to have."""
        return dict(self._answered)

    def leftovers(self) -> int:
        """Answers that wait to be acknowledged."""
        return len(self._passed) + len(self._answered) + len(self._heard) + len(self._owed) + self.kept.held


def targets_of(reply: m.Reply) -> int:
    """The ranks that a reply is from."""
    ranks = 0
    for chunk in reply.chunks:
        ranks |= bitset.from_wire(chunk.ranks)
    for loss in reply.losses:
        ranks |= bitset.from_wire(loss.ranks)
    return ranks
