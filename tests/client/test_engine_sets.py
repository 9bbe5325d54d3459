"""Sets of engines: named, written as text, shrunk, and what unknown ones get."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.client.engine_sets import EngineSets, ranges_of, ranks_in
from hiersched.errors import UnknownEngineSet, UserError


@pytest.fixture
def sets() -> EngineSets:
    sets = EngineSets()
    sets.add([2, 0, 1, 3], "first")
    sets.add([4, 5], "second")
    return sets


# --- as people write them ---------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 200)))
def test_ranges_are_read_as_they_were_written(ranks: set[int]) -> None:
    assert ranks_in(ranges_of(ranks)) == sorted(ranks)


@pytest.mark.parametrize(
    ("ranks", "text"),
    [([], ""), ([0], "0"), ([3, 4], "3-4"), ([1, 0, 2, 64], "0-2,64"), ([0, 2, 4], "0,2,4"), ([7, 7], "7")],
)
def test_ranges_are_as_short_as_they_can_be(ranks: list[int], text: str) -> None:
    assert ranges_of(ranks) == text


def test_spaces_and_repetitions_do_not_matter() -> None:
    assert ranks_in(" 3, 0-2,1 ") == [0, 1, 2, 3]


@pytest.mark.parametrize("text", ["a", "1-", "-1", "3-1", "1;2", "0-99999999999"])
def test_what_is_no_range_is_named(text: str) -> None:
    with pytest.raises(UserError, match="is no range of engines: write them as in 0-3,7"):
        ranks_in(text)


# --- sets -------------------------------------------------------------------------------------------------------------


def test_sets_survive_their_connection_file(sets: EngineSets) -> None:
    assert sets.to_text() == {"first": "0-3", "second": "4-5"}
    assert EngineSets.from_text(sets.to_text()) == sets


def test_a_set_tells_its_engines(sets: EngineSets) -> None:
    assert (sets["first"].n, sets["first"].ranks) == (4, [0, 1, 2, 3])
    assert repr(sets["second"]) == "<EngineSet('second'): engines 4-5>"
    assert sets.ranks("second") == [4, 5]
    assert sets.ranks() == [0, 1, 2, 3, 4, 5]


def test_ids_that_are_made_are_unique() -> None:
    sets = EngineSets()
    keys = [sets.add([rank]) for rank in range(3)]
    assert len(set(keys)) == 3
    assert list(sets) == keys


def test_an_id_is_taken_only_once(sets: EngineSets) -> None:
    sets.check_free("third")
    sets.check_free(None)
    with pytest.raises(UserError, match="there is an engine set 'first'"):
        sets.check_free("first")


def test_engines_that_are_stopped_are_forgotten(sets: EngineSets) -> None:
    sets.drop([0, 4, 5])
    assert sets.to_text() == {"first": "1-3"}


def test_an_unknown_set_is_told_the_known_ones(sets: EngineSets) -> None:
    with pytest.raises(UnknownEngineSet) as caught:
        sets.ranks("thrid")
    assert str(caught.value) == "no engine set 'thrid'; there are: 'first', 'second'"
    with pytest.raises(KeyError, match="there are: none"):
        EngineSets().ranks("any")
