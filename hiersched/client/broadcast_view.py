"""A direct view by ipyparallel's name for calls that travel down a tree; here those of every direct view do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiersched.client.direct_view import DirectView

if TYPE_CHECKING:
    from hiersched.client.client import Client


class BroadcastView(DirectView):
    """Engines of which each call reaches all at once. Results are lists in the order of the targets, even of one.

    is_coalescing: kept for ipyparallel's sake; answers are always gathered on their way up, and told apart here.
    """

    def __init__(self, client: Client, targets: Any = "all", *, is_coalescing: bool = False, **flags: Any) -> None:
        self.is_coalescing = is_coalescing
        super().__init__(client, targets, **flags)

    def _is_single(self, targets: Any) -> bool:
        return False
