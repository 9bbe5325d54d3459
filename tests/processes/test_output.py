"""What engines print reaches the client while they run: whole, in order, and under their names."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.client.results import AsyncResult
from hiersched.data.serialize import Reference
from hiersched.errors import CompositeError, EngineLost
from tests.patience import DEADLINE_S, until
from tests.processes.conftest import Gate, in_a_notebook

MEGABYTE_LINES = 20_000  # of 50 bytes each

print_much = in_a_notebook(
    f"""
def print_much(rank):
    for number in range({MEGABYTE_LINES}):
        print(f"{{rank:9d}} {{number:38d}}|")
"""
)

print_and_hold = in_a_notebook(
    """
def print_and_hold(directory, text):
    import sys
    print(text)
    print("to the other", file=sys.stderr)
    from tests.processes import errands
    errands.hold(directory)
    print("and the rest")
"""
)


def shown(result: AsyncResult, name: str, count: int) -> bool:
    """Whether so many parts have something to show, now."""
    result.wait(0)
    return sum(bool(text) for text in result[name]) >= count


def test_output_comes_while_the_code_runs(rc: Client, gate: Gate) -> None:
    result = rc[:].apply_async(print_and_hold, str(gate), "so far")
    until(lambda: shown(result, "stdout", len(rc)) and shown(result, "stderr", len(rc)), "all have been heard")
    assert not result.ready()
    assert result.stdout == ["so far\n"] * len(rc)
    assert result.stderr == ["to the other\n"] * len(rc)
    gate.open()
    result.get(DEADLINE_S)
    assert result.stdout == ["so far\nand the rest\n"] * len(rc)


def test_a_tasks_output_comes_while_it_runs(flat_rc: Client, gate: Gate) -> None:
    result = flat_rc.load_balanced_view().apply_async(print_and_hold, str(gate), "so far")
    until(lambda: result.wait(0) or result.stdout, "it has been heard")
    assert not result.ready()
    assert result.stdout == "so far\n"
    gate.open()
    result.get(DEADLINE_S)
    assert result.stdout == "so far\nand the rest\n"


def test_a_megabyte_from_each_engine_is_whole_and_in_order(rc: Client) -> None:
    view = rc[:]
    view.scatter("rank", rc.ids, flatten=True, block=True)
    result = view.apply_async(print_much, Reference("rank"))
    result.get(DEADLINE_S)
    for rank, text in zip(rc.ids, result.stdout, strict=True):
        assert text == "".join(f"{rank:9d} {number:38d}|\n" for number in range(MEGABYTE_LINES))


def test_what_is_printed_alike_is_shown_once(rc: Client, gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    result = rc[:].apply_async(print_and_hold, str(gate), "so far")
    with result.stream_output():
        gate.open()
        result.wait(DEADLINE_S)
    lines = capsys.readouterr().out.splitlines()
    assert {line for line in lines if not line.startswith("[")} == {"so far", "and the rest"}
    result.display_outputs()
    assert capsys.readouterr().out == f"[stdout:0-{len(rc) - 1}]\nso far\nand the rest\n"


def test_streamed_output_is_shown_once_and_whole(rc: Client, capsys: pytest.CaptureFixture[str]) -> None:
    result = rc[0].execute("import time\nfor number in range(20):\n    print(number, flush=True)\n    time.sleep(0.01)")
    with result.stream_output():
        result.get(DEADLINE_S)
    assert capsys.readouterr().out == "".join(f"{number}\n" for number in range(20))


def test_what_an_engine_printed_before_it_was_lost_is_kept(gate: Gate, leaves_nothing: None) -> None:
    with Cluster(n=2) as rc:
        result = rc[:].apply_async(print_and_hold, str(gate), "last words")
        until(lambda: shown(result, "stdout", 2), "both have been heard")
        os.kill(max(gate.come()), signal.SIGKILL)
        gate.open()
        with pytest.raises(CompositeError) as caught:
            result.get(DEADLINE_S)
        assert {type(error) for error in caught.value.errors.values()} == {EngineLost}
        assert all(text.startswith("last words\n") for text in result.stdout)


# --- rich display -----------------------------------------------------------------------------------------------------


def test_what_is_displayed_is_among_the_outputs(rc: Client) -> None:
    result = rc[:].execute(
        "from IPython.display import display, clear_output, HTML\n"
        "display('gone')\nclear_output()\ndisplay(HTML('<b>bold</b>'))\n"
        "handle = display('0 %', display_id='bar')\nhandle.update('100 %')\n6 * 7",
        silent=False,
    )
    replies = result.get(DEADLINE_S)
    for outputs in result.outputs:
        texts = [output["data"].get("text/html") or output["data"]["text/plain"] for output in outputs]
        assert texts == ["<b>bold</b>", "'100 %'"]
    assert [reply.execute_result["data"] for reply in replies] == [{"text/plain": "42"}] * len(rc)
    assert [reply.engine_id for reply in replies] == rc.ids


def test_an_error_on_many_engines_is_one_text(rc: Client) -> None:
    result = rc[:].execute("1 / 0")
    with pytest.raises(CompositeError) as caught:
        result.get(DEADLINE_S)
    everybody = f"[0-{len(rc) - 1}]"
    assert str(caught.value).splitlines()[1:] == [f"{everybody} ZeroDivisionError: division by zero"]
    lines = caught.value.render_traceback()
    assert lines.count(f"{everybody[:-1]}:execute]:") == 1
    assert [error[3]["method"] for error in caught.value.elist] == ["execute"] * len(rc)


def test_input_is_refused_with_a_clear_error(flat_rc: Client) -> None:
    result: Any = flat_rc[0].execute("input('name? ')")
    with pytest.raises(Exception, match="nobody answers input"):
        result.get(DEADLINE_S)


def test_a_callback_hears_output_as_it_comes(flat_rc: Client) -> None:
    heard: list[tuple[list[int], str]] = []
    result = flat_rc[[1, 2]].execute("import time\ntime.sleep(0.2)\nprint('hello')\ntime.sleep(0.2)")
    result.add_output_callback(lambda engines, outputs: heard.append((engines, outputs[0].text)))
    result.get(DEADLINE_S)
    assert sorted(engine for engines, _ in heard for engine in engines) == [1, 2]
    assert {text for _, text in heard} == {"hello\n"}
