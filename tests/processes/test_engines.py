"""What an engine is like to the code that runs on it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hiersched.client.client import Client
from hiersched.client.cluster import Cluster
from hiersched.errors import RemoteError
from hiersched.nodes.host import THREAD_VARIABLES
from tests.patience import DEADLINE_S
from tests.processes import errands
from tests.processes.conftest import in_a_notebook, pids_of


def shown(rc: Client, code: str) -> tuple[str, str, list[dict[str, object]]]:
    """What a cell on engine 0 printed on stdout and on stderr, and what it displayed."""
    cell = rc[0].execute(code, silent=False)
    cell.wait(DEADLINE_S)
    return cell.stdout, cell.stderr, cell.outputs


# --- the process ------------------------------------------------------------------------------------------------------


def test_engines_draw_different_random_numbers(rc: Client) -> None:
    for draw in ("random.random", "np.random.random", "uuid.uuid4"):  # the functions would bring their state along
        rc[:].execute("import random, uuid; import numpy as np", block=True)
        assert len({*rc[:].pull(f"{draw}()", block=True)}) == len(rc)


def test_code_runs_in_the_main_thread(rc: Client) -> None:
    assert rc[:].apply_sync(errands.thread_name) == ["MainThread"] * len(rc)


def test_engines_share_the_cores_fairly_unless_told_otherwise(flat_rc: Client) -> None:
    cores = len(os.sched_getaffinity(0))
    fair = dict.fromkeys(THREAD_VARIABLES, str(max(1, cores // 4)))
    assert flat_rc[:].apply_sync(errands.environment, *THREAD_VARIABLES) == [fair] * 4


def test_preloaded_modules_and_threads_are_as_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "costly.py").write_text("import os\nloaded_by = os.getpid()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Cluster(2, preload=["costly", "json.tool"], threads=3) as rc:
        loaded_by = rc[:].apply_sync(errands.attribute, "costly", "loaded_by")
        assert len(set(loaded_by)) == 1  # once for all, before they were forked
        assert not set(loaded_by) & set(rc[:].apply_sync(os.getpid))
        assert rc[0].apply_sync(errands.environment, "OMP_NUM_THREADS") == {"OMP_NUM_THREADS": "3"}


def test_an_engine_finds_the_modules_that_its_client_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "of_the_project.py").write_text("def answer(): return 42\n")
    monkeypatch.syspath_prepend(tmp_path)
    with Cluster(1) as rc:
        import of_the_project  # type: ignore[import-not-found]

        assert rc[0].apply_sync(of_the_project.answer) == 42


def test_engines_listen_to_nobody_but_their_scheduler(rc: Client) -> None:
    import psutil

    for pid in pids_of(rc).values():
        assert not [c for c in psutil.Process(pid).net_connections(kind="all") if c.status == psutil.CONN_LISTEN]


# --- output -----------------------------------------------------------------------------------------------------------


def test_what_is_printed_comes_with_the_result(rc: Client) -> None:
    call = rc[:].apply_async(
        in_a_notebook("def talk():\n    import sys\n    print('out')\n    print('err', file=sys.stderr)")
    )
    call.wait(DEADLINE_S)
    assert call.stdout == ["out\n"] * len(rc)
    assert call.stderr == ["err\n"] * len(rc)
    silent = rc[0].apply_async(abs, -3)
    silent.wait(DEADLINE_S)
    assert (silent.stdout, silent.stderr) == ("", "")


def test_what_a_failing_call_printed_is_kept(rc: Client) -> None:
    call = rc[0].apply_async(in_a_notebook("def fail():\n    print('before')\n    1 / 0"))
    call.wait(DEADLINE_S)
    assert call.stdout == "before\n"
    assert not call.successful()


def test_what_tasks_print_is_told_apart(rc: Client) -> None:
    balanced = rc.load_balanced_view()
    tasks = [balanced.apply_async(print, number) for number in range(50)]
    rc.wait(tasks, DEADLINE_S)
    assert [task.stdout for task in tasks] == [f"{number}\n" for number in range(50)]


def test_a_call_may_display(rc: Client) -> None:
    call = rc[0].apply_async(
        in_a_notebook("def show():\n    from IPython.display import HTML, display\n    display(HTML('<b>1</b>'))")
    )
    call.wait(DEADLINE_S)
    assert [output["data"]["text/html"] for output in call.outputs] == ["<b>1</b>"]
    quiet = rc[0].apply_async(abs, -3)
    quiet.wait(DEADLINE_S)
    assert quiet.outputs == []


# --- cells ------------------------------------------------------------------------------------------------------------


def test_the_last_expression_of_a_cell_is_its_result(rc: Client) -> None:
    reply = rc[0].execute("x = 20\nx + 1", silent=False).get(DEADLINE_S)
    assert reply.execute_result["data"]["text/plain"] == "21"
    again = rc[0].execute("x", silent=False).get(DEADLINE_S)
    assert again.execution_count == reply.execution_count + 1
    assert rc[0].execute("x", silent=True).get(DEADLINE_S).execute_result is None


def test_a_cell_prints_and_displays(rc: Client) -> None:
    out, err, outputs = shown(rc, "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay({'a': 1})")
    assert (out, err) == ("out\n", "err\n")
    assert [output["data"] for output in outputs] == [{"text/plain": "{'a': 1}"}]


def test_magics_and_shell_commands_work(rc: Client) -> None:
    rc[0].execute("%env HS_TEST=set", block=True)
    assert rc[0].apply_sync(errands.environment, "HS_TEST") == {"HS_TEST": "set"}
    assert "loop" in shown(rc, "%timeit -n1 -r1 pass")[0]
    assert shown(rc, "%%capture kept\nprint('kept')")[0] == ""
    assert rc[0]["kept.stdout"] == "kept\n"
    assert shown(rc, "!echo from the shell")[0].strip() == "from the shell"


def test_a_cell_may_await(rc: Client) -> None:
    reply = rc[0].execute("import asyncio\nawait asyncio.sleep(0, 'awaited')", silent=False).get(DEADLINE_S)
    assert reply.execute_result["data"]["text/plain"] == "'awaited'"


def test_get_ipython_is_there(rc: Client) -> None:
    rc[0].execute("from IPython import get_ipython as found\nsame = found() is get_ipython()", block=True)
    assert rc[0]["same"] is True


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def f(:", "SyntaxError"),
        ("%no_such_magic", "UsageError"),
        ("undefined", "NameError"),
    ],
)
def test_a_cell_that_fails_raises_here(flat_rc: Client, code: str, ename: str) -> None:
    with pytest.raises(RemoteError) as caught:
        flat_rc[0].execute(code).get(DEADLINE_S)
    assert caught.value.ename == ename
    assert caught.value.traceback_lines
    assert flat_rc[0].execute("1 + 1", silent=False).get(DEADLINE_S).execute_result["data"] == {"text/plain": "2"}


@pytest.mark.parametrize("way", ["call", "cell"])
def test_nobody_can_be_asked(flat_rc: Client, way: str) -> None:
    for _ in range(2):
        call = flat_rc[0].apply_async(input) if way == "call" else flat_rc[0].execute("input('name? ')")
        with pytest.raises(RemoteError, match="EOFError: nobody answers input"):
            call.get(DEADLINE_S)
        with pytest.raises(RemoteError, match="SystemExit"):
            flat_rc[0].apply_async(exit).get(DEADLINE_S)  # which closes what it finds as stdin


def test_a_file_is_run_as_a_cell(rc: Client, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from_file = 6 * 7\n")
    rc[:].run(str(script), block=True)
    assert rc[:]["from_file"] == [42] * len(rc)
