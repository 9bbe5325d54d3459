"""The processes a peer leaves behind, and the memory its workers really cost.

Every process of a peer inherits a mark in its environment. Following parents is not enough: controllers, nurseries and
daemons leave their parent, but none of them leaves its environment. A process that cannot be read is not ours.
"""

import os
import time
from collections.abc import Iterable

import psutil

MARK = "HIERSCHED_BENCHMARK"
END_AFTER_S = 5.0  # what a peer's processes have to end by themselves once the peer has stopped
POLL_PERIOD_S = 0.05
KIB_PER_MB = 1e6 / 1024


def marked(mark: str) -> list[psutil.Process]:
    """Living processes that carry `mark`, this one excluded."""
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        try:
            alive = process.status() != psutil.STATUS_ZOMBIE
            if alive and process.environ().get(MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def end_marked(mark: str) -> int:
    """Wait `END_AFTER_S` for the processes with `mark` to end, kill the others; how many had to be killed."""
    deadline = time.monotonic() + END_AFTER_S
    left = marked(mark)
    while left and time.monotonic() < deadline:
        time.sleep(POLL_PERIOD_S)
        left = marked(mark)
    killed = len(left)
    while left:
        for process in left:
            _kill(process)
        psutil.wait_procs(left, timeout=END_AFTER_S)
        left = marked(mark)
    return killed


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def proportional_memory_mb(pids: Iterable[int]) -> float:
    """Mean proportional memory (Pss: a page shared by k processes counts 1/k for each) of `pids`, in 10^6 bytes."""
    sizes_kib = [_pss_kib(pid) for pid in pids]
    return sum(sizes_kib) / len(sizes_kib) / KIB_PER_MB


def _pss_kib(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as rollup:
        for line in rollup:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss line")
