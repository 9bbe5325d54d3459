"""The two ways an engine runs code, in one namespace; whatever the code does, an outcome comes of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ipyparallel.error
import msgspec
import numpy as np
import pytest
from ipyparallel.serialize import deserialize_object, pack_apply_message

from hiersched.data import namespace
from hiersched.data.applied import APPLIED
from hiersched.data.cells import Cell, CellReply, JupyterReply, unpack_jupyter_reply
from hiersched.data.outcomes import Outcome, PackedOutcome, unpack_outcome
from hiersched.data.outputs import Text, pack_outputs, unpack_outputs
from hiersched.data.serialize import Packer, digest_of
from hiersched.errors import RemoteError
from hiersched.nodes import lanes as lanes_module
from hiersched.nodes.lanes import Lanes
from hiersched.nodes.shell import EngineShell
from hiersched.protocol import messages as m


class Bench:
    """An engine's lanes, and a client's packer."""

    def __init__(self, shell: EngineShell) -> None:
        with self._streams(sys.stdout, sys.stderr, sys.stdin):
            self.lanes = Lanes(shell)
            self._own = sys.stdout, sys.stderr, sys.stdin
        self.names = self.lanes.namespace
        self._packer = Packer()

    def call(self, function: Any, *args: Any, **kwargs: Any) -> Outcome:
        packed = self._packer.pack_call(function, args, kwargs)
        with self._streams(*self._own):
            return self._outcome(self.lanes.run_call(packed.function, packed.frames, packed.blobs))

    def apply(self, function: Any, *args: Any, **kwargs: Any) -> Outcome:
        """As a client of ipyparallel calls it."""
        canned, *frames = [bytes(buffer) for buffer in pack_apply_message(function, args, kwargs)]
        blob = APPLIED + canned
        digest = digest_of(blob)
        with self._streams(*self._own):
            return self._outcome(self.lanes.run_call(digest, frames, {digest: blob}))

    def cell(self, code: str, *, silent: bool = False) -> Outcome:
        return self.ask(Cell(code, silent))

    def ask(self, cell: Cell) -> Outcome:
        with self._streams(*self._own):
            return self._outcome(self.lanes.run_cell([msgspec.msgpack.encode(cell)]))

    def _outcome(self, packed: PackedOutcome) -> Outcome:
        """As a client has it, with the piece that an engine sends ahead of an outcome that may not travel."""
        self.code = packed.code
        outcome = unpack_outcome(packed.whole)
        assert outcome.complete
        outcome.take_output(unpack_outputs(pack_outputs(self.lanes.transcript.finish())))
        return outcome

    @staticmethod
    @contextmanager
    def _streams(stdout: Any, stderr: Any, stdin: Any) -> Iterator[None]:
        """The streams of the engine; afterwards those of the tests, which pytest changes as it goes."""
        before = sys.stdout, sys.stderr, sys.stdin
        sys.stdout, sys.stderr, sys.stdin = stdout, stderr, stdin
        try:
            yield
        finally:
            sys.stdout, sys.stderr, sys.stdin = before


@pytest.fixture
def bench(shell: EngineShell, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setattr(namespace, "user_namespace", namespace.user_namespace)
    shell.reset(new_session=True)
    return Bench(shell)


def notebook(source: str) -> Any:
    """The last thing that `source` defines, as a notebook's cell would."""
    cell: dict[str, Any] = {"__name__": "__main__"}
    exec(source, cell)
    return list(cell.values())[-1]


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_call_gives_its_value(bench: Bench) -> None:
    outcome = bench.call(divmod, 17, 5)
    assert outcome.ok
    assert outcome.value == (3, 2)
    assert outcome.started is not None
    assert outcome.ended is not None
    assert outcome.started <= outcome.ended
    assert bench.call(sorted, [2, 3, 1], reverse=True).value == [3, 2, 1]


def test_calls_and_cells_share_one_namespace(bench: Bench) -> None:
    bench.cell("x = 20")
    assert bench.call(notebook("def f(): return x + 1")).value == 21
    bench.call(notebook("def g():\n    global y\n    y = 5"))
    assert bench.cell("x + y").value.execute_result["data"]["text/plain"] == "25"
    assert bench.call(namespace.pull, ["x", "y"]).value == [20, 5]
    bench.call(namespace.push, z=[1])
    assert bench.names["z"] == [1]


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("raise SystemExit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"),
        ("import no_such_module", "ModuleNotFoundError"),
        ("input()", "EOFError"),
        ("exit()", "RuntimeError"),
    ],
)
def test_whatever_a_call_raises_is_its_outcome(bench: Bench, code: str, ename: str) -> None:
    outcome = bench.call(notebook(f"def f():\n    print('so far')\n    {code}"))
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.ename == ename
    assert outcome.stdout == "so far\n"
    assert bench.code == (m.INTERRUPTED if ename == "KeyboardInterrupt" else m.RAISED)
    assert bench.call(abs, -1).value == 1
    assert bench.code == 0


def test_a_value_that_cannot_be_packed_is_an_error_that_names_it(bench: Bench) -> None:
    outcome = bench.call(notebook("def f():\n    print('so far')\n    return (i for i in ())"))
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.ename == "PackError"
    assert "the result" in outcome.error.evalue
    assert outcome.stdout == "so far\n"


def test_a_function_that_is_not_here_is_an_error_and_not_the_end(bench: Bench) -> None:
    outcome = unpack_outcome(bench.lanes.run_call(bytes(16), [b""], {}).whole)
    assert not outcome.ok


# --- output -----------------------------------------------------------------------------------------------------------


def test_output_goes_with_the_call_that_made_it(bench: Bench) -> None:
    talk = notebook("def talk(word):\n    import sys\n    print(word)\n    print(word, file=sys.stderr)")
    first, second, silent = bench.call(talk, "one"), bench.call(talk, "two"), bench.call(abs, -1)
    assert (first.stdout, first.stderr) == ("one\n", "one\n")
    assert (second.stdout, second.stderr) == ("two\n", "two\n")
    assert (silent.stdout, silent.stderr, list(silent.outputs)) == ("", "", [])


def test_displays_go_with_the_call_or_cell_that_made_them(bench: Bench) -> None:
    bench.cell("from IPython.display import HTML")
    by_call = bench.call(
        notebook("def show():\n    from IPython.display import display\n    display(HTML('<i>1</i>'))")
    )
    assert [output["data"]["text/html"] for output in by_call.outputs] == ["<i>1</i>"]
    assert not bench.call(abs, -1).outputs
    by_cell = bench.cell("display(HTML('<i>2</i>'))\ndisplay(3, metadata={'a': 1})")
    assert [output["data"].get("text/html") for output in by_cell.outputs] == ["<i>2</i>", None]
    assert by_cell.outputs[1]["metadata"] == {"a": 1}
    failing = bench.cell("display(4)\n1 / 0")
    assert len(failing.outputs) == 1
    assert not bench.cell("display(5)\nfrom IPython.display import clear_output\nclear_output()").outputs


# --- cells ------------------------------------------------------------------------------------------------------------


def test_a_cell_gives_its_last_expression(bench: Bench) -> None:
    reply = bench.cell("x = 2\nx * 3").value
    assert isinstance(reply, CellReply)
    assert reply.execute_result == {"data": {"text/plain": "6"}, "metadata": {}}
    assert bench.cell("x = 2").value.execute_result is None
    assert bench.cell("x * 3;").value.execute_result is None
    assert bench.cell("x", silent=True).value.execute_result is None


def test_cells_are_counted_unless_silent(bench: Bench) -> None:
    counts = [bench.cell("1", silent=silent).value.execution_count for silent in (False, False, True, False)]
    assert counts[1] == counts[0] + 1
    assert counts[3] == counts[1] + 1
    assert bench.cell(f"Out[{counts[0]}]").value.execute_result["data"]["text/plain"] == "1"


def test_magics_awaits_and_shell_commands_run(bench: Bench) -> None:
    assert bench.cell("%%capture kept\nprint('x')").stdout == ""
    assert bench.names["kept"].stdout == "x\n"
    assert bench.cell("import asyncio\nawait asyncio.sleep(0, 7)").value.execute_result["data"]["text/plain"] == "7"
    assert "echoed" in bench.cell("!echo echoed").stdout


@pytest.mark.parametrize(
    ("code", "ename"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("1 +", "SyntaxError"),
        ("  x = 1\n y = 2", "IndentationError"),
        ("%no_such_magic", "UsageError"),
        pytest.param(
            "raise SystemExit(3)", "SystemExit", marks=pytest.mark.filterwarnings("ignore:To exit:UserWarning")
        ),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("exit()", "RuntimeError"),
        ("quit", "RuntimeError"),
        ("input('name')", "EOFError"),
        ("await asyncio.no_such_thing()", "NameError"),
    ],
)
@pytest.mark.parametrize("silent", [True, False])
def test_a_cell_that_fails_tells_how(bench: Bench, code: str, ename: str, silent: bool) -> None:
    outcome = bench.cell(code, silent=silent)
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.ename == ename
    assert outcome.error.traceback_lines
    assert bench.cell("1 + 1").value.execute_result["data"]["text/plain"] == "2"


def test_a_cell_shows_ipythons_traceback(bench: Bench) -> None:
    outcome = bench.cell("def broken():\n    return 1 / 0  # here\nbroken()")
    assert outcome.error is not None
    assert "here" in "\n".join(outcome.error.traceback_lines)  # type: ignore[attr-defined]
    assert outcome.stderr == ""  # it is not printed as well


def test_the_namespace_can_be_reset(bench: Bench) -> None:
    bench.cell("x = 1")
    bench.cell("%reset -f")
    assert "x" not in bench.names
    bench.cell("y = 2")
    assert bench.call(namespace.pull, "y").value == 2


def test_nothing_is_written_to_a_history(bench: Bench, shell: EngineShell) -> None:
    bench.cell("remembered = 1")
    assert shell.history_manager is not None
    assert shell.history_manager.enabled is False


# --- for clients of ipyparallel ---------------------------------------------------------------------------------------


def value_of(outcome: Outcome) -> Any:
    """What such a client makes of it."""
    value, left = deserialize_object(outcome.buffers)
    assert not left
    return value


def test_an_old_clients_call_sees_the_same_names(bench: Bench) -> None:
    bench.cell("x = 20")
    outcome = bench.apply(notebook("def f(y):\n    global z\n    z = 5\n    print('words')\n    return x + y"), 1)
    assert (value_of(outcome), outcome.stdout) == (21, "words\n")
    assert outcome.started is not None
    assert outcome.ended is not None
    assert bench.names["z"] == 5
    assert value_of(bench.apply(lambda data: data * 2, np.ones(100_000))).sum() == 200_000
    assert bench.apply(print, "more").stdout == "more\n"


@pytest.mark.parametrize(
    ("code", "ename", "how"),
    [
        ("1 / 0", "ZeroDivisionError", m.RAISED),
        ("raise SystemExit(3)", "SystemExit", m.RAISED),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", m.INTERRUPTED),
        ("from ipyparallel.error import UnmetDependency\n    raise UnmetDependency", "UnmetDependency", m.UNMET),
        ("return (thread for thread in ())", "TypeError", m.RAISED),
    ],
)
def test_whatever_an_old_clients_call_raises_is_its_outcome(bench: Bench, code: str, ename: str, how: int) -> None:
    outcome = bench.apply(notebook(f"def f():\n    print('so far')\n    {code}"))
    assert isinstance(outcome.error, RemoteError)
    assert (outcome.error.ename, outcome.stdout, bench.code) == (ename, "so far\n", how)
    assert value_of(bench.apply(abs, -1)) == 1


def test_an_old_clients_arguments_that_cannot_be_unpacked_are_its_error(bench: Bench) -> None:
    canned = pack_apply_message(abs, (), {})[0]
    outcome = unpack_outcome(bench.lanes.run_call(bytes(16), [b"nonsense"], {bytes(16): APPLIED + canned}).whole)
    assert isinstance(outcome.error, RemoteError)
    assert outcome.error.ename == "UnpicklingError"
    reference = ipyparallel.Reference("nothing")
    failed = bench.apply(abs, reference).error
    assert isinstance(failed, RemoteError)
    assert failed.ename == "NameError"


@pytest.mark.parametrize("packing", ["pack_applied", "pack_outcome_buffers"])
def test_an_interrupt_while_an_old_clients_result_is_packed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, packing: str
) -> None:
    def interrupted(*args: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lanes_module, packing, interrupted)
        outcome = bench.apply(print, "words")
    assert isinstance(outcome.error, RemoteError)
    assert (outcome.error.ename, outcome.stdout, bench.code) == ("KeyboardInterrupt", "words\n", m.INTERRUPTED)
    assert bench.apply(abs, -1).stdout == ""


def test_a_cell_for_jupyter_gives_buffers(bench: Bench) -> None:
    wanted = {"double": "x * 2", "bad": "1 / 0", "nothing": "no_such_name"}
    outcome = bench.ask(Cell("x = 21\nprint('words')\nx", silent=False, jupyter=True, expressions=wanted))
    (packed,) = outcome.buffers
    reply = unpack_jupyter_reply(packed)
    assert reply.execute_result == {"data": {"text/plain": "21"}, "metadata": {}}
    assert reply.user_expressions["double"]["data"] == {"text/plain": "42"}
    assert [reply.user_expressions[name]["ename"] for name in ("bad", "nothing")] == ["ZeroDivisionError", "NameError"]
    assert outcome.stdout == "words\n"
    (packed,) = bench.ask(Cell("x = 1", silent=True, jupyter=True)).buffers
    assert unpack_jupyter_reply(packed) == JupyterReply(reply.execution_count)
    failed = bench.ask(Cell("1 / 0", silent=False, jupyter=True)).error
    assert isinstance(failed, RemoteError)
    assert failed.ename == "ZeroDivisionError"


def test_an_interrupt_while_the_reply_to_a_cell_is_packed_loses_no_output(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any, **rest: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(lanes_module, "pack_outcome_buffers", interrupted)
    with pytest.raises(KeyboardInterrupt):  # the engine asks for the outcome of what was interrupted
        bench.ask(Cell("print('words')", silent=True, jupyter=True))
    assert unpack_outputs(pack_outputs(bench.lanes.transcript.finish())) == [Text("stdout", "words\n")]
