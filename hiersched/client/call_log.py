"""Which calls of a view are open, and which it made lately.

Calls are open until they end, and known exactly. Of all that were made the last CALLS_RECALLED_MAX are remembered, by
their ids alone: no result is kept. A call on several engines has an id of its own, and one for each engine's part.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakSet

from hiersched.client.names import calls_text, name_of, part_ids, request_of
from hiersched.errors import UnknownTask
from hiersched.limits import CALLS_RECALLED_MAX

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hiersched.client.balanced_map import BalancedMap
    from hiersched.client.lazy_map import LazyMap
    from hiersched.client.pending import Pending


class CallLog:
    """The calls of one view.

    open: requests that have not ended. maps, lazy_maps: those that somebody holds; they may make further requests.
    """

    __slots__ = ("_made", "lazy_maps", "maps", "open")

    def __init__(self) -> None:
        self.open: set[Pending] = set()
        self.maps: WeakSet[BalancedMap] = WeakSet()
        self.lazy_maps: WeakSet[LazyMap] = WeakSet()
        self._made: deque[int] = deque(maxlen=CALLS_RECALLED_MAX)

    def note(self, pending: Pending) -> Pending:
        """Take in a call that was just made. Gives it back."""
        self._made.append(pending.id)
        self.open.add(pending)
        pending.add_done_callback(self.open.discard)
        return pending

    def ids(self) -> list[str]:
        """The ids of all calls that are remembered, oldest first."""
        return [name_of(request) for request in list(self._made)]

    def id_at(self, place: int) -> str:
        """The id of one of the calls that are remembered, -1 the last. Raises UnknownTask."""
        if not -len(self._made) <= place < len(self._made):
            raise UnknownTask(f"there is no call {place}: {calls_text(self.ids(), 'this view')}")
        return name_of(self._made[place])

    def open_ids(self) -> set[str]:
        """The ids of the parts that have not ended."""
        return {
            part
            for pending in tuple(self.open)
            for part, outcome in zip(part_ids(pending.id, pending.targets), list(pending.outcomes), strict=False)
            if outcome is None
        }

    def forget(self, ids: Iterable[str]) -> None:
        """Remember these calls no longer, whether they are named by their own ids or by those of their parts."""
        gone = {request_of(name) for name in ids}
        kept = [request for request in list(self._made) if request not in gone]
        self._made.clear()
        self._made.extend(kept)

    def forget_all(self) -> None:
        """Remember no call that was made so far."""
        self._made.clear()
