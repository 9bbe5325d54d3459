"""What every process of a cluster knows about it."""

from __future__ import annotations

import msgspec

from hiersched.core.topology import TreePlan


class ClusterFacts(msgspec.Struct, frozen=True):
    """directory: of the sockets. ip: interface that the root listens on for tcp clients, if any."""

    cluster: str
    key: str
    directory: str
    plan: TreePlan
    ip: str | None = None
