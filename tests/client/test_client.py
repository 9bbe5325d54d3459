"""What a client does for its user: finds calls again, speaks to the root about engines, and describes itself."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from hiersched.client.client import Client
from hiersched.client.names import name_of
from hiersched.client.results import AsyncResult
from hiersched.errors import ResultDropped, StartError, UnknownEngine, UnknownTask, UserError
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from tests.client.fake_root import SESSION, FakeRoot, packed
from tests.patience import DEADLINE_S, until


def made(rc: Client, *ranks: int, single: bool = False) -> AsyncResult:
    """A call on these engines; without any, a task."""
    pending = rc.session.call(ranks, packed()) if ranks else rc.session.task(packed())
    return AsyncResult(rc.session, pending, name="abs", single=single or not ranks)


def request_of(result: AsyncResult) -> int:
    return result.requests()[0].id


def answering(root: FakeRoot, ask: Callable[[], Any], kind: type, answer: Callable[[Any], m.Message]) -> Any:
    """What `ask` gives when the root answers its question of this kind."""
    given: list[Any] = []
    thread = threading.Thread(target=lambda: given.append(ask()))
    thread.start()
    until(lambda: any(type(message) is kind for message, _ in list(root.link.sent)), "the question is out")
    while type(root.link.sent[0][0]) is not kind:
        root.link.sent.popleft()
    root.say(answer(root.heard(kind)[0]))
    thread.join(DEADLINE_S)
    return given[0]


# --- calls ------------------------------------------------------------------------------------------------------------


def test_calls_are_found_by_id_result_or_place(rc, root):
    call, task = made(rc, 0, 2), made(rc)
    root.answer(request_of(call), {0: "zero", 2: "two"})
    root.end_task(request_of(task), "task")
    assert rc.wait(timeout=DEADLINE_S)
    name = f"{SESSION}-1"
    assert rc.history == [name, f"{SESSION}-2"]
    assert call.msg_ids == [f"{name}:0", f"{name}:2"]
    assert rc.get_result(name).get() == ["zero", "two"]
    assert rc.get_result(0).get() == ["zero", "two"]
    assert rc.get_result(call.msg_ids).get() == ["zero", "two"]
    assert rc.get_result(call.msg_ids[1]).get() == "two"
    assert rc.get_result([call.msg_ids[1]]).get() == ["two"]
    assert rc.get_result([task, call.msg_ids[0]]).get() == ["task", "zero"]
    assert rc.get_result().get() == "task"
    assert rc.get_result(task) is task


def test_what_is_outstanding_is_named_part_by_part(rc, root):
    call, task = made(rc, 0, 2), made(rc)
    assert rc.outstanding == {*call.msg_ids, *task.msg_ids}
    root.answer(request_of(call), {2: None})
    rc.session.wait_for_parts(call.requests(), lambda: call.progress == 1, DEADLINE_S)
    assert rc.outstanding == {call.msg_ids[0], *task.msg_ids}


@pytest.mark.parametrize("name", ["nonsense", f"{SESSION}-99", "3-1"])
def test_a_call_that_never_was_is_not_found(rc, name):
    for ask in (rc.get_result, rc.why, rc.abort, rc.result_status, rc.wait):
        with pytest.raises(UnknownTask):
            ask(name)


def test_a_part_that_never_was_is_not_found(rc):
    call = made(rc, 0, 2)
    with pytest.raises(UnknownTask, match="is no part of a call on engines 0, 2"):
        rc.get_result(f"{call.msg_ids[0][:-1]}7")
    with pytest.raises(TypeError, match="a call is named by"):
        rc.get_result(3.5)
    with pytest.raises(UserError, match="at least one call"):
        rc.get_result([])


def test_a_result_that_was_dropped_says_so(rc, root):
    name = made(rc).msg_ids[0]
    root.end_task(request_of(rc.get_result(name)), "gone", rank=3)
    rc.wait(timeout=DEADLINE_S)
    until(lambda: not rc.outstanding, "it has ended")
    with pytest.raises(ResultDropped, match=f"{name} has succeeded on engine 3, and its result is gone"):
        rc.get_result(name)


def test_waiting_takes_results_ids_and_other_futures(rc, root):
    task, foreign = made(rc), Future()
    assert not rc.wait([task, foreign], 0.01)
    root.end_task(request_of(task))
    assert rc.wait([task.msg_ids[0]], DEADLINE_S)
    assert not rc.wait([task, foreign], 0.01)
    foreign.set_result(None)
    assert rc.wait([task, foreign], DEADLINE_S)
    assert rc.wait(timeout=0)
    assert rc.wait_interactive(timeout=0)
    assert rc.wait_interactive([task])


def test_calls_are_withdrawn_by_whatever_names_them(rc, root):
    call, other, task = made(rc, 0, 2), made(rc, 1), made(rc)
    until(lambda: any(type(message) is m.Tasks for message, _ in list(root.link.sent)), "the task is out")
    root.forget()
    rc.abort([call, task.msg_ids[0]])
    assert root.heard(m.Cancel)[0].tasks == [request_of(call), request_of(task)]
    rc.abort(targets=1, running=True)
    assert root.heard(m.Cancel)[0] == m.Cancel([request_of(other), request_of(task)], running=True)
    rc.abort()
    assert root.heard(m.Cancel)[0].tasks == [request_of(call), request_of(other), request_of(task)]


def test_the_state_of_calls_can_be_asked_for(rc, root):
    call = made(rc, 0, 2)
    root.answer(request_of(call), {2: "two"})
    rc.session.wait_for_parts(call.requests(), lambda: call.progress == 1, DEADLINE_S)
    assert rc.result_status(call.msg_ids) == {"pending": call.msg_ids[:1], "completed": call.msg_ids[1:]}
    assert rc.result_status(call, status_only=False)[call.msg_ids[1]] == "two"


def test_why_a_task_has_not_ended_is_explained(rc, root):
    task, call = made(rc), made(rc, 0, 1)
    because = lambda why: m.Because(why.request, "waiting", "no engine is free", (0, b""))  # noqa: E731
    assert answering(root, lambda: rc.why(task), m.Why, because).text == "no engine is free"
    assert answering(root, lambda: rc.why([call.msg_ids[0]]), m.Why, because)[0].state == "waiting"
    root.end_task(request_of(task), rank=2)
    task.wait(DEADLINE_S)
    assert str(rc.why(task)) == f"done: call {task.msg_ids[0]} has succeeded on engine 2"


def test_of_a_task_that_has_failed_the_error_is_told(rc, root):
    task = made(rc)
    root.fail_task(request_of(task), ValueError("no such number"), rank=1)
    task.wait(DEADLINE_S)
    assert rc.why(task).text == f"call {task.msg_ids[0]} has failed on engine 1, ValueError: no such number"


@pytest.mark.parametrize("ask", ["why", "get_result", "abort"])
def test_what_names_no_call_is_told_how_calls_are_named(rc, root, ask):
    made(rc)
    with pytest.raises(TypeError, match="a call is named by its AsyncResult, its id or its place in the history, not"):
        getattr(rc, ask)(1.5)
    with pytest.raises(UnknownTask, match="there is no call 7: this session has 1 call: "):
        getattr(rc, ask)(7)
    with pytest.raises(UnknownTask, match="'nonsense' is no id of a call; this session has 1 call: "):
        getattr(rc, ask)("nonsense")
    with pytest.raises(UnknownTask, match=r"no call .*-4242 in this session; this session has 1 call: "):
        getattr(rc, ask)(f"{SESSION}-4242")


def test_a_closed_client_knows_no_engines(rc):
    assert rc.ids
    rc.close()
    assert (rc.ids, len(rc)) == ([], 0)


def test_nothing_that_runs_is_purged(rc, root):
    task = made(rc)
    for purge in (lambda: rc.purge_results(task), lambda: rc.purge_results("all"), rc.purge_everything):
        with pytest.raises(RuntimeError, match="have not ended"):
            purge()
    with pytest.raises(ValueError, match="jobs or targets"):
        rc.purge_results()
    root.end_task(request_of(task))
    task.wait(DEADLINE_S)
    rc.purge_results(task)
    rc.purge_everything()


def test_what_is_purged_is_listed_no_more(rc, root):
    tasks = [made(rc) for _ in range(3)]
    for task in tasks:
        root.end_task(request_of(task))
    rc.wait(timeout=DEADLINE_S)
    names = rc.hub_history()
    rc.purge_hub_results(names[1])
    assert rc.history == [names[0], names[2]]
    rc.purge_results("all")
    assert rc.history == []
    fresh = made(rc)
    assert rc.history == fresh.msg_ids


def test_own_calls_can_be_queried(rc, root):
    dropped = request_of(made(rc))
    root.end_task(dropped, rank=3)
    rc.wait(timeout=DEADLINE_S)
    held, opened = made(rc, 0, 2), made(rc)
    root.fail(request_of(held), [0, 2], ValueError("bad"))
    held.wait(DEADLINE_S)
    first, second, third = rc.db_query()
    assert (first["msg_id"], first["engine_id"], first["status"]) == (f"{SESSION}-1", 3, "ok")
    assert (second["status"], second["error"].ename) == ("error", "ValueError")
    assert (third["msg_id"], third["status"]) == (opened.msg_ids[0], None)
    assert rc.db_query({"submitted": {"$lt": second["submitted"]}}) == [first]
    assert rc.db_query({"submitted": {"$gte": second["submitted"]}, "status": "error"}) == [second]
    assert rc.db_query({"msg_id": {"$in": [third["msg_id"]]}}, keys="status") == [
        {"msg_id": third["msg_id"], "status": None}
    ]
    assert rc.db_query({"status": {"$exists": True, "$ne": "ok"}}, keys=["engine_id"])[0]["engine_id"] == 0
    with pytest.raises(UserError, match=r"a query cannot ask for '\$regex'"):
        rc.db_query({"msg_id": {"$regex": "."}})


def test_a_task_can_be_submitted_again(rc, root):
    task, call = made(rc), made(rc, 0)
    sent = root.heard_task() if type(root.link.sent[-1][0]) is m.Tasks else None
    root.end_task(request_of(task), "first")
    assert task.get(DEADLINE_S) == "first"
    root.forget()
    again = rc.resubmit(task.msg_ids)
    until(lambda: not root.silent, "it is out")
    repeated = root.heard_task()
    assert repeated.id == request_of(again)
    assert sent is None or (repeated.function, repeated.payload) == (sent.function, sent.payload)
    root.end_task(repeated.id, "second")
    assert again.get(DEADLINE_S) == ["second"]
    with pytest.raises(UserError, match="is no task, or too large"):
        rc.resubmit(call)


# --- engines ----------------------------------------------------------------------------------------------------------


def test_queues_are_told_as_ipyparallel_does(rc, root):
    def census(survey: m.Survey) -> m.Census:
        ranks = bitset.ranks_of(bitset.from_wire(survey.targets))
        return m.Census(survey.request, [(0, 1, {"tasks_waiting": 2}, {})], [m.Queue(rank, 1, 2, 3) for rank in ranks])

    entry = {"queue": 1, "tasks": 2, "completed": 3}
    status = answering(root, rc.queue_status, m.Survey, census)
    assert status == {**dict.fromkeys(range(4), entry), "unassigned": 2}
    assert answering(root, lambda: rc.queue_status(3), m.Survey, census) == entry
    with pytest.raises(UnknownEngine):
        rc.queue_status(9)


def test_the_clients_own_calls_are_listed_by_engine(rc, root):
    call = AsyncResult(rc.session, rc.session.call((0, 2), packed()), name="abs")
    ended, waiting = rc.session.task(packed()), rc.session.task(packed())
    root.answer(call.requests()[0].id, {2: "two"})
    root.end_task(ended.id, "done", rank=1)
    rc.session.wait((ended,), DEADLINE_S)
    first, second = call.msg_ids
    assert rc.queue_status(verbose=True) == {
        0: {"queue": [first], "tasks": [], "completed": []},
        1: {"queue": [], "tasks": [], "completed": [name_of(ended.id)]},
        2: {"queue": [], "tasks": [], "completed": [second]},
        3: {"queue": [], "tasks": [], "completed": []},
        "unassigned": [name_of(waiting.id)],
    }
    assert rc.queue_status(2, verbose=True)["completed"] == [second]
    name = name_of(ended.id)
    del ended
    assert rc.queue_status(1, verbose=True)["completed"] == [name], "its result is gone, not where it ran"


def test_signals_go_to_engines_by_number_or_name(rc, root):
    executed = lambda order: m.Executed(order.request, order.targets)  # noqa: E731
    orders: list[m.Order] = []

    def note(order: m.Order) -> m.Executed:
        orders.append(order)
        return executed(order)

    assert answering(root, lambda: rc.send_signal("SIGUSR1", [1, 2]), m.Order, note) == [1, 2]
    assert answering(root, lambda: rc.send_signal(signal.SIGUSR1, 0), m.Order, note) == [0]
    assert answering(root, rc.interrupt, m.Order, note) == [0, 1, 2, 3]
    assert [order.number for order in orders] == [signal.SIGUSR1, signal.SIGUSR1, signal.SIGINT]
    for nonsense in ("SIGNONSENSE", "SIG_BLOCK", 999, -1):
        with pytest.raises(UserError, match="is no signal"):
            rc.send_signal(nonsense)


def test_engines_are_ended_or_replaced(rc, root):
    def ended(order: m.Order) -> m.Executed:
        root.say(m.Members((0, b""), order.targets, "it was asked to"))
        return m.Executed(order.request, order.targets)

    def replaced(order: m.Order) -> m.Executed:
        root.say(m.Members(order.targets, order.targets, "restarted"))
        return m.Executed(order.request, order.targets)

    assert answering(root, lambda: rc.shutdown([1], restart=True, block=True), m.Order, replaced) == [1]
    assert rc.ids == [0, 1, 2, 3]
    assert answering(root, lambda: rc.shutdown([1, 2], block=True), m.Order, ended) == [1, 2]
    assert rc.ids == [0, 3]
    assert answering(root, rc.shutdown, m.Order, ended) == [0, 3]
    assert rc.shutdown() == []


def test_the_whole_cluster_is_ended_with_its_hub(rc, root):
    assert answering(root, lambda: rc.shutdown(hub=True), m.Stop, lambda stop: m.Bye(stop.reason)) == []
    assert repr(rc) == "<Client(cluster_id='fake'): closed>"
    assert "closed" in rc._repr_html_()


def test_engines_are_waited_for(rc, root):
    assert rc.wait_for_engines(4) is None
    assert rc.wait_for_engines(4, block=False).done()
    with pytest.raises(TimeoutError, match=r"4 of 5 engines came within 0\.01 s"):
        rc.wait_for_engines(5, timeout=0.01)
    coming = rc.wait_for_engines(5, timeout=DEADLINE_S, block=False)
    root.say(m.Members(bitset.to_wire(1 << 4), (0, b""), ""))
    assert coming.result(DEADLINE_S) is None
    late = rc.wait_for_engines(6, timeout=0.01, block=False)
    assert isinstance(late.exception(DEADLINE_S), TimeoutError)


def test_an_engine_that_does_not_start_is_not_waited_for(rc, root):
    coming = rc.wait_for_engines(6, timeout=DEADLINE_S, block=False)
    root.say(m.Members((0, b""), bitset.to_wire(1 << 5), "it ran out of memory"))
    with pytest.raises(StartError, match="engine 5: it ran out of memory"):
        coming.result(DEADLINE_S)


def test_a_client_describes_itself(rc):
    assert repr(rc) == "<Client(cluster_id='fake'): 4 engines>"
    shown = rc._repr_html_()
    assert "<td>4: 0-3</td>" in shown
    assert "outlives" not in shown
    assert len(rc) == 4


def test_engines_are_named_by_ids(rc):
    for key in (None, "all", 1.5):
        with pytest.raises(TypeError, match="engines are named by"):
            rc[key]
    with pytest.warns(DeprecationWarning):
        rc.spin()
