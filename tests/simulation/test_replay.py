"""The same seed gives the same run, event by event, in any process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.random_worlds import RandomWorld

SEEDS = [3, 14, 15]
PROGRAM = """
import sys
from tests.simulation.random_worlds import RandomWorld
for seed in map(int, sys.argv[1:]):
    drawn = RandomWorld(seed, busy=2)
    drawn.run()
    print(drawn.world.timeline.digest)
"""


def digest_of(seed: int) -> int:
    drawn = RandomWorld(seed, busy=2)
    drawn.run()
    return drawn.world.timeline.digest


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_seed_gives_the_same_trace(seed: int):
    assert digest_of(seed) == digest_of(seed)


def test_another_seed_gives_another_trace():
    assert digest_of(SEEDS[0]) != digest_of(SEEDS[1])


def test_no_order_of_a_hash_table_reaches_the_trace():
    traces = []
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-c", PROGRAM, *map(str, SEEDS)]
        traces.append(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert traces[0] == traces[1]
    assert len(traces[0].split()) == len(SEEDS)
