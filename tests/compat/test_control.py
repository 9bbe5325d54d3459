"""What old clients do to engines beside calling functions on them."""

import os
import signal
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersched.client.pending import Pending
from hiersched.compat.control import Control, print_usage
from hiersched.data.outcomes import lost_outcome, pack_outcome_value, unpack_outcome
from hiersched.data.outputs import Text
from hiersched.data.serialize import Unpacker
from hiersched.errors import EngineLost
from tests.compat.fakes import CLIENT, FakeExchange, Mailbox, Messages, a_roster

RANK = 2


@pytest.fixture
def desk():
    return a_desk()


def a_desk():
    desk = SimpleNamespace(sent=Mailbox(), messages=Messages(), roster=a_roster(4), exchange=FakeExchange())
    desk.control = Control(desk.messages.wire, desk.roster, desk.exchange, send=desk.sent)
    return desk


def request(desk, kind, rank=RANK, **content):
    """A request goes to an engine."""
    uuid = desk.roster.uuid_of(rank).encode() if rank in desk.roster else b"nobody"
    message = desk.messages.make(f"{kind}_request", content, idents=[CLIENT, uuid])
    desk.control.answer(message)
    return message


def ask(desk, kind, rank=RANK, **content):
    """The content of the reply."""
    message = request(desk, kind, rank, **content)
    return reply_to(desk, message, f"{kind}_reply")


def reply_to(desk, message, kind):
    reply = desk.sent.only()
    assert reply.msg_type == kind and reply.parent == message.header and reply.idents == message.idents
    return reply.content


@pytest.mark.parametrize("sig", [signal.SIGUSR1, int(signal.SIGUSR1), "SIGUSR1"])
def test_a_signal_goes_to_the_engine(desk, sig):
    assert ask(desk, "signal", sig=sig) == {"status": "ok"}
    assert desk.exchange.orders == [([RANK], "signal", signal.SIGUSR1)]


def test_signal_0_asks_whether_the_engine_is_alive(desk):
    assert ask(desk, "signal", sig=0) == {"status": "ok"}
    assert desk.exchange.orders == [([RANK], "signal", 0)]


def test_an_interrupt_is_a_signal(desk):
    assert ask(desk, "interrupt") == {"status": "ok"}
    assert desk.exchange.orders == [([RANK], "signal", signal.SIGINT)]


@pytest.mark.parametrize(("restart", "verb"), [(False, "stop"), (True, "restart")])
def test_an_engine_ends_or_begins_anew(desk, restart, verb):
    assert ask(desk, "shutdown", restart=restart) == {"status": "ok", "restart": restart}
    assert desk.exchange.orders == [([RANK], verb, 0)]


def test_an_engine_that_is_gone_when_the_order_comes_is_an_error(desk):
    desk.exchange.obeyed = False
    content = ask(desk, "shutdown")
    assert content["status"] == "error" and content["ename"] == "EngineError"


def test_requests_are_withdrawn_that_may_run_on_the_engine(desk):
    here, elsewhere, task = Pending(1, (RANK,)), Pending(2, (RANK + 1,)), Pending(3, ())
    for pending, name in ((here, "here"), (elsewhere, "elsewhere"), (task, "task")):
        desk.exchange.ids.enter(pending, name)
    assert ask(desk, "abort", msg_ids=["here", "elsewhere", "task", "nothing"]) == {"status": "ok"}
    assert {pending.id for pending in desk.exchange.cancelled} == {1, 3}
    assert ask(desk, "abort", msg_ids="elsewhere", rank=RANK + 1) == {"status": "ok"}
    assert desk.exchange.cancelled[-1] is elsewhere


def test_without_ids_all_is_withdrawn_that_waits_for_the_engine(desk):
    here, elsewhere, many = Pending(1, (RANK,)), Pending(2, (RANK + 1,)), Pending(3, (RANK, RANK + 1))
    for pending, name in ((here, "here"), (elsewhere, "elsewhere"), (many, "many")):
        desk.exchange.ids.enter(pending, name)
    assert ask(desk, "abort") == {"status": "ok"}
    assert desk.exchange.cancelled == [here]


def test_a_namespace_is_emptied_by_a_call(desk):
    message = request(desk, "clear")
    ((pending, packed),) = desk.exchange.calls
    assert pending.targets == (RANK,) and desk.exchange.flushed
    assert "clear" in repr(Unpacker({}).function(packed.function, packed.blobs[packed.function]))
    assert not desk.sent.frames, "it is not done yet"
    end(pending, None)
    assert reply_to(desk, message, "clear_reply") == {"status": "ok"}


def test_the_usage_of_an_engine_is_told_in_the_words_of_ipykernel(desk, capsys):
    message = request(desk, "usage")
    print("somebody else prints too")
    print_usage()
    pending = desk.exchange.calls[0][0]
    pending.put_output([RANK], [Text("stdout", capsys.readouterr().out)])
    end(pending, None)
    content = reply_to(desk, message, "usage_reply")
    assert content["pid"] == os.getpid() and content["kernel_memory"] > 0
    assert set(content) == {
        "status",
        "hostname",
        "pid",
        "kernel_cpu",
        "kernel_memory",
        "host_cpu_percent",
        "cpu_count",
        "host_virtual_memory",
    }


def test_usage_that_cannot_be_read_is_an_error(desk):
    message = request(desk, "usage")
    end(desk.exchange.calls[0][0], None)
    assert reply_to(desk, message, "usage_reply")["status"] == "error"


def test_an_engine_that_is_lost_meanwhile_is_an_error(desk):
    message = request(desk, "clear")
    pending = desk.exchange.calls[0][0]
    pending.settle(RANK, lost_outcome(EngineLost("it is gone")))
    pending.tell()
    assert reply_to(desk, message, "clear_reply")["ename"] == "EngineError"


def test_an_engine_that_is_not_there_is_an_error(desk):
    content = ask(desk, "signal", rank=9, sig=1)
    assert content["status"] == "error" and "nobody" in content["evalue"]
    assert not desk.exchange.orders


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("signal", {"sig": "SIGNOTHING"}),
        ("signal", {"sig": 12345}),
        ("signal", {"sig": None}),
        ("signal", {}),
        ("abort", {"msg_ids": 5}),
        ("debug", {}),
        ("create_subshell", {}),
    ],
)
def test_what_cannot_be_done_is_an_error(desk, kind, content):
    assert ask(desk, kind, **content)["status"] == "error"
    assert not desk.exchange.orders and not desk.exchange.cancelled


def end(pending, value):
    pending.settle(RANK, unpack_outcome(pack_outcome_value(value, started=0.0, ended=0.0).frames))
    pending.tell()


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["signal", "abort", "shutdown", "interrupt", "clear", "usage", "debug"]) | st.text(max_size=9),
    content=st.dictionaries(st.sampled_from(["sig", "msg_ids", "restart"]), values) | values,
    uuid=st.binary(max_size=20) | st.none(),
)
def test_whatever_is_asked_is_answered_or_under_way(kind, content, uuid):
    desk = a_desk()
    idents = [CLIENT, desk.roster.uuid_of(RANK).encode() if uuid is None else uuid]
    message = desk.messages.make(f"{kind}_request", content, idents=idents)
    desk.control.answer(message)
    assert len(desk.sent.frames) + len(desk.exchange.calls) == 1
