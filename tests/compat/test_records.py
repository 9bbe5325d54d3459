"""The books of the front door: what is noted, what is written, and what is forgotten."""

import sqlite3
from datetime import datetime

import pytest
import zmq
from ipyparallel.controller.dictdb import DictDB

from hiersched.compat import records as module
from hiersched.compat.records import Records
from hiersched.compat.task_records import moment
from tests.compat.fakes import BrokenDB, Messages, a_database

KEYS = 23  # of a record of ipyparallel's


@pytest.fixture
def messages():
    return Messages()


@pytest.fixture(params=["memory", "disk"])
def records(request, tmp_path):
    with a_database(request.param, tmp_path) as db:
        yield Records(db)


def ends(records, messages, msg_id, *, uuid="e0", status="ok", buffers=()):
    """The request ends on an engine."""
    records.answered(
        msg_id,
        uuid=uuid,
        header={"date": messages.date(), "msg_type": "apply_reply"},
        metadata={"engine": uuid, "status": status, "started": messages.date()},
        content={"status": status},
        buffers=list(buffers),
    )


def test_a_request_is_in_the_database_from_the_first_query_on(records, messages):
    asked = messages.make("apply_request", metadata={"label": "mine"}, buffers=[b"f", b"args"])
    records.asked(asked, queue="mux", engine="e3")
    records.save()
    record = records.db.get_record(asked.msg_id)
    assert len(record) == KEYS
    assert record["label"] == "mine" and record["queue"] == "mux" and record["engine_uuid"] == "e3"
    assert record["client_uuid"] == "a-session"
    assert record["submitted"] == datetime.fromisoformat(asked.header["date"])
    assert record["completed"] is None
    assert [bytes(buffer) for buffer in record["buffers"]] == [b"f", b"args"]


@pytest.mark.parametrize("saved_before", [False, True])
def test_its_end_is_in_the_record(records, messages, saved_before):
    asked = messages.make("apply_request")
    records.asked(asked, queue="task")
    records.assigned(asked.msg_id, "e1")
    if saved_before:
        records.save()
    ends(records, messages, asked.msg_id, uuid="e1", buffers=[b"result"])
    records.save()
    record = records.db.get_record(asked.msg_id)
    assert record["engine_uuid"] == "e1"
    assert record["result_content"] == {"status": "ok"}
    assert [bytes(buffer) for buffer in record["result_buffers"]] == [b"result"]
    assert record["submitted"] < record["completed"] and record["started"] is not None
    assert not records.is_pending(asked.msg_id) and records.has_ended(asked.msg_id)


def test_frames_of_zmq_are_recorded_without_a_copy(messages):
    records = Records(DictDB())
    frame = zmq.Frame(b"x" * 100_000, copy=False)
    asked = messages.make("apply_request", buffers=[frame])
    records.asked(asked, queue="mux", engine="e0")
    records.save()
    (kept,) = records.db.get_record(asked.msg_id)["buffers"]
    assert isinstance(kept, memoryview) and kept.obj is frame.buffer.obj


def test_output_is_recorded_while_it_runs_when_it_ends_and_after(records, messages):
    asked = messages.make("execute_request")
    records.asked(asked, queue="mux", engine="e0")
    records.printed(asked.msg_id, "execute_input", {"code": "f()", "execution_count": 1})
    for text in ("a", "b"):
        records.printed(asked.msg_id, "stream", {"name": "stdout", "text": text})
    records.save()
    assert records.db.get_record(asked.msg_id)["stdout"] == "ab"
    records.printed(asked.msg_id, "stream", {"name": "stdout", "text": "c"})
    ends(records, messages, asked.msg_id)
    records.printed(asked.msg_id, "stream", {"name": "stderr", "text": "oh"})
    records.save()
    records.printed(asked.msg_id, "stream", {"name": "stdout", "text": "d"})
    records.save()
    record = records.db.get_record(asked.msg_id)
    assert (record["stdout"], record["stderr"], record["execute_input"]) == ("abcd", "oh", "f()")
    assert record["engine_uuid"] == "e0" and record["completed"]


def test_of_endless_output_the_beginning_is_recorded_and_that_is_said(messages, monkeypatch):
    monkeypatch.setattr("hiersched.compat.task_records.RECORD_OUTPUT_CHARS_MAX", 10)
    records = Records(DictDB())
    asked = messages.make("apply_request")
    records.asked(asked, queue="mux", engine="e0")
    for _ in range(5):
        records.printed(asked.msg_id, "stream", {"name": "stdout", "text": "12345678"})
    records.save()
    stdout = records.db.get_record(asked.msg_id)["stdout"]
    assert stdout.startswith("1234567812\n[more was printed") and len(stdout) < 60


def test_a_broadcast_is_in_the_history_and_in_the_queues(records, messages):
    asked = messages.make("apply_request", buffers=[b"large"])
    ids = {f"e{rank}": f"{asked.msg_id}_e{rank}" for rank in range(4)}
    records.asked_all(asked, ids)
    assert records.backlog().queue == {uuid: [msg_id] for uuid, msg_id in ids.items()}
    ends(records, messages, ids["e2"], uuid="e2")
    records.printed(ids["e1"], "stream", {"name": "stdout", "text": "hi"})
    records.save()
    assert sorted(records.db.get_history()) == sorted(ids.values())
    record = records.db.get_record(ids["e1"])
    assert record["engine_uuid"] == "e1" and record["stdout"] == "hi" and record["header"]["msg_id"] == ids["e1"]
    assert not record["buffers"], "it would be counted, or written, once for each engine"
    for uuid in ("e0", "e1", "e3"):
        ends(records, messages, ids[uuid], uuid=uuid)
    assert records.backlog().queue == {}
    assert dict(records.completed) == dict.fromkeys(ids, 1)
    records.save()
    assert all(records.db.get_record(msg_id)["completed"] for msg_id in ids.values())
    assert not records._broadcasts and not records._pending


def test_a_broadcast_with_one_answer_is_one_record_and_every_engine_has_it(records, messages):
    asked = messages.make("apply_request")
    records.asked_all(asked, dict.fromkeys(["e0", "e1"], asked.msg_id))
    assert records.backlog().queue == {"e0": [asked.msg_id], "e1": [asked.msg_id]}
    ends(records, messages, asked.msg_id, uuid=None, buffers=[b"r0", b"r1"])
    records.save()
    assert records.db.get_history() == [asked.msg_id]
    assert dict(records.completed) == {"e0": 1, "e1": 1}
    assert not records._broadcasts


def test_tasks_wait_for_an_engine_then_are_its_own(records, messages):
    asked = messages.make("apply_request")
    records.asked(asked, queue="task")
    assert records.backlog().unassigned == [asked.msg_id]
    records.assigned(asked.msg_id, "e7")
    backlog = records.backlog()
    assert backlog.unassigned == [] and backlog.tasks == {"e7": [asked.msg_id]}
    ends(records, messages, asked.msg_id, uuid="e7", status="aborted")
    assert records.completed["e7"] == 0, "it was withdrawn"


def test_memory_holds_no_more_records_than_its_database_would(messages):
    db = DictDB(record_limit=10)
    records = Records(db)
    requests = [messages.make("apply_request", buffers=[b"x"]) for _ in range(100)]
    for request in requests[:5]:
        records.asked(request, queue="mux", engine="e0")
    records.save()
    for request in requests[5:]:
        records.asked(request, queue="mux", engine="e0")
    for request in requests:
        ends(records, messages, request.msg_id)
        assert len(records._done) <= 10
    records.save()
    assert 9 <= len(db.get_history()) <= 10
    assert db.get_history()[-1] == requests[-1].msg_id
    assert records.failures == records.dropped == records._held_bytes == 0


def test_large_payloads_go_to_the_database_which_has_its_own_bound(messages, monkeypatch):
    monkeypatch.setattr(module, "RECORDS_UNSAVED_BYTES_MAX", 1000)
    records = Records(DictDB(size_limit=5000))
    for _ in range(50):
        asked = messages.make("apply_request", buffers=[b"x" * 300])
        records.asked(asked, queue="mux", engine="e0")
        ends(records, messages, asked.msg_id, buffers=[b"y" * 300])
        assert records._held_bytes <= 1600
    records.save()
    assert records.db._buffer_bytes <= 5000 and records._held_bytes == 0


def test_what_has_not_ended_for_too_long_is_known_to_the_database_only(records, messages, monkeypatch):
    monkeypatch.setattr(module, "RECORDS_PENDING_MAX", 16)
    requests = [messages.make("apply_request") for _ in range(40)]
    for request in requests:
        records.asked(request, queue="mux", engine="e0")
        assert len(records._pending) <= 17
    assert not records.is_pending(requests[0].msg_id)
    ends(records, messages, requests[0].msg_id)
    records.save()
    assert records.db.get_record(requests[0].msg_id)["completed"]


def test_a_database_that_fails_costs_records_only(messages, caplog):
    records = Records(BrokenDB())
    for _ in range(3000):
        asked = messages.make("apply_request", buffers=[b"x"])
        records.asked(asked, queue="mux", engine="e0")
        records.printed(asked.msg_id, "stream", {"name": "stdout", "text": "hi"})
        ends(records, messages, asked.msg_id)
    with pytest.raises(OSError, match="no space left"):
        records.save()
    records.keep_on_disk()
    assert len(records._done) <= module.RECORDS_UNSAVED_MAX
    assert records.failures and records.dropped and records.completed["e0"] == 3000
    records.close()
    assert len(caplog.records) == 1 and "no space left" in caplog.text


def test_a_record_that_cannot_be_written_does_not_hold_up_the_others(tmp_path, messages):
    with a_database("disk", tmp_path) as db:
        records = Records(db)
        bad, good = (messages.make("apply_request", content) for content in ({"x": object()}, {}))
        for asked in (bad, good):
            records.asked(asked, queue="mux", engine="e0")
            ends(records, messages, asked.msg_id)
        with pytest.raises(TypeError):
            records.save()
        records.save()
        assert db.get_history() == [good.msg_id]


def test_a_database_that_another_holds_is_not_waited_for(tmp_path, messages):
    with a_database("disk", tmp_path) as db:
        records = Records(db)
        with sqlite3.connect(tmp_path / "tasks.db") as other:
            other.execute("BEGIN EXCLUSIVE")
            asked = messages.make("apply_request")
            records.asked(asked, queue="mux", engine="e0")
            records.keep_on_disk()
            assert records.failures == 1
            other.rollback()
        records.asked(asked, queue="mux", engine="e0")
        records.save()
        assert db.get_history() == [asked.msg_id]


def test_an_id_that_is_used_again_takes_over_its_record(records, messages):
    asked = messages.make("apply_request")
    for status in ("error", "ok"):
        records.asked(asked, queue="mux", engine="e0")
        ends(records, messages, asked.msg_id, status=status)
        records.save()
    assert records.db.get_record(asked.msg_id)["result_content"] == {"status": "ok"}


def test_where_nothing_is_kept_nothing_is_held(tmp_path, messages):
    with a_database("none", tmp_path) as db:
        records = Records(db)
        asked = messages.make("apply_request", buffers=[b"x"])
        records.asked(asked, queue="mux", engine="e0")
        records.printed(asked.msg_id, "stream", {"name": "stdout", "text": "hi"})
        assert records.is_pending(asked.msg_id)
        ends(records, messages, asked.msg_id)
        records.save()
        assert not records._done and not records._held_bytes and records.has_ended(asked.msg_id)


def test_dates_that_are_none_become_the_time_of_arrival():
    assert moment("yesterday", 0.0) == moment("1970-01-01T00:00:00Z")
    assert moment(17, 0.0) == moment("1970-01-01T00:00:00+00:00")
    assert moment("2026-01-01T00:00:00").tzinfo is not None
