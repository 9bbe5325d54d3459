"""Hundreds of small worlds in which anything may be asked and anything may break."""

from __future__ import annotations

import pytest

from tests.simulation.random_worlds import RandomWorld


@pytest.mark.parametrize("seed", range(200))
def test_every_random_world_comes_to_rest_with_every_request_ended(seed: int, request: pytest.FixtureRequest):
    RandomWorld(seed, replay=f"python -m pytest '{request.node.nodeid}'").run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1_000, 1_300))
def test_every_busy_random_world_does_so_too(seed: int, request: pytest.FixtureRequest):
    RandomWorld(seed, engines_max=150, busy=3, replay=f"python -m pytest -m slow '{request.node.nodeid}'").run()
