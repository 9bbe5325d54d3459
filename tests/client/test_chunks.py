"""Chunks start small, grow as they are measured, and shrink towards the end."""

from __future__ import annotations

import heapq
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hiersched.client.chunks import ChunkSizer
from hiersched.limits import MAP_CHUNK_GROWTH_MAX, MAP_CHUNK_ITEMS_MAX, MAP_CHUNK_S, MAP_CHUNKS_PER_ENGINE_MAX


def run_map(items: int, engines: int, duration_of: Callable[[int], float]) -> tuple[list[int], float]:
    """Chunk sizes and the time of a map whose chunks go to the engine that is free first. Sending costs nothing."""
    sizer = ChunkSizer()
    free = [(0.0, engine) for engine in range(engines)]
    flying: list[tuple[float, int, float]] = []
    sizes: list[int] = []
    start = 0
    while start < items:
        if len(flying) == engines * MAP_CHUNKS_PER_ENGINE_MAX:
            _, count, seconds = heapq.heappop(flying)
            sizer.learn(count, seconds)
        count = min(sizer.next_items(engines, items - start), items - start)
        seconds = sum(duration_of(item) for item in range(start, start + count))
        begins, engine = heapq.heappop(free)
        heapq.heappush(free, (begins + seconds, engine))
        heapq.heappush(flying, (begins + seconds, count, seconds))
        sizes.append(count)
        start += count
    return sizes, max(ends for ends, _ in free)


def test_items_travel_alone_while_nothing_is_known():
    assert ChunkSizer().next_items(4, 1000) == 1


def test_long_items_travel_alone_throughout():
    sizes, _ = run_map(50, 4, lambda item: 1.0)
    assert sizes == [1] * 50


def test_a_hundred_thousand_no_ops_need_a_few_dozen_chunks():
    sizes, _ = run_map(100_000, 4, lambda item: 1e-7)
    assert len(sizes) < 48
    assert sum(sizes) == 100_000


def test_chunks_aim_at_a_fixed_amount_of_work():
    sizer = ChunkSizer()
    for _ in range(3):
        sizer.learn(100, 0.1)
    assert sizer.next_items(4, 1_000_000) == round(MAP_CHUNK_S / 0.001)


def test_one_cheap_item_is_not_taken_for_all_to_come():
    sizer = ChunkSizer()
    sizer.learn(1, 1e-6)
    assert sizer.next_items(4, 1_000_000) == MAP_CHUNK_GROWTH_MAX


def test_an_endless_input_still_has_a_largest_chunk():
    sizer = ChunkSizer()
    sizer.learn(MAP_CHUNK_ITEMS_MAX, 0.0)
    assert sizer.next_items(4) == MAP_CHUNK_ITEMS_MAX


def test_later_chunks_shrink_when_items_turn_out_longer():
    sizer = ChunkSizer()
    sizer.learn(100, 100 * 1e-5)
    before = sizer.next_items(4, 1_000_000)
    for _ in range(4):
        sizer.learn(100, 100 * 1e-3)
    assert sizer.next_items(4, 1_000_000) < before / 10


def test_a_size_that_the_user_chose_is_kept():
    sizer = ChunkSizer(7)
    sizer.learn(7, 1.0)
    assert not sizer.adaptive
    assert sizer.next_items(4, 3) == 7


@pytest.mark.parametrize("chunksize", [0, -1])
def test_a_size_below_one_is_refused(chunksize):
    with pytest.raises(ValueError, match="at least 1"):
        ChunkSizer(chunksize)


@pytest.mark.parametrize("count", ["3", 2.5])
def test_what_is_no_whole_number_is_refused_by_its_name(count):
    with pytest.raises(TypeError, match=f"chunksize must be a whole number, not {count!r}"):
        ChunkSizer(count)
    with pytest.raises(TypeError, match="max_outstanding must be a whole number"):
        ChunkSizer(chunks_max=count)


@given(
    engines=st.integers(1, 64),
    items=st.integers(1, 2_000),
    durations=st.lists(st.floats(1e-7, 0.1), min_size=1, max_size=20),
)
def test_every_item_is_sent_once(engines, items, durations):
    sizes, _ = run_map(items, engines, lambda item: durations[item % len(durations)])
    assert sum(sizes) == items
    assert min(sizes) >= 1


@given(engines=st.integers(1, 64), items=st.integers(1, 2_000), item_s=st.floats(1e-7, 0.1))
def test_engines_end_together_where_items_are_alike(engines, items, item_s):
    """No later than a perfect split by more than two chunks: there is no long tail."""
    _, seconds = run_map(items, engines, lambda item: item_s)
    assert seconds <= items * item_s / engines + 2 * max(MAP_CHUNK_S, item_s)
