"""A function's pace says how much of an engine a task of it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.pace import Pace, Paces
from hiersched.limits import FUNCTIONS_CACHED_MAX, WINDOW_S, WINDOW_TASKS_MAX


def paced(*durations_s: float) -> Pace:
    pace = Pace()
    for duration_s in durations_s:
        pace.learn(duration_s)
    return pace


def test_a_function_never_seen_takes_a_whole_engine():
    assert Pace().weight == 1.0


def test_the_longer_a_task_the_more_of_an_engine_it_takes():
    weights = [paced(*[duration_s] * 20).weight for duration_s in (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)]
    assert weights == sorted(weights)
    assert weights[0] == 1 / WINDOW_TASKS_MAX
    assert weights[-1] == 1.0


def test_a_steady_function_takes_its_share_of_the_window():
    assert paced(*[WINDOW_S] * 50).weight == pytest.approx(0.5, abs=0.01)


def test_an_uneven_function_counts_as_longer_than_its_mean():
    assert paced(*[0.001, 0.009] * 20).weight > paced(*[0.005] * 40).weight


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_a_weight_is_never_more_than_an_engine_nor_less_than_a_window_allows(durations_s):
    assert 1 / WINDOW_TASKS_MAX <= paced(*durations_s).weight <= 1.0


def test_the_paces_of_so_many_functions_are_remembered_and_no_more():
    paces = Paces()
    first = paces.of(b"first")
    assert paces.of(b"first") is first
    for number in range(FUNCTIONS_CACHED_MAX):
        paces.of(number.to_bytes(16))
    assert paces.of(b"first") is not first
