"""Our controller without its doors: a root that only writes ipyparallel's connection files.

What launches, stops and finds a cluster can be tried with it, apart from ipyparallel's protocol.
"""

from __future__ import annotations

from hiersched.compat import connection_files, controller, controller_app
from hiersched.compat.door_config import CLIENT_CHANNELS, ENGINE_CHANNELS, DoorConfig
from hiersched.core.topology import Child
from hiersched.nodes.facts import ClusterFacts
from hiersched.nodes.scheduler import Lodge
from hiersched.runtime.connection import Connection
from hiersched.runtime.driver import Driver, Lodger


class PlainDoor:
    """Lodges with the root, and listens to nobody."""

    def __init__(self, config: DoorConfig, root: Connection) -> None:
        self._config = config
        connection_files.write_client(config, dict.fromkeys(CLIENT_CHANNELS, 0) | config.client_ports, root)
        connection_files.write_engine(config, dict.fromkeys(ENGINE_CHANNELS, 0) | config.engine_ports, root)

    def close(self) -> None:
        """Take the files away."""
        connection_files.remove(self._config)


def lodging(config: DoorConfig) -> Lodge:
    """The plain door at the root, and nothing anywhere else."""

    def lodge(driver: Driver, facts: ClusterFacts, child: Child, found: Connection | None) -> Lodger | None:
        return None if found is None else PlainDoor(config, found)

    return lodge


if __name__ == "__main__":
    controller_app.lodging = lodging
    controller.main()
