"""An engine whose scheduler is gone goes on under the nearest ancestor that lives, with all that it has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hiersched.data.outcomes import Outcome
from hiersched.protocol import messages as m
from tests.hellos import held
from tests.nodes import deeds
from tests.nodes.schedulers import Cluster, Scheduler
from tests.patience import until


def value_of(outcome: Outcome | m.Loss) -> object:
    assert isinstance(outcome, Outcome)
    return outcome.value


def test_an_idle_engine_climbs_when_its_doorbell_rings(cluster: Cluster) -> None:
    answered = cluster.parent.call(abs, -1)
    assert value_of(cluster.parent.reply(answered)) == 1
    cluster.parent.die()
    cluster.ring()
    hello, _ = cluster.above[1].expect(m.Hello)
    assert (hello.role, hello.first, hello.pid, held(hello)) == ("engine", 3, cluster.pid, [answered])
    assert value_of(cluster.above[1].reply(answered)) == 1
    assert value_of(cluster.above[1].reply(cluster.above[1].call(abs, -2))) == 2


def test_a_busy_engine_climbs_and_what_runs_goes_on(cluster: Cluster, gate: Path) -> None:
    first, second = cluster.parent, cluster.above[1]
    running = first.call(deeds.hold, str(gate), "value")
    behind, dropped = first.tasks((abs, -1), (abs, -2))
    first.send(m.Cancel([dropped]))
    until((gate / "begun").exists, "the engine began")
    cluster.ring()
    assert first.result(dropped)[0] == m.CANCELLED  # so the other was read too
    first.die()
    cluster.ring()
    hello, _ = second.expect(m.Hello)
    assert sorted(held(hello)) == [running, behind, dropped]
    (gate / "go").touch()
    assert value_of(second.reply(running)) == "value"
    assert second.result(behind)[1].value == 1


def test_what_was_not_read_has_never_happened(cluster: Cluster, gate: Path) -> None:
    running = cluster.parent.call(deeds.hold, str(gate), "value")
    until((gate / "begun").exists, "the engine began")
    unread = cluster.parent.call(abs, -1)
    cluster.parent.die()
    cluster.ring()
    hello, _ = cluster.above[1].expect(m.Hello)
    assert unread not in held(hello)
    (gate / "go").touch()
    assert value_of(cluster.above[1].reply(running)) == "value"


def test_ancestors_that_are_gone_too_are_passed_by(start: Callable[..., Cluster]) -> None:
    cluster = start()
    cluster.above[1].die()
    cluster.parent.die()
    cluster.ring()
    assert held(cluster.above[0].expect(m.Hello)[0]) == []


def test_it_climbs_as_often_as_it_must(cluster: Cluster) -> None:
    request = cluster.parent.call(abs, -1)
    cluster.parent.reply(request)
    for level in (1, 0):
        cluster.above[level + 1].die()
        cluster.ring()
        assert held(cluster.above[level].expect(m.Hello)[0]) == [request]
        cluster.above[level].send(m.Welcome(0, (0, b""), {"keep": level > 0}))


@pytest.mark.parametrize("busy", [True, False])
def test_without_any_ancestor_it_ends(start: Callable[..., Cluster], gate: Path, busy: bool) -> None:
    cluster = start((0,))
    if busy:
        cluster.parent.call(deeds.hold, str(gate))
        until((gate / "begun").exists, "the engine began")
    cluster.parent.die()
    cluster.ring()
    assert cluster.ended()


def test_what_the_root_has_is_not_sent_again(cluster: Cluster) -> None:
    first, second = cluster.parent, cluster.above[1]
    known, unknown = first.call(abs, -1), first.call(abs, -2)
    tasks = first.tasks((abs, -3), (abs, -4))
    for request in (known, unknown):
        first.reply(request)
    for task in tasks:
        first.result(task)
    first.send(m.Ack(len(tasks), [known]))
    assert value_of(first.reply(first.call(abs, -5))) == 5  # so the acknowledgement was read
    first.die()
    cluster.ring()
    holds = held(second.expect(m.Hello)[0])
    assert unknown in holds
    assert known not in holds
    assert not set(tasks) & set(holds)


def test_data_that_is_waited_for_is_asked_for_again(cluster: Cluster) -> None:
    digest = b"d" * 16
    number = 77
    cluster.parent.send(m.Tasks([m.Task(number, b"f" * 16, [digest], b"x", 0)]))
    assert sorted(cluster.parent.expect(m.Want)[0].digests) == [digest, b"f" * 16]
    cluster.parent.die()
    cluster.ring()
    second: Scheduler = cluster.above[1]
    assert held(second.expect(m.Hello)[0]) == [number]
    assert digest in second.expect(m.Want)[0].digests
    second.send(m.Missing([digest]))
    assert second.result(number)[0] == m.BLOB_LOST
