"""An engine's stock: blobs that came, and large results that were made here."""

from __future__ import annotations

from hiersched.data.serialize import pack_result
from hiersched.nodes.stock import Stock, results_among
from hiersched.protocol import messages as m

DIGEST = b"d" * 16


class Carried:
    """A frame as a transport gives it."""

    def __init__(self, data: bytes) -> None:
        self.buffer = memoryview(data)

    def __len__(self) -> int:
        return len(self.buffer)


def test_blobs_are_kept_as_buffers() -> None:
    stock = Stock()
    stock.put(DIGEST, Carried(b"data"))
    assert stock.get(DIGEST) == b"data"
    assert stock.get(b"e" * 16) is None


def test_results_are_found_under_their_names() -> None:
    stock = Stock()
    stock.keep_result(7, [b"head", b"body"])
    assert stock.get(m.result_digest(7)) == [b"head", b"body"]
    assert stock.get(m.result_digest(8)) is None


def test_what_a_call_takes_is_gathered_from_wherever_it_is() -> None:
    supplies = {DIGEST: b"a blob", m.result_digest(7): [b"head"], m.result_digest(8): pack_result([b"a", b"b"])}
    results = results_among(supplies, list(supplies), [(9, b"given")])
    assert results == {7: [b"head"], 8: [b"a", b"b"], 9: [b"given"]}


def test_what_is_no_result_is_left_out() -> None:
    assert results_among({m.result_digest(7): b"\xc1"}, [m.result_digest(7)], ()) == {}
