"""Messages of any size arrive whole and in order, and nobody waits who does not want to."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import msgspec
import pytest

from hiersched.core.topology import Child, Host, plan_tree
from hiersched.runtime import nursery_channel
from hiersched.runtime.nursery_channel import Birth, Channel, Closed, End, Ended, Orphaned, Signal

ENGINE = Child(kind="engine", first=3, last=4, host="here", level=1)
WORDS = [
    Birth([ENGINE], "ipc://x"),
    Birth([ENGINE], "ipc://x", plan_tree([Host(f"host-{number}", 2, 4) for number in range(5_000)])),
    End(b"engine-3"),
    Signal([b"engine-%d" % rank for rank in range(20_000)], 0),
    Ended(ENGINE, "it was killed", [ENGINE] * 300),
    Orphaned("it was killed"),
]


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, Channel.pair())
    yield ours, theirs
    ours.close()
    theirs.close()


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Channel, Channel]]:
    """A channel with room for a few short packets."""
    monkeypatch.setattr(nursery_channel, "_PACKET_BYTES_MAX", 1_000)
    pair = Channel.pair()
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    ours, theirs = map(Channel, pair)
    yield ours, theirs
    ours.close()
    theirs.close()


def heard(channel: Channel, sender: Channel, count: int) -> list[nursery_channel.Word]:
    """So many words and no more, while the sender sends what it has left."""
    words: list[nursery_channel.Word] = []
    while len(words) < count:
        word = channel.receive_nowait()
        if word is None:
            sender.flush()
        else:
            words.append(word)
    assert sender.flush()
    assert channel.receive_nowait() is None
    return words


def test_words_arrive_as_they_were_sent(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    assert theirs.receive_nowait() is None
    for word in WORDS:
        ours.post(word)
        assert heard(theirs, ours, 1) == [word]
    theirs.send(WORDS[0])
    assert heard(ours, theirs, 1) == [WORDS[0]]


def test_what_finds_no_room_is_sent_later_and_in_order(narrow: tuple[Channel, Channel]) -> None:
    ours, theirs = narrow
    sent = [ours.post(Orphaned("x" * number)) for number in range(0, 3_000, 30)]
    assert sent[0]
    assert not sent[-1]
    assert heard(theirs, ours, 100) == [Orphaned("x" * number) for number in range(0, 3_000, 30)]


def test_who_sends_may_wait_for_room(narrow: tuple[Channel, Channel]) -> None:
    ours, theirs = narrow
    words: list[nursery_channel.Word] = []

    def listen() -> None:
        while len(words) < len(WORDS):
            word = theirs.receive_nowait()
            if word is not None:
                words.append(word)

    listener = threading.Thread(target=listen)
    listener.start()
    for word in WORDS:
        ours.send(word)
    listener.join()
    assert words == WORDS


def test_the_end_of_the_other_side_is_seen_by_both_ways(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    theirs.post(WORDS[0])
    theirs.close()
    assert ours.receive_nowait() == WORDS[0]
    with pytest.raises(Closed):
        ours.receive_nowait()
    with pytest.raises(Closed):
        ours.post(WORDS[0])


def test_a_side_that_ends_with_something_unread_is_seen_to(ends: tuple[Channel, Channel]) -> None:
    ours, theirs = ends
    ours.post(WORDS[0])
    theirs.close()
    with pytest.raises(Closed):
        ours.receive_nowait()


@pytest.mark.parametrize("number", [-1, 65])
def test_a_signal_that_cannot_be_is_no_word(ends: tuple[Channel, Channel], number: int) -> None:
    ours, theirs = ends
    ours.post(Signal([b"engine-3"], number))
    with pytest.raises(msgspec.ValidationError):
        theirs.receive_nowait()
