"""A task that waits for others runs when they have ended as it asks, and is reported when they never will."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.limits import DEPENDENCIES_MAX, GIVEN_BYTES_MAX, RESULT_GIVEN_BYTES_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import ranks, task
from tests.core.work_transcript import CLIENT, WorkTranscript, asking

LARGE = bytes(RESULT_GIVEN_BYTES_MAX + 1)


@pytest.fixture
def root() -> WorkTranscript:
    root = WorkTranscript()
    root.engines(0, 1, 2)
    return root


def after(*numbers: int, **how: bool) -> m.Dependency:
    return m.Dependency(list(numbers), **how)


# --- time -------------------------------------------------------------------------------------------------------------


def test_a_task_runs_when_all_that_it_waits_for_have_succeeded(root):
    root.gets(task(1), task(2), asking(3, after=after(1, 2)))
    assert root.hands_out() == {0: [1], 1: [2]}
    root.ends(1, rank=0)
    assert root.hands_out() == {}
    root.ends(2, rank=1)
    assert root.hands_out() == {2: [3]}
    root.ends(3)
    assert root.codes() == {1: 0, 2: 0, 3: 0}


def test_what_has_ended_before_counts(root):
    root.gets(task(1))
    root.hands_out()
    root.ends(1)
    root.gets(asking(2, after=after(1)))  # not passed on yet
    assert root.hands_out() == {1: [2]}
    root.gets(asking(3, after=after(1)))  # passed on, and not seen
    assert root.hands_out() == {2: [3]}


def test_what_the_client_has_seen_counts_as_it_says(root):
    root.gets(task(1), task(2))
    root.hands_out()
    root.ends(1, rank=0)
    root.ends(2, rank=1, code=m.RAISED)
    root.settles()
    known = [(1, True, 0), (2, False, 1)]
    root.gets(seen=2)
    root.gets(asking(3, after=after(1), known=known), asking(4, after=after(2), known=known))
    assert root.hands_out() == {2: [3]}
    assert root.tells()[2:] == [(4, m.DEPENDENCY, "task 0-2 failed, and this task waits for it to succeed")]


def test_what_the_client_has_seen_is_forgotten(root):
    root.gets(task(1))
    root.hands_out()
    root.ends(1)
    root.settles()
    root.gets(task(2), seen=1)
    root.gets(asking(3, after=after(1)))
    root.tells()
    assert root.tells() == []
    root.gets(asking(4, after=after(1)))
    ((number, code, text),) = root.tells()
    assert (number, code) == (4, m.DEPENDENCY)
    assert text.startswith("this task depends on task 0-1, of which nothing is known here")


def test_a_batch_names_tasks_of_the_same_batch_that_come_before(root):
    root.gets(asking(3, after=after(4)), task(4), asking(5, after=after(4)))
    assert root.hands_out() == {0: [4]}
    assert set(root.codes()) == {3}


def test_what_has_failed_in_the_same_batch_has_failed(root):
    failed = after(1, success=False, failure=True)
    root.gets(asking(1, after=after(7)), asking(2, after=failed), asking(3, inputs=[1]), asking(4, inputs=[3]))
    assert root.hands_out() == {0: [2]}
    assert [text for _, _, text in root.tells()[1:]] == [
        "task 0-1 could not run, for what it depends on, and this task takes its result",
        "task 0-3 could not run, for what it depends on, and this task takes its result",
    ]


def test_chains_of_any_length_run_in_order_and_fail_at_once(root):
    root.gets(task(0), *[asking(number, after=after(number - 1)) for number in range(1, 3_000)])
    for number in range(3):
        assert root.hands_out() == {number: [number]}
        root.ends(number)
    root.hands_out()
    root.ends(3, code=m.RAISED)
    codes = root.codes()
    assert codes == {0: 0, 1: 0, 2: 0, 3: m.RAISED} | dict.fromkeys(range(4, 3_000), m.DEPENDENCY)
    assert root.work.blocked == 0


# (all, success, failure, ends of tasks 1 and 2) -> what becomes of the task that waits; None: it waits on
ALL, ANY = True, False
RUNS, FAILS, WAITS = "runs", "fails", "waits"


@pytest.mark.parametrize(
    ("every", "success", "failure", "ends", "outcome"),
    [
        (ALL, True, False, "s", WAITS),
        (ALL, True, False, "ss", RUNS),
        (ALL, True, False, "f", FAILS),
        (ALL, False, True, "f", WAITS),
        (ALL, False, True, "ff", RUNS),
        (ALL, False, True, "s", FAILS),
        (ALL, True, True, "sf", RUNS),
        (ALL, True, True, "f", WAITS),
        (ANY, True, False, "s", RUNS),
        (ANY, True, False, "f", WAITS),
        (ANY, True, False, "fs", RUNS),
        (ANY, True, False, "ff", FAILS),
        (ANY, False, True, "s", WAITS),
        (ANY, False, True, "f", RUNS),
        (ANY, False, True, "ss", FAILS),
        (ANY, True, True, "s", RUNS),
        (ANY, True, True, "f", RUNS),
    ],
)
@pytest.mark.parametrize("kind", ["after", "follow"])
@pytest.mark.parametrize("early", [False, True])
def test_what_a_dependency_means(root, kind, every, success, failure, ends, outcome, early):
    waiting = asking(3, **{kind: m.Dependency([1, 2], every, success, failure)})
    root.gets(*[asking(number, targets=ranks(0), retries=0) for number in (1, 2)])
    if not early:
        root.gets(waiting)
    for number, end in enumerate(ends, start=1):
        root.hands_out()
        root.ends(number, rank=0, code=0 if end == "s" else m.RAISED)
    if early:
        root.gets(waiting)
    root.settles()
    flying = 3 in root.work.dispatcher.flights
    failed = root.codes().get(3) == m.DEPENDENCY
    blocked = bool(root.work.blocked)
    assert (flying, failed, blocked) == (outcome == RUNS, outcome == FAILS, outcome == WAITS)


def test_a_dependency_on_nothing_is_met(root):
    root.gets(asking(1, after=after(), follow=after()))
    assert root.hands_out() == {0: [1]}


def test_a_task_named_twice_is_waited_for_once(root):
    root.gets(task(1), asking(2, after=after(1, 1), inputs=[1, 1]))
    root.hands_out()
    root.ends(1)
    (sent,) = root.gives()
    assert (sent.id, sent.given) == (2, [(1, b"value")])


# --- what can never be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ({"after": after(7)}, "this task depends on task 0-7, of which nothing is known here"),
        ({"inputs": [7, 8, 1]}, "this task depends on tasks 0-7 and 0-8, of which nothing is known here"),
        ({"follow": after(7, 1, all=False)}, "this task depends on task 0-7, of which nothing is known here"),
        ({"after": after(-1)}, "this task depends on task"),
        ({"after": after(1, 2)}, "task 0-2 depends on itself"),
        ({"after": after(1, success=False)}, "this task waits for task 0-1 to end, in neither success nor failure"),
    ],
)
def test_what_can_never_be_is_reported_at_once(root, terms, text):
    root.gets(task(1), asking(2, **terms))
    ((number, code, said),) = root.tells()
    assert (number, code) == (2, m.DEPENDENCY)
    assert said.startswith(text)


def test_users_read_the_names_that_they_know(root):
    session = 5 << m.SESSION_SHIFT
    root.gets(task(session + 1), asking(session + 2, inputs=[session + 1]))
    root.hands_out()
    root.ends(session + 1, code=m.ENGINE_LOST, payload=b"")
    assert root.tells()[1:] == [
        (session + 2, m.DEPENDENCY, "task 5-1 was lost with its engine, and this task takes its result")
    ]


def test_nobody_waits_for_the_tasks_of_others(root):
    root.gets(task(1))
    root.asker = b"other"
    root.gets(asking(2, after=after(1)))
    root.work.hand_out()
    assert [result.code for result in root.work._answers[b"other"].results] == [m.DEPENDENCY]


def test_what_waits_for_a_cancelled_task_fails(root):
    root.gets(task(1), asking(2, after=after(1)), asking(3, inputs=[2]), asking(4, after=after(2, failure=True)))
    root.cancels(2)
    assert root.tells() == [
        (2, m.CANCELLED, "cancelled before it started"),
        (3, m.DEPENDENCY, "task 0-2 was cancelled, and this task takes its result"),
    ]
    assert root.hands_out() == {0: [1], 1: [4]}


def test_a_retry_is_not_an_end(root):
    root.gets(asking(1, retries=1), asking(2, after=after(1, success=False, failure=True)))
    root.hands_out()
    root.ends(1, rank=0, code=m.RAISED)
    assert root.hands_out() == {1: [1]}
    root.ends(1, rank=1, code=m.RAISED)
    assert root.hands_out() == {2: [2]}


def test_a_task_names_so_many_others_and_no_more(root):
    root.gets(asking(1, after=after(*range(2, DEPENDENCIES_MAX + 3))))
    ((_, code, text),) = root.tells()
    assert (code, text) == (m.REFUSED, "it names 100001 tasks to wait for, and may name 100000")


# --- place ------------------------------------------------------------------------------------------------------------


def test_a_follower_runs_where_the_other_ran(root):
    root.gets(task(1), task(2), asking(3, follow=after(2)))
    assert root.hands_out() == {0: [1], 1: [2]}
    root.ends(2, rank=1)
    assert root.hands_out() == {1: [3]}


def test_a_follower_of_any_runs_where_any_of_them_ran_that_has_ended(root):
    root.gets(task(0), task(1), task(2), asking(3, follow=after(0, 1, 2, all=False), after=after(1)))
    root.hands_out()
    root.ends(2, rank=2)
    assert root.hands_out() == {}
    root.gets(*[task(number) for number in range(10, 20)])
    root.ends(1, rank=1)
    assert root.hands_out() == {1: [10], 2: [11]}
    root.ends(0, rank=0)
    root.hands_out()
    root.ends(11, rank=2)
    assert root.work.dispatcher.flights[3].standing.targets == 0b110


def test_a_follower_of_all_has_to_find_them_in_one_place(root):
    root.gets(task(1), task(2), asking(3, follow=after(1, 2)))
    root.hands_out()
    root.ends(1, rank=0)
    root.ends(2, rank=1)
    text = "tasks 0-1 and 0-2 ran on different engines, and this task has to run where all of them did"
    assert root.tells()[2:] == [(3, m.DEPENDENCY, text)]


def test_nobody_follows_a_task_that_ran_nowhere(root):
    root.gets(task(0), asking(1, after=after(0)), asking(2, follow=after(1, failure=True)))
    root.cancels(1)
    text = "task 0-1 was cancelled, and this task has to run where it ran"
    assert root.tells() == [(1, m.CANCELLED, "cancelled before it started"), (2, m.DEPENDENCY, text)]


def test_where_it_has_to_run_must_be_where_it_may(root):
    root.gets(task(1), asking(2, follow=after(1), targets=ranks(1, 2)))
    root.hands_out()
    root.ends(1, rank=0)
    text = "this task has to run on engine 0, to follow others, and may run on engines 1-2 only"
    assert root.tells()[1:] == [(2, m.DEPENDENCY, text)]


def test_nobody_follows_to_an_engine_that_is_gone(root):
    root.gets(task(1), asking(2, follow=after(1)), asking(3, after=after(2)))
    root.hands_out()
    root.ends(1, rank=0)
    root.loses(root.membership.children[b"engine-0"])
    assert root.tells()[1:] == [
        (2, m.DEPENDENCY, "this task has to run on engine 0, to follow others, and none of these is left"),
        (3, m.DEPENDENCY, "task 0-2 could not run, for what it depends on, and this task waits for it to succeed"),
    ]


# --- results as arguments ---------------------------------------------------------------------------------------------


def test_small_results_are_given_along(root):
    root.gets(task(1), task(2), asking(3, inputs=[2, 1], frames=1), frames=[b"own frame"])
    root.hands_out()
    root.ends(1, payload=b"one", rank=0)
    root.ends(2, payload=b"two", rank=1)
    ((_, batch),) = root.says()
    (sent,) = batch.tasks
    assert (sent.given, sent.needs, sent.terms, sent.frames) == ([(1, b"one"), (2, b"two")], [], None, 1)


def test_a_large_result_is_asked_for_and_its_engine_preferred(root):
    root.gets(task(0), task(1), task(2), asking(3, inputs=[0, 1, 2]))
    root.hands_out()
    root.ends(0, payload=b"small", rank=0)
    root.ends(1, payload=LARGE, rank=1)
    root.ends(2, payload=b"in frames", frames=[LARGE, LARGE], rank=2)
    ((link, batch),) = root.says()
    (sent,) = batch.tasks
    assert link == b"engine-2"
    assert sent.given == [(0, b"small")]
    assert sent.needs == [m.result_digest(1), m.result_digest(2)]


def test_what_is_given_along_has_a_bound(root):
    count = GIVEN_BYTES_MAX // RESULT_GIVEN_BYTES_MAX + 3
    known = bytes(RESULT_GIVEN_BYTES_MAX)
    root.gets(*[task(number) for number in range(count)])
    root.gets(asking(count, inputs=list(range(count))))
    for number in range(count):
        root.hands_out()
        root.ends(number, payload=known)
    (sent,) = root.gives()
    assert len(sent.given) == count - 3
    assert len(sent.needs) == 3


def test_the_client_gives_what_it_has_seen_itself(root):
    given, needs = [(1, b"one")], [m.result_digest(2)]
    terms = m.Terms(inputs=[1, 2, 3], known=[(1, True, 0), (2, True, 1), (3, True, 2)])
    root.gets(m.Task(9, b"F" * 16, needs, b"", 0, terms, given))
    (sent,) = root.gives()
    assert (sent.given, sent.needs) == (given, [*needs, m.result_digest(3)])


def test_the_client_is_asked_for_a_result_that_no_engine_has(root):
    child = root.membership.children[b"engine-0"]
    root.gets(task(1), asking(2, inputs=[1]))
    root.hands_out()
    root.ends(1, payload=LARGE)
    root.gives()
    root.work._blobs.on_want(child.link, [m.result_digest(1)], root.outbox)
    ((link, want),) = root.says()
    assert (link, want) == (CLIENT, m.Want([m.result_digest(1)]))


# --- timeouts ---------------------------------------------------------------------------------------------------------


def test_a_task_waits_as_long_as_it_may(root):
    root.now_s = 100.0
    root.gets(task(1), asking(2, after=after(1), timeout_s=5.0), asking(3, inputs=[2]))
    root.gets(asking(4, after=after(1), timeout_s=7.0), asking(5, follow=after(1)))
    assert root.work.next_deadline_s == 105.0
    root.work.on_time(104.9)
    assert root.tells() == []
    root.work.on_time(105.0)
    assert root.tells() == [
        (2, m.TIMED_OUT, "its timeout of 5 s is over, and it waits for task 0-1 to succeed"),
        (3, m.DEPENDENCY, "task 0-2 waited too long for what it depends on, and this task takes its result"),
    ]
    assert root.work.next_deadline_s == 107.0
    root.hands_out()
    root.ends(1)
    root.settles()
    assert root.work.next_deadline_s == float("inf")
    root.work.on_time(1e9)
    assert root.codes() == {1: 0}


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_time_is_no_timeout(root, timeout_s):
    root.gets(task(1), asking(2, after=after(1), timeout_s=timeout_s))
    assert root.work.next_deadline_s == float("inf")


def test_deadlines_of_tasks_that_wait_no_more_are_dropped(root):
    root.gets(task(0))
    for number in range(1, 2_000):
        root.gets(asking(number, after=after(0), timeout_s=1e6 - number))
        root.cancels(number)
    dependencies = root.work._dependencies[CLIENT]
    assert len(dependencies._deadlines) < 100
    assert dependencies._listeners == {}


# --- explained --------------------------------------------------------------------------------------------------------


def test_why_names_what_is_waited_for(root):
    root.gets(*[task(number) for number in range(5)])
    root.gets(asking(9, inputs=[0, 1], after=after(2, 3, failure=True), follow=after(4, 3, all=False)))
    root.hands_out()
    root.ends(1, rank=1)
    root.settles()
    state, text, ranks_about, child = root.work.why(9)
    assert (state, ranks_about, child) == ("dependency", 0, None)
    assert text.split("; ") == [
        "it takes the result of task 0-0",
        "it waits for tasks 0-2 and 0-3 to end",
        "it has to run where one of tasks 0-4 and 0-3 succeeded",
    ]
    assert root.work.why(99) is None


# --- whatever happens -------------------------------------------------------------------------------------------------

NUMBERS = st.lists(st.integers(1, 12), max_size=3)
DEPENDENCIES = st.none() | st.builds(m.Dependency, NUMBERS, st.booleans(), st.booleans(), st.booleans())
TERMS = st.builds(
    m.Terms,
    targets=st.sampled_from([ranks(), ranks(0), ranks(1, 2), ranks(4)]),
    hint=st.sampled_from([-1, 0, 2]),
    priority=st.integers(0, 1),
    retries=st.integers(0, 2),
    inputs=NUMBERS,
    after=DEPENDENCIES,
    follow=DEPENDENCIES,
    timeout_s=st.sampled_from([0.0, 3.0]),
)
CODES = [0, 0, 0, m.RAISED, m.UNMET, m.ENGINE_LOST, m.BLOB_LOST, m.ENGINE_UNKNOWN, m.ANSWER_LOST]
STEPS = st.one_of(
    st.tuples(st.just("get"), st.lists(st.none() | TERMS, min_size=1, max_size=4)),
    st.tuples(st.just("end"), st.tuples(st.integers(0, 50), st.sampled_from(CODES))),
    st.tuples(st.just("cancel"), st.integers(1, 30)),
    st.tuples(st.just("lose"), st.integers(0, 2)),
    st.tuples(st.just("join"), st.integers(0, 4)),
    st.tuples(st.just("wait"), st.floats(0.0, 5.0)),
    st.tuples(st.just("drain"), st.none()),
)


@given(st.lists(STEPS, max_size=40))
def test_every_task_ends_exactly_once_whatever_happens(story):
    root = WorkTranscript()
    root.scheduler(0, 2), root.engines(2)
    sent = 0
    told: list[int] = []
    for verb, subject in story:
        if verb == "get":
            numbers = range(sent + 1, sent + 1 + len(subject))
            sent += len(subject)
            root.gets(*[m.Task(n, b"F" * 16, [], b"x", 0, terms) for n, terms in zip(numbers, subject, strict=True)])
        elif verb == "end":
            _end_one(root, *subject)
        elif verb == "cancel":
            root.cancels(subject, running=bool(subject % 2))
        elif verb == "lose" and root.membership.children:
            children = list(root.membership.children.values())
            root.loses(children[subject % len(children)])
        elif verb == "join" and root.membership.has_range(subject, subject + 1) is None:
            root.engines(subject)
        elif verb == "wait":
            root.now_s += subject
            root.work.on_time(root.now_s)
        else:
            told += [number for number, _, _ in root.tells()]
    while True:
        told += [number for number, _, _ in root.tells()]
        if not _end_one(root, 0, 0):
            break
    root.work.on_time(root.now_s + 10.0)
    told += [number for number, _, _ in root.tells()]
    assert sorted(told) == list(range(1, sent + 1))
    assert (len(root.work.dispatcher), root.work.dispatcher.flights, root.work.blocked) == (0, {}, 0)
    assert all((child.load, child.tasks) == (0.0, set()) for child in root.membership.children.values())
    assert root.work.dispatcher._shares == {}
    for dependencies in root.work._dependencies.values():
        assert dependencies._listeners == {}


def _end_one(root: WorkTranscript, which: int, code: int) -> bool:
    """One of the tasks in flight ends; False if there is none."""
    flying = [flight for flight in root.work.dispatcher.flights.values() if flight.child is not None]
    if not flying:
        return False
    flight = flying[which % len(flying)]
    root.ends(flight.task.id, rank=flight.child.first, code=code)
    return True
