"""The reply to a cell is what ipyparallel's users know: an ExecuteReply that can be shown."""

from __future__ import annotations

import pickle

import pytest

from hiersched.data.cells import CellReply, JupyterReply, pack_jupyter_reply, unpack_jupyter_reply
from hiersched.errors import ProtocolError


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
    assert (empty.data, empty.source, repr(empty)) == ({}, "", "<ExecuteReply[3]: >")


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
    assert repr(reply("42")) == "<ExecuteReply[3]: 42>"


def test_elsewhere_it_is_printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(__import__("sys").modules, "IPython", raising=False)
    reply("42", engine_id=5).display()
    assert capsys.readouterr().out == "Out[5:3]: 42\n"


def test_ipython_may_ask_for_one_format() -> None:
    image = {"data": {"text/plain": "x", "image/png": "aGk="}, "metadata": {"image/png": {"width": 10}}}
    assert CellReply(3, image)._repr_png_() == ("aGk=", {"width": 10})
    assert reply("42")._repr_html_() == "<b>x</b>"
    assert reply("42")._repr_svg_() is None
    assert CellReply(3, None)._repr_html_() is None


def test_a_long_last_expression_is_cut_where_it_is_named() -> None:
    assert repr(reply("x" * 40)) == f"<ExecuteReply[3]: {'x' * 29}...>"


# --- for clients that speak Jupyter's protocol ------------------------------------------------------------------------


def test_a_reply_for_jupyter_travels_without_pickle() -> None:
    result = {"data": {"text/plain": "1", "image/png": b"raw"}, "metadata": {"a": [1, None]}}
    full = JupyterReply(4, result, {"x": {"status": "ok", "data": {"text/plain": "2"}}})
    for given in (full, JupyterReply(4)):
        assert unpack_jupyter_reply(memoryview(pack_jupyter_reply(given))) == given


def test_what_does_not_travel_is_shown_as_text() -> None:
    odd = {"data": {"text/plain": "a\ud800", 5: 2**70, "of": {1}}, "metadata": {"n": 1.5}}
    given = unpack_jupyter_reply(pack_jupyter_reply(JupyterReply(1, odd)))
    assert given.execute_result == {
        "data": {"text/plain": "a\\ud800", "5": str(2**70), "of": "{1}"},
        "metadata": {"n": 1.5},
    }


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x90", b"\x93\x01\xa1\xff\x80", pickle.dumps(1)])
def test_what_is_no_reply_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        unpack_jupyter_reply(data)
