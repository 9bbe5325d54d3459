"""What engines printed and displayed is shown under their names, and what is the same for several of them once."""

from __future__ import annotations

from typing import Any

import pytest

from hiersched.client import screen
from hiersched.client.display import show_outputs
from hiersched.client.metadata import Metadata
from hiersched.client.screen import Screen
from hiersched.data.cells import CellReply
from hiersched.data.outputs import Shown


def part(engine: int, *, stdout: str = "", stderr: str = "", shown: tuple[str, ...] = ()) -> Metadata:
    outputs = [{"data": {"text/plain": text}, "metadata": {}} for text in shown]
    return Metadata(engine_id=engine, stdout=stdout, stderr=stderr, outputs=outputs)


def show(parts: list[Metadata], values: list[Any] | None = None, *, single: bool = False, **options: Any) -> None:
    show_outputs(parts, values or [None] * len(parts), single=single, **options)


def replied(text: str, count: int = 1) -> CellReply:
    return CellReply(count, {"data": {"text/plain": text}, "metadata": {}})


PARTS = [part(0, stdout="zero\n", shown=("a", "b")), part(1), part(2, stdout="two", stderr="oh\n", shown=("c",))]


def test_streams_come_first_then_what_was_displayed(capsys):
    show(PARTS)
    printed = capsys.readouterr()
    assert printed.out.split() == ["[stdout:0]", "zero", "[stdout:2]", "two", "[output:0]", "a", "b", "[output:2]", "c"]
    assert printed.err.split() == ["[stderr:2]", "oh"]


def test_outputs_can_be_grouped_by_engine(capsys):
    show(PARTS, groupby="engine")
    assert capsys.readouterr().out.split() == [
        *("[stdout:0]", "zero", "[output:0]", "a", "b"),
        *("[stdout:2]", "two", "[output:2]", "c"),
    ]


def test_outputs_can_be_collated(capsys):
    show(PARTS, groupby="order")
    assert capsys.readouterr().out.split()[4:] == ["[output:0]", "a", "[output:2]", "c", "[output:0]", "b"]


def test_what_is_the_same_is_shown_once(capsys):
    parts = [part(rank, stdout="alike\n", shown=("a",)) for rank in range(500)]
    parts[63] = part(63, stdout="its own\n", shown=("b",))
    show(parts)
    assert capsys.readouterr().out.splitlines() == [
        *("[stdout:0-62,64-499]", "alike", "[stdout:63]", "its own"),
        *("[output:0-62,64-499]", "a", "[output:63]", "b"),
    ]


def test_what_is_the_same_is_shown_once_in_each_row(capsys):
    show([part(0, shown=("a", "b")), part(1, shown=("a", "c"))], groupby="order")
    assert capsys.readouterr().out.splitlines() == ["[output:0-1]", "a", "[output:0]", "b", "[output:1]", "c"]


def test_what_cells_gave_is_shown_last(capsys):
    show([part(0, stdout="zero\n"), part(1), part(2)], [replied("5"), replied("5"), replied("7", 3)])
    assert capsys.readouterr().out.splitlines() == ["[stdout:0]", "zero", "Out[0-1:1]: 5", "Out[2:3]: 7"]


def test_what_cells_gave_can_be_shown_alone(capsys):
    show([part(0, stdout="zero\n", shown=("a",))], [replied("5")], result_only=True)
    assert capsys.readouterr().out == "Out[0:1]: 5\n"


def test_a_single_engine_is_not_named(capsys):
    show([PARTS[2]], single=True)
    assert capsys.readouterr().out == "two\nc\n"


def test_what_has_no_text_is_named_by_its_type(capsys):
    picture = Metadata(engine_id=0, stdout="", stderr="", outputs=[{"data": {"image/png": "..."}, "metadata": None}])
    show([picture], single=True)
    assert capsys.readouterr().out == "<image/png>\n"


def test_another_grouping_is_refused():
    with pytest.raises(ValueError, match="groupby"):
        show(PARTS, groupby="colour")


# --- the screen -------------------------------------------------------------------------------------------------------


def test_a_label_is_repeated_only_when_another_came_between(capsys):
    on = Screen(single=False)
    for engines, text in [([0], "one "), ([0], "two\n"), ([1], "three"), ([0, 1], "four\n")]:
        on.print_text("stdout", engines, text)
    assert capsys.readouterr().out == "[stdout:0]\none two\n[stdout:1]\nthree\n[stdout:0-1]\nfour\n"


class Frontend:
    """IPython's display, in a list."""

    def __init__(self) -> None:
        self.display_pub = self
        self.calls: list[dict[str, Any]] = []

    def publish(self, **call: Any) -> None:
        self.calls.append(call)

    def clear_output(self, wait: bool) -> None:
        self.calls.append({"cleared": wait})


@pytest.fixture
def frontend(monkeypatch: pytest.MonkeyPatch) -> Frontend:
    frontend = Frontend()
    monkeypatch.setattr(screen, "current_shell", lambda: frontend)
    return frontend


def test_in_ipython_it_is_published_with_its_engines(frontend):
    show([part(0, shown=("a",)), part(1, shown=("a",)), part(2, shown=("b",))])
    assert [(call["data"]["text/plain"], call["metadata"]["engine"]) for call in frontend.calls] == [
        ("a", [0, 1]),
        ("b", 2),
    ]


def test_what_can_be_updated_is_kept_apart_for_each_engine(frontend):
    on = Screen(single=False)
    first = Shown({"text/plain": "0 %"}, transient={"display_id": "bar"})
    later = Shown({"text/plain": "9 %"}, transient={"display_id": "bar"}, update=True)
    on.show([0, 1], first)
    on.show([1], later)
    assert [(call["transient"], call["update"]) for call in frontend.calls] == [
        ({"display_id": "bar-engine-0"}, False),
        ({"display_id": "bar-engine-1"}, False),
        ({"display_id": "bar-engine-1"}, True),
    ]


def test_what_cannot_be_updated_is_published_once(frontend):
    Screen(single=False).show([0, 1], Shown({"text/plain": "a"}))
    assert len(frontend.calls) == 1


def test_output_is_cleared_where_there_is_a_frontend(frontend, monkeypatch):
    Screen(single=True).clear(wait=True)
    assert frontend.calls == [{"cleared": True}]
    monkeypatch.setattr(screen, "current_shell", lambda: None)
    Screen(single=True).clear(wait=False)
    assert len(frontend.calls) == 1
