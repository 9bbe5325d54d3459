"""Who is awaited from a lost scheduler, whose ranks they are, and what is known when they have all spoken."""

from __future__ import annotations

import pytest

from hiersched.core.effects import link_of
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.orphans import Orphans
from hiersched.core.replacements import ALWAYS, Replacements
from hiersched.kernels import bitset
from tests.core.neighbours import scheduler
from tests.core.transcript import engine_child, scheduler_child


@pytest.fixture
def orphans() -> Orphans:
    return Orphans(Replacements())


@pytest.fixture
def lost() -> Neighbour:
    """A scheduler that stood for ranks 0 to 3; all of them were there but 3."""
    return scheduler(Membership(), 0, 4, {0, 1, 2})


def ranks_of(bits: int) -> set[int]:
    return set(bitset.ranks_of(bits))


def test_those_are_awaited_that_live_and_the_other_ranks_have_nobody(orphans, lost):
    estate, gone = orphans.admit(lost, [engine_child(0), engine_child(2)], "killed")
    assert (ranks_of(gone), ranks_of(orphans.ranks)) == ({1, 3}, {0, 2})
    assert (estate.lost, estate.reason, estate.awaited) == (lost, "killed", {b"engine-0", b"engine-2"})
    assert len(orphans) == 2
    assert b"engine-0" in orphans


def test_what_nobody_holds_never_ran_if_all_engines_live(orphans, lost):
    estate, gone = orphans.admit(lost, [engine_child(rank) for rank in (0, 1, 2)], "killed")
    assert ranks_of(gone) == {3}  # which had been reported as gone, and its tasks were settled
    for rank in (0, 1, 2):
        assert orphans.arrive(b"engine-%d" % rank) == (estate, 1 << rank)
    assert (estate.doubtful_before, estate.awaited, len(orphans), orphans.ranks) == (0, set(), 0, 0)


def test_what_nobody_holds_may_have_run_if_an_engine_was_lost(orphans, lost):
    estate, _ = orphans.admit(lost, [engine_child(0), engine_child(1)], "killed")
    assert estate.doubtful_before == ALWAYS


def test_what_was_sent_before_a_replacement_was_known_may_have_been_run_by_its_predecessor(orphans, lost):
    orphans.replacements.note([(0, 7), (1, 7)])
    known, unknown = engine_child(1, 7), engine_child(1, 8)
    estate, _ = orphans.admit(lost, [engine_child(0), known, engine_child(2)], "killed")
    assert estate.doubtful_before == orphans.replacements.epoch == 2
    orphans.lose(link_of(known), [unknown])
    assert estate.doubtful_before == ALWAYS


def test_what_nobody_holds_may_have_run_if_there_is_nobody_to_ask(orphans):
    estate, gone = orphans.admit(scheduler(Membership(), 0, 4, set()), [], "killed")
    assert (estate.doubtful_before, ranks_of(gone), estate.awaited) == (ALWAYS, {0, 1, 2, 3}, set())


def test_an_orphan_that_is_lost_answers_for_nobody_and_may_have_run_something(orphans, lost):
    estate, _ = orphans.admit(lost, [engine_child(rank) for rank in (0, 1, 2)], "killed")
    assert orphans.lose(b"engine-1") == (estate, 1 << 1)
    assert (estate.doubtful_before, ranks_of(orphans.ranks)) == (ALWAYS, {0, 2})


def test_an_engine_that_was_not_known_to_be_there_brings_itself(orphans, lost):
    orphans.admit(lost, [engine_child(3)], "killed")
    assert orphans.ranks == 0
    _, members = orphans.arrive(b"engine-3")
    assert members == 0


def test_the_children_of_an_orphan_are_awaited_in_its_place(orphans, lost):
    estate, _ = orphans.admit(lost, [scheduler_child(0, 2, 2), scheduler_child(2, 4, 2)], "killed")
    assert orphans.lose(b"scheduler-2-0-2", [engine_child(0), engine_child(1)]) == (estate, 0)
    assert estate.awaited == {b"engine-0", b"engine-1", b"scheduler-2-2-4"}
    assert (estate.doubtful_before, ranks_of(orphans.ranks)) == (0, {0, 1, 2})
    _, gone = orphans.lose(b"scheduler-2-2-4", [engine_child(3)])
    assert (estate.doubtful_before, ranks_of(gone)) == (ALWAYS, {2})


def test_a_rank_is_held_by_the_orphan_that_it_is_below(orphans, lost):
    below = scheduler_child(0, 2, 2)
    orphans.admit(lost, [below, engine_child(2)], "killed")
    assert orphans.holder_of(1, 2) == below
    assert orphans.holder_of(2, 3) == engine_child(2)
    assert orphans.holder_of(3, 4) is None
    assert orphans.links() == [b"scheduler-2-0-2", b"engine-2"]
