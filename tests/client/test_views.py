"""Views know their calls while these are open, and hand to the client what is the client's to do."""

from __future__ import annotations

import pytest

from hiersched.client.balanced_view import LoadBalancedView
from hiersched.client.direct_view import DirectView

# --- what was called --------------------------------------------------------------------------------------------------


def test_a_view_lists_its_calls(session, view):
    result = view.apply_async(abs, -3)
    assert view.history == [result.msg_ids[0].partition(":")[0]]
    assert len(view.outstanding) == 4
    session.hold(2)
    session.run_all()
    assert view.outstanding == {result.msg_ids[2]}
    session.release()
    session.run_all()
    assert view.outstanding == set()
    assert len(view.history) == 1


def test_calls_of_every_kind_are_on_record(session, view, balanced):
    view.apply_sync(abs, -3)
    view.execute("1")
    view["a"] = 1
    view.scatter("b", range(4))
    view.gather("b")
    view.map(abs, range(4))
    assert len(view.history) == 6
    balanced.apply_sync(abs, -3)
    balanced.map(abs, range(8), chunksize=4)
    balanced.executor.submit(abs, -3)
    assert len(balanced.history) == 4


def test_each_view_has_its_own(session, client):
    one, other = DirectView(client, 0), DirectView(client, 0)
    one.apply_async(abs, -3)
    assert (len(one.history), other.history) == (1, [])
    assert len(one.with_flags(block=True).history) == 1


def test_waiting_for_all_includes_maps_that_are_still_being_sent(session, balanced):
    result = balanced.map_async(abs, range(100))
    single = balanced.apply_async(abs, -3)
    assert balanced.wait() is True
    assert result.done()
    assert single.done()


def test_waiting_may_be_in_vain(session, view, balanced):
    session.hold(0, 1, 2, 3)
    view.apply_async(abs, -3)
    balanced.map_async(abs, range(100))
    assert view.wait(timeout=0.1) is False
    assert balanced.wait(timeout=0.1) is False


def test_calls_are_named_by_their_place(client, view):
    result = view.apply_async(abs, -1)
    view.apply_async(abs, -2)
    first, second = view.history
    assert view.wait(0, timeout=1) == "what wait gives"
    assert view.wait([result, -1, "17"]) == "what wait gives"
    assert view.get_result() == "what get_result gives"
    assert view.get_result(result, block=True) == "what get_result gives"
    assert client.asked == [
        ("wait", (first, 1), {}),
        ("wait", ([result, second, "17"], -1), {}),
        ("get_result", (second,), {"block": False, "owner": True}),
        ("get_result", (result,), {"block": True, "owner": True}),
    ]
    with pytest.raises(IndexError, match="no call 2: this view has 2 calls: "):
        view.get_result(2)


def test_all_of_a_views_calls_can_be_withdrawn(session, client, balanced):
    session.hold(0, 1, 2, 3)
    result = balanced.map_async(abs, range(100))
    single = balanced.apply_async(abs, -3)
    lazy = balanced.imap(abs, range(100))
    balanced.abort(block=True)
    assert result.done()
    assert single.cancelled()
    assert session.jobs == []
    assert list(lazy) == []


def test_calls_on_some_engines_can_be_withdrawn(session, client):
    view = DirectView(client, [0, 1])
    first = view.apply_async(abs, -1)
    with view.temp_flags(targets=2):
        second = view.apply_async(abs, -1)
    view.abort(targets=[1, 3])
    assert first.cancelled()
    assert second.get() == 1


def test_chosen_calls_can_be_withdrawn(client, view):
    result = view.apply_async(abs, -3)
    view.abort(result, targets=[0, 1])
    view.abort([-1, "7-1"])
    assert client.asked == [
        ("abort", (result,), {"targets": [0, 1], "block": False}),
        ("abort", ([view.history[-1], "7-1"],), {"targets": None, "block": False}),
    ]


def test_calls_can_be_forgotten(view):
    results = [view.apply_async(abs, -number) for number in range(4)]
    view.purge_results(results[0])
    view.purge_results([results[1], results[2].msg_ids[1]])
    assert view.history == [results[3].msg_ids[0].partition(":")[0]]
    view.purge_results("all")
    assert view.history == []
    view.apply_async(abs, 1)
    view.purge_results(targets="all")
    assert view.history == []


# --- what the client does ---------------------------------------------------------------------------------------------


def test_control_goes_to_the_views_engines(client):
    view = DirectView(client, [1, 2], block=True)
    view.queue_status(verbose=True)
    view.clear()
    view.clear(targets=1, block=False)
    view.shutdown(restart=True)
    view.kill()
    assert client.asked == [
        ("queue_status", (), {"targets": [1, 2], "verbose": True}),
        ("clear", (), {"targets": [1, 2], "block": True}),
        ("clear", (), {"targets": 1, "block": False}),
        ("shutdown", (), {"targets": [1, 2], "restart": True, "hub": False, "block": True}),
        ("send_signal", ("SIGKILL",), {"targets": [1, 2], "block": True}),
    ]


# --- flags ------------------------------------------------------------------------------------------------------------


def test_a_view_blocks_as_its_client_does(client):
    client.block = True
    assert DirectView(client).block is True
    assert LoadBalancedView(client).apply(abs, -3) == 3
    assert DirectView(client, 0, block=False, label="mine").label == "mine"


def test_flags_hold_until_the_end_of_the_block_even_if_it_fails(view):
    with pytest.raises(RuntimeError), view.temp_flags(block=True, targets=[0], label="x"):
        view.set_flags(track=True)
        raise RuntimeError
    assert (view.block, view.targets, view.label, view.track) == (False, "all", None, False)


def test_flags_come_back_though_an_engine_is_gone(session, client):
    view = DirectView(client, [0, 1])
    with view.temp_flags(block=True):
        session.lose(0)
    assert view.targets == [0, 1]


def test_a_view_can_be_had_with_other_flags(view):
    blocking = view.with_flags(block=True, targets=1)
    assert blocking.apply(abs, -3) == 3
    assert (view.block, view.targets) == (False, "all")


def test_functions_can_be_shipped_by_value(session, view):
    view.use_dill()
    assert session.by_value is True
    view.use_pickle()
    assert session.by_value is False
    view.use_cloudpickle()
    assert session.by_value is True


def test_spinning_does_no_harm(view):
    view.spin()
