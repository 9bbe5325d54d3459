"""A blob goes down each edge once, is asked for upward once, and what nobody holds is said to be missing."""

from __future__ import annotations

import pytest

from hiersched.core.blobs import BlobStore
from hiersched.core.effects import DOORBELL, PARENT, Close, Drained, LinkDown, Received, Signal
from hiersched.limits import BLOBS_HELD_MAX
from hiersched.protocol import messages as m
from tests.core.transcript import FUNCTION, Transcript, answer, call, joined, loss, ranks, task

DATA = b"D" * 16
WITHDRAWN = m.Cancel([1], running=True)


def calls(scheduler: Transcript, asker: bytes, request: int, *targets: int) -> None:
    """A call that needs FUNCTION and DATA comes in."""
    scheduler.hears(asker, call(request, *targets, needs=[DATA]), b"shared")


@pytest.fixture
def supplied(leaf):
    """A leaf with engines 4 and 5, and both blobs."""
    leaf.engines(4, 5)
    leaf.says(PARENT)
    leaf.hears(PARENT, m.Blob(FUNCTION), b"code")
    leaf.hears(PARENT, m.Blob(DATA), b"data")
    return leaf


# --- down -------------------------------------------------------------------------------------------------------------


def test_a_blob_goes_ahead_of_the_first_call_that_needs_it_and_never_again(supplied):
    calls(supplied, PARENT, 1, 4)
    code, data, first = supplied.says(b"engine-4")
    assert (code, data) == ((m.Blob(FUNCTION), b"code"), (m.Blob(DATA), b"data"))
    assert first == (call(1, 4, needs=[DATA]), b"shared")
    calls(supplied, PARENT, 2, 4)
    assert supplied.says(b"engine-4") == [(call(2, 4, needs=[DATA]), b"shared")]
    calls(supplied, PARENT, 3, 5)
    assert len(supplied.says(b"engine-5")) == 3


def test_each_target_is_supplied_with_what_its_own_part_needs(supplied):
    parts = [m.Part(0, [DATA]), m.Part(0, [])]
    supplied.hears(PARENT, call(1, 4, 5, parts=parts))
    assert [type(word) for word in supplied.says(b"engine-4")] == [tuple, tuple, m.Call]
    assert supplied.says(b"engine-5") == [(m.Blob(FUNCTION), b"code"), call(1, 5, parts=parts[1:])]


def test_a_blob_goes_ahead_of_the_tasks_that_need_it(supplied):
    supplied.hears(PARENT, m.Tasks([task(1, needs=[DATA]), task(2)]))
    supplied.drains()
    assert len(supplied.says(b"engine-4")) == 3
    assert supplied.says(b"engine-5") == [(m.Blob(FUNCTION), b"code"), m.Tasks([task(2)])]


def test_an_engine_that_comes_again_holds_nothing(supplied):
    calls(supplied, PARENT, 1, 4)
    assert len(supplied.says(b"engine-4")) == 3
    supplied.happens(LinkDown(b"engine-4", "killed"))
    (another,) = supplied.engines(4, birth=1)
    assert supplied.does() == [Close(b"engine-4")]
    calls(supplied, PARENT, 2, 4)
    assert len(supplied.says(another)) == 3
    assert supplied.says(PARENT) == [
        joined(1, {}, loss(m.ENGINE_LOST, "killed", 4)),
        m.Members(ranks(4), ranks(4), "killed"),
    ]


# --- up: what a child lacks -------------------------------------------------------------------------------------------


def test_a_child_gets_again_what_it_has_dropped(supplied):
    supplied.hears(b"engine-4", m.Want([DATA, FUNCTION]))
    assert supplied.says(b"engine-4") == [(m.Blob(DATA), b"data"), (m.Blob(FUNCTION), b"code")]
    calls(supplied, PARENT, 1, 4)
    assert supplied.says(b"engine-4") == [(call(1, 4, needs=[DATA]), b"shared")]


def test_what_is_not_here_is_asked_for_once_however_many_children_wait(leaf):
    leaf.engines(4, 5)
    leaf.says(PARENT)
    leaf.hears(b"engine-4", m.Want([DATA]))
    leaf.hears(b"engine-5", m.Want([DATA, FUNCTION]))
    assert leaf.says(PARENT) == [m.Want([DATA]), m.Want([FUNCTION])]
    leaf.hears(PARENT, m.Blob(DATA), b"data")
    assert leaf.says(b"engine-4") == leaf.says(b"engine-5") == [(m.Blob(DATA), b"data")]
    calls(leaf, PARENT, 1, 4)
    assert leaf.says(b"engine-4") == [(call(1, 4, needs=[DATA]), b"shared")]


def test_who_waits_is_told_what_is_missing(leaf):
    leaf.engines(4, 5)
    leaf.says(PARENT)
    leaf.hears(b"engine-4", m.Want([DATA, FUNCTION]))
    leaf.hears(b"engine-5", m.Want([FUNCTION]))
    assert leaf.says(PARENT) == [m.Want([DATA, FUNCTION])]
    leaf.hears(PARENT, m.Missing([DATA, FUNCTION]))
    assert leaf.says(b"engine-4") == [m.Missing([DATA, FUNCTION])]
    assert leaf.says(b"engine-5") == [m.Missing([FUNCTION])]
    leaf.hears(b"engine-4", m.Want([DATA]))
    assert leaf.says(PARENT) == [m.Want([DATA])]


def test_a_blob_that_nobody_waits_for_any_more_is_kept(leaf):
    (engine,) = leaf.engines(4)
    leaf.says(PARENT)
    leaf.hears(engine, m.Want([DATA]))
    leaf.happens(LinkDown(engine, "killed"))
    leaf.hears(PARENT, m.Blob(DATA), b"data")
    leaf.engines(5)
    leaf.hears(b"engine-5", m.Want([DATA]))
    assert leaf.says(b"engine-5") == [(m.Blob(DATA), b"data")]
    assert leaf.does() == [Close(engine)]
    assert leaf.says(PARENT)[0] == m.Want([DATA])


# --- the root: what only clients have ---------------------------------------------------------------------------------


@pytest.fixture
def wanting(root):
    """A root whose engine lacks both blobs of a client's call, and that has asked the client for them."""
    (engine,) = root.engines(0)
    client = root.client()
    calls(root, client, 1, 0)
    assert len(root.says(engine)) == 1
    root.hears(engine, m.Want([DATA, FUNCTION]))
    assert root.says(client) == [m.Want([DATA, FUNCTION])]
    return root


def test_the_root_asks_the_client_that_named_it(wanting):
    wanting.hears(b"client", m.Blob(DATA), b"data")
    wanting.hears(b"client", m.Missing([FUNCTION]))
    assert wanting.says(b"engine-0") == [(m.Blob(DATA), b"data"), m.Missing([FUNCTION])]
    wanting.hears(b"engine-0", answer(1, 0), b"zero")
    assert wanting.says(b"client") == [(answer(1, 0), b"zero")]


def test_what_only_a_client_had_is_missing_when_it_has_gone(wanting):
    wanting.hears(b"client", m.Bye("done"))
    assert wanting.says(b"engine-0") == [WITHDRAWN, m.Missing([DATA, FUNCTION])]
    wanting.hears(b"engine-0", m.Want([DATA]))
    assert wanting.says(b"engine-0") == [m.Missing([DATA])]
    assert wanting.does() == [Signal([b"engine-0"], DOORBELL), Close(b"client")]


def test_what_another_client_has_named_since_is_asked_of_that_one(wanting):
    other = wanting.client(b"other")
    wanting.hears(other, m.Tasks([task(1)]))
    wanting.drains()
    assert wanting.says(b"engine-0") == [m.Tasks([task(1)])]
    wanting.hears(b"client", m.Bye("done"))
    assert wanting.says(other) == [m.Want([FUNCTION])]
    assert wanting.says(b"engine-0") == [WITHDRAWN, m.Missing([DATA])]
    wanting.hears(other, m.Blob(FUNCTION), b"code")
    assert wanting.says(b"engine-0") == [(m.Blob(FUNCTION), b"code")]
    assert wanting.does() == [Signal([b"engine-0"], DOORBELL), Close(b"client")]


def test_what_one_client_has_no_more_is_asked_of_the_others_that_have_named_it(wanting):
    other, third = wanting.client(b"other"), wanting.client(b"third")
    for number, client in enumerate((other, third, other)):
        wanting.hears(client, m.Tasks([task(number)]))
    wanting.drains()
    assert len(wanting.says(b"engine-0")) == 1
    wanting.hears(b"client", m.Missing([DATA, FUNCTION]))
    assert wanting.says(b"engine-0") == [m.Missing([DATA])]
    assert wanting.says(other) == [m.Want([FUNCTION])]
    wanting.hears(other, m.Missing([FUNCTION]))
    wanting.hears(other, m.Missing([FUNCTION]))  # which does not concern the third
    assert wanting.says(third) == [m.Want([FUNCTION])]
    wanting.hears(b"client", m.Missing([FUNCTION]))  # nor does this
    assert wanting.says(b"engine-0") == []
    wanting.hears(third, m.Blob(FUNCTION), b"code")
    assert wanting.says(b"engine-0") == [(m.Blob(FUNCTION), b"code")]


def test_who_has_nothing_is_not_asked_again(wanting):
    wanting.hears(b"client", m.Missing([DATA, FUNCTION]))
    assert wanting.says(b"engine-0") == [m.Missing([DATA, FUNCTION])]
    wanting.hears(b"engine-0", m.Want([DATA]))
    assert wanting.says(b"engine-0") == [m.Missing([DATA])]


def test_a_digest_that_nobody_ever_named_is_missing(root):
    (engine,) = root.engines(0)
    root.hears(engine, m.Want([DATA]))
    assert root.says(engine) == [m.Missing([DATA])]


# --- the store --------------------------------------------------------------------------------------------------------


def digest(number: int) -> m.Digest:
    return number.to_bytes(16)


def test_a_store_drops_what_was_not_used_for_longest():
    store = BlobStore(bytes_max=30)
    for number in range(3):
        store.put(digest(number), bytes(10))
    assert store.get(digest(0)) == bytes(10)
    store.put(digest(3), bytes(10))
    assert [number for number in range(4) if digest(number) in store] == [0, 2, 3]
    assert (store.bytes, len(store)) == (30, 3)


def test_a_blob_kept_twice_takes_its_room_once():
    store = BlobStore(bytes_max=30)
    store.put(digest(1), bytes(10))
    store.put(digest(1), bytes(10))
    assert (store.bytes, len(store)) == (10, 1)


def test_a_blob_larger_than_the_store_is_kept_until_the_next_comes():
    store = BlobStore(bytes_max=30)
    store.put(digest(1), bytes(10))
    store.put(digest(2), bytes(100))
    assert (digest(1) in store, digest(2) in store) == (False, True)
    store.put(digest(3), bytes(10))
    assert (digest(2) in store, store.bytes) == (False, 10)


def test_a_scheduler_remembers_so_many_digests_of_a_child_and_no_more(supplied):
    calls(supplied, PARENT, 1, 4)
    assert len(supplied.says(b"engine-4")) == 3
    many = [b"many" + digest(number)[4:] for number in range(BLOBS_HELD_MAX)]
    for each in many:
        supplied.core.handle(Received(PARENT, m.Blob(each), (b"",)), 0.0)
    supplied.core.handle(Received(PARENT, m.Tasks([task(1, needs=many)])), 0.0)
    assert len(supplied.core.handle(Drained(), 0.0)) == BLOBS_HELD_MAX + 1
    calls(supplied, PARENT, 2, 4)
    assert len(supplied.says(b"engine-4")) == 3
