"""Things happen in the order of their times, and at one time in the order they were asked for."""

from __future__ import annotations

from hiersched.simulation.timeline import Timeline


def never() -> bool:
    return False


def test_events_happen_in_the_order_of_their_times():
    timeline, seen = Timeline(), []
    for time_s in (3.0, 1.0, 2.0):
        timeline.at(time_s, lambda at_s: seen.append((at_s, timeline.now_s)), time_s)
    timeline.run(never, until_s=10.0)
    assert seen == [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    assert timeline.now_s == 10.0


def test_at_one_time_they_happen_in_the_order_they_were_asked_for():
    timeline, seen = Timeline(), []
    for name in "abc":
        timeline.at(1.0, seen.append, name)
    timeline.run(never, until_s=1.0)
    assert seen == ["a", "b", "c"]


def test_a_run_stops_when_the_condition_holds():
    timeline, seen = Timeline(), []
    for time_s in (1.0, 2.0, 3.0):
        timeline.at(time_s, seen.append, time_s)
    assert timeline.run(lambda: len(seen) == 2, until_s=10.0)
    assert timeline.now_s == 2.0
    assert len(timeline) == 1


def test_what_lies_beyond_the_end_of_a_run_waits_for_the_next():
    timeline, seen = Timeline(), []
    timeline.at(5.0, seen.append, "later")
    assert not timeline.run(never, until_s=4.0)
    assert seen == []
    timeline.run(never, until_s=6.0)
    assert seen == ["later"]


def test_the_digest_tells_runs_apart():
    def digest_of(times: list[float]) -> int:
        timeline = Timeline()
        for time_s in times:
            timeline.at(time_s, lambda _: None)
        timeline.run(never, until_s=10.0)
        return timeline.digest

    assert digest_of([1.0, 2.0]) == digest_of([1.0, 2.0])
    assert digest_of([1.0, 2.0]) != digest_of([2.0, 1.0])
