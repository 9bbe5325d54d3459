"""What engines printed and displayed is shown under their names."""

from __future__ import annotations

import pytest

from hiersched.client.display import show_outputs
from hiersched.client.metadata import Metadata


def part(engine: int, *, stdout: str = "", stderr: str = "", shown: tuple[str, ...] = ()) -> Metadata:
    outputs = [{"data": {"text/plain": text}, "metadata": {}} for text in shown]
    return Metadata(engine_id=engine, stdout=stdout, stderr=stderr, outputs=outputs)


PARTS = [part(0, stdout="zero\n", shown=("a", "b")), part(1), part(2, stdout="two", stderr="oh\n", shown=("c",))]


def test_streams_come_first_then_what_was_displayed(capsys):
    show_outputs(PARTS, single=False)
    printed = capsys.readouterr()
    assert printed.out.split() == ["[stdout:0]", "zero", "[stdout:2]", "two", "[output:0]", "a", "b", "[output:2]", "c"]
    assert printed.err.split() == ["[stderr:2]", "oh"]


def test_outputs_can_be_grouped_by_engine(capsys):
    show_outputs(PARTS, single=False, groupby="engine")
    assert capsys.readouterr().out.split() == [
        *("[stdout:0]", "zero", "[output:0]", "a", "b"),
        *("[stdout:2]", "two", "[output:2]", "c"),
    ]


def test_outputs_can_be_collated(capsys):
    show_outputs(PARTS, single=False, groupby="order")
    assert capsys.readouterr().out.split()[4:] == ["[output:0]", "a", "[output:2]", "c", "[output:0]", "b"]


def test_a_single_engine_is_not_named(capsys):
    show_outputs([PARTS[2]], single=True)
    assert capsys.readouterr().out == "two\nc\n"


def test_what_has_no_text_is_named_by_its_type(capsys):
    picture = Metadata(engine_id=0, stdout="", stderr="", outputs=[{"data": {"image/png": "..."}, "metadata": None}])
    show_outputs([picture], single=True)
    assert capsys.readouterr().out == "<image/png>\n"


def test_another_grouping_is_refused():
    with pytest.raises(ValueError, match="groupby"):
        show_outputs(PARTS, single=False, groupby="colour")
