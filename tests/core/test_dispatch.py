"""Each task is handed to one child at a time, oldest first, while there is credit, evenly, and ends once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.dispatch import NOBODY, Dispatcher
from hiersched.core.membership import Membership, Neighbour
from hiersched.kernels import bitset
from hiersched.limits import FUNCTIONS_CACHED_MAX, WINDOW_S
from hiersched.protocol import messages as m
from tests.core.neighbours import engine, scheduler
from tests.core.transcript import FUNCTION, ranks, result, task

OWNER = b"owner"
Handed = dict[Neighbour, list[int]]


def hand_out(dispatcher: Dispatcher, membership: Membership) -> Handed:
    """The ids of the tasks that each child gets."""
    batches = dispatcher.assign(membership.children.values())
    return {child: [flight.task.id for flight in flights] for child, flights in batches}


def teach(dispatcher: Dispatcher, membership: Membership, duration_us: int) -> None:
    """Let FUNCTION have run a few times on one engine, this long each time."""
    for number in range(-20, 0):
        dispatcher.submit([task(number)], (), OWNER)
        ((child, _),) = dispatcher.assign(membership.children.values())
        dispatcher.settle(child, [result(number, child.first, duration_us=duration_us)])


def submit(dispatcher: Dispatcher, *numbers: int, **terms: object) -> None:
    """Tasks of an owner, which all ask for the same."""
    asked = m.Terms(**terms) if terms else None
    dispatcher.submit([m.Task(number, FUNCTION, [], b"arguments", 0, asked) for number in numbers], (), OWNER)


# --- handing out ------------------------------------------------------------------------------------------------------


@pytest.fixture
def membership() -> Membership:
    return Membership()


@pytest.fixture
def dispatcher() -> Dispatcher:
    return Dispatcher()


def test_long_tasks_go_one_to_an_engine_oldest_first(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, 2, 3)
    assert hand_out(dispatcher, membership) == {first: [1], second: [2]}
    assert hand_out(dispatcher, membership) == {}
    dispatcher.settle(second, [result(2, 1, duration_us=10_000_000)])
    assert hand_out(dispatcher, membership) == {second: [3]}
    assert len(dispatcher) == 0


@pytest.mark.parametrize("terms", [{}, {"priority": 1}])
def test_single_tasks_go_round(dispatcher, membership, terms):
    those = [engine(membership, rank) for rank in range(3)]
    for number in range(7):
        submit(dispatcher, number, **terms)
        chosen = those[number % 3]
        assert hand_out(dispatcher, membership) == {chosen: [number]}
        dispatcher.settle(chosen, [result(number, chosen.first)])


def test_a_long_task_stays_alone_once_its_length_is_known(dispatcher, membership):
    only = engine(membership, 0)
    teach(dispatcher, membership, 1_000_000)
    submit(dispatcher, 1, 2)
    assert hand_out(dispatcher, membership) == {only: [1]}


def test_short_tasks_are_sent_ahead_as_much_as_the_window_holds(dispatcher, membership):
    only = engine(membership, 0)
    teach(dispatcher, membership, 100)
    submit(dispatcher, *range(1000))
    ahead = hand_out(dispatcher, membership)[only]
    assert ahead == list(range(len(ahead)))
    assert 1 <= len(ahead) * 100e-6 / WINDOW_S <= 1.2


def test_work_is_spread_by_engines_not_by_children(dispatcher, membership):
    small, large = scheduler(membership, 0, 2), scheduler(membership, 2, 10)
    submit(dispatcher, *range(5))
    shares = hand_out(dispatcher, membership)
    assert (len(shares[small]), len(shares[large])) == (1, 4)
    submit(dispatcher, *range(5, 20))
    hand_out(dispatcher, membership)
    assert (len(small.tasks), len(large.tasks), len(dispatcher)) == (2, 8, 10)


def test_a_scheduler_without_engines_gets_nothing(dispatcher, membership):
    scheduler(membership, 0, 4, set())
    submit(dispatcher, 1)
    assert hand_out(dispatcher, membership) == {}
    assert len(dispatcher) == 1


def test_each_task_keeps_its_frames(dispatcher, membership):
    engine(membership, 0), engine(membership, 1)
    dispatcher.submit([task(1, frames=2), task(2, frames=1)], [b"a", b"b", b"c"], OWNER)
    flights = [flight for _, batch in dispatcher.assign(membership.children.values()) for flight in batch]
    assert {flight.task.id: list(flight.frames) for flight in flights} == {1: [b"a", b"b"], 2: [b"c"]}


def test_the_paces_of_so_many_functions_are_remembered_and_no_more(dispatcher, membership):
    only = engine(membership, 0)
    teach(dispatcher, membership, 1)
    for number in range(FUNCTIONS_CACHED_MAX):
        dispatcher.submit([task(number, function=number.to_bytes(16))], (), OWNER)
        hand_out(dispatcher, membership)
        dispatcher.settle(only, [result(number, 0)])
    submit(dispatcher, 10_000, 10_001)
    assert hand_out(dispatcher, membership) == {only: [10_000]}


# --- what becomes of them ---------------------------------------------------------------------------------------------


def test_a_result_settles_a_task_once_and_only_from_who_holds_it(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, 2, 3)
    hand_out(dispatcher, membership)
    assert dispatcher.settle(second, [result(1, 1), result(3, 1), result(9, 1)]) == [None, None, None]
    (flight,) = dispatcher.settle(first, [result(1, 0)])
    assert (flight.task.id, flight.owner) == (1, OWNER)
    assert dispatcher.settle(first, [result(1, 0)]) == [None]


def test_credit_is_whole_again_when_the_last_task_is_settled(dispatcher, membership):
    only = engine(membership, 0)
    teach(dispatcher, membership, 70)
    submit(dispatcher, *range(1000))
    while dispatcher.flights:
        ((child, flights),) = dispatcher.assign(membership.children.values())
        dispatcher.settle(child, [result(flight.task.id, 0, duration_us=70) for flight in flights])
    assert (only.load, only.tasks) == (0.0, set())


def test_how_a_failed_task_ended_says_nothing_about_its_length(dispatcher, membership):
    only = engine(membership, 0)
    submit(dispatcher, 1, 2, 3)
    hand_out(dispatcher, membership)
    dispatcher.settle(only, [m.Result(1, 0, 1, m.BLOB_LOST, b"", 0)])
    assert hand_out(dispatcher, membership) == {only: [2]}


def test_a_task_that_did_not_run_goes_to_the_head_of_the_queue(dispatcher, membership):
    first = engine(membership, 0)
    submit(dispatcher, 1, 2, 3)
    hand_out(dispatcher, membership)
    (flight,) = dispatcher.settle(first, [result(1, 0)])
    dispatcher.put_back([flight])
    assert len(dispatcher) == 3
    assert hand_out(dispatcher, membership) == {first: [1]}


def test_a_lost_child_loses_its_tasks_and_nobody_elses(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, 2, 3)
    hand_out(dispatcher, membership)
    assert [flight.task.id for flight in dispatcher.lose(first)] == [1]
    assert dispatcher.settle(first, [result(1, 0)]) == [None]
    assert set(dispatcher.flights) == {2, 3}
    assert second.tasks == {2}


def test_only_their_owner_withdraws_tasks(dispatcher, membership):
    only = engine(membership, 0)
    submit(dispatcher, 1, 2, 3)
    hand_out(dispatcher, membership)
    assert dispatcher.cancel([1, 2, 3], b"somebody") == ([], {})
    withdrawn, further = dispatcher.cancel([1, 2, 99], OWNER)
    assert [flight.task.id for flight in withdrawn] == [2]
    assert further == {only: [1]}
    assert dispatcher.owned_by(OWNER) == [1, 3]


def test_what_was_withdrawn_leaves_the_queue_at_once(dispatcher, membership):
    engine(membership, 0)
    submit(dispatcher, 0)
    hand_out(dispatcher, membership)
    for number in range(1, 100):
        submit(dispatcher, number)
        dispatcher.cancel([number], OWNER)
        assert len(dispatcher) == 0
    submit(dispatcher, 1)
    assert [flight.task.id for flight in dispatcher.stranded(0)] == [1]
    assert set(dispatcher.flights) == {0}


# --- tasks that ask for something -------------------------------------------------------------------------------------


def test_a_higher_priority_goes_first_and_within_one_the_oldest(dispatcher, membership):
    only = engine(membership, 0)
    submit(dispatcher, 1, 2)
    submit(dispatcher, 3, 4, priority=2)
    submit(dispatcher, 5, priority=-1)
    submit(dispatcher, 6, priority=2)
    order = []
    while dispatcher.flights:
        ((given,),) = hand_out(dispatcher, membership).values()
        order.append(given)
        dispatcher.settle(only, [result(given, 0)])
    assert order == [3, 4, 6, 1, 2, 5]


def test_a_task_goes_only_where_it_may_run(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, 2, targets=ranks(1))
    assert hand_out(dispatcher, membership) == {second: [1]}
    assert hand_out(dispatcher, membership) == {}
    dispatcher.settle(second, [result(1, 1)])
    assert hand_out(dispatcher, membership) == {second: [2]}
    assert first.tasks == set()


def test_tasks_that_wait_for_one_engine_hold_up_nobody_else(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, *range(100), targets=ranks(0))
    submit(dispatcher, 100, 101)
    assert hand_out(dispatcher, membership) == {first: [0], second: [100]}
    dispatcher.settle(second, [result(100, 1)])
    assert hand_out(dispatcher, membership) == {second: [101]}


def test_the_oldest_of_all_that_an_engine_may_run_goes_first_whatever_it_asks_for(dispatcher, membership):
    only = engine(membership, 0)
    submit(dispatcher, 1)
    submit(dispatcher, 2, targets=ranks(0))
    submit(dispatcher, 3)
    submit(dispatcher, 4, targets=ranks(0, 1))
    for number in (1, 2, 3, 4):
        assert hand_out(dispatcher, membership) == {only: [number]}
        dispatcher.settle(only, [result(number, 0)])


def test_what_waits_for_one_engine_of_a_scheduler_leaves_it_credit_for_the_others(dispatcher, membership):
    low = scheduler(membership, 0, 4)
    submit(dispatcher, *range(10), targets=ranks(2))
    submit(dispatcher, *range(10, 20))
    assert hand_out(dispatcher, membership) == {low: [0, 10, 11, 12]}
    dispatcher.settle(low, [result(10, 1)])
    assert hand_out(dispatcher, membership) == {low: [13]}
    dispatcher.settle(low, [result(0, 2)])
    assert hand_out(dispatcher, membership) == {low: [1]}


def test_a_hint_is_followed_while_its_engine_has_credit(dispatcher, membership):
    low, (first, second) = scheduler(membership, 4, 8), (engine(membership, 0), engine(membership, 1))
    submit(dispatcher, 1, 2, hint=1)
    submit(dispatcher, 3, hint=5)
    submit(dispatcher, 4, hint=999)
    assert hand_out(dispatcher, membership) == {second: [1], first: [2], low: [3, 4]}


def test_a_hint_outside_the_targets_means_nothing(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, targets=ranks(1), hint=0)
    assert hand_out(dispatcher, membership) == {second: [1]}
    assert first.tasks == set()


def test_what_went_down_carries_no_terms(dispatcher, membership):
    only = engine(membership, 0)
    submit(dispatcher, 1, targets=ranks(0), priority=3, retries=2)
    ((_, (flight,)),) = dispatcher.assign([only])
    assert flight.task == task(1)


def test_tasks_that_no_engine_may_run_are_found_once_and_at_once(dispatcher, membership):
    engine(membership, 0)
    submit(dispatcher, 1)
    submit(dispatcher, 2, targets=ranks(3))
    submit(dispatcher, 3, targets=ranks(0, 3))
    assert [flight.task.id for flight in dispatcher.stranded(membership.members)] == [2]
    assert dispatcher.stranded(membership.members) == []
    submit(dispatcher, 4, targets=ranks(3))
    assert [flight.task.id for flight in dispatcher.stranded(membership.members)] == [4]
    assert [flight.task.id for flight in dispatcher.stranded(0)] == [1, 3]
    assert (len(dispatcher), dispatcher.flights) == (0, {})


# --- again ------------------------------------------------------------------------------------------------------------


def fails(dispatcher: Dispatcher, child: Neighbour, number: int, *, ruled_out: bool = False) -> None:
    """The engine `child` fails a task, which goes back to the queue."""
    (flight,) = dispatcher.settle(child, [m.Result(number, child.first, 1, m.RAISED, b"", 0)])
    if ruled_out:
        flight.standing.ruled_out |= child.members
    else:
        flight.standing.avoided |= child.members
    dispatcher.put_back([flight], alive_for(dispatcher))


def alive_for(dispatcher: Dispatcher) -> int:
    return bitset.of_range(0, 2)


def test_a_task_avoids_the_engine_that_failed_it_and_takes_it_again_when_no_other_is_left(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, retries=9)
    assert hand_out(dispatcher, membership) == {first: [1]}
    fails(dispatcher, first, 1)
    assert hand_out(dispatcher, membership) == {second: [1]}
    fails(dispatcher, second, 1)
    assert hand_out(dispatcher, membership) == {first: [1]}


def test_a_task_waits_for_an_engine_that_has_not_failed_it_while_that_is_busy(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, retries=9)
    submit(dispatcher, 2)
    hand_out(dispatcher, membership)
    fails(dispatcher, first, 1)
    assert hand_out(dispatcher, membership) == {}
    membership.remove_child(second.link)
    assert dispatcher.stranded(membership.members) == []  # it takes what there is
    assert hand_out(dispatcher, membership) == {first: [1]}


def test_an_engine_that_is_ruled_out_is_not_taken_again(dispatcher, membership):
    first, second = engine(membership, 0), engine(membership, 1)
    submit(dispatcher, 1, retries=9)
    hand_out(dispatcher, membership)
    fails(dispatcher, first, 1, ruled_out=True)
    assert hand_out(dispatcher, membership) == {second: [1]}
    fails(dispatcher, second, 1, ruled_out=True)
    assert hand_out(dispatcher, membership) == {}
    assert [flight.task.id for flight in dispatcher.stranded(membership.members)] == [1]


# --- other hands ------------------------------------------------------------------------------------------------------


def test_what_a_child_takes_over_is_charged_to_it(dispatcher, membership):
    lost, heir = scheduler(membership, 0, 2), scheduler(membership, 2, 4)
    submit(dispatcher, 1, 2, targets=ranks(0, 1))
    hand_out(dispatcher, membership)
    moved = dispatcher.move([(1, 0), (99, 0)], lost, heir)
    assert [flight.task.id for flight in moved] == [1]
    assert (lost.tasks, lost.load, heir.tasks, heir.load) == ({2}, 1.0, {1}, 1.0)
    assert dispatcher.settle(lost, [result(1, 0)]) == [None]
    assert [flight.task.id for flight in dispatcher.settle(heir, [result(1, 0)])] == [1]
    assert heir.load == 0.0


def test_nobody_hears_of_tasks_whose_owner_has_gone(dispatcher, membership):
    only = engine(membership, 0)
    submit(dispatcher, 1)
    hand_out(dispatcher, membership)
    dispatcher.disown(OWNER)
    assert dispatcher.owned_by(OWNER) == []
    (flight,) = dispatcher.settle(only, [result(1, 0)])
    assert flight.owner == NOBODY


# --- whatever happens -------------------------------------------------------------------------------------------------

wishes = st.builds(
    m.Terms,
    targets=st.one_of(
        st.just(ranks()), st.lists(st.sampled_from([0, 1, 2, 9]), max_size=3).map(lambda those: ranks(*those))
    ),
    hint=st.sampled_from([-1, 0, 2, 9]),
    priority=st.integers(-1, 1),
)
steps = st.one_of(
    st.tuples(st.just("submit"), st.tuples(st.lists(st.integers(0, 30), max_size=6), st.none() | wishes)),
    st.tuples(st.just("assign"), st.none()),
    st.tuples(st.just("strand"), st.sampled_from([0, 0b1, 0b1000000111])),
    st.tuples(st.sampled_from(["settle", "put back", "cancel", "lose", "move"]), st.integers(0, 100)),
)


@given(st.lists(steps, max_size=30))
def test_every_task_is_in_one_place_and_no_child_has_more_than_its_credit(story):
    membership, dispatcher = Membership(), Dispatcher()
    children = [engine(membership, 9), scheduler(membership, 0, 3)]
    known: set[int] = set()
    for verb, subject in story:
        flying = sorted(task_id for child in children for task_id in child.tasks)
        chosen = flying[subject % len(flying)] if flying and isinstance(subject, int) else None
        if verb == "submit":
            numbers, terms = subject
            dispatcher.submit([m.Task(number, FUNCTION, [], b"", 0, terms) for number in numbers], (), OWNER)
            known.update(numbers)
        elif verb == "assign":
            for child, numbers in hand_out(dispatcher, membership).items():
                flights = [dispatcher.flights[number] for number in numbers]
                assert all(flight.standing is None or flight.standing.allowed & child.members for flight in flights)
                assert child.load <= child.width + 1
        elif verb == "strand":
            known.difference_update(flight.task.id for flight in dispatcher.stranded(subject))
        elif verb == "cancel":
            withdrawn, _ = dispatcher.cancel([subject], OWNER)
            known.difference_update(flight.task.id for flight in withdrawn)
        elif verb == "lose":
            known.difference_update(flight.task.id for flight in dispatcher.lose(children[subject % 2]))
        elif verb == "move":
            dispatcher.move([(number, 0) for number in flying[:subject]], children[0], children[1])
        elif chosen is not None:
            child = dispatcher.flights[chosen].child
            (flight,) = dispatcher.settle(child, [m.Result(chosen, 0, 0, m.ENGINE_UNKNOWN, b"", 0)])
            known.discard(chosen)
            if verb == "put back":
                dispatcher.put_back([flight], membership.members)
                known.add(chosen)
        assert set(dispatcher.flights) == known
        assert len(dispatcher) == len(known) - sum(len(child.tasks) for child in children)
        for child in children:
            weight = sum(dispatcher.flights[number].weight for number in child.tasks)
            assert child.load == pytest.approx(weight)
