"""The door is a client of the core in its own process: what it asks leaves together, what it hears is told in order."""

from __future__ import annotations

from typing import Any

import pytest

from hiersched.data.serialize import Packer
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from tests.compat.stage import Stage
from tests.compat.test_calls import double


def test_it_knows_who_is_there_from_the_beginning(stage: Stage) -> None:
    assert bitset.ranks_of(stage.exchange.members) == [0, 1, 2, 3]
    assert stage.members == []


def test_it_is_let_in_before_anybody_is_there() -> None:
    stage = Stage(1)
    stage.root.loses(stage.engines[0].link)
    stage.root.does()
    stage.open()
    assert (stage.exchange.members, stage.members) == (0, [])  # nobody listens before the door stands
    stage.root.engines(0, birth=1)
    stage.step()
    stage.turn()
    assert 0 in stage.roster


def test_nothing_leaves_before_it_is_flushed(stage: Stage) -> None:
    for number in range(3):
        stage.apply(0, double, number)
    assert stage.asked[m.Call] == 0
    stage.exchange.flush()
    assert (stage.asked[m.Call], stage.asked[m.Blob]) == (3, 1)


def test_what_the_core_says_is_taken_in_on_the_next_turn(stage: Stage) -> None:
    stage.apply(0, double, 1)
    stage.turn()
    stage.engines[0].runs()
    assert len(stage.exchange) == 1  # the core has answered, within its own step
    stage.turn()
    assert len(stage.exchange) == 0


def test_orders_are_reported(stage: Stage) -> None:
    done: list[Any] = []
    stage.exchange.order([1, 2], "signal", 2, done.append)
    stage.turn()
    stage.turn()
    assert [type(effect).__name__ for effect in stage.root.does()] == ["Signal"]
    assert done == [[1, 2]]


def test_a_survey_tells_of_queues(stage: Stage) -> None:
    stage.apply(1, double, 1)
    stage.turn()
    asked: list[m.Census] = []
    stage.exchange.survey([0, 1], asked.append)
    stage.turn()
    ((census),) = asked
    assert {queue.rank: queue.calls for queue in census.queues} == {0: 0, 1: 1}


def test_an_answer_to_nobodys_question_is_nobodys(stage: Stage) -> None:
    stage.exchange._deliver(m.Executed(12_345, bitset.to_wire(0)), ())
    stage.exchange._deliver(m.Reply(99, [], []), ())
    stage.turn()


def test_a_call_has_what_it_needs_sent_along(stage: Stage) -> None:
    packed = Packer().pack_call(len, (b"x" * 100_000,))
    pending = stage.exchange.call([0], packed)
    stage.turn()
    (work, _) = stage.engines[0].held[0]
    assert isinstance(work, m.Call)
    assert set(work.needs) == set(packed.blobs) - {packed.function}
    assert pending.targets == (0,)


def test_engines_that_come_and_go_are_told_after_what_they_owed(stage: Stage) -> None:
    told: list[tuple[str, Any]] = []
    stage.apply(1, double, 1)
    stage.turn()
    answered, changed = stage.books.answered, stage.exchange._on_members
    stage.books.answered = lambda *args, **rest: told.append(("answer", answered(*args, **rest)))  # type: ignore[method-assign]
    stage.exchange._on_members = lambda news: told.append(("members", changed(news)))
    stage.engines[1].dies()
    stage.turn()
    stage.root.does()
    assert [what for what, _ in told] == ["answer", "members"]


def test_at_the_end_of_the_cluster_all_who_wait_are_told(stage: Stage) -> None:
    call, task = stage.apply(0, double, 1), stage.submit(double, 2)
    stage.turn()
    stage.exchange.stop("enough")
    stage.turn()
    answers = {said.to: said.content["ename"] for said in stage.heard("mux", "task")}
    assert answers == {call: "ClusterLost", task: "ClusterLost"}
    assert stage.root.does()


@pytest.mark.parametrize("running", [False, True])
def test_withdrawing_may_interrupt(stage: Stage, running: bool) -> None:
    stage.apply(0, double, 1)
    stage.turn()
    stage.engines[0].listen()
    work, _ = stage.engines[0].held.popleft()  # it has begun
    stage.exchange.cancel(stage.exchange.ids.withdrawn(stage.books.open), running=running)
    stage.turn()
    assert isinstance(work, m.Call)
    assert stage.engines[0].told == [m.Cancel([work.request], running)]


def test_after_its_close_nothing_is_told(stage: Stage) -> None:
    stage.apply(0, double, 1)
    stage.turn()
    stage.engines[0].runs()
    stage.exchange.close()
    stage.turn()
    assert stage.heard() == []
