"""The reply to a cell is what ipyparallel's users know: an ExecuteReply that can be shown."""

from __future__ import annotations

import pickle

import pytest

from hiersched.data.cells import CellReply


def reply(text: str, **metadata: object) -> CellReply:
    result = {"data": {"text/plain": text, "text/html": "<b>x</b>"}, "metadata": {"m": 1}}
    return CellReply(3, result, dict(metadata))


def test_it_is_shown_with_the_engine_it_came_from() -> None:
    data, metadata = reply("42", engine_id=5)._repr_mimebundle_()
    assert data == {"text/plain": "Out[5:3]: 42", "text/html": "<b>x</b>"}
    assert metadata == {"m": 1}
    assert reply("a\nb", engine_id=5)._repr_mimebundle_()[0]["text/plain"] == "Out[5:3]: \na\nb"


def test_without_a_last_expression_it_shows_nothing() -> None:
    empty = CellReply(3, None)
    assert empty._repr_mimebundle_() == ({}, {})
    assert (empty.data, empty.source, repr(empty)) == ({}, "", "<cell 3>")


def test_its_metadata_are_items_and_attributes() -> None:
    known = reply("42", engine_id=5, stdout="words")
    assert (known["engine_id"], known.engine_id, known.stdout) == (5, 5, "words")
    with pytest.raises(AttributeError):
        _ = known.nothing
    with pytest.raises(KeyError):
        _ = known["nothing"]


def test_what_it_shows_does_not_change_it() -> None:
    shown = reply("42", engine_id=5)
    shown.data["text/plain"] = "other"
    shown._repr_mimebundle_()[0].clear()
    assert shown.data["text/plain"] == "42"


def test_it_travels() -> None:
    assert pickle.loads(pickle.dumps(reply("42"))) == reply("42")
    assert repr(reply("42")) == "<cell 3: 42>"


def test_elsewhere_it_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "IPython", raising=False)
    reply("42", engine_id=5).display()
    assert capsys.readouterr().out == "Out[5:3]: 42\n"
