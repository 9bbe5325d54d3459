"""What code prints and displays travels whatever it is, and is folded as a notebook would show it."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.data.outputs import (
    Clear,
    Comm,
    Output,
    Shown,
    Text,
    displayed,
    pack_output,
    pack_outputs,
    printed_text,
    unpack_outputs,
)
from hiersched.errors import ProtocolError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
BUNDLES = st.dictionaries(st.text(), JSON, max_size=2)
OUTPUTS = st.one_of(
    st.builds(Text, st.sampled_from(["stdout", "stderr"]), st.text()),
    st.builds(Shown, BUNDLES, BUNDLES, BUNDLES, st.booleans()),
    st.builds(Clear, st.booleans()),
    st.builds(Comm, st.sampled_from(["comm_open", "comm_msg"]), BUNDLES, BUNDLES, st.lists(st.binary())),
)


def shown(text: str, identity: str = "", *, update: bool = False) -> Shown:
    return Shown({"text/plain": text}, {}, {"display_id": identity} if identity else {}, update)


def texts(outputs: list[Output]) -> list[str]:
    return [bundle["data"]["text/plain"] for bundle in displayed(outputs)]


# --- on the way -------------------------------------------------------------------------------------------------------


@given(st.lists(OUTPUTS, max_size=4), st.booleans())
def test_outputs_survive_packed_alone_or_together(outputs: list[Output], alone: bool) -> None:
    piece = pack_outputs([pack_output(output) for output in outputs] if alone else outputs)
    assert unpack_outputs(piece) == outputs


def test_what_is_displayed_is_packed_as_it_is_then() -> None:
    bundle = {"text/plain": "before"}
    packed = pack_output(Shown(bundle))
    bundle["text/plain"] = "after"
    assert unpack_outputs(pack_outputs([packed])) == [Shown({"text/plain": "before"})]


class Mute:
    """Its text cannot be had."""

    def __repr__(self) -> str:
        raise ValueError


def endless() -> dict[str, Any]:
    """Holds itself."""
    holder: dict[str, Any] = {}
    holder["self"] = holder
    return holder


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        ("a\udcffb", "a\\udcffb"),
        (2**70, str(2**70)),
        (np.int64(3), 3),
        (np.float64(0.5), 0.5),
        (object, "<class 'object'>"),
        (Mute(), "<its text cannot be had: ValueError>"),
        ({"n": 2**70, "list": [np.int32(1), "\ud800"]}, {"n": str(2**70), "list": [1, "\\ud800"]}),
        ({1: "one"}, {1: "one"}),
        (b"\x89PNG", b"\x89PNG"),
    ],
)
def test_what_cannot_travel_is_shown_as_its_text(value: Any, arrives: Any) -> None:
    (output,) = unpack_outputs(pack_outputs([Shown({"text/plain": value})]))
    assert output == Shown({"text/plain": arrives})


def test_keys_that_are_no_texts_become_texts() -> None:
    (output,) = unpack_outputs(pack_outputs([Shown({3: "three"}, {(1, 2): "pair"})]))  # type: ignore[dict-item]
    assert output == Shown({"3": "three"}, {"(1, 2)": "pair"})


def test_what_holds_itself_is_cut() -> None:
    (output,) = unpack_outputs(pack_outputs([Shown(endless())]))
    assert "too deep" in str(output)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_piece_or_refused(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        unpack_outputs(data)


# --- as a notebook shows it -------------------------------------------------------------------------------------------


def test_printed_text_is_that_of_one_stream_in_order() -> None:
    outputs: list[Output] = [Text("stdout", "a"), Text("stderr", "!"), shown("x"), Clear(), Text("stdout", "b")]
    assert printed_text(outputs, "stdout") == "ab"
    assert printed_text(outputs, "stderr") == "!"


def test_a_display_is_jupyters() -> None:
    assert displayed([Shown({"text/plain": "x"}, {"a": 1}, {"display_id": "d"})]) == [
        {
            "output_type": "display_data",
            "data": {"text/plain": "x"},
            "metadata": {"a": 1},
            "transient": {"display_id": "d"},
        }
    ]
    assert "transient" not in displayed([shown("x")])[0]


def test_an_update_replaces_what_has_its_id_wherever_it_is() -> None:
    outputs: list[Output] = [shown("1", "d"), shown("2"), shown("3", "d"), shown("new", "d", update=True)]
    assert texts(outputs) == ["new", "2", "new"]
    assert {bundle["output_type"] for bundle in displayed(outputs)} == {"display_data"}


def test_an_update_of_what_an_earlier_call_displayed_stays() -> None:
    (bundle,) = displayed([shown("new", "d", update=True)])
    assert bundle["output_type"] == "update_display_data"


def test_clearing_takes_all_that_was_shown() -> None:
    assert texts([shown("1"), Clear(), shown("2")]) == ["2"]
    assert texts([shown("1"), Clear()]) == []


@pytest.mark.parametrize("output", [shown("2"), Text("stdout", "2")])
def test_clearing_may_wait_for_the_next_output(output: Output) -> None:
    assert texts([shown("1"), Clear(wait=True)]) == ["1"]
    assert "1" not in texts([shown("1"), Clear(wait=True), output])


def test_an_update_does_not_end_the_wait() -> None:
    assert texts([shown("1", "d"), Clear(wait=True), shown("2", "d", update=True)]) == ["2"]
