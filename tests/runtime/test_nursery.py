"""The nursery forks, watches and buries; nobody outlives whoever started it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pytest

from hiersched.runtime.doorbell import DOORBELL_SIGNAL
from tests.patience import DEADLINE_S, until

SCRIPT = Path(__file__).with_name("little_nursery.py")


class Story:
    """A nursery under way.

    alive: processes that told that they live, by kind and number. said: on standard error, once it has ended.
    """

    def __init__(self, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SCRIPT), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(SCRIPT.parents[2])},
        )
        self.alive: dict[tuple[str, int], psutil.Process] = {}
        self.told: list[Any] = []
        self.said = ""

    def __enter__(self) -> Story:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        with self._process:  # closes its pipes and waits for its end
            pass
        assert not psutil.wait_procs(self.alive.values(), DEADLINE_S)[1]

    @property
    def pid(self) -> int:
        """Of the nursery."""
        return self._process.pid

    def until_alive(self, *names: tuple[str, int]) -> None:
        """Read on until all these have told that they live."""
        while not {*names} <= {*self.alive}:
            assert self._read(), f"only {sorted(self.alive)} told that they live"

    def until_told(self, *wanted: list[Any]) -> None:
        """Read on until all these lines have been told."""
        while not all(line in self.told for line in wanted):
            assert self._read(), f"only {self.told} was told"

    def until_heard_of(self, engines: Iterable[int]) -> None:
        """Read on until each of these has told that it lives, or was told to have ended."""
        while not {*engines} <= {number for _, number in self.alive} | {line[2] for line in self.told}:
            assert self._read(), f"only {sorted(self.alive)} live, and {self.told} was told"

    def until_ended(self, *names: tuple[str, int]) -> None:
        """Wait until these processes are gone."""
        assert not psutil.wait_procs([self.alive[name] for name in names], DEADLINE_S)[1]

    def nudge(self) -> None:
        """Let the root go on."""
        self.alive["root", 0].send_signal(signal.SIGUSR1)

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """What happens in here is news to the nursery only afterwards, all at once."""
        self.send(signal.SIGSTOP)
        yield
        self.send(signal.SIGCONT)

    def kill(self, *names: tuple[str, int]) -> None:
        """Kill these processes; returns when they have ended, seen by the nursery or not."""
        victims = [self.alive[name] for name in names]
        for victim in victims:
            victim.kill()
        until(lambda: not any(map(_runs, victims)), "the killed have ended")

    def left(self) -> int:
        """How many processes the nursery has."""
        return len(psutil.Process(self.pid).children())

    def rest(self) -> list[Any]:
        """All that is told until the end, apart from who lives."""
        while self._read():
            pass
        assert self._process.stderr is not None
        self.said = self._process.stderr.read().decode()
        return self.told

    def tell_to_end(self) -> None:
        """As its owner's end would."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def send(self, number: int) -> None:
        """A signal to the nursery itself."""
        self._process.send_signal(number)

    def _read(self) -> bool:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            told = json.loads(line)
            if told[0] == "alive":
                with contextlib.suppress(psutil.NoSuchProcess):  # it is quick
                    self.alive[told[1], told[2]] = psutil.Process(told[3])
            else:
                self.told.append(told)
        return bool(line)


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


EVERYBODY = [("root", 0), ("engine", 10), ("engine", 5), ("scheduler", 20), ("engine", 12), ("engine", 13)]


def test_a_scheduler_is_told_how_its_children_ended() -> None:
    with Story("ends") as story:
        *ends, served = story.rest()
    assert sorted(ends) == [
        ["ended", "engine", 0, "it exited with code 0"],
        ["ended", "engine", 1, "it exited with code 7"],
        ["ended", "engine", 2, "it was killed by SIGKILL (out of memory?)"],
        ["ended", "engine", 3, "it exited with code 1"],
        ["ended", "engine", 4, "it exited with code 9"],
    ]
    assert served == ["served", 0]
    assert "RuntimeError: the engine broke" in story.said


def test_children_inherit_nothing_of_the_nursery() -> None:
    with Story("inheritance") as story:
        told = story.rest()
    assert ["open", "an address", []] in told
    assert ["signals", [int(signal.SIG_DFL)] * 2] in told
    assert ["blocked", [DOORBELL_SIGNAL]] in told


def test_a_child_is_ended_on_request_and_others_are_not() -> None:
    with Story("end_on_request") as story:
        story.until_alive(("root", 0), ("engine", 10), ("engine", 11))
        story.nudge()
        told = story.rest()
    assert [line[2] for line in told if line[0] == "ended"] == [0, 1]  # no news of what one ended oneself


KILLED = "it was killed by SIGKILL (out of memory?)"


def test_one_that_was_ended_is_not_taken_for_its_successor() -> None:
    with Story("again") as story:
        *told, _ = [line for line in story.rest() if line[0] != "rung"]
    assert told == [
        ["ended", "engine", 0, "it exited with code 0"],
        ["watches", True],
        ["ended", "engine", 10, KILLED],
    ]


def test_a_plan_goes_to_whom_it_is_meant_for() -> None:
    with Story("plans") as story:
        story.until_told(["plan", 7, None], ["plan", 8, [1_000, 5_000]])
        story.tell_to_end()


def test_a_signal_reaches_many_at_once_even_if_they_have_hardly_been_born() -> None:
    with Story("bells") as story:
        story.until_told(*[["rung", number] for number in range(40, 90)])
        assert len([line for line in story.told if line[0] == "rung"]) == 50
        story.tell_to_end()
        assert story.rest()[-1][0] == "served"  # nobody died of it


def test_what_cannot_be_started_has_ended_and_the_others_live() -> None:
    with Story("crowded") as story:
        story.until_heard_of(range(40, 60))
        refused = {number for _, _, number, _ in story.told}
        assert {reason for *_, reason in story.told} == {"it could not be started: Too many open files"}
        assert 0 < len(refused) < 20
        story.until_ended(*[name for name in story.alive if name[1] in refused])  # forked, but nobody could watch it
        story.tell_to_end()
        story.rest()
        assert story.said == ""


def test_who_does_not_read_holds_nobody_up() -> None:
    with Story("slow") as story:
        story.until_alive(("root", 0), ("engine", 10))
        until(lambda: story.left() == 2, "all hundred have ended, and have been seen to")
        assert story.told == []
        story.nudge()
        *ends, _ = story.rest()
    assert sorted(number for _, _, number, _ in ends) == [*range(100, 200)]


# --- schedulers that end ----------------------------------------------------------------------------------------------


def test_children_of_a_killed_scheduler_become_those_of_its_parent() -> None:
    with Story("adoption") as story:
        story.until_alive(("scheduler", 20), ("engine", 10), ("engine", 12), ("engine", 13))
        story.kill(("scheduler", 20))
        story.until_told(["rung", 13], ["interrupted", 13], ["watches", [True, True, False]])
        story.until_ended(("engine", 12))  # as its new parent wanted
        story.kill(("engine", 13))
        ends = [line for line in story.rest() if line[0] == "ended"]
    assert ends == [
        ["ended", "scheduler", 20, KILLED, "engine-12", "engine-13"],
        ["ended", "engine", 13, KILLED],
    ]


def test_a_scheduler_that_breaks_leaves_its_children_too_and_the_log_stays() -> None:
    with Story("breaking") as story:
        story.until_alive(("scheduler", 70), ("engine", 12), ("engine", 13))
        story.kill(("engine", 12))
        told = [line for line in story.rest() if line[0] != "rung"]
    assert told == [
        ["ended", "engine", 12, KILLED],
        ["ended", "scheduler", 70, "it exited with code 70", "engine-13"],
        ["served", os.EX_SOFTWARE],
    ]


def test_a_scheduler_that_ends_as_it_should_takes_all_below_it_along() -> None:
    with Story("leaving") as story:
        below = [("scheduler", 30), ("scheduler", 20), ("engine", 12), ("engine", 13)]
        story.until_alive(*below, ("engine", 32), ("engine", 10))
        story.kill(("engine", 32))
        story.until_ended(*below)
        assert story.alive["engine", 10].is_running()
        story.kill(("engine", 10))
        *told, _ = story.rest()
    assert told == [
        ["ended", "engine", 32, KILLED],
        ["ended", "scheduler", 30, "it exited with code 0"],
        ["ended", "engine", 10, KILLED],
    ]


def test_a_scheduler_that_is_ended_on_request_takes_all_below_it_along() -> None:
    with Story("unwanted") as story:
        below = [("scheduler", 40), ("scheduler", 20), ("engine", 12), ("engine", 13)]
        story.until_alive(*below, ("root", 0), ("engine", 10))
        story.nudge()
        story.until_ended(*below)
        story.kill(("engine", 10))
        *told, _ = story.rest()
    assert told == [["ended", "engine", 10, KILLED]]


FAMILY = [("scheduler", 40), ("scheduler", 20), ("engine", 12), ("engine", 13), ("engine", 10)]


def test_orphans_are_taken_over_again_and_again_bottom_up() -> None:
    with Story("depth") as story:
        story.until_alive(*FAMILY)
        story.kill(("scheduler", 20))
        story.until_told(["ended", "scheduler", 20, KILLED, "engine-12", "engine-13"], ["rung", 12], ["rung", 13])
        story.told.clear()
        story.kill(("scheduler", 40))
        story.until_told(["ended", "scheduler", 40, KILLED, "engine-12", "engine-13"], ["rung", 12], ["rung", 13])
        story.kill(("engine", 13))
        story.until_told(["ended", "engine", 13, KILLED])
        story.tell_to_end()


def test_orphans_are_taken_over_again_and_again_top_down() -> None:
    with Story("depth") as story:
        story.until_alive(*FAMILY)
        heir = story.alive["scheduler", 20].pid
        story.kill(("scheduler", 40))
        story.until_told(["ended", "scheduler", 40, KILLED, "scheduler-1-20-24"], ["orphaned", heir, KILLED])
        story.kill(("scheduler", 20))
        story.until_told(["ended", "scheduler", 20, KILLED, "engine-12", "engine-13"], ["rung", 12], ["rung", 13])
        story.tell_to_end()


def test_all_that_end_at_the_same_time_are_told_of_and_the_living_are_taken_over() -> None:
    with Story("depth") as story:
        story.until_alive(*FAMILY)
        with story.halted():
            story.kill(("scheduler", 40), ("scheduler", 20), ("engine", 13))
        story.until_told(["rung", 12])
        story.kill(("engine", 12))
        story.until_told(["ended", "engine", 12, KILLED])
        ends = [line[1:] for line in story.told if line[0] == "ended"]
        lost = {(kind, number) for kind, number, *_ in ends}
        taken = {orphan for _, _, _, *orphans in ends for orphan in orphans}
        assert ("scheduler", 40) in lost
        # Who was dead already when its scheduler was seen to be need not be told of: it is not among the orphans.
        assert taken >= {"engine-12"}
        assert (("engine", 13) in lost) == ("engine-13" in taken)
        assert (("scheduler", 20) in lost) == ("scheduler-1-20-24" in taken)
        story.tell_to_end()


def test_who_ends_a_scheduler_that_has_just_ended_gets_no_orphans() -> None:
    with Story("crossing") as story:
        orphans = [("engine", 12), ("engine", 13)]
        story.until_alive(("root", 0), ("scheduler", 20), ("engine", 10), *orphans)
        with story.halted():
            story.kill(("scheduler", 20))
            story.nudge()
            story.until_told(["asked"])
        story.until_ended(*orphans)
        story.kill(("engine", 10))
        told = [line for line in story.rest() if line[0] not in ("rung", "served")]
    assert told == [["asked"], ["ended", "engine", 10, KILLED]]


# --- the end of all ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["owner", "SIGTERM", "SIGINT"])
def test_all_end_when_the_nursery_is_told_to(way: str) -> None:
    with Story("lasting") as story:
        story.until_alive(*EVERYBODY)
        if way == "owner":
            story.tell_to_end()
        else:
            story.send(signal.Signals[way])
        assert story.rest()[-1][0] == "served"
        assert story.said == ""


def test_all_end_when_the_nursery_is_killed() -> None:
    with Story("lasting") as story:
        story.until_alive(*EVERYBODY)
        story.send(signal.SIGKILL)
        assert story.rest() == []


@pytest.mark.parametrize(("story_name", "code"), [("broken", os.EX_SOFTWARE), ("killed", -signal.SIGKILL)])
def test_all_end_with_the_root_and_its_code_is_known(story_name: str, code: int) -> None:
    with Story(story_name) as story:
        assert story.rest()[-1] == ["served", code]


def test_a_scheduler_may_end_without_reading_its_news() -> None:
    with Story("deaf") as story:
        assert story.rest() == [["served", 0]]
        assert story.said == ""
