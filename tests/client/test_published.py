"""Data that code published while it ran."""

from __future__ import annotations

from ipyparallel.serialize import serialize_object

from hiersched.client.published import published
from hiersched.data.outputs import DATA, Comm, Text
from hiersched.errors import UnpackError


def message(**data: object) -> Comm:
    return Comm(DATA, {"keys": list(data)}, {}, [bytes(buffer) for buffer in serialize_object(data)])


def test_the_latest_value_of_each_name_is_there():
    outputs = [message(i=0, name="first"), Text("stdout", "words"), message(i=1), Comm("comm_msg", {})]
    assert published(outputs) == {"i": 1, "name": "first"}
    assert published([]) == {}


def test_what_cannot_be_rebuilt_is_an_error_in_its_place():
    broken = Comm(DATA, {"keys": ["x"]}, {}, [b"no pickle"])
    found = published([message(i=1), broken])
    assert found["i"] == 1
    assert isinstance(found["x"], UnpackError)
