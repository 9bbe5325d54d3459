"""Children for the parts of a scheduler that are tested alone."""

from __future__ import annotations

from hiersched.core.membership import Membership, Neighbour
from hiersched.kernels import bitset


def engine(membership: Membership, rank: int) -> Neighbour:
    """An engine that has joined."""
    child = Neighbour(b"engine-%d" % rank, "engine", "uuid", rank, rank + 1, 1)
    membership.add_child(child)
    return child


def client(membership: Membership, link: bytes) -> Neighbour:
    """A client that has joined."""
    membership.clients[link] = Neighbour(link, "client", "uuid", 0, 0, 1)
    return membership.clients[link]


def scheduler(membership: Membership, first: int, last: int, members: set[int] | None = None) -> Neighbour:
    """A child scheduler of ranks [first, last) that has joined, with these engines; with all of them if None."""
    child = Neighbour(b"scheduler-%d-%d" % (first, last), "scheduler", "uuid", first, last, 1)
    membership.add_child(child)
    joined = bitset.of_range(first, last) if members is None else bitset.of_ranks(members)
    membership.change(child, joined, 0)
    return child
