"""A dask scheduler for old clients' `become_dask`, which start the workers on the engines themselves.

It runs in a process of its own: a root scheduler has better things to do. The process is told its arguments on stdin,
tells on stdout where it listens, and ends with its stdin, hence with whoever started it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from hiersched.client.dask import DaskScheduler
from hiersched.compat.contents import error_content, plain_error
from hiersched.limits import DASK_TIMEOUT_S, STOP_TIMEOUT_S

Content = dict[str, Any]


class DaskProcess:
    """arguments: for distributed.Scheduler. Needs a running event loop."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.ended = False
        self._said = b""
        self._content: Content | None = None
        self._waiting: list[Callable[[Content], None]] = []
        words = json.dumps(arguments).encode() + b"\n"
        self._child = subprocess.Popen(
            [sys.executable, "-m", "hiersched.compat.dask_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._stdin, self._stdout = self._child.stdin, self._child.stdout
        assert self._stdin is not None and self._stdout is not None
        self._stdin.write(words)
        self._stdin.flush()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._stdout.fileno(), self._read)
        self._limit = self._loop.call_later(DASK_TIMEOUT_S, self._child.kill)

    def when_known(self, tell: Callable[[Content], None]) -> None:
        """Call `tell`, perhaps at once, with the content of a reply: ip, address and port, or what went wrong."""
        if self._content is None:
            self._waiting.append(tell)
        else:
            tell(self._content)

    def close(self) -> None:
        """Tell it to end, and its workers with it. It has STOP_TIMEOUT_S for that."""
        if self.ended:
            return
        assert self._stdin is not None
        self._stdin.close()
        self._limit.cancel()
        self._limit = self._loop.call_later(STOP_TIMEOUT_S, self._child.kill)

    def _read(self) -> None:
        assert self._stdin is not None and self._stdout is not None
        said = os.read(self._stdout.fileno(), 65536)
        self._said += said
        if self._content is None and self._said.endswith(b"\n"):
            self._limit.cancel()
            self._tell(json.loads(self._said))
        if not said:
            self._loop.remove_reader(self._stdout.fileno())
            self._limit.cancel()
            self._stdout.close()
            self._stdin.close()
            self._child.wait()  # it is about to end, or has
            self.ended = True
            if self._content is None:
                self._tell(
                    plain_error("RuntimeError", f"dask's scheduler ended ({self._child.returncode}) at its start")
                )

    def _tell(self, content: Content) -> None:
        self._content = content
        self.ended = content["status"] != "ok"
        waiting, self._waiting = self._waiting, []
        for tell in waiting:
            tell(content)


# --- in the process ---------------------------------------------------------------------------------------------------


def main() -> None:
    """Run a scheduler until stdin ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # what dask prints is no answer

    def say(content: Content) -> None:
        print(json.dumps(content), file=out, flush=True)

    try:
        scheduler = DaskScheduler(json.loads(sys.stdin.readline()))
    except Exception as error:  # whoever asked for it shall know
        say(error_content(error))
        return
    ip, _, port = scheduler.address.rpartition("/")[2].rpartition(":")
    say({"status": "ok", "ip": ip, "address": scheduler.address, "port": int(port)})
    sys.stdin.read()  # until nobody holds its other end
    scheduler.close()


if __name__ == "__main__":
    main()
