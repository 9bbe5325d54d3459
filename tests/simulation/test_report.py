"""What `hiersched sim` runs and prints."""

from __future__ import annotations

import shlex

import pytest

from hiersched.errors import PlanError, UserError
from hiersched.simulation.report import Scenario, render, run_simulation


def test_a_call_on_all_engines_is_timed_and_counted():
    report = run_simulation(Scenario(engines=500, seed=7, fanout=8, leaf_engines=16))
    (call,) = report.work
    assert (call.parts, call.answers, call.errors) == (500, 500, {})
    assert call.took_s == pytest.approx(report.predicted_s, rel=0.15)
    assert [row.level for row in report.levels] == list(range(report.depth))
    assert sum(row.schedulers for row in report.levels) == report.schedulers
    assert all(row.most <= 2 * (row.children_max + 1) for row in report.levels)
    assert report.levels[-1].sent == 500 + report.levels[-1].schedulers


def test_what_breaks_is_told():
    scenario = Scenario(engines=300, seed=7, run_s=0.02, tasks=3_000, kill=20, kill_schedulers=2, slow=5)
    report = run_simulation(scenario)
    call, tasks = report.work
    assert call.answers + sum(call.errors.values()) == 300
    assert set(call.errors) == {"EngineLost"}
    assert tasks.answers + sum(tasks.errors.values()) == 3_000
    assert report.engines_left <= 280
    text = render(report)
    assert f"{call.errors['EngineLost']:,} EngineLost" in text
    assert "3,000 tasks" in text


def test_a_partition_is_drawn_and_healed():
    report = run_simulation(Scenario(engines=256, seed=7, fanout=4, slots_per_host=16, partitions=("1:2:3",)))
    assert report.engines_left == 256
    assert report.work[0].took_s > 3.0


def test_the_command_says_all_that_is_not_usual_and_replays_the_run():
    scenario = Scenario(
        engines=100, seed=9, fanout=4, kill=3, run_s=0.02, partitions=("1", "2:1:3"), slots_per_host=8, checked=True
    )
    command = scenario.command()
    assert command == (
        "hiersched sim --engines 100 --seed 9 --fanout 4 --slots-per-host 8 --run-s 0.02 --kill 3 "
        "--partition 1 --partition 2:1:3 --checked"
    )
    assert len(shlex.split(command)) == 19
    report = run_simulation(scenario)
    assert report.digest == run_simulation(scenario).digest
    assert command in render(report)


@pytest.mark.parametrize(
    "wrong",
    [{"partitions": ("one",)}, {"partitions": ("7",)}, {"kill": 11}, {"kill_schedulers": 50}, {"slow": 11}],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, object]):
    with pytest.raises(UserError):
        run_simulation(Scenario(engines=10, **wrong))


def test_a_tree_that_cannot_be_is_refused():
    with pytest.raises(PlanError):
        run_simulation(Scenario(engines=0))
