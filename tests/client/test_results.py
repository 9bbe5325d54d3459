"""A result is there when it is there; errors stand beside good results; nothing is unpickled before it is read."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from hiersched.client import progress
from hiersched.client.direct_view import DirectView
from hiersched.client.progress import Stage
from hiersched.client.results import AsyncResult
from hiersched.data.outcomes import lost_outcome
from hiersched.errors import (
    ClusterLost,
    CompositeError,
    EngineLost,
    QuorumNotReached,
    RemoteError,
    TaskCancelled,
    UnpackError,
)
from hiersched.limits import PROGRESS_AFTER_S
from tests.client.fake_session import FakeClient, ThreadedSession


def fails_on_odd(rank: int) -> int:
    if rank % 2:
        raise ValueError(f"rank {rank} is odd")
    return rank * 10


@pytest.fixture
def ranked(view):
    """All engines, each knowing its own rank under the name `rank`."""
    view.scatter("rank", range(4), flatten=True, block=True)
    return view


@pytest.fixture
def half_failed(ranked):
    """A call that fails on engines 1 and 3."""
    return ranked.apply_async(eval_with_rank, "fails_on_odd(rank)")


def eval_with_rank(expression: str) -> object:
    from hiersched.data.namespace import user_namespace

    return eval(expression, {"fails_on_odd": fails_on_odd, "rank": user_namespace["rank"]})


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_a_result_is_pending_until_its_calls_have_run(session, view):
    result = view.apply_async(abs, -3)
    assert not result.ready()
    assert result.wait(0.0) is True
    assert result.ready()
    assert result.successful()
    assert result.get() == [3, 3, 3, 3]


def test_a_call_of_one_engine_gives_its_plain_result(client):
    assert DirectView(client, 2).apply_async(abs, -3).get() == 3
    assert DirectView(client, [2]).apply_async(abs, -3).get() == [3]


def test_results_are_in_the_order_of_the_targets_however_they_come(session, client, ranked):
    session.pick = lambda jobs: len(jobs) - 1
    assert DirectView(client, [3, 0, 2]).pull("rank", block=True) == [3, 0, 2]


def test_a_timeout_names_the_engines_that_have_not_answered(session, view):
    session.hold(1, 2)
    result = view.apply_async(abs, -3)
    assert result.wait(0.5) is False
    with pytest.raises(TimeoutError, match=r"abs: no answer from engines 1-2 within 0.5 s"):
        result.get(timeout=0.5)
    session.release()
    assert result.get(timeout=0.5) == [3, 3, 3, 3]


def test_as_a_future_it_names_them_too(session, view):
    session.hold(1, 2)
    result = view.apply_async(abs, -3)
    for wait in (result.result, result.exception):
        with pytest.raises(TimeoutError, match="abs: no answer from engines 1-2 within 0"):
            wait(0)


def test_a_negative_timeout_means_for_ever(view):
    assert view.apply_async(abs, -3).wait(-1) is True


def test_asking_for_success_before_the_end_is_refused(view):
    with pytest.raises(RuntimeError, match="has not ended"):
        view.apply_async(abs, -3).successful()


# --- errors -----------------------------------------------------------------------------------------------------------


def test_the_error_of_one_engine_is_raised_itself(client):
    result = DirectView(client, 1).apply_async(fails_on_odd, 3)
    with pytest.raises(RemoteError, match="ValueError: rank 3 is odd") as caught:
        result.get()
    assert caught.value.engine_id == 1
    assert isinstance(result.exception(), RemoteError)
    assert not result.successful()


def test_errors_of_several_engines_carry_the_good_results(half_failed):
    with pytest.raises(CompositeError, match="failed on 2 of 4 engines: 1, 3") as caught:
        half_failed.get()
    assert caught.value.results == [0, None, 20, None]
    assert {engine: error.evalue for engine, error in caught.value.errors.items()} == {
        1: "rank 1 is odd",
        3: "rank 3 is odd",
    }


def test_errors_can_be_had_in_the_places_of_results(half_failed):
    first, second, third, fourth = half_failed.get(return_exceptions=True)
    assert (first, third) == (0, 20)
    assert (second.ename, fourth.engine_id) == ("ValueError", 3)


def test_a_single_error_can_be_had_as_the_result(client):
    error = DirectView(client, 1).apply_async(fails_on_odd, 1).get(return_exceptions=True)
    assert error.ename == "ValueError"


def test_an_engine_that_dies_fails_its_part_only(session, view):
    result = view.apply_async(abs, -3)
    session.lose(2)
    with pytest.raises(CompositeError) as caught:
        result.get()
    assert caught.value.results == [3, 3, None, 3]
    assert isinstance(caught.value.errors[2], EngineLost)
    assert result.engine_id == [0, 1, 2, 3]


class Unreadable:
    """Can be pickled, but not unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return int, ("unreadable",)


def test_a_result_that_cannot_be_rebuilt_is_an_error_of_who_reads_it(view):
    result = view.apply_async(Unreadable)
    assert result.wait() is True
    assert result.successful()
    with pytest.raises(UnpackError):
        result.get()


def unreadable_or_failed() -> Unreadable:
    eval_with_rank("fails_on_odd(rank)")
    return Unreadable()


# --- parts ------------------------------------------------------------------------------------------------------------


def test_iterating_gives_results_as_they_come(session, ranked):
    session.hold(2)
    parts = iter(ranked.apply_async(abs, -3))
    session.run_all()
    assert [next(parts), next(parts)] == [3, 3]
    session.release()
    assert list(parts) == [3, 3]


def test_iterating_raises_the_error_of_a_part(half_failed):
    parts = iter(half_failed)
    assert next(parts) == 0
    with pytest.raises(RemoteError, match="rank 1 is odd"):
        next(parts)


def test_a_single_result_cannot_be_iterated(client):
    with pytest.raises(TypeError, match="use get"):
        iter(DirectView(client, 0).apply_async(abs, -3)).__next__()


def test_results_by_index_need_all_of_them(session, ranked):
    result = ranked.pull("rank")
    with pytest.raises(TimeoutError):
        session.hold(0)
        result[0]
    session.release()
    session.run_all()
    assert result[1] == 1
    assert result[1:3] == [1, 2]
    assert len(result) == 4


def test_results_by_engine(session, client, ranked):
    assert ranked.pull("rank").get_dict() == {0: 0, 1: 1, 2: 2, 3: 3}
    assert DirectView(client, 3).pull("rank").result_dict == {3: 3}
    assert ranked.pull("rank").r == [0, 1, 2, 3]


def test_progress_counts_parts(session, view):
    session.hold(3)
    result = view.apply_async(abs, -3)
    assert result.progress == 0
    session.run_all()
    assert (result.progress, len(result)) == (3, 4)


# --- facts ------------------------------------------------------------------------------------------------------------


def shout(text: str) -> str:
    print(text)
    return text


def test_metadata_says_where_and_when_and_what_was_printed(session, client):
    session.item_s = 2.0
    result = DirectView(client, [0, 2]).apply_async(shout, "ahoy")
    assert result.metadata[0]["status"] is None
    assert result.stdout == ["", ""]
    assert result.started == [None, None]
    result.wait()
    facts = result.metadata[1]
    assert (facts["engine_id"], facts["status"], facts.stdout) == (2, "ok", "ahoy\n")
    assert facts["submitted"] == datetime.fromtimestamp(1_000.0, UTC)
    assert (facts["completed"] - facts["started"]).total_seconds() == 8.0  # four letters
    assert result.engine_id == [0, 2]
    assert result["stderr"] == ["", ""]
    assert len(set(result.msg_ids)) == 2


def test_metadata_of_one_engine_is_plain(client):
    result = DirectView(client, 1).apply_async(shout, "ahoy")
    result.wait()
    assert result.metadata["engine_id"] == 1
    assert (result.stdout, result.status) == ("ahoy\n", "ok")
    assert result.msg_ids == [result.metadata["msg_id"]]


def test_metadata_of_a_failed_part_holds_the_error(half_failed):
    half_failed.wait()
    assert half_failed.status == ["ok", "error", "ok", "error"]
    assert half_failed.error[1].ename == "ValueError"


def test_unknown_attributes_are_refused(view):
    result = view.apply_async(abs, -3)
    with pytest.raises(AttributeError, match="'AsyncResult' object has no attribute 'colour'"):
        _ = result.colour
    assert "stdout" in dir(result)
    with pytest.raises(AttributeError):
        _ = result.metadata[0].colour


def test_times_add_up(session, client):
    session.item_s = 2.0
    result = DirectView(client, [0, 1]).apply_async(abs, -1)
    with pytest.raises(TimeoutError):
        _ = result.serial_time
    result.wait()
    assert result.serial_time == 4.0
    assert result.wall_time == result.elapsed == 4.0
    assert result.timedelta(result.submitted, result.completed) == 4.0


def test_elapsed_grows_while_a_call_runs(view):
    assert view.apply_async(abs, -3).elapsed > 0


def test_a_result_describes_itself(session, client, half_failed, view):
    assert repr(half_failed) == "<AsyncResult eval_with_rank: pending, 0 of 4 done>"
    half_failed.wait()
    assert repr(half_failed) == "<AsyncResult eval_with_rank: failed on engines 1, 3>"
    good = view.apply_async(abs, -3)
    good.wait()
    assert repr(good) == "<AsyncResult abs: finished>"
    single = DirectView(client, 1).apply_async(fails_on_odd, 1)
    single.wait()
    assert repr(single) == "<AsyncResult fails_on_odd: failed, [engine 1] ValueError: rank 1 is odd>"


def test_what_was_withdrawn_says_so(session, client, view):
    session.hold(0, 1, 2, 3)
    several, single = view.apply_async(abs, -3), DirectView(client, 1).apply_async(abs, -3)
    several.cancel()
    single.cancel()
    assert repr(several) == "<AsyncResult abs: cancelled>"
    assert repr(single) == "<AsyncResult abs: cancelled, cancelled before it started>"


# --- as a future ------------------------------------------------------------------------------------------------------


def test_a_callback_is_called_once_when_all_is_there(session, view):
    told: list[object] = []
    result = view.apply_async(abs, -3)
    result.add_done_callback(told.append)
    assert told == []
    session.run_all()
    assert told == [result]
    result.add_done_callback(told.append)
    assert told == [result, result]


def test_results_work_with_the_standard_librarys_waiting(session, client):
    good, bad = DirectView(client, 0).apply_async(abs, -3), DirectView(client, 1).apply_async(fails_on_odd, 1)
    session.run_all()
    done, waiting = concurrent.futures.wait([good, bad], timeout=0)
    assert done == {good, bad}
    assert not waiting
    assert set(concurrent.futures.as_completed([good, bad])) == {good, bad}
    assert good.result() == 3
    assert good.exception() is None
    with pytest.raises(RemoteError):
        bad.result()


def test_a_result_can_be_awaited():
    async def main(view: DirectView) -> object:
        return await view.apply_async(abs, -3)

    with ThreadedSession(engines=2) as session:
        assert asyncio.run(main(DirectView(FakeClient(session)))) == [3, 3]


def test_awaiting_a_failed_call_raises_its_error():
    async def main(view: DirectView) -> object:
        return await view.apply_async(fails_on_odd, 1)

    with ThreadedSession(engines=1) as session, pytest.raises(RemoteError, match="rank 1 is odd"):
        asyncio.run(main(DirectView(FakeClient(session), 0)))


def test_a_call_that_has_not_started_can_be_cancelled(session, balanced):
    session.hold(0, 1, 2, 3)
    result = balanced.apply_async(abs, -3)
    assert result.cancel() is True
    assert result.cancelled()
    assert result.done()
    with pytest.raises(TaskCancelled):
        result.get()
    with pytest.raises(concurrent.futures.CancelledError):
        result.result()
    with pytest.raises(concurrent.futures.CancelledError):
        result.exception()


def test_a_call_that_runs_cannot_be_cancelled(session, balanced):
    result = balanced.apply_async(abs, -3)
    session.start()
    session.hold(0, 1, 2, 3)
    assert result.cancel() is False
    assert result.running()
    session.release()
    assert result.get() == 3
    assert not result.running()
    assert not result.cancelled()


def test_aborting_what_has_ended_is_refused(view):
    result = view.apply_async(abs, -3)
    result.wait()
    assert result.cancel() is False
    with pytest.raises(RuntimeError, match="nothing is left to abort"):
        result.abort()


class Bars:
    """A stage where bars are drawn at once, and what was drawn."""

    def __init__(self) -> None:
        self.drawn: list[int] = []
        self.asked: list[object] = []
        self.now_s = 0.0
        self.on_update: Callable[[], object] = bool  # nothing

    def here(self, widget: bool | None = None) -> Stage:
        self.asked.append(widget)
        return Stage(lambda course: self, self.clock)

    def clock(self) -> float:
        self.now_s += PROGRESS_AFTER_S
        return self.now_s

    def update(self, n: int) -> None:
        self.drawn.append(n)
        self.on_update()

    def close(self) -> None:
        pass


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> Bars:
    bars = Bars()
    monkeypatch.setattr("hiersched.client.results.here", bars.here)
    return bars


def test_waiting_interactively_shows_progress(session, view, bars):
    assert view.apply_async(abs, -3).wait_interactive(widget=False) is True
    assert (bars.drawn, bars.asked) == ([4], [False])


def test_waiting_interactively_ends_after_its_timeout(session, view, bars):
    session.hold(0)
    assert view.apply_async(abs, -3).wait_interactive(timeout=0) is False
    assert bars.drawn == [3]


def test_waiting_interactively_may_end_with_the_first_error(session, client, ranked, bars):
    result = ranked.apply_async(eval_with_rank, "fails_on_odd(rank)")
    session.hold(2, 3)
    assert result.wait_interactive(return_when=concurrent.futures.FIRST_EXCEPTION) is True
    assert not result.done()


def test_every_wait_for_several_parts_is_shown_when_it_lasts(session, view, ranked, bars, monkeypatch):
    monkeypatch.setattr(progress, "here", bars.here)
    session.hold(0)
    late = view.apply_async(abs, -3)
    waits = {
        "get": lambda: late.get(5.0),
        "wait": lambda: late.wait(5.0),
        "quorum": lambda: late.quorum(1.0, 5.0),
        "as_completed": lambda: list(late.as_completed(5.0)),
        "iteration": lambda: next(iter(late)),
    }
    iteration = waits.pop("iteration")
    for name, wait in waits.items():
        bars.drawn.clear()
        with contextlib.suppress(TimeoutError):
            wait()
        assert sum(bars.drawn) == 3, name
    bars.drawn.clear()
    assert not late.wait_unshown(5.0)
    with late.stream_output(), pytest.raises(TimeoutError):  # a bar would stand in the middle of it
        late.get(5.0)
    assert bars.drawn == []
    bars.on_update = session.release
    assert iteration() == 3
    assert sum(bars.drawn) >= 3


def test_the_wait_for_one_answer_has_no_bar(session, client, bars, monkeypatch):
    monkeypatch.setattr(progress, "here", bars.here)
    session.hold(0)
    with pytest.raises(TimeoutError):
        DirectView(client, 0).apply_async(abs, -3).get(5.0)
    assert bars.asked == []


# --- parts and partial results ----------------------------------------------------------------------------------------


def test_a_wait_may_end_with_the_first_part(session, ranked):
    session.hold(0, 1, 3)
    result = ranked.pull("rank")
    ended, others = result.wait(return_when=concurrent.futures.FIRST_COMPLETED)
    assert [part.get() for part in ended] == [2]
    assert {part.engine_id for part in others} == {0, 1, 3}
    assert result.wait(timeout=0, return_when=concurrent.futures.ALL_COMPLETED) == (ended, others)
    with pytest.raises(ValueError, match="return_when must be one of"):
        result.wait(return_when="some day")


def test_a_wait_may_end_with_the_first_error(session, ranked):
    result = ranked.apply_async(eval_with_rank, "fails_on_odd(rank)")
    session.hold(2, 3)
    ended, _ = result.wait(return_when=concurrent.futures.FIRST_EXCEPTION)
    assert {part.engine_id for part in ended} == {0, 1}
    with pytest.raises(CompositeError, match="failed on 1 of 4 engines: 1") as caught:
        result.get(return_when=concurrent.futures.FIRST_EXCEPTION)
    assert caught.value.results == [0, None, None, None]
    with pytest.raises(TimeoutError):
        result.get(0)


def test_what_has_come_can_be_had_while_others_run(session, ranked):
    result = ranked.apply_async(eval_with_rank, "fails_on_odd(rank)")
    session.hold(3)
    session.run_all()
    so_far = result.results_so_far()
    assert {rank: so_far[rank] for rank in (0, 2)} == {0: 0, 2: 20}
    assert so_far[1].ename == "ValueError"
    assert 3 not in so_far


def test_parts_can_be_had_as_they_come(session, ranked):
    session.pick = lambda jobs: len(jobs) - 1
    assert list(ranked.pull("rank").as_completed()) == [(3, 3), (2, 2), (1, 1), (0, 0)]


def test_errors_of_parts_that_come_are_raised_or_given(session, half_failed):
    session.pick = lambda jobs: len(jobs) - 1
    with pytest.raises(RemoteError, match="rank 3 is odd"):
        next(half_failed.as_completed())
    given = dict(half_failed.as_completed(return_exceptions=True))
    assert (given[2], given[3].ename) == (20, "ValueError")


def test_parts_that_do_not_come_in_time_are_named(session, ranked):
    session.hold(1, 2)
    parts = ranked.pull("rank").as_completed(timeout=0.01)
    assert [next(parts), next(parts)] == [(0, 0), (3, 3)]
    with pytest.raises(TimeoutError, match="engines 1-2"):
        next(parts)


def test_a_result_can_be_split_and_joined(session, ranked):
    result = ranked.pull("rank")
    parts = result.split()
    assert result.split() is parts
    assert [part.msg_ids for part in parts] == [[name] for name in result.msg_ids]
    session.hold(3)
    assert parts[0].get() == 0
    assert not parts[3].done()
    session.release()
    assert [part.get() for part in parts] == [0, 1, 2, 3]
    assert parts[0].split() == (parts[0],)
    joined = AsyncResult.join(*parts[2:], *parts[:1])
    assert joined.get() == [2, 3, 0]
    assert joined.engine_id == [2, 3, 0]
    assert AsyncResult.join(result) is result
    with pytest.raises(ValueError, match="at least one"):
        AsyncResult.join()


def test_parts_work_with_the_standard_librarys_waiting(session, ranked):
    parts = ranked.pull("rank").split()
    told = []
    parts[2].add_done_callback(told.append)
    session.hold(0)
    session.run_all()
    assert told == [parts[2]]
    done, waiting = concurrent.futures.wait(parts, timeout=0)
    assert (len(done), waiting) == (3, {parts[0]})


def test_errors_of_joined_calls_are_told_apart_by_their_places(session, ranked):
    calls = [ranked.apply_async(eval_with_rank, "fails_on_odd(rank)") for _ in range(2)]
    with pytest.raises(CompositeError, match="failed on 4 of 8 parts") as caught:
        AsyncResult.join(*calls).get()
    assert set(caught.value.errors) == {1, 3, 5, 7}
    assert str(caught.value).splitlines()[1] == "[part 1,5] ValueError: rank 1 is odd"


# --- a quorum ---------------------------------------------------------------------------------------------------------


def test_most_answers_are_enough_for_a_quorum(session, ranked):
    session.hold(2)
    quorum = ranked.apply_async(eval_with_rank, "fails_on_odd(rank)").quorum(0.75)
    assert quorum.results == {0: 0}
    assert set(quorum.errors) == {1, 3}
    assert quorum.stragglers == [2]
    assert (quorum.answered, quorum.share) == (3, 0.75)
    assert str(quorum) == "3 of 4 have answered, 2 with an error; stragglers: 2"


def test_a_quorum_that_is_not_reached_names_the_stragglers(session, ranked):
    session.hold(1, 2)
    result = ranked.pull("rank")
    with pytest.raises(QuorumNotReached, match=r"90% did not answer within 0.5 s: 2 of 4 .* stragglers: 1-2") as caught:
        result.quorum(0.9, timeout=0.5)
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.quorum.results == {0: 0, 3: 3}
    session.release()
    assert result.quorum().stragglers == []


def test_a_quorum_is_a_share(view):
    for share in (0, 1.1, -1, "x", None):
        with pytest.raises(ValueError, match="a quorum is a share"):
            view.apply_async(abs, -3).quorum(share)


# --- the end of the cluster, and withdrawn calls ----------------------------------------------------------------------


def test_the_end_of_the_cluster_keeps_what_had_come(session, view):
    result = view.apply_async(abs, -3)
    (pending,) = result.requests()
    pending.settle(2, lost_outcome(ClusterLost("the root is gone")))
    session.hold(2)
    session.run_all()
    with pytest.raises(ClusterLost, match="the root is gone") as caught:
        result.get()
    assert caught.value.results == [3, 3, None, 3]
    assert set(caught.value.errors) == {2}


def test_a_call_that_is_withdrawn_everywhere_is_cancelled(session, view):
    result = view.apply_async(abs, -3)
    assert result.cancel() is True
    with pytest.raises(TaskCancelled, match="abs was cancelled on 4 of 4 engines: 0-3"):
        result.get()
    assert result.status == ["aborted"] * 4


def test_a_failed_result_that_cannot_be_read_costs_no_other(session, ranked):
    result = ranked.apply_async(unreadable_or_failed)
    with pytest.raises(CompositeError) as caught:
        result.get()
    assert isinstance(caught.value.errors[0], UnpackError)
    assert isinstance(caught.value.errors[1], RemoteError)


# --- small things that ipyparallel's results have ---------------------------------------------------------------------


def test_arguments_may_be_changed_at_once(view):
    result = view.apply_async(abs, -3)
    assert result.sent
    assert result.wait_for_send(0) is None
    assert result.wait_for_output(1) is True


def test_facts_have_the_names_that_ipyparallel_knows(view):
    result = view.apply_async(abs, -3)
    result.wait()
    assert result.engine_uuid == ["engine-0", "engine-1", "engine-2", "engine-3"]
    assert result.follow == result.after == [[]] * 4
    assert (result.label, result.data, result.execute_input) == ([None] * 4, [{}] * 4, [None] * 4)
    with pytest.raises(KeyError, match="is no fact about a call"):
        _ = result["colour"]
    with pytest.raises(TypeError, match="named by int or slice"):
        _ = result[1.5]
