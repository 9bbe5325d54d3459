"""A load-balanced call runs on one engine, whichever is free, on the terms of its view."""

from __future__ import annotations

from itertools import count

import pytest

from hiersched.client.balanced_view import LoadBalancedView
from hiersched.client.dependencies import Dependency
from hiersched.data.conditions import depend, require
from hiersched.errors import DependencyError, RemoteError, UnknownEngine, UnknownTask
from hiersched.kernels import bitset
from hiersched.limits import RETRIES_MAX
from tests.client.test_direct_view import notebook_function


def test_apply_gives_one_result(balanced):
    assert balanced.apply_sync(abs, -3) == 3
    assert balanced.apply_async(abs, -3).get() == 3
    assert balanced.apply(abs, -3).get() == 3
    balanced.block = True
    assert balanced.apply(abs, -3) == 3


def test_where_a_call_ran_is_known_when_it_has(session, balanced):
    result = balanced.apply_async(abs, -3)
    assert result.engine_id is None
    result.wait()
    assert result.engine_id in range(4)
    assert result.get_dict() == {result.engine_id: 3}


def test_calls_go_round(session, balanced):
    results = [balanced.apply_async(abs, -3) for _ in range(4)]
    session.run_all()
    assert {result.engine_id for result in results} == {0, 1, 2, 3}


def test_an_error_is_raised_itself(balanced):
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        balanced.apply_sync(divmod, 1, 0)
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        balanced.apply_async(divmod, 1, 0).get()


def test_a_late_call_says_that_it_still_runs(session, balanced):
    session.hold(0, 1, 2, 3)
    with pytest.raises(TimeoutError, match=r"abs: no answer within 0\.1 s; it still runs"):
        balanced.apply_async(abs, -3).get(timeout=0.1)


def test_a_view_describes_itself(client, balanced):
    assert repr(balanced) == "<LoadBalancedView of 4 engines>"
    assert len(balanced) == 4
    some = LoadBalancedView(client, [0, 1, 3])
    assert repr(some) == "<LoadBalancedView of engines 0-1, 3>"
    assert len(some) == 3


def test_a_task_bears_its_label(client):
    labelled = LoadBalancedView(client, label="first")
    assert repr(labelled.apply_async(abs, -3)) == "<AsyncResult abs 'first': pending, 0 of 1 done>"
    assert repr(labelled.map_async(abs, [1], label="second")).startswith("<AsyncMapResult abs 'second': ")


def test_a_view_has_an_executor(balanced):
    with balanced.executor as executor:
        assert executor.submit(abs, -3).result() == 3


# --- terms ------------------------------------------------------------------------------------------------------------


def test_a_task_that_asks_for_nothing_has_no_terms(session, balanced):
    balanced.apply_sync(abs, -3)
    balanced.map_sync(abs, [1, 2])
    assert set(session.terms) == {None}


def test_tasks_stay_within_the_targets(session, client):
    view = LoadBalancedView(client, [1, 2])
    results = [view.apply_async(abs, -3) for _ in range(4)]
    session.run_all()
    assert {result.engine_id for result in results} == {1, 2}
    assert bitset.ranks_of(bitset.from_wire(session.terms[0].targets)) == [1, 2]


@pytest.mark.parametrize(
    ("targets", "meant"), [(None, None), ("all", None), (-1, [3]), (slice(1, 3), [1, 2]), ((0, 2), [0, 2])]
)
def test_targets_are_named_as_everywhere(client, targets, meant):
    assert LoadBalancedView(client, targets=targets).targets == meant


def test_targets_that_do_not_exist_are_refused_at_once(client):
    with pytest.raises(UnknownEngine, match="no engine 9; the engines are 0-3"):
        LoadBalancedView(client, 9)


def test_terms_go_with_each_task(session, balanced):
    balanced.set_flags(priority=3, retries=2, timeout=1.5)
    balanced.apply_async(abs, -3)
    balanced.map_async(abs, [1])
    next(iter(balanced.imap(abs, [1])))
    assert [(terms.priority, terms.retries, terms.timeout_s) for terms in session.terms] == [(3, 2, 1.5)] * 3


def test_terms_may_hold_for_a_while(session, balanced):
    with balanced.temp_flags(retries=1, targets=[2]):
        balanced.apply_async(abs, -3)
    balanced.apply_async(abs, -3)
    assert session.terms[0].retries == 1
    assert session.terms[1] is None
    assert (balanced.retries, balanced.targets) == (0, None)


def test_a_map_keeps_the_terms_it_was_started_with(session, balanced):
    session.item_s = 1.0
    with balanced.temp_flags(priority=7):
        result = balanced.map_async(abs, range(50), chunksize=1, max_outstanding=2)
    assert result.get() == list(range(50))
    assert {terms.priority for terms in session.terms} == {7}


@pytest.mark.parametrize(
    ("flags", "error", "text"),
    [
        ({"retries": -1}, ValueError, f"from 0 to {RETRIES_MAX}, not -1"),
        ({"retries": RETRIES_MAX + 1}, ValueError, "retries must be from 0"),
        ({"retries": 1.5}, TypeError, "retries must be a whole number"),
        ({"priority": "high"}, TypeError, "priority must be a whole number"),
        ({"priority": 2**40}, ValueError, "priority must be below"),
        ({"timeout": -1}, ValueError, "at least 0 seconds"),
        ({"timeout": float("nan")}, ValueError, "at least 0 seconds"),
        ({"timeout": "1 s"}, TypeError, "timeout must be a number"),
        ({"after": 17}, ValueError, "invalid dependency: a task is named by its AsyncResult or id"),
        ({"follow": [None]}, ValueError, "invalid dependency"),
        ({"before": "1"}, KeyError, "its flags are targets, block, track, label, after, follow, timeout"),
    ],
)
def test_bad_terms_are_refused_when_they_are_set(balanced, flags, error, text):
    with pytest.raises(error, match=text), balanced.temp_flags(**flags):
        pass
    with pytest.raises(error, match=text):
        balanced.set_flags(**flags)
    assert (balanced.retries, balanced.priority, balanced.timeout, balanced.after) == (0, 0, None, None)


# --- dependencies -----------------------------------------------------------------------------------------------------


def test_a_task_waits_for_others(session, balanced):
    first, second = balanced.apply_async(abs, -1), balanced.apply_async(abs, -2)
    with balanced.temp_flags(after=[first, second.msg_ids[0]], follow=first):
        balanced.apply_async(abs, -3)
    terms = session.terms[-1]
    assert (terms.after.tasks, terms.after.all, terms.after.success, terms.after.failure) == ([1, 2], True, True, False)
    assert terms.follow.tasks == [1]
    assert session.terms[0] is None


@pytest.mark.parametrize("form", [lambda d: d, lambda d: d.as_dict()])
def test_a_dependency_says_which_ends_count(session, balanced, form):
    task = balanced.apply_async(abs, -1)
    balanced.after = form(Dependency(task, all=False, success=False, failure=True))
    balanced.apply_async(abs, -3)
    after = session.terms[-1].after
    assert (after.tasks, after.all, after.success, after.failure) == ([1], False, False, True)


def test_no_dependency_is_none(session, balanced):
    balanced.set_flags(after=[], follow=Dependency())
    balanced.apply_async(abs, -3)
    assert session.terms == [None]


def test_an_unknown_task_is_reported_when_it_is_depended_on(session, balanced):
    balanced.after = "12345"
    with pytest.raises(UnknownTask, match="12345"):
        balanced.apply_sync(abs, -3)
    assert session.jobs == []


# --- conditions, retries ----------------------------------------------------------------------------------------------


def test_a_task_goes_where_its_condition_holds(session, balanced):
    session.engines[2].namespace["gpu"] = True
    has_gpu = notebook_function("def has_gpu(): return 'gpu' in globals()", "has_gpu")
    work = depend(has_gpu)(notebook_function("def work(x): return 2 * x", "work"))
    results = [balanced.apply_async(work, number) for number in range(3)]
    assert [result.get() for result in results] == [0, 2, 4]
    assert {result.engine_id for result in results} == {2}
    assert balanced.map_sync(work, range(5)) == [0, 2, 4, 6, 8]


def test_a_condition_that_holds_nowhere_is_reported(balanced):
    lacking = require("no_such_module_anywhere")(notebook_function("def work(x): return x", "work"))
    with pytest.raises(DependencyError):
        balanced.apply_sync(lacking, 1)


def test_what_is_required_is_there(balanced):
    norm = notebook_function("def norm(a): return math.hypot(*a) * scale", "norm")
    assert balanced.apply_sync(require("math", scale=2)(norm), [3, 4]) == 10.0
    helper = notebook_function("def helper(x): return x + 1", "helper")
    use = notebook_function("def use(x): return helper(x) * 10", "use")
    assert balanced.map_sync(require(helper)(use), [1, 2]) == [20, 30]


def once(mark: str) -> str:
    """Fails when it is called with a path for the first time."""
    try:
        open(mark, "x").close()
    except FileExistsError:
        return mark
    raise RuntimeError("the first time fails")


def test_a_task_that_fails_is_tried_again(tmp_path, balanced):
    with pytest.raises(RemoteError, match="the first time fails"):
        balanced.apply_sync(once, str(tmp_path / "a"))
    balanced.retries = 1
    assert balanced.apply_sync(once, str(tmp_path / "b")) == str(tmp_path / "b")


def test_items_of_a_map_are_tried_again(session, tmp_path, balanced):
    marks = [str(tmp_path / name) for name in "abc"]
    balanced.retries = 1
    assert balanced.map_sync(once, marks) == marks
    assert len(session.sent) == 3


# --- maps -------------------------------------------------------------------------------------------------------------


def test_a_map_stays_within_the_targets(session, client):
    view = LoadBalancedView(client, [1])
    result = view.map_async(abs, range(20))
    assert len(session.jobs) == 2  # a few for its engine
    assert result.get() == list(range(20))
    assert set(result.engine_id) == {1}


def test_the_chunks_out_may_be_bounded(session, balanced):
    result = balanced.map_async(abs, range(20), chunksize=2, max_outstanding=3)
    assert len(session.jobs) == 3
    assert result.get() == list(range(20))
    with pytest.raises(ValueError, match="max_outstanding must be at least 1"):
        balanced.map(abs, range(20), max_outstanding=0)


def test_a_lazy_map_reads_no_further_than_it_may(session, balanced):
    source = count()
    results = balanced.imap(abs, source, max_outstanding=5)
    assert next(results) == 0
    assert len(balanced.history) >= 5
    assert next(source) <= 10
    results.cancel()
