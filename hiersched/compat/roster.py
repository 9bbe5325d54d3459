"""Names of engines: a rank for us, a uuid for ipyparallel's clients.

An engine in the place of another has the same rank and another uuid, so that what was sent to the former one is never
taken for work of the latter.
"""

from __future__ import annotations

import itertools
import uuid

from hiersched.kernels import bitset
from hiersched.protocol.messages import Members


class Roster:
    """The engines that are there, under both names."""

    def __init__(self) -> None:
        self._lead = uuid.uuid4().hex[:8]
        self._numbers = itertools.count(1)
        self._uuids: dict[int, str] = {}
        self._ranks: dict[str, int] = {}

    def __contains__(self, rank: object) -> bool:
        return rank in self._uuids

    def __len__(self) -> int:
        return len(self._uuids)

    def ranks(self) -> list[int]:
        """Of those that are there, ascending."""
        return sorted(self._uuids)

    def uuid_of(self, rank: int) -> str:
        """The uuid of an engine that is there. Raises KeyError."""
        return self._uuids[rank]

    def rank_of(self, uuid: str) -> int | None:
        """The engine that has this uuid; None if none that is there does."""
        return self._ranks.get(uuid)

    def begin(self, members: int) -> list[tuple[int, str]]:
        """These are there, a bit set: (rank, uuid) of each."""
        return [(rank, self._enter(rank)) for rank in bitset.ranks_of(members)]

    def on_members(self, news: Members) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
        """Engines left, then others joined: (rank, uuid) of both."""
        left = [(rank, self._leave(rank)) for rank in bitset.ranks_of(bitset.from_wire(news.left)) if rank in self]
        came = [rank for rank in bitset.ranks_of(bitset.from_wire(news.joined)) if rank not in self]
        return left, [(rank, self._enter(rank)) for rank in came]

    def _enter(self, rank: int) -> str:
        name = f"{self._lead}-{rank}-{next(self._numbers)}"
        self._uuids[rank] = name
        self._ranks[name] = rank
        return name

    def _leave(self, rank: int) -> str:
        name = self._uuids.pop(rank)
        del self._ranks[name]
        return name
