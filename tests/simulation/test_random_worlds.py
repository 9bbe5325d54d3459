"""Hundreds of small worlds in which anything may be asked and anything may break."""

from __future__ import annotations

import pytest

from tests.simulation.random_worlds import RandomWorld


def replay(request: pytest.FixtureRequest, mark: str = "") -> str:
    return f"python -m pytest {mark}'{request.node.nodeid}'"


@pytest.mark.parametrize("seed", range(70))
def test_every_random_world_comes_to_rest_with_every_request_ended(seed: int, request: pytest.FixtureRequest):
    RandomWorld(seed, replay=replay(request)).run()


@pytest.mark.parametrize("seed", range(100, 125))
def test_nobody_notices_that_schedulers_die(seed: int, request: pytest.FixtureRequest):
    RandomWorld(seed, kind="gentle", replay=replay(request)).run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1_000, 1_300))
def test_every_busy_random_world_does_so_too(seed: int, request: pytest.FixtureRequest):
    RandomWorld(seed, engines_max=150, busy=3, replay=replay(request, "-m slow ")).run()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2_000, 2_300))
def test_nor_in_a_busy_one(seed: int, request: pytest.FixtureRequest):
    RandomWorld(seed, engines_max=150, busy=3, kind="gentle", replay=replay(request, "-m slow ")).run()


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(3_000, 3_010))
def test_two_hundred_kills_in_one_world(seed: int, request: pytest.FixtureRequest):
    RandomWorld(seed, kind="storm", replay=replay(request, "-m stress ")).storm(kills=200)
