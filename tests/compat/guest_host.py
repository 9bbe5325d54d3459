"""A host whose cluster takes guests, and has no door for old clients. Run, not imported.

python -m tests.compat.guest_host DOOR.msgpack < config.json
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from hiersched.core.enrolment import is_for_guests
from hiersched.core.topology import Child
from hiersched.nodes import host
from hiersched.nodes.facts import ClusterFacts
from hiersched.runtime.connection import Connection
from hiersched.runtime.driver import Driver, Lodger
from hiersched.runtime.spawn import HostConfig


def main() -> int:
    """Run the host until its cluster ends."""
    from hiersched.compat.door_config import DoorConfig

    door = msgspec.msgpack.decode(Path(sys.argv[1]).read_bytes(), type=DoorConfig)
    config = msgspec.json.decode(sys.stdin.buffer.read(), type=HostConfig)

    def lodge(driver: Driver, facts: ClusterFacts, child: Child, found: Connection | None) -> Lodger | None:
        if not is_for_guests(child):
            return None
        from hiersched.compat.leafdoor import LeafDoor  # has zmq with it, which a nursery must not use before it forks

        return LeafDoor(driver, facts, child, door)

    return host.run(config, lodge)


if __name__ == "__main__":
    sys.exit(main())
