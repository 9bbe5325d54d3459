"""A busy engine is reached by its doorbell: it drops what waits, and stops what runs and only that."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from hiersched.data.outcomes import Outcome
from hiersched.errors import RemoteError
from hiersched.protocol import messages as m
from tests.nodes import deeds
from tests.nodes.schedulers import Cluster, Scheduler
from tests.patience import until

CELLS = {
    "sleeping": "from tests.nodes import deeds\ndeeds.hold({gate!r})",
    "spinning": "from tests.nodes import deeds\ndeeds.spin({gate!r})",
    "awaiting": "import asyncio, pathlib\npathlib.Path({gate!r}, 'begun').touch()\nawait asyncio.sleep(60)",
}


def begun(gate: Path) -> None:
    until((gate / "begun").exists, "the engine began")


def lets_go(gate: Path) -> None:
    (gate / "go").touch()


def test_what_waits_is_dropped_at_once_while_something_runs(cluster: Cluster, above: Scheduler, gate: Path) -> None:
    running = above.call(deeds.hold, str(gate), "value")
    behind = above.call(abs, -1)
    tasks = above.tasks((abs, -2), (abs, -3))
    begun(gate)
    above.send(m.Cancel([behind, tasks[0]]))
    cluster.ring()
    loss = above.reply(behind)
    assert isinstance(loss, m.Loss)
    assert (loss.code, loss.text) == (m.CANCELLED, "cancelled before it started")
    assert above.result(tasks[0])[0] == m.CANCELLED
    lets_go(gate)
    assert above.reply(running).value == "value"  # type: ignore[union-attr]
    assert above.result(tasks[1])[1].value == 3


@pytest.mark.parametrize("way", [deeds.hold, deeds.spin])
def test_a_call_that_runs_is_interrupted(
    cluster: Cluster, above: Scheduler, gate: Path, way: Callable[[str], None]
) -> None:
    running = above.call(way, str(gate))
    behind = above.call(abs, -1)
    begun(gate)
    above.send(m.Cancel([running], True))
    cluster.ring()
    loss = above.reply(running)
    assert isinstance(loss, m.Loss)
    assert loss.code == m.INTERRUPTED
    assert above.reply(behind).value == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("way", CELLS)
def test_a_cell_that_runs_is_interrupted(cluster: Cluster, above: Scheduler, gate: Path, way: str) -> None:
    running = above.cell(CELLS[way].format(gate=str(gate)))
    begun(gate)
    above.send(m.Cancel([running], True))
    cluster.ring()
    assert above.reply(running).code == m.INTERRUPTED  # type: ignore[union-attr]
    assert above.reply(above.cell("import asyncio\nawait asyncio.sleep(0)\n1")).ok  # type: ignore[union-attr]


def test_a_task_that_runs_is_interrupted_and_says_what_it_printed(
    cluster: Cluster, above: Scheduler, gate: Path
) -> None:
    (running, behind) = above.tasks((deeds.talk_and_hold, str(gate), "first words"), (abs, -1))
    begun(gate)
    above.send(m.Cancel([running], True))
    cluster.ring()
    assert above.result(running) == (m.INTERRUPTED, "interrupted while it ran")
    assert [output.text for output in above.pieces[running]] == ["first words\n"]  # type: ignore[union-attr]
    assert above.result(behind)[1].value == 1


def test_a_cancel_that_spares_what_runs_spares_it(cluster: Cluster, above: Scheduler, gate: Path) -> None:
    running = above.call(deeds.hold, str(gate), "value")
    begun(gate)
    above.send(m.Cancel([running]))
    cluster.ring()
    behind = above.tasks((abs, -1))
    above.send(m.Cancel(behind))
    cluster.ring()
    assert above.result(behind[0])[0] == m.CANCELLED  # so the first was read too
    lets_go(gate)
    assert above.reply(running).value == "value"  # type: ignore[union-attr]


def test_code_that_swallows_the_interrupt_has_its_answer(cluster: Cluster, above: Scheduler, gate: Path) -> None:
    running = above.call(deeds.swallow, str(gate))
    begun(gate)
    above.send(m.Cancel([running], True))
    cluster.ring()
    assert above.reply(running).value == "went on"  # type: ignore[union-attr]


def test_mail_that_comes_after_the_doorbell_is_read_when_it_comes(
    cluster: Cluster, above: Scheduler, gate: Path
) -> None:
    running = above.call(deeds.hold, str(gate))
    begun(gate)
    cluster.ring()
    above.send(m.Cancel([running], True))
    assert above.reply(running).code == m.INTERRUPTED  # type: ignore[union-attr]


def test_a_doorbell_before_the_call_begins_is_not_forgotten(cluster: Cluster, above: Scheduler, gate: Path) -> None:
    assert above.reply(above.call(abs, -1)).ok  # type: ignore[union-attr]
    cluster.ring()
    running = above.call(deeds.hold, str(gate))
    above.send(m.Cancel([running], True))
    loss = above.reply(running)
    assert isinstance(loss, m.Loss)
    assert loss.code in (m.CANCELLED, m.INTERRUPTED)


def test_the_next_call_is_not_struck_by_an_interrupt_for_the_last(
    cluster: Cluster, above: Scheduler, gate: Path
) -> None:
    over = above.call(abs, -1)
    assert above.reply(over).value == 1  # type: ignore[union-attr]
    running = above.call(deeds.hold, str(gate), "value")
    begun(gate)
    above.send(m.Cancel([over], True))
    cluster.ring()
    dropped = above.tasks((abs, -1))
    above.send(m.Cancel(dropped))
    assert above.result(dropped[0])[0] == m.CANCELLED
    lets_go(gate)
    assert above.reply(running).value == "value"  # type: ignore[union-attr]


def test_a_plain_interrupt_stops_whatever_runs_and_is_its_error(cluster: Cluster, above: Scheduler, gate: Path) -> None:
    running = above.call(deeds.talk_and_hold, str(gate), "words")
    begun(gate)
    os.kill(cluster.pid, signal.SIGINT)
    call = above.reply(running)
    (gate / "begun").unlink()
    (task,) = above.tasks((deeds.hold, str(gate)))
    begun(gate)
    os.kill(cluster.pid, signal.SIGINT)
    code, outcome = above.result(task)
    assert code == m.RAISED
    for ended in (call, outcome):
        assert isinstance(ended, Outcome)
        assert isinstance(ended.error, RemoteError)
        assert ended.error.ename == "KeyboardInterrupt"
    assert above.pieces[running][0].text == "words\n"  # type: ignore[union-attr]


def test_doorbells_and_interrupts_at_any_moment_leave_the_engine_whole(cluster: Cluster, above: Scheduler) -> None:
    numbers = []
    for number in range(150):
        numbers.append(above.call(deeds.flood, 20, 100 + number))
        cluster.ring()
        os.kill(cluster.pid, signal.SIGINT)
        above.send(m.Cancel([number // 2], True))
    for number, request in enumerate(numbers):
        outcome = above.reply(request)
        if isinstance(outcome, m.Loss):
            assert outcome.code in (m.CANCELLED, m.INTERRUPTED)
        elif outcome.ok:
            assert len(outcome.stdout) == 20 * (100 + number)
        else:
            assert outcome.error.ename == "KeyboardInterrupt"  # type: ignore[union-attr]
    assert above.reply(above.call(os.getpid)).value == cluster.pid  # type: ignore[union-attr]
