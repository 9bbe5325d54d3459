"""How ipyparallel's Cluster and ipcluster start a controller of ours, and sets of our engines: by the name "hiersched".

A controller is one process, as ipyparallel's own; so is a set of engines, however many, because the engines themselves
are forked where the controller runs. What is done to that process is done to them.
"""

from __future__ import annotations

import asyncio
import math
import sys
import time
from typing import Any

from ipyparallel.cluster.launcher import LocalControllerLauncher, LocalEngineLauncher
from traitlets import List, Unicode

from hiersched.compat.connection_files import OUR_KEY
from hiersched.limits import CONNECTION_LOOK_PERIOD_S

CONTROLLER_COMMAND = [sys.executable, "-m", "hiersched.compat.controller"]
ENGINES_COMMAND = [sys.executable, "-m", "hiersched.compat.engine_set"]


class HierschedControllerLauncher(LocalControllerLauncher):
    """Launches a tree of schedulers that ipyparallel's clients and engines take for their controller."""

    controller_cmd = List(Unicode(), CONTROLLER_COMMAND, config=True, help="The command that runs our controller.")

    async def get_connection_info(self, timeout: float | None = None) -> dict[str, Any]:
        """What the connection files say, once they are this controller's: {'client': ..., 'engine': ...}.

        Files that are used again, or were left by one that was killed, are there before it has written its own.
        timeout: seconds; by default `connection_info_timeout`, negative for ever. Raises TimeoutError, or RuntimeError
        if the controller has ended.
        """
        allowed_s = self.connection_info_timeout if timeout is None else timeout
        ends_s = time.monotonic() + allowed_s if allowed_s >= 0 else math.inf
        while True:
            left_s = -1.0 if ends_s == math.inf else max(0.0, ends_s - time.monotonic())
            info: dict[str, Any] = await super().get_connection_info(left_s)
            if info["client"].get(OUR_KEY, {}).get("nursery") == self.pid:
                return info
            status = self.poll()
            if status is not None:
                raise RuntimeError(f"the controller ended with {status} before it wrote its connection files")
            if time.monotonic() > ends_s:
                raise TimeoutError(f"the connection files were not written anew in {allowed_s} s")
            await asyncio.sleep(CONNECTION_LOOK_PERIOD_S)


class HierschedEngineSetLauncher(LocalEngineLauncher):
    """Launches a set of engines of ours, to a controller of ours."""

    engine_cmd = List(Unicode(), ENGINES_COMMAND, config=True, help="The command that runs a set of our engines.")

    def find_args(self) -> list[str]:
        """The command and its arguments."""
        return [*self.engine_cmd, f"--n={self.n}", *self.cluster_args, *self.engine_args]

    def start(self, n: int) -> None:
        """Start `n` engines."""
        self.n = n
        super().start()
