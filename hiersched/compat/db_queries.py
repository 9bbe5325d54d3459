"""Queries of old clients, so written that each of ipyparallel's databases answers them alike, and rightly.

In memory, of several plain equalities only the last counts, `$gt` finds what `$lt` does, and what has no date yet
cannot be compared with one; on disk, a query without conditions is an error. None of that is left to them: equality
becomes `$eq`, `$gt` becomes `$gte` and `$nin`, and what is compared must be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ipyparallel.util import extract_dates

Query = dict[str, dict[str, Any]]

_ORDERED = ("$lt", "$gt", "$lte", "$gte")
_EVERYTHING: Query = {"msg_id": {"$ne": None}}


def rewritten(query: Mapping[str, Any]) -> Query:
    """The same query. Texts that are dates become dates. Raises TypeError for what is no query."""
    if not isinstance(query, Mapping):
        raise TypeError(f"a query is a dict of conditions by key, not {query!r}")
    return {str(key): _condition(extract_dates(value)) for key, value in query.items()} or _EVERYTHING


def _condition(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"$eq": value}
    condition = dict(value)
    if "$gt" in condition and "$gte" not in condition:
        bound = condition.pop("$gt")
        condition = {"$gte": bound, **condition, "$nin": [*condition.get("$nin", ()), bound]}
    if "$ne" not in condition and any(operator in condition for operator in _ORDERED):
        condition = {"$ne": None, **condition}
    return condition
