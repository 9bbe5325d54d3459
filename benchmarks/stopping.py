"""How long until busy engines have stopped?

Engines that spin in Python are interrupted: the clock runs from asking until every call has ended with
KeyboardInterrupt. Ours only: a bound is wanted here, not a ratio.
"""

import os
import statistics
import tempfile
import time
from typing import Any

import hiersched
from benchmarks.command import Options, main
from benchmarks.functions import spin
from benchmarks.report import Report, Row, Target

ENGINES, QUICK_ENGINES = 200, 32
STOPPED_MS_MAX = 300.0
ROUNDS = 5
BUSY_S_MAX = 120.0  # until all engines have begun to spin
STOPPED_S_MAX = 60.0


def stopping(options: Options) -> Report:
    """Median over rounds, of all engines at once."""
    report = Report("stopping", "Interrupting busy engines")
    engines = QUICK_ENGINES if options.quick else ENGINES
    with hiersched.Cluster(n=engines) as client:
        times_ms = [1e3 * _stop_all(client, engines) for _ in range(ROUNDS)]
    target = Target(ours_max=STOPPED_MS_MAX)
    report.rows.append(Row("interrupt of all", "ms", engines, statistics.median(times_ms), {}, target))
    report.notes.append(f"Slowest of {ROUNDS}: {max(times_ms):.0f} ms.")
    return report


def _stop_all(client: Any, engines: int) -> float:
    """Seconds from the order to the last answer. Raises AssertionError unless every call was interrupted."""
    with tempfile.TemporaryDirectory() as directory:
        running = client[:].apply_async(spin, directory)
        deadline = time.monotonic() + BUSY_S_MAX
        while len(os.listdir(directory)) < engines:
            assert time.monotonic() < deadline, "the engines did not begin"
            time.sleep(0.05)
        begin = time.perf_counter()
        client.send_signal("SIGINT")
        answers = running.get(STOPPED_S_MAX, return_exceptions=True)
        seconds = time.perf_counter() - begin
    assert all(answer.ename == "KeyboardInterrupt" for answer in answers), answers[0]
    return seconds


if __name__ == "__main__":
    main([stopping])
