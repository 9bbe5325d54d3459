"""Objects as bytes: nothing large is copied, nothing is lost, and small values are one piece."""

from __future__ import annotations

import copyreg
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from hiersched.data.pickles import Buffer, Pickled, dump, dump_whole, load
from hiersched.errors import UnpackError
from hiersched.limits import INLINE_BYTES_MAX

ATOMS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(ATOMS)
    ),
    max_leaves=20,
)
ARRAYS = hnp.arrays(
    hnp.scalar_dtypes() | hnp.array_dtypes(), hnp.array_shapes(min_dims=0, min_side=0), fill=st.nothing()
)


def carried(pickled: Pickled) -> Pickled:
    """The same after a journey: other memory, read-only."""
    return Pickled(bytes(pickled.body), list(pickled.cuts), [bytes(piece) for piece in pickled.large])


@given(VALUES, st.booleans())
def test_builtin_values_survive(value: Any, by_value: bool) -> None:
    assert load(carried(dump(value, by_value=by_value))) == value


@given(ARRAYS)
def test_arrays_survive_with_dtype_shape_and_contents(array: np.ndarray[Any, Any]) -> None:
    arrived = load(carried(dump([array])))[0]
    assert arrived.dtype == pickle.loads(pickle.dumps(array, 5)).dtype  # numpy itself forgets the byte order of dates
    assert arrived.shape == array.shape
    assert arrived.astype(array.dtype).tobytes() == array.tobytes()


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["bytes", "bytearray", "text", "array", "small", "many", "same"]), max_size=8))
def test_large_pieces_in_any_order_find_their_places(kinds: list[str]) -> None:
    size = INLINE_BYTES_MAX
    same = b"s" * size
    values: list[Any] = []
    for index, kind in enumerate(kinds):
        made: dict[str, Any] = {
            "bytes": bytes([index]) * (size + index),
            "bytearray": bytearray([index]) * (size + index),
            "text": chr(0xE0 + index) * size,
            "array": np.full(size, index),
            "small": [index, "x"],
            "many": list(range(30_000)),
            "same": same,
        }
        values.append(made[kind])
    arrived = load(carried(dump({"values": values})))["values"]
    assert [type(value) for value in arrived] == [type(value) for value in values]
    for value, expected in zip(arrived, values, strict=True):
        assert np.array_equal(value, expected)


def test_small_values_are_one_piece() -> None:
    for value in (1, "text", [np.zeros(10)], {"a": bytearray(100)}, memoryview(b"abc")):
        pickled = dump(value)
        assert not pickled.large
        assert not pickled.cuts


def test_a_large_array_leaves_the_pickle_without_a_copy() -> None:
    array = np.zeros(INLINE_BYTES_MAX)
    pickled = dump({"a": array})
    (data,) = pickled.large
    assert len(pickled.body) < 200
    array[0] = 7.0
    assert np.frombuffer(data)[0] == 7.0
    arrived = load(pickled)["a"]
    assert np.shares_memory(arrived, array)


@pytest.mark.parametrize(
    "array", [np.ones((300, 300)), np.ones((300, 300)).T, np.ones((300, 300), order="F"), np.ones(90_000)[::-1]]
)
def test_layouts_of_large_arrays(array: np.ndarray[Any, Any]) -> None:
    array = array * np.arange(array.shape[-1])
    arrived = load(carried(dump(array)))
    assert np.array_equal(arrived, array)
    strided = array[..., ::2]
    assert np.array_equal(load(carried(dump(strided))), strided)


def test_large_bytes_leave_the_pickle_without_a_copy() -> None:
    data = b"x" * INLINE_BYTES_MAX
    pickled = dump(["before", {"data": data}, "after"])
    assert len(pickled.cuts) == 1
    assert pickled.large[0] is data
    assert load(carried(pickled)) == ["before", {"data": data}, "after"]


def test_a_large_list_stays_in_the_stream() -> None:
    assert not dump(list(range(1_000_000))).large


def test_a_byte_string_that_looks_like_opcodes_survives() -> None:
    length = INLINE_BYTES_MAX + 100
    disguised = pickle.FRAME + (length - 9).to_bytes(8, "little") + b"." * (length - 9)
    assert load(carried(dump(["a", disguised, "b", disguised]))) == ["a", disguised, "b", disguised]


def test_small_arrays_arrive_writable_and_read_only_ones_read_only() -> None:
    writable, fixed = np.zeros(3), np.zeros(3)
    fixed.flags.writeable = False
    arrived = load(carried(dump([writable, fixed])))
    assert [array.flags.writeable for array in arrived] == [True, False]


def test_an_array_seen_twice_arrives_as_one() -> None:
    array = np.zeros(5)
    first, second = load(dump([array, array]))
    assert first is second


@pytest.mark.parametrize("size", [8, 2 * INLINE_BYTES_MAX])
def test_memoryviews_keep_format_and_shape(size: int) -> None:
    array = np.arange(size, dtype="int32").reshape(-1, 4)
    for view in (memoryview(array), memoryview(array.tobytes())):
        arrived = load(carried(dump(view)))
        assert (arrived.format, arrived.shape) == (view.format, view.shape)
        assert arrived.tolist() == view.tolist()
    assert load(dump(memoryview(b"abcdef")[::2])).tobytes() == b"ace"


def test_arrays_with_metadata_objects_or_fields() -> None:
    for array in (
        np.array([1, "a", None], dtype=object),
        np.zeros(2, dtype=[("a", "i4"), ("b", "O")]),
        np.zeros(2, dtype=np.dtype("f8", metadata={"unit": "m"})),
        np.array(["2024-01-01"], dtype="M8[D]"),
        np.ma.masked_array([1, 2], [True, False]),
    ):
        arrived = load(carried(dump(array)))
        assert type(arrived) is type(array)
        assert arrived.dtype == array.dtype
        assert arrived.tolist() == array.tolist()


def test_reducers_that_libraries_register_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(copyreg.dispatch_table, Odd, lambda odd: (int, (5,)))
    assert load(dump(Odd())) == 5
    assert load(dump(Odd(), by_value=True)) == 5


class Odd:
    """An importable class."""


def test_a_whole_pickle_is_one_piece_however_large() -> None:
    values = [np.zeros(INLINE_BYTES_MAX), b"x" * INLINE_BYTES_MAX]
    arrived = pickle.loads(dump_whole(values))
    assert np.array_equal(arrived[0], values[0])
    assert arrived[1] == values[1]


@pytest.mark.parametrize("body", [b"", b"nonsense", b"\x80\x05N", dump([1, "a"]).body[:-1], b"\x80\x05cos\nnothing\n."])
def test_bytes_that_are_no_pickle_end_in_one_error(body: Buffer) -> None:
    with pytest.raises(UnpackError):
        load(Pickled(body))
