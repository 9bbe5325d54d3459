"""What calls on shares of a sequence give: the shares of the answer, put together again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hiersched.client.map_results import AsyncMapResult
from hiersched.client.partition import items_of


class JoinedMapResult(AsyncMapResult):
    """The results of calls on shares: `get` joins them, iterating gives their items as the shares come.

    Its length and progress count shares.
    """

    def __iter__(self) -> Iterator[Any]:
        for share in super().__iter__():
            yield from items_of(share)
