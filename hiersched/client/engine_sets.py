"""Which engines were started together.

A set is what one call of `start_engines` gave: it can be stopped, restarted or signalled as a whole, by its id. Sets
are written into the connection file as text such as '0-63,70', so that whoever holds the cluster knows them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from hiersched.errors import UnknownEngineSet, UserError
from hiersched.limits import ENGINES_MAX

_RANGE = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass
class EngineSet:
    """Engines that were started together. ranks: their ids, ascending."""

    engine_set_id: str
    ranks: list[int]

    @property
    def n(self) -> int:
        """How many they are."""
        return len(self.ranks)

    def __repr__(self) -> str:
        return f"<EngineSet({self.engine_set_id!r}): engine{'s' * (self.n != 1)} {ranges_of(self.ranks)}>"


class EngineSets(dict[str, EngineSet]):
    """The sets of one cluster, in the order of their start."""

    @classmethod
    def from_text(cls, sets: Mapping[str, str]) -> EngineSets:
        """Read them as a connection file has them."""
        return cls({key: EngineSet(key, ranks_in(text)) for key, text in sets.items()})

    def to_text(self) -> dict[str, str]:
        """Write them as a connection file has them."""
        return {key: ranges_of(engines.ranks) for key, engines in self.items()}

    def add(self, ranks: Iterable[int], engine_set_id: str | None = None) -> str:
        """Note engines that were started together. Their set's id, which is made from the time if none is given."""
        key = self.free_id() if engine_set_id is None else engine_set_id
        self[key] = EngineSet(key, sorted(ranks))
        return key

    def free_id(self) -> str:
        """An id that no set has."""
        base = key = str(int(time.time()))
        number = 0
        while key in self:
            number += 1
            key = f"{base}-{number}"
        return key

    def check_free(self, engine_set_id: str | None) -> None:
        """Raise UserError if a set has this id."""
        if engine_set_id in self:
            raise UserError(f"there is an engine set {engine_set_id!r}: stop it first, or choose another id")

    def ranks(self, engine_set_id: str | None = None) -> list[int]:
        """The engines of a set, or of all, ascending. Raises UnknownEngineSet."""
        if engine_set_id is None:
            return sorted(rank for engines in self.values() for rank in engines.ranks)
        if engine_set_id not in self:
            known = ", ".join(map(repr, self)) or "none"
            raise UnknownEngineSet(f"no engine set {engine_set_id!r}; there are: {known}")
        return list(self[engine_set_id].ranks)

    def drop(self, ranks: Iterable[int]) -> None:
        """These engines are no more. A set without engines is none."""
        gone = set(ranks)
        for key, engines in list(self.items()):
            engines.ranks = [rank for rank in engines.ranks if rank not in gone]
            if not engines.ranks:
                del self[key]


def ranges_of(ranks: Iterable[int]) -> str:
    """Numbers as people write them: '0-62,64'. Empty for none."""
    ordered = sorted(set(ranks))
    starts = [number for before, number in pairwise([-2, *ordered]) if number != before + 1]
    ends = [number for number, after in pairwise([*ordered, -2]) if after != number + 1]
    return ",".join(
        str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True)
    )


def ranks_in(text: str) -> list[int]:
    """The numbers in '0-62,64', ascending. Raises UserError for any other text."""
    ranks: set[int] = set()
    for part in filter(None, text.replace(" ", "").split(",")):
        found = _RANGE.fullmatch(part)
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if not first <= last <= ENGINES_MAX:
            raise UserError(f"{part!r} is no range of engines: write them as in 0-3,7")
        ranks.update(range(first, last + 1))
    return sorted(ranks)
