"""The counters of a subtree, merged level by level on the way up."""

from __future__ import annotations

from hiersched.core.effects import PARENT, ChildFailed, Close, LinkDown, Started
from hiersched.core.topology import Child
from hiersched.limits import INQUIRIES_OPEN_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import Transcript


def test_a_scheduler_of_engines_answers_at_once(leaf):
    leaf.engines(4, 5)
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Survey(7))
    (census,) = leaf.says(PARENT)
    ((level, schedulers, totals, maxima),) = census.levels
    assert (census.request, level, schedulers) == (7, 1, 1)
    assert totals == maxima
    assert totals["engines"] == 2


def test_what_waits_and_what_is_held_is_counted(root):
    client = root.client()
    root.hears(client, m.Blob(b"D" * 16), b"twelve bytes")
    assert root.counts(client, "blob_bytes") == 12
    assert root.counts(client, "requests_open") == 0
    assert root.counts(client, "messages_in") == 5
    assert root.counts(client, "messages_out") == 4


def test_engines_that_were_started_and_have_not_come_are_counted(root):
    root.happens(Started())
    root.does()
    client = root.client()
    assert root.counts(client, "engines_starting") == 8
    root.engines(0, 3)
    root.drains()
    root.says(client)
    assert root.counts(client, "engines_starting") == 6
    root.happens(ChildFailed(Child("engine", 7, 8, "here", 1), "killed"))
    root.drains()
    root.says(client)
    assert root.counts(client, "engines_starting") == 5


def surveyed(root: Transcript) -> tuple[bytes, bytes, bytes]:
    """(client, child scheduler, child scheduler): the children have been asked for their counters."""
    low, high = root.scheduler(0, 4), root.scheduler(4, 8)
    client = root.client()
    root.hears(client, m.Survey(7))
    assert root.says(low) == root.says(high) == [m.Survey(7)]
    return client, low, high


def test_schedulers_of_one_level_are_one_row(root):
    client, low, high = surveyed(root)
    root.hears(low, m.Census(7, [(1, 1, {"late": 3}, {"late": 3})]))
    assert root.says(client) == []
    root.hears(high, m.Census(7, [(1, 1, {"late": 1}, {"late": 1}), (2, 9, {"late": 4}, {"late": 2})]))
    (census,) = root.says(client)
    assert census.request == 7
    assert [row[:2] for row in census.levels] == [(0, 1), (1, 2), (2, 9)]
    assert census.levels[1][2:] == ({"late": 4}, {"late": 3})


def test_nobody_waits_for_the_counters_of_a_scheduler_that_is_lost(root):
    client, low, high = surveyed(root)
    root.happens(LinkDown(low, "killed"))
    root.hears(high, m.Census(7, [(1, 1, {}, {})]))
    (census,) = root.says(client)
    assert [row[:2] for row in census.levels] == [(0, 1), (1, 1)]
    assert root.does() == [Close(low)]
    root.drains()
    assert len(root.says(client)) == 1


def test_a_scheduler_is_counted_once(root):
    client, low, high = surveyed(root)
    root.hears(low, m.Census(7, [(1, 1, {}, {})]))
    root.hears(low, m.Census(7, [(1, 1, {}, {})]))
    assert root.says(client) == []
    root.hears(high, m.Census(7, [(1, 1, {}, {})]))
    root.hears(high, m.Census(7, [(1, 1, {}, {})]))
    (census,) = root.says(client)
    assert [row[:2] for row in census.levels] == [(0, 1), (1, 2)]


def test_so_many_surveys_are_open_and_no_more(root):
    client, low, high = surveyed(root)
    for request in range(100, 100 + INQUIRIES_OPEN_MAX):
        root.hears(client, m.Survey(request))
    (census,) = root.says(client)
    assert (census.request, [row[:2] for row in census.levels]) == (99 + INQUIRIES_OPEN_MAX, [(0, 1)])
    assert len(root.says(low)) == len(root.says(high)) == INQUIRIES_OPEN_MAX - 1


def test_a_client_that_has_gone_gets_no_counters(root):
    client, low, high = surveyed(root)
    root.hears(client, m.Bye("done"))
    for child in (low, high):
        root.hears(child, m.Census(7, [(1, 1, {}, {})]))
    assert root.does() == [Close(client)]
