"""A dependency is met, or can never be, as the tasks in it end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.client.dependencies import Dependency, as_dependency, tasks_of

SUCCEEDED = {"0", "2", "4", "6", "8"}
FAILED = {"1", "3", "5", "7", "9"}
MIXED = SUCCEEDED | FAILED


@pytest.mark.parametrize(
    ("ids", "conditions", "met", "unreachable"),
    [
        (SUCCEEDED, {}, True, False),
        (MIXED, {}, False, True),
        (MIXED, {"all": False}, True, False),
        (FAILED, {"all": False}, False, True),
        (FAILED, {"success": False, "failure": True}, True, False),
        (SUCCEEDED, {"success": False, "failure": True}, False, True),
        (SUCCEEDED, {"success": False, "failure": True, "all": False}, False, True),
        (MIXED, {"failure": True}, True, False),
        (MIXED | {"17"}, {"failure": True}, False, False),
        ({"0", "17"}, {}, False, False),
        ({"0", "17"}, {"all": False}, True, False),
        ({"1", "17"}, {"all": False}, False, False),
        (set(), {}, True, False),
    ],
)
def test_which_ends_count(ids, conditions, met, unreachable):
    dependency = Dependency(ids, **conditions)
    assert dependency.check(SUCCEEDED, FAILED) is met
    assert dependency.unreachable(SUCCEEDED, FAILED) is unreachable


@given(
    ids=st.sets(st.sampled_from(sorted(MIXED | {"17"}))),
    everything=st.booleans(),
    ends=st.sampled_from([(True, False), (False, True), (True, True)]),
)
def test_what_is_met_can_never_be_out_of_reach(ids, everything, ends):
    dependency = Dependency(ids, all=everything, success=ends[0], failure=ends[1])
    assert not (dependency.check(SUCCEEDED, FAILED) and dependency.unreachable(SUCCEEDED, FAILED))
    if "17" not in ids:
        assert dependency.check(SUCCEEDED, FAILED) or dependency.unreachable(SUCCEEDED, FAILED)


def test_it_is_made_of_results_and_ids(balanced, view):
    single, several = balanced.apply_async(abs, -1), view.apply_async(abs, -1)
    dependency = Dependency([single, several, "17"])
    assert dependency == {*single.msg_ids, *several.msg_ids, "17"}
    assert Dependency(single) == set(single.msg_ids)
    assert Dependency("17") == {"17"}


def test_it_can_be_made_again_of_its_dict():
    dependency = Dependency(["1", "2"], all=False, failure=True)
    again = Dependency(dependency.as_dict())
    assert again == dependency
    assert (again.all, again.success, again.failure) == (False, True, True)


def test_it_describes_itself():
    assert repr(Dependency(["1", "2"])) == "<Dependency: all of 2 succeeded>"
    assert repr(Dependency(["1"], all=False, success=False, failure=True)) == "<Dependency: any of 1 failed>"


def test_what_is_no_dependency_is_refused():
    with pytest.raises(ValueError, match="must count successes, failures or both"):
        Dependency(["1"], success=False)
    with pytest.raises(TypeError, match="AsyncResult or id, not by 17"):
        Dependency([17])
    with pytest.raises(TypeError):
        tasks_of(17)
    with pytest.raises(ValueError, match="invalid dependency"):
        as_dependency([object()])


def test_a_map_that_is_still_being_sent_is_no_dependency_yet(session, balanced):
    result = balanced.map_async(abs, range(100))
    with pytest.raises(ValueError, match="wait for it, or give the map a chunksize"):
        balanced.after = result
    result.wait()
    balanced.after = result
    balanced.after = balanced.map_async(abs, range(100), chunksize=10)
