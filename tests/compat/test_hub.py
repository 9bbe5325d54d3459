"""What the hub answers to clients, whatever they ask."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ipyparallel.controller.dictdb import DictDB

from hiersched.compat.hub import Hub
from hiersched.compat.records import Records
from hiersched.data.outcomes import lost_outcome
from hiersched.data.serialize import Unpacker
from hiersched.errors import EngineLost
from tests.compat.fakes import BrokenDB, FakeExchange, Mailbox, Messages, a_database, a_roster

QUERIES = ("connection", "queue", "result", "history", "db", "purge", "resubmit", "load")


def a_desk(db, engines=3):
    """A hub with all that it needs."""
    desk = SimpleNamespace(sent=Mailbox(), messages=Messages(), roster=a_roster(engines), exchange=FakeExchange())
    desk.records = Records(db)
    desk.ended, desk.tasks = [], []

    def run_task(message):
        desk.tasks.append(message)
        desk.records.asked(message, queue="task")

    desk.hub = Hub(
        desk.messages.wire,
        desk.roster,
        desk.records,
        desk.exchange,
        send=desk.sent,
        shut_down=lambda: desk.ended.append(True),
        run_task=run_task,
    )
    return desk


@pytest.fixture(params=["memory", "disk"])
def desk(request, tmp_path):
    with a_database(request.param, tmp_path) as db:
        yield a_desk(db)


def ask(desk, kind, /, **content):
    """The hub's reply to a query."""
    request = desk.messages.make(f"{kind}_request", content)
    desk.hub.answer(request)
    reply = desk.sent.only()
    assert reply.parent == request.header and reply.idents == request.idents
    return reply


def run(desk, rank=0, *, queue="mux", ends=True, buffers=(b"f",), result=(b"result",), **metadata):
    """A request to an engine, which ends unless told otherwise. Its id."""
    request = desk.messages.make("apply_request", metadata=metadata, buffers=buffers)
    uuid = desk.roster.uuid_of(rank)
    desk.records.asked(request, queue=queue, engine=uuid)
    if ends:
        end(desk, request.msg_id, rank, result)
    return request.msg_id


def end(desk, msg_id, rank=0, result=(b"result",)):
    uuid = desk.roster.uuid_of(rank)
    header = {"msg_id": "r", "msg_type": "apply_reply", "date": desk.messages.date()}
    metadata = {"engine": uuid, "status": "ok", "started": header["date"]}
    desk.records.answered(
        msg_id, uuid=uuid, header=header, metadata=metadata, content={"status": "ok"}, buffers=list(result)
    )


# --- the cluster ------------------------------------------------------------------------------------------------------


def test_a_client_learns_which_engines_there_are(desk):
    reply = ask(desk, "connection")
    assert reply.msg_type == "connection_reply"
    assert reply.content == {"status": "ok", "engines": {str(rank): desk.roster.uuid_of(rank) for rank in range(3)}}


def test_queues_are_counted_or_listed(desk):
    done, waits = run(desk, 0), run(desk, 0, ends=False)
    task = run(desk, 1, queue="task", ends=False)
    free = desk.messages.make("apply_request")
    desk.records.asked(free, queue="task")
    broadcast = desk.messages.make("apply_request")
    desk.records.asked_all(broadcast, {desk.roster.uuid_of(rank): f"O_{rank}" for rank in range(3)})
    counted = ask(desk, "queue", targets=None, verbose=False).content
    assert counted == {
        "status": "ok",
        "unassigned": 1,
        "0": {"queue": 2, "completed": 1, "tasks": 0},
        "1": {"queue": 1, "completed": 0, "tasks": 1},
        "2": {"queue": 1, "completed": 0, "tasks": 0},
    }
    listed = ask(desk, "queue", targets=[0, desk.roster.uuid_of(1)], verbose=True).content
    assert listed == {
        "status": "ok",
        "unassigned": [free.msg_id],
        "0": {"queue": [waits, "O_0"], "completed": [done], "tasks": []},
        "1": {"queue": ["O_1"], "completed": [], "tasks": [task]},
    }
    assert ask(desk, "load", targets=None).content == {"status": "ok", "0": 2, "1": 2, "2": 1}


def test_a_cluster_without_engines_has_nothing_but_unassigned_tasks():
    desk = a_desk(DictDB(), engines=0)
    assert ask(desk, "queue", targets=None, verbose=False).content == {"status": "ok", "unassigned": 0}


@pytest.mark.parametrize("targets", [7, [0, 7], "nobody", [], [True], [None], [[0]], {"0": 1}, 1.5])
def test_targets_that_are_none_are_an_error(desk, targets):
    for query in ("queue", "load"):
        reply = ask(desk, query, targets=targets)
        assert reply.msg_type == "hub_error" and reply.content["status"] == "error"
    if targets == 7:
        assert reply.content["ename"] == "IndexError" and reply.content["evalue"] == "No Such Engine: [7]"


def test_shutdown_is_confirmed_before_the_end(desk):
    assert ask(desk, "shutdown").content == {"status": "ok"}
    assert desk.ended == [True]


def test_an_unknown_query_is_an_error(desk):
    reply = ask(desk, "tea")
    assert reply.msg_type == "hub_error"
    assert reply.content["ename"] == "KeyError" and "tea_request" in reply.content["evalue"]


# --- results ----------------------------------------------------------------------------------------------------------


def test_results_come_with_their_buffers_in_the_order_of_ids(desk):
    ids = [run(desk, result=[f"result {number}".encode()]) for number in range(3)]
    waits = run(desk, ends=False)
    reply = ask(desk, "result", msg_ids=[*reversed(ids), waits, ids[0]])
    assert reply.msg_type == "result_reply"
    assert reply.content["pending"] == [waits] and reply.content["completed"] == sorted(ids)
    assert [bytes(buffer) for buffer in reply.buffers] == [
        f"result {number}".encode() for _, number in sorted(zip(ids, range(3), strict=True))
    ]
    told = reply.content[ids[0]]
    assert set(told) == {
        "header",
        "metadata",
        "result_metadata",
        "result_header",
        "result_content",
        "received",
        "io",
    }
    assert told["io"]["stdout"] == "" and told["header"]["msg_id"] == ids[0]
    assert told["result_metadata"]["engine"] == desk.roster.uuid_of(0)


def test_a_part_of_a_broadcast_is_a_result_as_any_other(desk):
    broadcast = desk.messages.make("apply_request")
    ids = {desk.roster.uuid_of(rank): f"{broadcast.msg_id}_{rank}" for rank in range(3)}
    desk.records.asked_all(broadcast, ids)
    end(desk, f"{broadcast.msg_id}_1", 1)
    reply = ask(desk, "result", msg_ids=list(ids.values()))
    assert reply.content["completed"] == [f"{broadcast.msg_id}_1"] and len(reply.content["pending"]) == 2
    assert set(ask(desk, "history").content["history"]) == set(ids.values())


def test_only_the_status_of_results(desk):
    done, waits = run(desk), run(desk, ends=False)
    reply = ask(desk, "result", msg_ids=[done, waits], status_only=True)
    assert reply.content == {"status": "ok", "pending": [waits], "completed": [done]} and not reply.buffers


def test_an_id_that_nobody_knows_is_a_key_error(desk):
    for query in ("result", "resubmit"):
        reply = ask(desk, query, msg_ids=["nobody"])
        assert reply.msg_type == f"{query}_reply"
        assert reply.content["status"] == "error" and reply.content["ename"] == "KeyError"


def test_without_a_database_there_is_status_and_a_reason(tmp_path):
    with a_database("none", tmp_path) as db:
        desk = a_desk(db)
        done, waits = run(desk), run(desk, ends=False)
        reply = ask(desk, "result", msg_ids=[done, waits], status_only=True)
        assert reply.content["completed"] == [done] and reply.content["pending"] == [waits]
        for query, content in (("result", {"msg_ids": [done]}), ("resubmit", {"msg_ids": [done]}), ("history", {})):
            assert ask(desk, query, **content).content["ename"] == "NoData"


# --- the database -----------------------------------------------------------------------------------------------------


def test_history_is_by_the_time_of_submission(desk):
    ids = [run(desk, ends=number % 2) for number in range(6)]
    assert ask(desk, "history").content == {"status": "ok", "history": ids}


def test_records_are_found_by_query(desk):
    ids = [run(desk, rank % 3, label=f"label {rank}") for rank in range(6)]
    waits = run(desk, 0, ends=False)

    def found(query):
        return [record["msg_id"] for record in ask(desk, "db", query=query, keys=["submitted"]).content["records"]]

    middle = ask(desk, "db", query={"msg_id": ids[2]}).content["records"][0]["submitted"]
    assert found({"submitted": {"$lt": middle}}) == ids[:2]
    assert found({"submitted": {"$gt": middle}}) == [*ids[3:], waits]
    assert found({"submitted": {"$gte": middle}}) == [*ids[2:], waits]
    assert found({"submitted": middle}) == [ids[2]]
    assert found({"completed": {"$gt": middle}}) == ids[2:], "what has not ended compares with nothing"
    assert found({"msg_id": {"$in": ids[::2]}}) == ids[::2]
    assert found({"label": {"$glob": "label [12]"}}) == ids[1:3]
    assert found({"engine_uuid": desk.roster.uuid_of(0), "queue": "mux"}) == [ids[0], ids[3], waits]
    assert found({"completed": None}) == [waits]
    assert found({}) == [*ids, waits]


def test_buffers_are_told_only_if_they_are_asked_for(desk):
    run(desk, buffers=[b"f", b"args"], result=[b"r"])
    plain = ask(desk, "db", query={}, keys=None)
    assert plain.content["buffer_lens"] is plain.content["result_buffer_lens"] is None and not plain.buffers
    assert not {"buffers", "result_buffers"} & set(plain.content["records"][0])
    both = ask(desk, "db", query={}, keys=["buffers", "result_buffers"])
    assert both.content["buffer_lens"] == [2] and both.content["result_buffer_lens"] == [1]
    assert [bytes(buffer) for buffer in both.buffers] == [b"f", b"args", b"r"]
    assert ask(desk, "db", query={}, keys="header").content["records"][0].keys() == {"msg_id", "header"}


def test_a_query_that_makes_no_sense_is_an_error(desk):
    run(desk)
    for content in (
        {"query": {"x": {"$what": 1}}},
        {"query": 7},
        {"query": {}, "keys": ["nothing"]},
    ):
        assert ask(desk, "db", **content).content["status"] == "error"


def test_records_are_purged_by_id_by_engine_or_all(desk):
    ids = [run(desk, rank % 3) for rank in range(9)]
    waits = run(desk, 1, ends=False)
    history = lambda: ask(desk, "history").content["history"]  # noqa: E731
    assert ask(desk, "purge", msg_ids=[ids[0]], engine_ids=[]).content == {"status": "ok"}
    assert history() == [*ids[1:], waits]
    assert ask(desk, "purge", msg_ids=[], engine_ids=[1]).content == {"status": "ok"}
    assert history() == [ids[2], ids[3], ids[5], ids[6], ids[8], waits]
    assert ask(desk, "purge", msg_ids="all").content == {"status": "ok"}
    assert history() == [waits]
    assert ask(desk, "result", msg_ids=[ids[2]], status_only=True).content["ename"] == "KeyError"
    end(desk, waits, 1)
    assert ask(desk, "result", msg_ids=[waits]).content["completed"] == [waits]


def test_what_has_not_ended_or_is_not_there_is_not_purged(desk):
    done, waits = run(desk), run(desk, ends=False)
    for content in ({"msg_ids": [done, waits]}, {"msg_ids": [done], "engine_ids": [9]}):
        reply = ask(desk, "purge", **content)
        assert reply.msg_type == "purge_reply" and reply.content["ename"] == "IndexError"
    assert ask(desk, "history").content["history"] == [done, waits]


def test_many_records_are_purged_at_once(desk):
    ids = [run(desk) for _ in range(700)]
    ask(desk, "history")
    assert ask(desk, "purge", msg_ids=ids).content == {"status": "ok"}
    assert ask(desk, "history").content["history"] == []


@pytest.mark.parametrize("ends", [True, False])
def test_a_task_runs_again_under_another_id(desk, ends):
    old = run(desk, queue="task", ends=ends, buffers=[b"f", b"args"], retries=3)
    reply = ask(desk, "resubmit", msg_ids=[old])
    new = reply.content["resubmitted"][old]
    (task,) = desk.tasks
    assert task.msg_id == new != old and task.idents == [] and task.session == "a-session"
    assert task.header.keys() == {"msg_id", "msg_type", "username", "session", "date", "version"}
    assert desk.messages.wire._decode(task.header_raw) == task.header
    assert [bytes(buffer) for buffer in task.buffers] == [b"f", b"args"]
    end(desk, new)
    assert ask(desk, "result", msg_ids=[new]).content["completed"] == [new]
    (record,) = ask(desk, "db", query={"msg_id": old}, keys=["resubmitted"]).content["records"]
    assert record["resubmitted"] == new


def test_a_task_that_ran_again_runs_yet_again(desk):
    msg_id = run(desk, queue="task")
    for _ in range(3):
        msg_id = ask(desk, "resubmit", msg_ids=[msg_id]).content["resubmitted"][msg_id]
    assert len({task.msg_id for task in desk.tasks}) == 3


def test_only_tasks_run_again(desk):
    reply = ask(desk, "resubmit", msg_ids=[run(desk)])
    assert reply.msg_type == "hub_error" and "load-balanced" in reply.content["evalue"]
    assert not desk.tasks


def test_a_database_that_fails_is_told_to_whoever_queries():
    desk = a_desk(BrokenDB())
    done = run(desk)
    for query, content in (
        ("history", {}),
        ("result", {"msg_ids": [done]}),
        ("db", {"query": {}}),
        ("purge", {"msg_ids": "all"}),
        ("resubmit", {"msg_ids": [done]}),
    ):
        reply = ask(desk, query, **content)
        assert reply.msg_type == "hub_error" and "no space left" in reply.content["evalue"]
    assert ask(desk, "queue", targets=None).content["0"]["completed"] == 1


# --- dask -------------------------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_a_dask_scheduler_is_started_and_our_engines_are_prepared_for_its_workers():
    pytest.importorskip("distributed")
    asyncio.run(_dask_comes_and_goes())


async def _dask_comes_and_goes():
    desk = a_desk(DictDB())
    arguments = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    for _ in range(2):
        desk.hub.answer(desk.messages.make("become_dask_request", {"scheduler_args": arguments}))
    await until(lambda: len(desk.exchange.calls) == 2)
    for pending, packed in desk.exchange.calls:
        function = Unpacker({}).function(packed.function, packed.blobs[packed.function])
        assert pending.targets == (0, 1, 2) and "stand_in" in repr(function)
        for rank in pending.targets:  # an engine that is lost meanwhile is no reason to wait
            pending.settle(rank, lost_outcome(EngineLost("it is gone")))
        pending.tell()
    first, second = (desk.messages.wire._decode(frames[6]) for frames in desk.sent.frames)
    assert first == second and first["address"].startswith("tcp://127.0.0.1:") and first["port"] > 0
    desk.sent.frames.clear()
    child = desk.hub._dask
    assert ask(desk, "stop_distributed").content == {"status": "ok"}
    await until(lambda: child.ended)
    assert ask(desk, "stop_distributed").content == {"status": "ok"}


@pytest.mark.processes
def test_a_dask_scheduler_that_cannot_be_started_says_why():
    pytest.importorskip("distributed")

    async def scenario():
        desk = a_desk(DictDB())
        desk.hub.answer(desk.messages.make("become_dask_request", {"scheduler_args": {"no_such_argument": 1}}))
        await until(lambda: desk.sent.frames)
        assert "no_such_argument" in desk.sent.only().content["evalue"]
        await until(lambda: desk.hub._dask._child.returncode is not None)

    asyncio.run(scenario())


async def until(condition):
    """Let the loop run until it holds."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


# --- anything at all --------------------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
values = st.recursive(
    scalars | st.sampled_from(["all", "m1", "$in", "$gt", "$nin", "completed", "msg_id", "2026-01-01T00:00:00Z"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$in", "$gt", "$nin", "$ne", "$mod", "msg_id", "buffers"]) | st.text(), inner
        )
    ),
    max_leaves=8,
)
contents = st.dictionaries(
    st.sampled_from(["targets", "msg_ids", "query", "keys", "engine_ids", "verbose", "status_only"]), values, max_size=4
)


@pytest.mark.parametrize("kind", ["memory", "disk", "none"])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.sampled_from(QUERIES), content=contents | values)
def test_whatever_is_asked_is_answered(tmp_path_factory, kind, query, content):
    with a_database(kind, tmp_path_factory.mktemp("db")) as db:
        desk = a_desk(db)
        run(desk, queue="task")
        run(desk, ends=False)
        request = desk.messages.make(f"{query}_request", content)
        desk.hub.answer(request)
        reply = desk.sent.only()
        assert reply.msg_type in (f"{query}_reply", "hub_error")
        assert reply.content["status"] in ("ok", "error")
        assert reply.parent == request.header
