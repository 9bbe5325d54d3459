"""IPython on an engine: what code shows goes to the transcript, in whatever way it shows it."""

from __future__ import annotations

import comm
import ipywidgets
import pytest
from IPython.core.interactiveshell import InteractiveShell

from hiersched.data.comms import deliver_comm
from hiersched.data.completion import complete
from hiersched.data.outputs import Clear, Comm, Output, Shown, Text, pack_outputs, unpack_outputs
from hiersched.nodes.shell import EngineComm, EngineShell
from hiersched.nodes.transcript import Transcript


class Screen:
    """What a shell shows."""

    def __init__(self, shell: EngineShell) -> None:
        self.shell = shell
        self.transcript = Transcript()
        shell.show_to(self.transcript)

    def run(self, code: str) -> list[Output]:
        """What a cell shows beside its result."""
        self.shell.result, self.shell.failure = None, None
        self.shell.run_cell(code, silent=False)
        assert self.shell.failure is None, self.shell.failure
        return self.outputs()

    def outputs(self) -> list[Output]:
        return unpack_outputs(pack_outputs(self.transcript.finish()))


@pytest.fixture
def screen(shell: EngineShell) -> Screen:
    shell.reset(new_session=True)
    return Screen(shell)


def test_displays_have_their_id_and_updates_say_so(screen: Screen) -> None:
    first, second = screen.run("handle = display('a', display_id='d')\nhandle.update('b')")
    assert isinstance(first, Shown)
    assert isinstance(second, Shown)
    assert (first.data["text/plain"], first.transient, first.update) == ("'a'", {"display_id": "d"}, False)
    assert (second.data["text/plain"], second.transient, second.update) == ("'b'", {"display_id": "d"}, True)


def test_clearing_is_told_and_not_done(screen: Screen) -> None:
    outputs = screen.run("from IPython.display import clear_output\ndisplay(1)\nclear_output(wait=True)")
    assert outputs[1:] == [Clear(wait=True)]


def test_what_is_displayed_must_be_a_bundle(screen: Screen) -> None:
    with pytest.raises(TypeError, match="data must be a dict"):
        screen.shell.display_pub.publish("no bundle")  # type: ignore[arg-type]


def test_help_is_displayed(screen: Screen) -> None:
    (output,) = screen.run("len?")
    assert isinstance(output, Shown)
    assert "Return the number of items" in output.data["text/plain"]


def test_an_interrupt_is_not_dressed_up(screen: Screen) -> None:
    screen.shell.failure = None
    screen.shell.run_cell("def f():\n    raise KeyboardInterrupt\nf()")
    assert screen.shell.failure is not None
    error, lines = screen.shell.failure
    assert isinstance(error, KeyboardInterrupt)
    assert lines[-1] == "KeyboardInterrupt"
    assert "in f" in "".join(lines)


def test_how_many_cells_ran_before_keeps_no_two_errors_apart(screen: Screen) -> None:
    shown = []
    for _ in range(2):
        screen.shell.run_cell("x = {}; In[0]; 1 / x.get('In[7]', 0)", silent=False, store_history=True)
        assert screen.shell.failure is not None
        shown.append(screen.shell.failure[1])
    assert shown[0] == shown[1]
    assert "In[7]" in "".join(shown[0])  # the user's own words stay as they are


# --- figures ----------------------------------------------------------------------------------------------------------


def test_figures_are_displayed_when_their_cell_ends(screen: Screen) -> None:
    screen.run("%matplotlib inline")
    outputs = screen.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);")
    (figure,) = outputs
    assert isinstance(figure, Shown)
    assert "image/png" in figure.data
    assert screen.run("1") == []


def test_there_is_no_screen_for_other_toolkits(screen: Screen) -> None:
    with pytest.raises(Exception, match="no screen for 'qt'"):
        screen.shell.enable_gui("qt")


# --- widgets ----------------------------------------------------------------------------------------------------------


def test_a_widget_is_made_displayed_and_changed(screen: Screen) -> None:
    outputs = screen.run("import ipywidgets\nslider = ipywidgets.IntSlider(max=9)\ndisplay(slider)\nslider.value = 5")
    opened = [output for output in outputs if isinstance(output, Comm) and output.msg_type == "comm_open"]
    slider = screen.shell.user_ns["slider"]
    assert opened[-1].content["comm_id"] == slider.comm.comm_id
    assert opened[-1].content["target_name"] == "jupyter.widget"
    assert opened[-1].metadata["version"]
    (shown,) = [output for output in outputs if isinstance(output, Shown)]
    assert shown.data["application/vnd.jupyter.widget-view+json"]["model_id"] == slider.comm.comm_id
    changed = outputs[-1]
    assert isinstance(changed, Comm)
    assert changed.content["data"]["state"] == {"value": 5}
    slider.close()
    closed = screen.outputs()[-1]
    assert isinstance(closed, Comm)
    assert closed.msg_type == "comm_close"


def test_what_a_user_does_reaches_the_widget(screen: Screen) -> None:
    screen.run("import ipywidgets\nslider = ipywidgets.IntSlider()\nslider.observe(lambda change: print(change.new))")
    screen.run("")
    slider = screen.shell.user_ns["slider"]
    data = {"method": "update", "state": {"value": 7}, "buffer_paths": []}
    deliver_comm("comm_msg", {"comm_id": slider.comm.comm_id, "data": data})
    assert slider.value == 7
    slider.close()


def test_buffers_travel(screen: Screen) -> None:
    made = EngineComm(target_name="t", data={"x": 1}, buffers=[memoryview(b"abc")])
    (opened,) = screen.outputs()
    assert isinstance(opened, Comm)
    assert opened.buffers == [b"abc"]
    made.close()


def test_a_kernel_that_is_imported_does_not_take_the_comms(screen: Screen) -> None:
    comm.create_comm = comm.get_comm_manager = lambda *args, **kwargs: None
    screen.run("1")
    assert comm.create_comm is EngineComm
    made = ipywidgets.IntSlider()
    assert isinstance(made.comm, EngineComm)
    made.close()


# --- completions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "cursor", "completed"),
    [
        ("precious_n", None, "precious_name"),
        ("x = 1\ny = box.wid + 1", 17, "x = 1\ny = box.width + 1"),
        ("no_such_name_at_all", None, None),
    ],
)
def test_names_of_the_engine_are_completed(
    screen: Screen, code: str, cursor: int | None, completed: str | None
) -> None:
    screen.run("precious_name = 1\nclass Box:\n    width = 3\nbox = Box()")
    found = complete(code, cursor)
    results = [code[: found["cursor_start"]] + match + code[found["cursor_end"] :] for match in found["matches"]]
    assert results == ([] if completed is None else [completed])
    assert (found["status"], found["metadata"]) == ("ok", {})


def test_printed_text_is_no_display(screen: Screen) -> None:
    screen.transcript.write("stdout", "a")
    assert screen.outputs() == [Text("stdout", "a")]


@pytest.mark.parametrize(
    "cell",
    [
        "x = 1\nx + 1",
        "pass\n",
        'text = """\n%px is in here\n!ls\n"""',
        "import asyncio\nawait asyncio.sleep(0)",
        "x = {}",
        "def f():\n    return 1\n\nf();",
    ],
)
def test_python_is_run_as_ipython_would_run_it(screen: Screen, cell: str) -> None:
    assert screen.shell.transform_cell(cell) == InteractiveShell.transform_cell(screen.shell, cell)
    assert screen.run(cell) == []


@pytest.mark.parametrize(
    "cell",
    [
        "%who",
        "%%time\npass",
        "len?",
        "  x = 1",
        "who",
        "In [1]: x = 1",
        ">>> x = 1",
        "x = !echo y",
        "x = %who_ls",
        "if True:\n    %who",
        "print 1",
    ],
)
def test_what_only_ipython_understands_is_left_to_it(screen: Screen, cell: str) -> None:
    assert screen.shell.transform_cell(cell) == InteractiveShell.transform_cell(screen.shell, cell)


def test_the_users_own_transformers_see_every_cell(screen: Screen) -> None:
    screen.shell.input_transformers_post.append(lambda lines: [line.replace("one", "1") for line in lines])
    try:
        screen.run("x = one")
    finally:
        screen.shell.input_transformers_post.clear()
    assert screen.shell.user_ns["x"] == 1


def test_a_cell_may_await(screen: Screen) -> None:
    screen.run("import asyncio\nasync def late(): return 'late'\nx = await late()")
    assert screen.shell.user_ns["x"] == "late"


def test_the_shell_keeps_nothing_of_what_cells_have_shown(screen: Screen) -> None:
    screen.shell.failure = None
    for cell in ("print('printed')", "1 + 1", "1 / 0"):
        screen.shell.run_cell(cell, store_history=True)
    assert (dict(screen.shell.history_manager.outputs), dict(screen.shell.history_manager.exceptions)) == ({}, {})
