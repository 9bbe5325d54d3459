"""A tree of schedulers, whatever happens in it: all that is asked ends once, runs once, and leaves nothing behind.

Hypothesis chooses what arrives when, who runs what, who dies, and which of the messages of the dead are lost.
"""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiersched.limits import BEAT_PERIOD_S
from hiersched.protocol import messages as m
from tests.core.tree import ENGINES, Tree

SCHEDULERS = [(0, 4), (4, 8), (0, 2), (2, 4), (4, 6), (6, 8)]

ranks = st.integers(0, ENGINES - 1)
work = st.one_of(
    st.tuples(st.just("call"), st.sets(ranks, min_size=1)),
    st.tuples(st.just("submit"), st.integers(1, 6)),
    st.tuples(st.just("cancel"), st.integers(0, 20)),
    *[st.tuples(st.just("goes on"), st.integers(0, 50))] * 2,
    *[st.tuples(st.just("catches up"), st.integers(0, 50))] * 3,
    *[st.tuples(st.just("works"), st.tuples(ranks, st.integers(1, 4)))] * 2,
    st.tuples(st.just("passes"), st.sampled_from([0.01, 0.1, BEAT_PERIOD_S])),
)
lost = st.integers(0, 3)  # of the last messages of the dead
schedulers_die = st.tuples(st.just("scheduler dies"), st.tuples(st.sampled_from(SCHEDULERS), lost))
engines_die = st.tuples(st.just("engine dies"), st.tuples(ranks, lost))


def play(tree: Tree, story: list[tuple[str, object]]) -> set[int]:
    """What has been cancelled."""
    number, asked, cancelled = 0, [], set()
    for verb, what in story:
        number += 10
        if verb == "call":
            tree.call(number, what)
            asked.append([number])
        elif verb == "submit":
            asked.append(list(range(number, number + what)))
            tree.submit(*asked[-1])
        elif verb == "cancel" and asked:
            tree.cancel(*asked[what % len(asked)])
            cancelled.update(asked[what % len(asked)])
        elif verb == "goes on":
            tree.goes_on(what)
        elif verb == "catches up":
            tree.catches_up(what)
        elif verb == "works" and tree.engine(what[0]).alive:
            tree.work(tree.engine(what[0]), what[1])
        elif verb == "passes":
            tree.passes(what)
        elif verb == "scheduler dies" and tree.scheduler(*what[0]).alive:
            tree.kill(tree.scheduler(*what[0]), lost=what[1])
        elif verb == "engine dies" and tree.engine(what[0]).alive:
            tree.kill(tree.engine(what[0]), lost=what[1])
    tree.rests()
    assert tree.leftovers() == []
    assert all(count == 1 for count in tree.runs.values())
    assert all(set(answers) == tree.targets[request] for request, answers in tree.answers.items())
    assert set(tree.ends) == {task for those in asked for task in those} - set(tree.answers)
    return cancelled


def ends(tree: Tree) -> list[tuple[m.TaskId, int, bytes | int, bytes]]:
    """(id, how often it ran, how it ended, what it returns) of each task and of each engine's part of each call."""
    calls = [
        (request, tree.runs[request, rank], value, b"%d by %d" % (request, rank))
        for request, answers in tree.answers.items()
        for rank, value in answers.items()
    ]
    return [*calls, *((task, tree.runs[task], value, b"%d" % task) for task, value in tree.ends.items())]


@given(st.lists(work | schedulers_die, max_size=60))
def test_whatever_schedulers_are_lost_everything_that_is_asked_runs_once_and_is_answered(story):
    tree = Tree()
    cancelled = play(tree, story)
    for number, runs, value, expected in ends(tree):
        assert (value, runs) == (expected, 1) or (value == m.CANCELLED and number in cancelled and not runs)


@given(st.lists(work | schedulers_die | engines_die, max_size=60), st.booleans())
def test_whatever_is_lost_nothing_runs_twice_and_everything_is_answered_or_reported(story, restarts):
    tree = Tree(restarts=restarts)
    cancelled = play(tree, story)
    for number, runs, value, expected in ends(tree):
        if value == m.CANCELLED:
            assert number in cancelled and not runs
        elif value == m.ENGINE_UNKNOWN:
            assert not runs
        else:
            assert value in (expected, m.ENGINE_LOST)
    if restarts:
        assert tree.root.core.membership.members == (1 << ENGINES) - 1


@given(st.lists(work, max_size=60))
def test_in_quiet_times_answers_are_kept_only_until_the_root_says_that_it_has_them(story):
    tree = Tree()
    play(tree, story)
    assert all(not engine.keeps for engine in tree.engines)
    assert all(node.core.receipts.leftovers() == 0 for node in tree.schedulers)
