"""Work goes on while schedulers are lost, tasks are withdrawn, and clients leave and join."""

from __future__ import annotations

import msgspec
import pytest

from hiersched.core.replacements import ALWAYS
from hiersched.core.wording import GOES_ON
from hiersched.limits import RESULT_GIVEN_BYTES_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import ranks, task
from tests.core.work_transcript import CLIENT, WorkTranscript, asking


@pytest.fixture
def root() -> WorkTranscript:
    return WorkTranscript()


# --- schedulers are lost ----------------------------------------------------------------------------------------------


@pytest.fixture
def orphaned(root):
    """A root whose only scheduler is lost with tasks 0 to 3 in flight there; its engines 0 and 1 live, task 4 waits."""
    root.lost = root.scheduler(0, 4)
    root.gets(*[asking(number, retries=1) for number in range(4)], task(4))
    assert root.hands_out() == {0: [0, 1, 2, 3]}
    root.membership.remove_child(root.lost.link)
    root.membership.members |= 0b11  # the orphans are awaited
    return root


def firsts(*numbers: int) -> list[m.Try]:
    """These tasks, tried for the first time."""
    return [(number, 0) for number in numbers]


def test_what_an_orphan_holds_is_in_flight_there(orphaned):
    first, second = orphaned.engines(0, 1)
    orphaned.work.adopt(orphaned.lost, first, firsts(2, 0, 77))
    assert (first.tasks, first.load, orphaned.lost.tasks) == ({0, 2}, 2.0, {1, 3})
    assert orphaned.hands_out() == {second.first: [4]}
    orphaned.ends(0, rank=0)
    orphaned.ends(2, rank=0)
    assert orphaned.codes() == {0: 0, 2: 0}


def test_what_nobody_holds_runs_first_if_it_surely_never_ran(orphaned):
    first, second = orphaned.engines(0, 1)
    orphaned.work.adopt(orphaned.lost, first, firsts(0))
    orphaned.work.settle_lost(orphaned.lost, doubtful_before=0, reason="killed")
    assert orphaned.hands_out() == {1: [1]}
    orphaned.ends(1, rank=1)
    assert orphaned.hands_out() == {1: [2]}
    assert (orphaned.lost.tasks, orphaned.lost.load, second.tasks) == (set(), 0.0, {2})


def test_the_answer_to_an_earlier_try_that_an_orphan_keeps_is_not_taken_for_that_to_the_present_one(root):
    root.lost = root.scheduler(0, 4)
    root.gets(asking(0, retries=1))
    root.hands_out()
    root.ends(0, rank=0, code=m.RAISED)
    assert [task.attempt for task in root.gives()] == [1]
    root.membership.remove_child(root.lost.link)
    first, second = root.engines(0, 1)
    root.work.adopt(root.lost, first, firsts(0))  # it has not heard that the root has its answer
    root.work.on_results(first, m.Results([m.Result(0, 0, 1, m.RAISED, b"first", 0)]), ())
    assert root.outbox.counts["late"] == 1
    root.work.adopt(root.lost, second, [(0, 1)])
    root.ends(0, rank=1)
    assert root.tells() == [(0, 0, "value")]


def test_what_nobody_holds_and_may_have_run_is_lost_and_costs_a_retry(orphaned):
    orphaned.engines(0, 1)
    orphaned.work.settle_lost(orphaned.lost, doubtful_before=ALWAYS, reason="killed")
    assert orphaned.hands_out() == {0: [0], 1: [1]}
    orphaned.ends(0, rank=0, code=m.ENGINE_LOST, payload=b"killed again")
    assert orphaned.hands_out() == {0: [2]}
    assert orphaned.tells() == [(0, m.ENGINE_LOST, "killed again")]


def test_what_was_sent_since_a_replacement_was_known_runs_elsewhere_and_what_was_sent_before_is_in_doubt(root):
    lost = root.scheduler(0, 2)
    root.gets(task(0))
    root.hands_out()
    root.membership.replacements.note([(1, 7)])
    root.gets(task(1))
    assert root.hands_out() == {0: [1]}
    root.membership.remove_child(lost.link)
    root.engines(0, 1)
    root.work.settle_lost(lost, doubtful_before=root.membership.replacements.epoch, reason="killed")
    assert root.hands_out() == {0: [1]}
    assert root.codes() == {0: m.ENGINE_LOST}


def test_an_answer_by_the_lost_scheduler_is_late_when_its_orphan_answers_again(orphaned):
    (first,) = orphaned.engines(0)
    orphaned.work.adopt(orphaned.lost, first, firsts(0))
    batch = m.Results([m.Result(0, 0, 1, 0, b"value", 0)])
    orphaned.work.on_results(orphaned.lost, batch, ())
    orphaned.work.on_results(first, batch, ())
    assert orphaned.codes() == {0: 0}
    assert orphaned.outbox.counts["late"] == 1


def test_tasks_that_were_withdrawn_meanwhile_are_withdrawn_from_the_orphan_or_cancelled(orphaned):
    orphaned.cancels(0)
    orphaned.cancels(1, 2, running=True)
    assert orphaned.says() == []
    (first,) = orphaned.engines(0)
    orphaned.work.adopt(orphaned.lost, first, firsts(0, 1, 3))
    assert orphaned.says() == [(first.link, m.Cancel([0])), (first.link, m.Cancel([1], running=True))]
    orphaned.work.settle_lost(orphaned.lost, doubtful_before=0, reason="killed")
    assert orphaned.codes() == {2: m.CANCELLED}


def test_a_task_between_schedulers_is_being_looked_for(orphaned):
    state, text, _, child = orphaned.work.why(0)
    assert (state, child) == ("waiting", None)
    assert text == "the scheduler that had it was lost, and who has it now is being found out"


def test_a_scheduler_that_climbs_says_all_that_it_holds():
    leaf = WorkTranscript(is_root=False)
    leaf.engines(0)
    leaf.gets(task(1), task(2), task(3))
    leaf.hands_out()
    assert sorted(leaf.work.tries()) == firsts(1, 2, 3)
    leaf.ends(1)
    assert sorted(leaf.work.tries()) == firsts(1, 2, 3)  # its result has not left yet
    leaf.settles()
    assert sorted(leaf.work.tries()) == firsts(2, 3)


# --- tasks are withdrawn ----------------------------------------------------------------------------------------------


def test_a_task_is_withdrawn_wherever_it_is(root):
    root.engines(0)
    root.gets(task(1), asking(2, targets=ranks(0)), asking(3, after=m.Dependency([1])))
    assert root.hands_out() == {0: [1]}
    root.cancels(1, 2, 3, 99, running=True)
    assert root.says() == [(b"engine-0", m.Cancel([1], running=True))]
    assert root.codes() == {2: m.CANCELLED, 3: m.CANCELLED}
    root.ends(1, code=m.INTERRUPTED)
    assert root.codes() == {1: m.INTERRUPTED}
    assert not root.work.busy


def test_of_a_client_that_has_gone_nothing_starts_and_nothing_is_told(root):
    root.engines(0)
    root.gets(task(1), task(2), asking(3, after=m.Dependency([1])))
    root.hands_out()
    assert sorted(root.work.owned_by(CLIENT)) == [1, 2, 3]
    assert [root.work.owner_of(number) for number in (1, 3, 4)] == [CLIENT, CLIENT, None]
    root.work.forget_owner(CLIENT)
    assert root.says() == [(b"engine-0", m.Cancel([1], running=True))]
    assert (root.work.owner_of(1), root.work.owned_by(CLIENT), root.work.blocked) == (None, [], 0)
    root.ends(1, code=m.RAISED)
    assert root.tells() == []
    assert (root.work.busy, root.work.dispatcher.flights) == (False, {})


# --- sessions ---------------------------------------------------------------------------------------------------------


def test_results_leave_by_the_way_that_the_scheduler_gives():
    root = WorkTranscript()
    kept = []
    root.work._send_results = lambda *sent: kept.append(sent)
    root.engines(0)
    root.gets(task(1))
    root.hands_out()
    root.ends(1, frames=[b"frame"])
    assert root.tells() == []
    ((link, batch, frames),) = kept
    assert (link, [result.id for result in batch.results], frames) == (CLIENT, [1], [b"frame"])


def test_a_client_that_joins_a_session_again_may_depend_on_what_it_has_not_seen_yet(root):
    root.engines(0)
    for number in (1, 2):
        root.gets(task(number))
        root.hands_out()
        root.ends(number)
        root.settles()
    root.gets(seen=1)
    root.work.on_rejoined(CLIENT, 2)  # both are sent again
    root.gets(seen=1)
    root.gets(asking(3, after=m.Dependency([2])))
    assert root.hands_out() == {0: [3]}
    root.gets(seen=2)
    root.gets(asking(4, after=m.Dependency([2])))
    assert root.codes()[4] == m.DEPENDENCY


# --- explained --------------------------------------------------------------------------------------------------------


def test_why_says_where_a_task_is_and_what_it_waits_for(root):
    low = root.scheduler(0, 2)
    (engine,) = root.engines(5)
    root.gets(task(1), task(2), task(3), task(4), asking(5, targets=ranks(5)))
    root.settles()
    assert engine.tasks == {2}
    assert root.work.why(2) == ("sent", "it was sent to engine 5", 1 << 5, engine.link)
    assert root.work.why(1) == ("sent", "it was sent to engines 0-1", 0b11, low.link)
    busy = "every engine that it may run on is busy: "
    assert root.work.why(4) == ("waiting", busy + "engines 0-1, 5", 0b100011, None)
    assert root.work.why(5) == ("waiting", busy + "engine 5", 1 << 5, None)
    assert root.work.why(6) is None


def test_why_says_that_a_task_does_not_let_itself_be_interrupted(root):
    root.engines(5)
    root.gets(task(1))
    root.settles()
    root.cancels(1, running=True)
    _, text, _, _ = root.work.why(1)
    assert text == f"it was sent to engine 5; {GOES_ON}"


def test_whatever_becomes_of_a_later_try_is_known_to_be_that_of_it():
    leaf = WorkTranscript(is_root=False)
    leaf.engines(0)
    later = [msgspec.structs.replace(asking(number, targets=ranks(0)), attempt=2) for number in range(4)]
    leaf.gets(*later)
    assert leaf.hands_out() == {0: [0]}
    leaf.cancels(3)
    leaf.loses(leaf.membership.children[b"engine-0"])
    results = leaf.results()
    assert sorted((one.id, one.code) for one in results) == [
        (0, m.ENGINE_LOST),
        (1, m.ENGINE_UNKNOWN),
        (2, m.ENGINE_UNKNOWN),
        (3, m.CANCELLED),
    ]
    assert {one.attempt for one in results} == {2}


def test_why_says_that_there_is_no_engine(root):
    root.gets(task(1))
    assert root.work.why(1) == ("waiting", "no engine that it may run on is there", 0, None)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_tasks_that_are_given_much_leave_in_messages_that_the_receiver_takes(root):
    root.engines(0)
    large = bytes(RESULT_GIVEN_BYTES_MAX)
    root.gets(task(0))
    root.hands_out()
    short = m.Result(0, 0, 1, 0, large, 0)  # so that many are sent at a time
    root.work.on_results(root.membership.children[b"engine-0"], m.Results([short]), ())
    root.gets(*[asking(number, inputs=[0, 0]) for number in range(1, 3_001)])
    messages = [message for _, message in root.says()]  # each has passed the wire format
    assert len(messages) > 1
    assert {task.given[0] for message in messages for task in message.tasks} == {(0, large)}
