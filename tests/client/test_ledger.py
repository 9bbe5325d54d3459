"""How requests ended is remembered in some bytes each."""

from __future__ import annotations

import tracemalloc

import pytest

from hiersched.client import ledger
from hiersched.client.ledger import Ledger
from hiersched.limits import CALLS_RECALLED_MAX
from hiersched.protocol.messages import SESSION_SHIFT

SESSION = 5


def id_of(number: int, session: int = SESSION) -> int:
    return session << SESSION_SHIFT | number


@pytest.fixture
def book() -> Ledger:
    book = Ledger()
    book.begin(SESSION, 1)
    return book


def test_it_knows_how_and_where_a_request_ended(book):
    book.note(id_of(1), 7, 1.5, ok=True)
    book.note(id_of(2), 0, 1.5, ok=False)
    assert book.end_of(id_of(1)) == (True, 7)
    assert book.end_of(id_of(2)) == (False, 0)
    assert book.submitted_s(id_of(2)) == 1.5


def test_requests_end_in_any_order(book):
    book.note(id_of(3), 1, 1.5, ok=True)
    assert book.end_of(id_of(2)) is None
    book.note(id_of(2), 2, 1.5, ok=True)
    assert book.end_of(id_of(2)) == (True, 2)
    assert book.recent() == [id_of(2), id_of(3)]


def test_what_never_was_has_no_end(book):
    book.note(id_of(1), 0, 1.5, ok=True)
    assert book.end_of(id_of(99)) is None
    assert book.end_of(id_of(0)) is None
    assert "there is no call" in book.why_unknown(id_of(99))


def test_another_sessions_requests_are_none_of_ours(book):
    book.note(id_of(1), 0, 1.5, ok=True)
    assert book.end_of(id_of(1, session=4)) is None
    assert "4-1 is a call of session 4, and this one is number 5" in book.why_unknown(id_of(1, session=4))


def test_of_a_session_that_is_joined_the_latest_requests_are_remembered(book, monkeypatch):
    monkeypatch.setattr(ledger, "LEDGER_ENTRIES_MAX", 100)
    monkeypatch.setattr(ledger, "_SPARE", 10)
    book.begin(SESSION, 1_000)
    book.note(id_of(1_000), 3, 1.5, ok=True)
    book.note(id_of(990), 2, 1.5, ok=True)  # its answer comes again
    assert book.end_of(id_of(1_000)) == (True, 3)
    assert book.end_of(id_of(990)) == (True, 2)
    book.note(id_of(17), 3, 1.5, ok=True)
    assert book.end_of(id_of(17)) is None
    assert "forgotten" in book.why_unknown(id_of(17))
    assert "before this client joined" in book.why_unknown(id_of(991))


def test_the_older_half_is_forgotten_above_the_bound(book, monkeypatch):
    monkeypatch.setattr(ledger, "LEDGER_ENTRIES_MAX", 100)
    monkeypatch.setattr(ledger, "_SPARE", 10)
    for number in range(1, 152):
        book.note(id_of(number), number, 1.5, ok=True)
        assert len(book) <= 100
        assert book.end_of(id_of(number)) == (True, number)
        assert book.end_of(id_of(max(1, number - 30))) == (True, max(1, number - 30))
    assert book.end_of(id_of(10)) is None
    assert "forgotten" in book.why_unknown(id_of(10))


def test_only_the_latest_are_listed(book):
    for number in range(1, CALLS_RECALLED_MAX + 10):
        book.note(id_of(number), 0, 1.5, ok=True)
    assert len(book.recent()) == CALLS_RECALLED_MAX
    assert book.recent()[-1] == id_of(CALLS_RECALLED_MAX + 9)


def test_a_hundred_thousand_take_about_a_megabyte(book):
    tracemalloc.start()
    for number in range(1, 100_001):
        book.note(id_of(number), number % 64, 1.5, ok=True)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 1_300_000
