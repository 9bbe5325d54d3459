"""On an engine, what code publishes by ipyparallel's function goes with its output."""

from __future__ import annotations

import importlib
import sys

import pytest

from hiersched.client.published import published
from hiersched.data.outputs import pack_outputs, unpack_outputs
from hiersched.nodes import datapub
from hiersched.nodes.shell import EngineShell
from hiersched.nodes.transcript import Transcript

NAMES = ("ipyparallel.datapub", "ipyparallel.engine.datapub")


@pytest.fixture
def transcript(shell: EngineShell, monkeypatch: pytest.MonkeyPatch) -> Transcript:
    """Of an engine into which nobody has imported ipyparallel's modules yet."""
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    made = Transcript()
    shell.show_to(made)
    return made


@pytest.mark.parametrize("name", NAMES)
def test_what_is_published_is_among_the_output(transcript: Transcript, name: str) -> None:
    module = importlib.import_module(name)
    module.publish_data({"i": 1})
    module.publish_data({"i": 2})
    assert published(unpack_outputs(pack_outputs(transcript.finish()))) == {"i": 2}


def test_a_module_that_is_there_already_publishes_here_too(monkeypatch: pytest.MonkeyPatch, shell: EngineShell) -> None:
    theirs = type(sys)("ipyparallel.datapub")
    monkeypatch.setitem(sys.modules, "ipyparallel.datapub", theirs)
    datapub.stand_in()
    assert theirs.publish_data is datapub.publish_data
    assert len([finder for finder in sys.meta_path if type(finder).__module__ == datapub.__name__]) == 1


def test_only_names_and_values_are_published() -> None:
    with pytest.raises(TypeError, match="not int"):
        datapub.publish_data(3)  # type: ignore[arg-type]
