"""Tables of counters merge to the same table in whatever order they come up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.metrics import merge

counters = st.dictionaries(st.sampled_from(["late", "tasks", "engines"]), st.integers(0, 100))
schedulers = st.tuples(st.integers(0, 3), st.just(1), counters).map(lambda row: (*row, row[2]))
tables = st.lists(schedulers.map(lambda row: [row]), max_size=6)


def test_totals_add_up_and_maxima_are_of_any_one_scheduler():
    low = [(1, 1, {"tasks": 5, "late": 0}, {"tasks": 5, "late": 0})]
    high = [(1, 2, {"tasks": 7}, {"tasks": 4}), (2, 8, {"engines": 64}, {"engines": 8})]
    assert merge([high, low]) == [
        (1, 3, {"tasks": 12, "late": 0}, {"tasks": 5, "late": 0}),
        (2, 8, {"engines": 64}, {"engines": 8}),
    ]


def test_of_nobody_there_is_nothing_to_tell():
    assert merge([]) == merge([[]]) == []


@given(schedulers)
def test_one_scheduler_alone_is_its_own_table(row):
    assert merge([[row]]) == [row]


@given(tables, st.randoms(use_true_random=False), st.integers(0, 6))
def test_it_does_not_matter_in_which_order_and_at_which_level_tables_are_merged(parts, random, cut):
    shuffled = parts[:]
    random.shuffle(shuffled)
    assert merge([merge(shuffled[:cut]), merge(shuffled[cut:])]) == merge(parts)


@given(tables)
def test_merging_leaves_the_tables_as_they_were(parts):
    before = [[(level, count, dict(totals), dict(maxima)) for level, count, totals, maxima in table] for table in parts]
    merge(parts)
    assert parts == before
