"""Where a scheduler stands in the tree, and who may come to it there at all."""

from __future__ import annotations

import msgspec

from hiersched.protocol.messages import NO_RANK, Hello, Refused


class Place(msgspec.Struct, frozen=True):
    """A scheduler's place. It covers ranks [first, last); level 0 is the root.

    watched: its neighbours' processes are watched by somebody who reports their end, so that silence means nothing.
    restarts: engines that end are replaced. guests: this is the root of a cluster that takes guests (enrolment.py).
    """

    cluster: str
    key: str
    level: int
    first: int
    last: int
    watched: bool = True
    restarts: bool = False
    guests: bool = False

    @property
    def is_root(self) -> bool:
        """It has clients where the others have a parent."""
        return self.level == 0

    @property
    def is_for_guests(self) -> bool:
        """It is the leaf for guests, whose ranks are given at run time."""
        return self.first == NO_RANK

    def refusal(self, hello: Hello, *, enrolled: bool = False) -> Refused | None:
        """Why this peer has no business here; None if it has. Whether there is room for it is for others to say.

        enrolled: its ranks were given, or are to be given, at run time.
        """
        if hello.cluster != self.cluster:
            return Refused(
                "ConnectionFileError",
                f"this is cluster {self.cluster!r}, not {hello.cluster!r}: the connection file is stale",
            )
        if hello.key != self.key:
            return Refused("NotAuthorised", "wrong key: use the connection file that this cluster wrote")
        if hello.role == "client":
            return None if self.is_root else Refused("NotAuthorised", "clients connect to the root")
        if enrolled:
            return None
        if not self.first <= hello.first < hello.last <= self.last:
            return Refused("PlanError", f"ranks {hello.first}..{hello.last - 1} do not belong to this scheduler")
        if hello.role == "engine" and hello.last != hello.first + 1:
            return Refused("PlanError", f"an engine stands for one rank, not for {hello.first}..{hello.last - 1}")
        return None
