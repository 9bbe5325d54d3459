"""What `hiersched status` shows: the same facts with colours on a terminal, and as plain columns elsewhere."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence

import msgspec
import pytest
from rich.console import Console

from hiersched.cli.report import Seen, shown
from hiersched.core.topology import Host, plan_tree


def seen(engines: int = 4, **changes: object) -> Seen:
    """A flat cluster of four engines, of which so many are there."""
    plan = plan_tree([Host("localhost", 4, 2)])
    level = {"level": 0, "schedulers": 1, "engines": engines, "messages_in": 12_345, "messages_out": 6, "restarts": 3}
    level["refused"] = 2
    queues = {rank: {"queue": 0, "tasks": 0, "completed": 10} for rank in range(engines)}
    facts: dict[str, object] = {
        "cluster_id": "mine",
        "file": "/x/mine.json",
        "plan": plan,
        "engines": engines,
        "planned": 4,
        "levels": [level],
        "queues": queues,
    }
    return Seen(**(facts | changes))  # type: ignore[arg-type]


def plain(clusters: Sequence[Seen]) -> list[str]:
    """The lines as a file gets them."""
    file = io.StringIO()
    Console(file=file, width=200).print(shown(clusters))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_a_cluster_is_told_by_engines_tree_levels_and_queues() -> None:
    assert plain([seen()]) == [
        "mine: 4 of 4 engines, root only",
        "level  schedulers  engines  messages in  messages out  requests  tasks  restarts  refused",
        "    0           1        4       12,345             6         0      0         3        2",
        "engines  calls waiting  tasks waiting  completed",
        "0-3                  0              0         40",
    ]


def test_troubles_have_columns_only_where_there_are_some() -> None:
    level = {"level": 0, "schedulers": 1, "engines": 4, "messages_in": 5, "messages_out": 6}
    assert plain([seen(levels=[level])])[1] == "level  schedulers  engines  messages in  messages out  requests  tasks"
    levels = [level, {**level, "level": 1, "restarts": 1}]
    assert [row.split()[-1] for row in plain([seen(levels=levels)])[1:4]] == ["restarts", "0", "1"]


def test_a_busy_tree_fits_on_a_terminal_of_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    level = {"level": 0, "schedulers": 1_000, "engines": 10_000, "messages_in": 12_345_678, "messages_out": 87_654_321}
    file = io.StringIO()
    Console(file=file, width=80, no_color=True).print(shown([seen(levels=[level])]))
    assert "…" not in file.getvalue()


def test_engines_with_equal_queues_share_a_row_and_the_busiest_come_first() -> None:
    queues = {rank: {"queue": 0, "tasks": 3 * (rank == 2), "completed": rank} for rank in range(4)}
    rows = plain([seen(queues=queues)])[4:]
    assert [row.split() for row in rows] == [["2", "0", "3", "2"], ["0-1,3", "0", "0", "4"]]


def test_engines_that_are_missing_are_told() -> None:
    assert plain([seen(3)])[0] == "mine: 3 of 4 engines, root only"


def test_tasks_that_wait_at_the_root_are_told() -> None:
    assert plain([seen(unassigned=1_200)])[-1] == "1,200 tasks of all clients waiting at the root"


def test_a_cluster_that_cannot_be_reached_is_told_with_the_reason() -> None:
    lost = Seen(cluster_id="lost", file="/x/lost.json", problem="/x/lost.json is stale")
    assert plain([lost, seen()])[:2] == ["lost: /x/lost.json is stale", "mine: 4 of 4 engines, root only"]


def test_nothing_is_said_to_be_nothing() -> None:
    assert plain([]) == ["no cluster runs"]


def test_a_terminal_gets_boxes_and_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    file = io.StringIO()
    Console(file=file, width=200).print(shown([seen()]))
    assert "\x1b[1;32mmine\x1b[0m" in file.getvalue()
    assert "╭" in file.getvalue()


def test_programs_get_json() -> None:
    told = json.loads(msgspec.json.encode([seen()]))
    assert told[0]["queues"]["3"] == {"queue": 0, "tasks": 0, "completed": 10}
    assert told[0]["plan"]["schedulers"] == 1
