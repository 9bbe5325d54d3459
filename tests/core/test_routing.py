"""A target set is split over the children that reach it, nothing lost and nothing twice."""

from __future__ import annotations

from functools import reduce
from operator import or_

from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.membership import Membership
from hiersched.core.routing import Router
from hiersched.kernels import bitset
from hiersched.protocol.messages import NO_RANK
from tests.core.neighbours import engine, scheduler


def routed(membership: Membership) -> Router:
    router = Router()
    router.rebuild(membership.children.values())
    return router


@st.composite
def families(draw: st.DrawFn) -> Membership:
    """Schedulers over ranges that do not overlap, some of their engines there, joined in any order."""
    borders = sorted(draw(st.sets(st.integers(0, 64), max_size=8)))
    ranges = list(zip(borders[::2], borders[1::2], strict=False))
    membership = Membership()
    for first, last in draw(st.permutations(ranges)):
        scheduler(membership, first, last, draw(st.sets(st.integers(first, last - 1))))
    return membership


@given(families(), st.sets(st.integers(0, 80)).map(bitset.of_ranks))
def test_every_target_goes_to_the_one_child_that_has_it_or_to_nobody(membership, targets):
    shares, unknown = routed(membership).split(targets)
    assert all(share and share & ~child.members == 0 for child, share in shares)
    assert [child.first for child, _ in shares] == sorted(child.first for child, _ in shares)
    assert sum(share.bit_count() for _, share in shares) + unknown.bit_count() == targets.bit_count()
    assert reduce(or_, [share for _, share in shares], unknown) == targets
    assert unknown & membership.members == 0


@given(families(), st.integers(0, 80))
def test_one_target_is_routed_as_many_are(membership, rank):
    router = routed(membership)
    child = router.child_of(rank)
    assert (child is not None) == bool(membership.members >> rank & 1)
    assert router.split(1 << rank) == (([(child, 1 << rank)], 0) if child is not None else ([], 1 << rank))


def test_a_router_without_children_knows_nobody():
    assert Router().split(0b1010) == ([], 0b1010)
    assert Router().split(0) == ([], 0)
    assert Router().child_of(0) is None


def test_children_that_have_gone_are_not_routed_to():
    membership = Membership()
    first, second = engine(membership, 0), engine(membership, 1)
    router = routed(membership)
    assert router.split(0b11) == ([(first, 0b01), (second, 0b10)], 0)
    membership.remove_child(first.link)
    router.rebuild(membership.children.values())
    assert router.split(0b11) == ([(second, 0b10)], 0b01)


@given(families(), st.sets(st.integers(0, 80)), st.sets(st.integers(0, 90)).map(bitset.of_ranks))
def test_the_ranks_of_guests_lie_anywhere_between_those_of_others(membership, guests, targets):
    taken = reduce(or_, [child.range for child in membership.children.values()], 0)
    leaf = scheduler(membership, NO_RANK, NO_RANK, set())
    leaf.range = bitset.of_ranks(guests) & ~taken
    membership.change(leaf, leaf.range, 0)
    router = routed(membership)
    shares, unknown = router.split(targets)
    assert reduce(or_, [share for _, share in shares], unknown) == targets
    for rank in bitset.ranks_of(targets):
        child = router.child_of(rank)
        held = [one for one in membership.children.values() if one.members >> rank & 1]
        assert [child] == (held or [None])
        assert (unknown >> rank & 1) == (child is None)
