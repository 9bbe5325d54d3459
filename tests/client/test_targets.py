"""Engines are named by id, by several ids, by a slice, or all at once."""

from __future__ import annotations

import numpy as np
import pytest

from hiersched.client.targets import describe_ids, is_single, resolve_targets
from hiersched.errors import NoEngines, UnknownEngine

IDS = [0, 1, 2, 5, 6]


@pytest.mark.parametrize(
    ("targets", "chosen"),
    [
        ("all", (0, 1, 2, 5, 6)),
        (None, (0, 1, 2, 5, 6)),
        (slice(None), (0, 1, 2, 5, 6)),
        (slice(None, None, 2), (0, 2, 6)),
        (5, (5,)),
        (-1, (6,)),
        (np.int64(2), (2,)),
        ([6, 0], (6, 0)),
        (range(3), (0, 1, 2)),
    ],
)
def test_targets_are_resolved_in_the_order_asked_for(targets, chosen):
    assert resolve_targets(targets, IDS) == chosen


def test_an_unknown_engine_is_refused_with_the_ids_there_are():
    with pytest.raises(UnknownEngine, match=r"no engine 3; the engines are 0-2, 5-6"):
        resolve_targets([0, 3], IDS)


def test_an_engine_named_twice_is_refused():
    with pytest.raises(UnknownEngine, match="twice"):
        resolve_targets([6, -1], IDS)


@pytest.mark.parametrize("targets", ["some", b"all", 1.5, ["0"]])
def test_what_names_no_engine_is_refused(targets):
    with pytest.raises(TypeError):
        resolve_targets(targets, IDS)


@pytest.mark.parametrize("targets", [[], slice(9, 9)])
def test_no_engine_meant_is_refused(targets):
    with pytest.raises(NoEngines):
        resolve_targets(targets, IDS)


def test_a_cluster_without_engines_is_refused():
    with pytest.raises(NoEngines, match="no engines"):
        resolve_targets("all", [])


def test_only_an_id_is_single():
    assert is_single(3)
    assert is_single(np.int64(3))
    assert not is_single([3])
    assert not is_single("all")


def test_ids_are_described_by_runs():
    assert describe_ids([5, 0, 1, 2]) == "0-2, 5"
    assert describe_ids(range(0, 100, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, ... (50 in all)"
