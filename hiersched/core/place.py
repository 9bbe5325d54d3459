"""Where a scheduler stands in the tree, and whom it lets in there."""

from __future__ import annotations

import msgspec

from hiersched.core.membership import Membership
from hiersched.limits import CHILDREN_MAX, CLIENTS_MAX
from hiersched.protocol.messages import Hello, Refused


class Place(msgspec.Struct, frozen=True):
    """A scheduler's place. It covers ranks [first, last); level 0 is the root.

    watched: its neighbours' processes are watched by somebody who reports their end, so that silence means nothing.
    restarts: engines that end are replaced.
    """

    cluster: str
    key: str
    level: int
    first: int
    last: int
    watched: bool = True
    restarts: bool = False

    @property
    def is_root(self) -> bool:
        """It has clients where the others have a parent."""
        return self.level == 0

    def refusal(self, hello: Hello, membership: Membership) -> Refused | None:
        """Why this peer may not come in; None if it may."""
        if hello.cluster != self.cluster:
            return Refused(
                "ConnectionFileError",
                f"this is cluster {self.cluster!r}, not {hello.cluster!r}: the connection file is stale",
            )
        if hello.key != self.key:
            return Refused("NotAuthorised", "wrong key: use the connection file that this cluster wrote")
        if hello.role == "client":
            return self._client_refusal(membership)
        if not self.first <= hello.first < hello.last <= self.last:
            return Refused("PlanError", f"ranks {hello.first}..{hello.last - 1} do not belong to this scheduler")
        if hello.role == "engine" and hello.last != hello.first + 1:
            return Refused("PlanError", f"an engine stands for one rank, not for {hello.first}..{hello.last - 1}")
        if membership.has_range(hello.first, hello.last) is not None:
            return Refused("PlanError", f"ranks {hello.first}..{hello.last - 1} are taken")
        if len(membership.children) >= CHILDREN_MAX:
            return Refused("CapacityError", "this scheduler has all the children it may have")
        return None

    def _client_refusal(self, membership: Membership) -> Refused | None:
        if not self.is_root:
            return Refused("NotAuthorised", "clients connect to the root")
        if len(membership.clients) >= CLIENTS_MAX:
            return Refused("CapacityError", f"the root already has {CLIENTS_MAX} clients")
        return None
