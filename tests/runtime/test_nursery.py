"""The nursery forks, watches and buries; nobody outlives whoever started it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import pytest

from tests.patience import DEADLINE_S

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

    def until_alive(self, *names: tuple[str, int]) -> None:
        """Read on until all these have told that they live."""
        while not {*names} <= {*self.alive}:
            assert self._read(), f"only {sorted(self.alive)} told that they live"

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


def test_a_child_is_ended_on_request_and_others_are_not() -> None:
    with Story("end_on_request") as story:
        story.until_alive(("engine", 10), ("engine", 11))
        told = story.rest()
    assert [line[2] for line in told if line[0] == "ended"] == [0, 1]  # no news of what one ended oneself


def test_engines_end_with_their_scheduler() -> None:
    with Story("family") as story:
        story.until_alive(("scheduler", 20), ("engine", 10), ("engine", 12), ("engine", 13))
        story.alive["scheduler", 20].kill()
        orphans = [story.alive["engine", 12], story.alive["engine", 13]]
        assert not psutil.wait_procs(orphans, DEADLINE_S)[1]
        assert story.alive["engine", 10].is_running()
        story.alive["engine", 10].terminate()
        *ends, _ = story.rest()
    assert sorted(ends) == [
        ["ended", "engine", 10, "it was killed by SIGTERM"],
        ["ended", "scheduler", 20, "it was killed by SIGKILL (out of memory?)"],
    ]


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
