"""Most of the answers, when the last ones are not worth waiting for."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Any

from hiersched.client.targets import describe_ids


@dataclass(frozen=True)
class Quorum:
    """What a call has given when enough engines had answered.

    results: {engine id: result} of those that succeeded; errors: {engine id: error} of those that failed; stragglers:
    the engines that have not answered, where the call still runs. Of a map, positions of items stand for engine ids.
    """

    results: dict[int, Any]
    errors: dict[int, Exception]
    stragglers: list[int]

    @property
    def answered(self) -> int:
        """How many have answered, well or not."""
        return len(self.results) + len(self.errors)

    @property
    def share(self) -> float:
        """That as a share of all."""
        total = self.answered + len(self.stragglers)
        return self.answered / total if total else 1.0

    def __str__(self) -> str:
        text = f"{self.answered} of {self.answered + len(self.stragglers)} have answered"
        if self.errors:
            text += f", {len(self.errors)} with an error"
        return f"{text}; stragglers: {describe_ids(self.stragglers)}" if self.stragglers else text


def needed_for(share: float, count: int) -> int:
    """How many of `count` make up the share. Raises ValueError for a share that is not above 0 and at most 1."""
    if not isinstance(share, (int, float)) or not 0 < share <= 1:
        raise ValueError(f"a quorum is a share above 0 and at most 1, as 0.99, and not {share!r}")
    return ceil(round(share * count, 9))  # 0.07 * 100 is a little more than 7
