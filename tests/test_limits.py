"""Bounds hold together, name their unit, and are kept by somebody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hiersched import limits

BOUNDS = {name: value for name, value in vars(limits).items() if name.isupper()}
QUALIFIED = re.compile(r".*_(S|MAX|MIN)$|KIB|MIB")  # seconds, or the most or the least of what the name counts

every_bound = pytest.mark.parametrize("name", BOUNDS)


@every_bound
def test_a_bound_is_a_positive_number_that_says_of_what(name):
    assert BOUNDS[name] > 0
    assert QUALIFIED.fullmatch(name)


@every_bound
def test_a_bound_is_kept_by_somebody(name):
    package = Path(limits.__file__).parent
    sources = (path.read_text(encoding="utf-8") for path in package.rglob("*.py") if path != Path(limits.__file__))
    assert any(re.search(rf"\b{name}\b", source) for source in sources)


def test_every_engine_of_the_largest_cluster_is_within_three_levels():
    assert limits.FANOUT_MAX**2 * limits.LEAF_ENGINES_MAX >= 100_000
    assert limits.FANOUT_MAX**3 * limits.LEAF_ENGINES_MAX >= limits.ENGINES_MAX


def test_one_lost_beat_loses_nobody():
    assert limits.LOST_AFTER_S >= 2 * limits.BEAT_PERIOD_S + limits.LINK_DELAY_S_MAX
