"""%px on engines that are processes: output as it comes, a Ctrl-C that stops them, names that they know."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
from IPython.core.completer import provisionalcompleter

from hiersched.client.client import Client
from hiersched.errors import CompositeError
from tests.client.test_magics import Shell
from tests.patience import until
from tests.processes.conftest import Gate


@pytest.fixture
def shell(flat_rc: Client, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """IPython with the magics of a client of four engines."""
    shell = Shell()
    for place in ("activation", "magics", "screen"):
        monkeypatch.setattr(f"hiersched.client.{place}.current_shell", lambda: shell)
    flat_rc.activate()
    yield shell
    flat_rc.clear(block=True)


def test_cells_run_and_their_results_are_shown_once(shell: Shell, flat_rc: Client, capsys) -> None:
    shell.run_cell_magic("px", "", "a = 6\nprint('hello')\na * 7")
    assert flat_rc[:]["a"] == [6] * 4
    shown = capsys.readouterr().out
    assert shown.count("hello") == 1
    assert "[stdout:0-3]" in shown
    assert shown.count("42") == 1


def test_output_is_seen_while_the_cell_runs(shell: Shell, gate: Gate, capsys) -> None:
    seen: list[str] = []

    def look() -> None:
        until(lambda: seen.append(capsys.readouterr().out) or "started" in "".join(seen), "the cell's output is seen")
        gate.open()

    looking = threading.Thread(target=look)
    looking.start()
    cell = f"print('started', flush=True)\nfrom tests.processes import errands\nerrands.hold({str(gate)!r})"
    shell.run_cell_magic("px", "", cell)
    looking.join()
    assert "[stdout:0-3]\nstarted\n" in "".join(seen)


def test_errors_are_shown_once(shell: Shell, capsys) -> None:
    with pytest.raises(CompositeError) as caught:
        shell.run_cell_magic("px", "--no-stream", "1 / 0")
    assert caught.value.errors.keys() == {0, 1, 2, 3}
    with pytest.raises(CompositeError) as caught:
        shell.run_cell_magic("px", "", "raise ValueError('odd')")
    assert caught.value._render_traceback_() == ["4 errors"]
    shown = capsys.readouterr().err
    assert "[error:" in shown
    assert "odd" in shown


def test_an_interrupt_stops_the_engines_and_returns_when_they_have(shell: Shell, flat_rc: Client, gate: Gate, capsys):
    def strike() -> None:
        gate.wait_for(4)
        until(lambda: shell.magics_manager.registry["EngineMagics"].last_result, "the cell was sent")
        os.kill(os.getpid(), signal.SIGINT)

    striking = threading.Thread(target=strike)
    striking.start()
    shell.run_cell_magic("px", "", f"from tests.processes import errands\nerrands.hold({str(gate)!r})\nended = True")
    striking.join()
    assert "Sending signal SIGINT to engines" in capsys.readouterr().err
    assert flat_rc.outstanding == set()
    with pytest.raises(CompositeError, match="NameError"):
        flat_rc[:]["ended"]


def test_names_are_completed_by_an_engine(shell: Shell, flat_rc: Client) -> None:
    flat_rc[:].push({"a_name_of_the_engines": 1}, block=True)
    with provisionalcompleter():
        line = [proposal.text for proposal in shell.Completer.completions("%px a_name_o", 12)]
        cell = [proposal.text for proposal in shell.Completer.completions("%%px\nx = a_name_o", 17)]
    assert line == cell == ["a_name_of_the_engines"]
