"""A client that is struck by Ctrl-C again and again while it calls and waits. Says what became of it; run by a test.

python -m tests.processes.struck_client CLUSTER SECONDS
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time

from hiersched.client.client import Client
from hiersched.client.interrupts import Held, Released
from hiersched.client.results import AsyncResult
from tests.patience import DEADLINE_S
from tests.processes import errands

STRIKER = """
import os, random, sys, time
pid, seconds, pick = int(sys.argv[1]), float(sys.argv[2]), random.Random(17)
ends_s = time.monotonic() + seconds
while time.monotonic() < ends_s:
    time.sleep(pick.uniform(0.0, 0.004))
    os.kill(pid, 2)
"""


def calls_under_fire(rc: Client, seconds: float) -> tuple[list[tuple[int, AsyncResult]], int]:
    """The calls made in that time, each with what it is to give, and how often Ctrl-C has struck."""
    pick = random.Random(5)
    balanced, everywhere = rc.load_balanced_view(), rc[:]
    made: list[tuple[int, AsyncResult]] = []
    struck = 0
    ends_s = time.monotonic() + seconds
    with Held():  # what strikes between two rounds waits for the next one
        while time.monotonic() < ends_s:
            number = len(made)
            try:
                with Released():
                    view = (balanced, rc[number % len(rc)], everywhere)[pick.randrange(3)]
                    made.append((number, view.apply_async(errands.square, number)))
                    made[-1][1].get(DEADLINE_S)
                    if not number % 50:
                        assert balanced.map_sync(errands.square, range(100)) == [n * n for n in range(100)]
            except KeyboardInterrupt:
                struck += 1
    return made, struck


def main(cluster: str, seconds: float) -> None:
    """Be struck, then see that every call has given what it should, once, and that the client goes on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Client(cluster_id=cluster) as rc:
        striker = subprocess.Popen([sys.executable, "-c", STRIKER, str(os.getpid()), str(seconds)])
        made, struck = calls_under_fire(rc, seconds + 0.2)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        striker.wait()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number, result in made:
            given = result.get(DEADLINE_S)
            assert given in (number * number, [number * number] * len(rc)), (number, given)
        assert rc.wait(timeout=DEADLINE_S)
        assert not rc.outstanding
        assert rc.load_balanced_view().map_sync(errands.square, range(1000)) == [n * n for n in range(1000)]
        print("whole", len(made), struck)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
