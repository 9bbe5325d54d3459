"""What every process of a cluster knows about it."""

from __future__ import annotations

import msgspec

from hiersched.core.effects import Link, link_of
from hiersched.core.topology import Child, TreePlan, route


class ClusterFacts(msgspec.Struct, frozen=True):
    """directory: of the sockets; files: of the connection file. ip: that the root listens on for clients elsewhere.

    plan: of the tree that this process is in: the cluster's first, or one added later, whose top node is the cluster's
    root all the same. root: the root's link. restart: engines that end are replaced. guests: a leaf takes in engines
    that nobody here starts.
    """

    cluster: str
    key: str
    directory: str
    plan: TreePlan
    ip: str | None = None
    files: str = ""
    root: Link = b""
    restart: bool = False
    guests: bool = False

    def address(self, link: Link) -> str:
        """Where the scheduler of this link listens."""
        return f"ipc://{self.directory}/{link.decode()}"

    def ancestors(self, child: Child, address: str) -> list[str]:
        """The addresses of the schedulers above the one at `address`, the nearest first. child: one that it starts."""
        above = [self.address(self.root)]
        if address != above[0]:
            path = route(self.plan, child.first)
            above += [self.address(link_of(step)) for step in path if step.level < child.level]
        return above[: above.index(address)][::-1]
