"""A notebook that works on engines, from its first cell to its last, as its reader sees it.

The test is the front end: it reads what the kernel sends while a cell runs, and moves a slider. The same notebook runs
with ipyparallel's client on a controller and engines of ours, and with our client and cluster; `-m slow` runs it with
nothing of ours, which shows that its reader may expect what is expected here.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook

from tests.compat.either import ROOT
from tests.patience import DEADLINE_S

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

ENGINES = 3
MOVED_TO = 7
WIDGET = "application/vnd.jupyter.widget-view+json"
CELLS = {
    "connect": """
rc = cluster.start_and_connect_sync()
view = rc[:]
view.block = True
view.scatter("rank", rc.ids, flatten=True)
view.activate()
""",
    "line": "%px print('hello from', rank)",
    "value": "%px 6 * 7",
    "stream": """%%px --stream
import pathlib, time
print("started", flush=True)
ends_at = time.monotonic() + 20
while not pathlib.Path("gate").exists() and time.monotonic() < ends_at:
    time.sleep(0.01)
print("was seen" if time.monotonic() < ends_at else "was not seen")
""",
    "html": """%%px
from IPython.display import HTML, display
display(HTML(f"<b>engine {rank}</b>"))
""",
    "figure": """%%px --targets 0:2
%matplotlib inline
import matplotlib.pyplot as plt
figure, axes = plt.subplots()
axes.plot([rank, 1])
plt.show()
""",
    "error": """%%px
if rank == 1:
    raise ValueError("odd one out")
""",
    "after": "view.apply_sync(lambda: rank + 1)",
    "progress": """
import time
result = view.apply_async(time.sleep, 1.5)
result.wait_interactive()
""",
    "slider": """%%px --targets 1
import ipywidgets
from IPython.display import display
slider = ipywidgets.IntSlider(value=3, description="how far")
display(slider)
""",
    "moved": """%%px --targets 1
print("moved to", slider.value)
""",
    "changed": """%%px --targets 1
slider.max = 250
""",
    "stop": """
rc.close()
cluster.stop_cluster_sync()
""",
}
OLD = "import ipyparallel\ncluster = ipyparallel.Cluster(n={n}, delay=0, log_level=40{kinds})\n"
SIDES = [
    pytest.param(
        OLD.format(n=ENGINES, kinds=', controller="hiersched", engines="hiersched"'), id="ipyparallel-on-ours"
    ),
    pytest.param(f"import hiersched\ncluster = hiersched.Cluster(n={ENGINES})\n", id="ours"),
    pytest.param(OLD.format(n=ENGINES, kinds=""), id="stock", marks=pytest.mark.slow),
]


class FrontEnd(NotebookClient):
    """Runs a notebook. gate: a file that is made when the reader has seen that the streaming cell started."""

    def __init__(self, notebook: NotebookNode, gate: Path) -> None:
        super().__init__(notebook, timeout=int(DEADLINE_S), kernel_name="python3", allow_errors=True)
        self.on_cell_executed = self._after
        self._gate = gate

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> NotebookNode | None:
        """Take in what the kernel sends while a cell runs."""
        if msg["msg_type"] in ("stream", "display_data") and "started" in json.dumps(msg["content"]):
            self._gate.touch()
        return super().process_message(msg, cell, cell_index)

    def _after(self, cell: NotebookNode, **_: object) -> None:
        """Move the slider once it is there."""
        if cell.id == "slider":
            moved = {"method": "update", "state": {"value": MOVED_TO}, "buffer_paths": []}
            content = {"comm_id": self.model("IntSliderModel"), "data": moved}
            self.kc.shell_channel.send(self.kc.session.msg("comm_msg", content))

    def model(self, name: str) -> str:
        """The id of the widget of this kind. There is one."""
        (identity,) = [key for key, state in self.widget_state.items() if state["_model_name"] == name]
        return identity

    def outputs(self, name: str) -> list[NotebookNode]:
        """What is below this cell."""
        (cell,) = [cell for cell in self.nb.cells if cell.id == name]
        return cell.outputs

    def text(self, name: str) -> str:
        """What can be read below this cell; of an error that ended it, its last line."""
        return "\n".join(map(_text_of, self.outputs(name)))

    def shown(self, name: str, kind: str) -> list[Any]:
        """What is displayed below this cell, of one MIME type."""
        return [output.data[kind] for output in self.outputs(name) if kind in output.get("data", ())]


def _text_of(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return output.text
    return output.evalue if output.output_type == "error" else output.data["text/plain"]


@pytest.fixture(scope="module", params=SIDES)
def front_end(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FrontEnd]:
    """The notebook, run."""
    directory = tmp_path_factory.mktemp("notebook")
    sources = CELLS | {"connect": request.param + CELLS["connect"]}
    notebook = new_notebook(cells=[new_code_cell(source, id=name) for name, source in sources.items()])
    front_end = FrontEnd(notebook, directory / "gate")
    own = {
        "IPYTHONDIR": str(directory / "ipython"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_RUNTIME_DIR", str(directory / "runtime"))
        asyncio.run(front_end.async_execute(env=os.environ | own, cwd=str(directory)))
    yield front_end


def test_no_cell_ends_with_an_error_but_the_one_that_is_to(front_end: FrontEnd) -> None:
    kinds = {cell.id: {output.output_type for output in cell.outputs} for cell in front_end.nb.cells}
    assert [name for name in kinds if "error" in kinds[name]] == ["error"]


def test_what_engines_print_is_below_the_cell_with_their_numbers(front_end: FrontEnd) -> None:
    printed = front_end.text("line")
    for rank in range(ENGINES):
        assert f"hello from {rank}" in printed
        assert f"[stdout:{rank}]" in printed


def test_values_are_shown(front_end: FrontEnd) -> None:
    assert "Out[" in front_end.text("value")
    assert "42" in front_end.text("value")


def test_output_is_seen_while_the_cell_runs(front_end: FrontEnd) -> None:
    assert "was seen" in front_end.text("stream")
    assert "was not seen" not in front_end.text("stream")


def test_what_engines_display_is_displayed(front_end: FrontEnd) -> None:
    assert sorted(front_end.shown("html", "text/html")) == [f"<b>engine {rank}</b>" for rank in range(ENGINES)]


def test_each_engine_has_its_figure(front_end: FrontEnd) -> None:
    figures = [base64.b64decode(image) for image in front_end.shown("figure", "image/png")]
    assert [image[:4] for image in figures] == [b"\x89PNG"] * 2
    assert figures[0] != figures[1]


def test_an_error_is_shown_once_and_others_go_on(front_end: FrontEnd) -> None:
    assert front_end.text("error").count(": odd one out") == 1
    assert front_end.text("error").endswith("1 errors")
    assert front_end.text("after") == "[1, 2, 3]"


def test_a_bar_shows_the_progress(front_end: FrontEnd) -> None:
    (bar,) = front_end.shown("progress", WIDGET)
    parts = [identity.removeprefix("IPY_MODEL_") for identity in front_end.widget_state[bar["model_id"]]["children"]]
    values = [front_end.widget_state[part]["value"] for part in parts]
    assert values[1] == ENGINES
    assert f"{ENGINES}/{ENGINES}" in values[2]


def test_a_slider_of_an_engine_is_moved_here_and_changed_there(front_end: FrontEnd) -> None:
    (slider,) = front_end.shown("slider", WIDGET)
    assert slider["model_id"] == front_end.model("IntSliderModel")
    assert f"moved to {MOVED_TO}" in front_end.text("moved")
    assert front_end.widget_state[slider["model_id"]]["max"] == 250
