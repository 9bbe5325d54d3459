"""Each task is handed to one child at a time, oldest first, while there is credit, evenly, and ends once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.core.dispatch import Dispatcher, Pace
from hiersched.core.membership import Membership, Neighbour
from hiersched.limits import FUNCTIONS_CACHED_MAX, WINDOW_S, WINDOW_TASKS_MAX
from hiersched.protocol import messages as m
from tests.core.neighbours import engine, scheduler
from tests.core.transcript import result, task

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


def submit(dispatcher: Dispatcher, *numbers: int) -> None:
    dispatcher.submit([task(number) for number in numbers], (), OWNER)


# --- how long a function runs -----------------------------------------------------------------------------------------


def paced(*durations_s: float) -> Pace:
    pace = Pace()
    for duration_s in durations_s:
        pace.learn(duration_s)
    return pace


def test_a_function_never_seen_takes_a_whole_engine():
    assert Pace().weight == 1.0


def test_the_longer_a_task_the_more_of_an_engine_it_takes():
    weights = [paced(*[duration_s] * 20).weight for duration_s in (0.0, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)]
    assert weights == sorted(weights)
    assert weights[0] == 1 / WINDOW_TASKS_MAX
    assert weights[-1] == 1.0


def test_a_steady_function_takes_its_share_of_the_window():
    assert paced(*[WINDOW_S] * 50).weight == pytest.approx(0.5, abs=0.01)


def test_an_uneven_function_counts_as_longer_than_its_mean():
    assert paced(*[0.001, 0.009] * 20).weight > paced(*[0.005] * 40).weight


@given(st.lists(st.floats(0, 1e6), min_size=1))
def test_a_weight_is_never_more_than_an_engine_nor_less_than_a_window_allows(durations_s):
    assert 1 / WINDOW_TASKS_MAX <= paced(*durations_s).weight <= 1.0


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
    dispatcher.requeue(flight)
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
    assert further == {only.link: [1]}
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
    assert [flight.task.id for flight in dispatcher.drain()] == [1]
    assert set(dispatcher.flights) == {0}


steps = st.one_of(
    st.tuples(st.just("submit"), st.lists(st.integers(0, 30), max_size=6)),
    st.tuples(st.just("assign"), st.none()),
    st.tuples(st.sampled_from(["settle", "requeue", "cancel", "lose"]), st.integers(0, 100)),
)


@given(st.lists(steps, max_size=30))
def test_whatever_happens_every_task_is_in_one_place_and_no_child_has_more_than_its_credit(story):
    membership, dispatcher = Membership(), Dispatcher()
    children = [engine(membership, 9), scheduler(membership, 0, 3)]
    known: set[int] = set()
    for verb, subject in story:
        flying = sorted(task_id for child in children for task_id in child.tasks)
        chosen = flying[subject % len(flying)] if flying and isinstance(subject, int) else None
        if verb == "submit":
            submit(dispatcher, *subject)
            known.update(subject)
        elif verb == "assign":
            hand_out(dispatcher, membership)
        elif verb == "cancel":
            withdrawn, _ = dispatcher.cancel([subject], OWNER)
            known.difference_update(flight.task.id for flight in withdrawn)
        elif verb == "lose":
            known.difference_update(flight.task.id for flight in dispatcher.lose(children[subject % 2]))
        elif chosen is not None:
            child = dispatcher.flights[chosen].child
            (flight,) = dispatcher.settle(child, [m.Result(chosen, 0, 0, m.ENGINE_UNKNOWN, b"", 0)])
            known.discard(chosen)
            if verb == "requeue":
                dispatcher.requeue(flight)
                known.add(chosen)
        assert set(dispatcher.flights) == known
        assert len(dispatcher) == len(known) - sum(len(child.tasks) for child in children)
        assert all(child.load <= child.width for child in children)
