"""Forks engines on request, as a nursery does. Run, not imported.

Each line of standard input is the facts, the child and the address of an engine, as msgpack in base64; its pid is the
answer. When the input ends, so do all engines.
"""

from __future__ import annotations

import base64
import os
import signal
import sys
import traceback

import msgspec

from hiersched.core.topology import Child
from hiersched.nodes.engine import run_engine
from hiersched.nodes.facts import ClusterFacts
from hiersched.nodes.shell import EngineShell
from hiersched.runtime.doorbell import DOORBELL_SIGNAL


def main() -> None:
    """Serve until standard input ends."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {DOORBELL_SIGNAL})
    shell = EngineShell.instance()
    shell.warm_up()
    print("ready", flush=True)
    pids = []
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            become(line, shell)
        pids.append(pid)
        print(pid, flush=True)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)  # which is not reaped yet, so it is still the engine's
        os.waitpid(pid, 0)


def become(line: str, shell: EngineShell) -> None:
    """Be the engine; never returns."""
    os.dup2(2, 1)  # the log
    try:
        birth = msgspec.msgpack.decode(base64.b64decode(line), type=tuple[ClusterFacts, Child, str])
        run_engine(*birth, shell)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    main()
