"""A scheduler that dies takes nobody with it: its children climb, and what they held goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil
import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import EngineLost
from tests.patience import DEADLINE_S, until
from tests.processes import errands
from tests.processes.conftest import DEEP, Gate, pids_of, schedulers_of


@pytest.fixture
def rc() -> Iterator[Client]:
    """Eight engines under three levels of schedulers, some of which will die."""
    with Cluster(**DEEP) as client:
        yield client


def kill(*processes: psutil.Process) -> None:
    """End them, and wait until they are gone."""
    for process in processes:
        process.kill()
    gone, alive = psutil.wait_procs(processes, DEADLINE_S)
    assert len(gone) == len(processes), alive


def adopted(rc: Client, schedulers: int) -> None:
    """Wait until so many schedulers are left, and all engines are below them."""

    def settled() -> bool:
        levels = rc.status()["levels"]
        return sum(row["schedulers"] for row in levels) == schedulers and sum(row["engines"] for row in levels) == 8

    until(settled, "the orphans have a parent again")


def test_a_call_goes_on_when_a_leaf_scheduler_dies(rc: Client, gate: Gate) -> None:
    before = pids_of(rc)
    rc[:].push({"kept": 42}, block=True)
    call = rc[:].apply_async(errands.hold, str(gate), "kept")
    gate.wait_for(8)
    kill(schedulers_of(rc)[2, 2, 4])
    adopted(rc, 6)
    gate.open()
    assert call.get(DEADLINE_S) == ["kept"] * 8
    assert rc.ids == list(range(8))
    assert pids_of(rc) == before
    assert rc[:]["kept"] == [42] * 8


def test_tasks_go_on_when_schedulers_die_level_by_level(rc: Client, gate: Gate) -> None:
    balanced = rc.load_balanced_view()
    tasks = [balanced.apply_async(errands.hold, str(gate), number) for number in range(40)]
    gate.wait_for(8)
    schedulers = schedulers_of(rc)
    kill(schedulers[2, 0, 2])
    kill(schedulers[1, 0, 4])
    kill(schedulers[1, 4, 8], schedulers[2, 4, 6], schedulers[2, 6, 8])
    gate.open()
    assert [task.get(DEADLINE_S) for task in tasks] == list(range(40))
    adopted(rc, 2)


def test_answers_given_before_the_death_are_not_lost(rc: Client, gate: Gate) -> None:
    pids = pids_of(rc)
    call = rc[[2, 3]].apply_async(errands.hold_unless, str(gate), pids[2])
    gate.wait_for(1)
    assert rc[2].apply_sync(os.getpid) == pids[2]  # so it has answered the call before, to its scheduler only
    kill(schedulers_of(rc)[2, 2, 4])
    gate.open()
    assert call.get(DEADLINE_S) == ["at once", "later"]


def test_an_idle_tree_that_loses_all_its_schedulers_works_on(rc: Client) -> None:
    before = pids_of(rc)
    kill(*(process for (level, *_), process in schedulers_of(rc).items() if level > 0))
    adopted(rc, 1)
    assert pids_of(rc) == before
    assert rc.load_balanced_view().map_sync(errands.square, range(100)) == [number**2 for number in range(100)]


@pytest.fixture
def renewed() -> Iterator[Client]:
    """The same eight engines, which are replaced when they end; number 3 has been."""
    with Cluster(**DEEP, restart="always") as rc:
        rc.shutdown(3, restart=True, block=True)
        yield rc


def test_an_engine_that_has_replaced_another_is_an_orphan_like_others(renewed: Client) -> None:
    before = pids_of(renewed)
    kill(schedulers_of(renewed)[2, 2, 4])
    assert pids_of(renewed) == before
    assert renewed.ids == list(range(8))
    kill(schedulers_of(renewed)[1, 0, 4])
    assert renewed.load_balanced_view().map_sync(errands.square, range(100)) == [number**2 for number in range(100)]


def test_a_task_that_only_one_engine_may_run_waits_for_its_replacement(renewed: Client, gate: Gate) -> None:
    only_there = renewed.load_balanced_view(targets=[2])
    (before,) = renewed[[2]].apply_sync(os.getpid)
    running = only_there.apply_async(errands.hold, str(gate), "unheard")
    gate.wait_for(1)
    waiting = only_there.apply_async(os.getpid)
    kill(psutil.Process(before))
    with pytest.raises(EngineLost):
        running.get(DEADLINE_S)
    assert waiting.get(DEADLINE_S) != before


def test_calls_made_while_engines_have_no_scheduler_wait_for_them(rc: Client) -> None:
    """The engine cannot climb while it holds its interpreter, and lives: so the call is kept for it."""
    held = rc[0].apply_async(errands.hold_the_interpreter, 2.0)
    others = rc[1:].apply_async(os.getpid).get(DEADLINE_S)
    kill(schedulers_of(rc)[2, 0, 2])
    call = rc[:].apply_async(os.getpid)
    assert call.get(DEADLINE_S)[1:] == others
    assert held.get(DEADLINE_S) == 2.0


def test_an_orphan_that_dies_too_fails_its_part_only(rc: Client, gate: Gate) -> None:
    pids = pids_of(rc)
    call = rc[:].apply_async(errands.hold, str(gate), "kept")
    gate.wait_for(8)
    victims = [schedulers_of(rc)[2, 2, 4], psutil.Process(pids[3])]
    kill(*victims)
    gate.open()
    answers = call.get(DEADLINE_S, return_exceptions=True)
    assert isinstance(answers[3], EngineLost)
    assert answers[:3] + answers[4:] == ["kept"] * 7
