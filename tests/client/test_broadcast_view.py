"""A broadcast view is a direct view whose results are always lists."""

from __future__ import annotations

from hiersched.client.broadcast_view import BroadcastView


def test_results_are_lists_even_of_one(client):
    view = BroadcastView(client, 2)
    assert view.targets == [2]
    assert view.apply_sync(abs, -3) == [3]
    view.push({"a": 1}, block=True)
    assert view["a"] == [1]
    assert view.pull("a", targets=2, block=True) == [1]
    assert view.execute("1", targets=2, block=True).engine_id == [2]


def test_results_come_in_the_order_of_the_targets(client):
    ids = [3, 0, 2]
    view = BroadcastView(client, ids, is_coalescing=True, block=True)
    view.scatter("rank", ids, flatten=True)
    assert view["rank"] == ids
    assert view.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    assert view.gather("rank") == ids


def test_all_follows_the_cluster(session, client):
    view = BroadcastView(client)
    assert (view.targets, view.is_coalescing) == ("all", False)
    session.lose(0)
    assert view.apply_sync(abs, -1) == [1] * 3
