"""Queries, as every database of ipyparallel's understands them."""

from datetime import UTC, datetime

import pytest

from hiersched.compat.db_queries import rewritten

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ({}, {"msg_id": {"$ne": None}}),
        ({"msg_id": "a", "queue": None}, {"msg_id": {"$eq": "a"}, "queue": {"$eq": None}}),
        ({"msg_id": {"$in": ["a"]}}, {"msg_id": {"$in": ["a"]}}),
        ({"started": {"$lt": 3}}, {"started": {"$ne": None, "$lt": 3}}),
        ({"started": {"$gt": 3}}, {"started": {"$ne": None, "$gte": 3, "$nin": [3]}}),
        ({"started": {"$gt": 3, "$nin": [5]}}, {"started": {"$ne": None, "$gte": 3, "$nin": [5, 3]}}),
        ({"started": {"$ne": 4, "$lt": 9}}, {"started": {"$ne": 4, "$lt": 9}}),
    ],
)
def test_a_query_says_what_it_means(query, expected):
    found = rewritten(query)
    assert found == expected
    assert [list(condition) for condition in found.values()] == [list(condition) for condition in expected.values()]


def test_texts_that_are_dates_become_dates():
    assert rewritten({"submitted": "2026-01-01T00:00:00Z"}) == {"submitted": {"$eq": NEW_YEAR}}


@pytest.mark.parametrize("query", [None, 7, "msg_id", ["msg_id"]])
def test_what_is_no_dict_is_no_query(query):
    with pytest.raises(TypeError):
        rewritten(query)
