"""What calls on shares of a sequence give: the shares of the answer, put together again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hiersched.client.map_results import AsyncMapResult
from hiersched.client.partition import items_of
from hiersched.client.targets import describe_ids
from hiersched.errors import CompositeError


class JoinedMapResult(AsyncMapResult):
    """The results of calls on shares: `get` joins them, iterating gives their items as the shares come.

    Its length and progress count shares.
    """

    def __iter__(self) -> Iterator[Any]:
        for share in super().__iter__():
            yield from items_of(share)


class GatheredResult(JoinedMapResult):
    """What engines hold shares of; errors are told by engine."""

    _unit = "engine"

    def _composite(self, results: list[Any], errors: dict[int, Exception]) -> CompositeError:
        engines = self._run.requests()[0].targets
        failed = {engines[position]: error for position, error in errors.items()}
        where = f"{len(failed)} of {len(engines)} engines: {describe_ids(failed)}"
        return CompositeError(f"{self._fname} failed on {where}", failed, results)
