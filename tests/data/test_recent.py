"""Bounds of what is kept, and which goes first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hiersched.data.recent import Recent


def test_the_least_recently_used_goes_first() -> None:
    recent: Recent[str, int] = Recent(count_max=2, bytes_max=100)
    recent.put("a", 1, size=1)
    recent.put("b", 2, size=1)
    assert recent.get("a") == 1
    recent.put("c", 3, size=1)
    assert recent.get("b") is None
    assert (recent.get("a"), recent.get("c")) == (1, 3)


def test_bytes_are_bounded_but_the_newest_stays_however_large() -> None:
    recent: Recent[str, int] = Recent(count_max=10, bytes_max=100)
    recent.put("a", 1, size=60)
    recent.put("b", 2, size=60)
    assert recent.get("a") is None
    recent.put("huge", 3, size=1_000)
    assert recent.get("huge") == 3
    assert len(recent) == 1
    assert recent.bytes == 1_000


def test_what_is_discarded_no_longer_counts() -> None:
    recent: Recent[str, int] = Recent(count_max=10, bytes_max=100)
    recent.put("a", 1, size=60)
    recent.discard("a")
    recent.discard("a")
    assert recent.get("a") is None
    assert recent.bytes == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 50)), max_size=50))
def test_bounds_hold_after_every_put(puts: list[tuple[int, int]]) -> None:
    recent: Recent[int, int] = Recent(count_max=3, bytes_max=60)
    sizes: dict[int, int] = {}
    for key, size in puts:
        recent.put(key, size, size=size)
        sizes[key] = size
        held = [key for key in sizes if recent.get(key) is not None]
        assert recent.bytes == sum(sizes[key] for key in held)
        assert len(recent) == len(held) <= 3
        assert recent.bytes <= 60 or len(recent) == 1
