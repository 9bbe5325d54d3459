"""What a client tells of its own calls, in the terms in which ipyparallel's hub tells of everybody's.

A query is a dict in MongoDB's manner: {'submitted': {'$gt': then}, 'status': 'ok'}.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hiersched.client.metadata import describe_part, moment
from hiersched.client.names import name_of
from hiersched.client.requests import Record
from hiersched.errors import UserError
from hiersched.protocol.messages import NO_RANK

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "$eq": lambda value, wanted: value == wanted,
    "$ne": lambda value, wanted: value != wanted,
    "$lt": lambda value, wanted: value is not None and value < wanted,
    "$lte": lambda value, wanted: value is not None and value <= wanted,
    "$gt": lambda value, wanted: value is not None and value > wanted,
    "$gte": lambda value, wanted: value is not None and value >= wanted,
    "$in": lambda value, wanted: value in wanted,
    "$nin": lambda value, wanted: value not in wanted,
    "$exists": lambda value, wanted: (value is not None) == wanted,
}


def described(record: Record) -> dict[str, Any]:
    """A record as a dict: all that Metadata has while the call is open or held; else its id, times and end."""
    name = name_of(record.request)
    facts: dict[str, Any] = {} if record.pending is None else dict(describe_part(record.pending, 0))
    ok, rank = record.end or (None, facts.get("engine_id"))
    rank = None if rank == NO_RANK else rank
    facts.update(
        msg_id=name,
        submitted=moment(record.submitted_s),
        engine_id=rank,
        engine_uuid=None if rank is None else f"engine-{rank}",
        status={None: None, True: "ok", False: "error"}[ok],
    )
    facts["header"] = {"msg_id": name, "date": facts["submitted"], "msg_type": f"{_method_of(record)}_request"}
    return facts


def _method_of(record: Record) -> str:
    return "apply" if record.pending is None else record.pending.method


def meets(facts: Mapping[str, Any], query: Mapping[str, Any]) -> bool:
    """Whether a record is what the query asks for. Raises UserError for an operator that there is not."""
    return all(_holds(facts.get(key), wanted) for key, wanted in query.items())


def _holds(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    for operator, operand in wanted.items():
        if operator not in _OPERATORS:
            raise UserError(f"a query cannot ask for {operator!r}: {', '.join(_OPERATORS)} are what it can")
        if not _OPERATORS[operator](value, operand):
            return False
    return True
