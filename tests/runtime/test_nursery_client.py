"""A scheduler's side of the nursery: whom it has, also after adoptions, and whose end it is told of."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence

import msgspec
import pytest

from hiersched.core.effects import DOORBELL, link_of
from hiersched.core.topology import Child, Host, plan_tree
from hiersched.runtime.nursery_channel import Birth, Channel, End, Ended, Orphaned, Signal, Word
from hiersched.runtime.nursery_client import NurseryClient


def engine(rank: int) -> Child:
    return Child(kind="engine", first=rank, last=rank + 1, host="here", level=2)


LEAF = Child(kind="scheduler", first=0, last=4, host="here", level=1)
PLAN = plan_tree([Host("here", 4, 4)])


class Desk:
    """A client, and the nursery as a test plays it."""

    def __init__(self) -> None:
        ours, theirs = Channel.pair()
        self.client = NurseryClient(
            ours, "ipc://above", on_ended=self._on_ended, on_orphaned=lambda reason: self.news.append(reason)
        )
        self.nursery = Channel(theirs)
        self.news: list[object] = []
        self._ours = ours

    def _on_ended(self, child: Child, reason: str, orphans: Sequence[Child]) -> None:
        self.news.append((link_of(child), reason, [link_of(orphan) for orphan in orphans]))

    def asked(self) -> list[Word]:
        """What the nursery was asked for since the last time."""
        words = []
        while (word := self.nursery.receive_nowait()) is not None:
            words.append(word)
        return words

    def tells(self, *words: Word) -> list[object]:
        """What the client makes of it."""
        self.news.clear()
        for word in words:
            self.nursery.post(word)
        self.client.on_readable()
        return self.news

    def close(self) -> None:
        self._ours.close()
        self.nursery.close()


@pytest.fixture
def desk() -> Iterator[Desk]:
    desk = Desk()
    yield desk
    desk.close()


def test_what_is_asked_for_reaches_the_nursery(desk: Desk) -> None:
    desk.client.start([engine(0), engine(1)])
    desk.client.start([LEAF], PLAN)
    desk.client.signal([b"engine-1", b"engine-9", b"engine-0"], DOORBELL)
    desk.client.end(b"engine-1")
    desk.client.signal([b"engine-1"], signal.SIGINT)  # nobody is left
    desk.client.end(b"engine-1")
    assert desk.asked() == [
        Birth([engine(0), engine(1)], "ipc://above"),
        Birth([LEAF], "ipc://above", PLAN),
        Signal([b"engine-1", b"engine-0"], 0),
        End(b"engine-1"),
    ]


def test_it_watches_whom_it_has_started_until_they_end(desk: Desk) -> None:
    assert not desk.client.watches(b"engine-0")
    desk.client.start([engine(0)])
    assert desk.client.watches(b"engine-0")
    assert desk.tells(Ended(engine(0), "it was killed")) == [(b"engine-0", "it was killed", [])]
    assert not desk.client.watches(b"engine-0")


def test_orphans_are_children_from_when_they_are_told_of(desk: Desk) -> None:
    desk.client.start([LEAF])
    news = desk.tells(
        Ended(LEAF, "it was killed", [engine(0), engine(1), engine(2)]), Ended(engine(1), "it was killed as well")
    )
    assert news == [
        (link_of(LEAF), "it was killed", [b"engine-0", b"engine-1", b"engine-2"]),
        (b"engine-1", "it was killed as well", []),
    ]
    assert [desk.client.watches(link) for link in (b"engine-0", b"engine-1", link_of(LEAF))] == [True, False, False]
    desk.client.signal([b"engine-0", b"engine-1"], DOORBELL)
    desk.client.end(b"engine-2")
    assert desk.asked()[1:] == [Signal([b"engine-0"], 0), End(b"engine-2")]


def test_whom_it_ended_it_hears_no_more_of(desk: Desk) -> None:
    desk.client.start([engine(0)])
    desk.client.end(b"engine-0")
    assert desk.tells(Ended(engine(0), "it was killed")) == []


def test_the_end_of_a_predecessor_is_not_that_of_its_successor(desk: Desk) -> None:
    lives = [msgspec.structs.replace(engine(0), birth=birth) for birth in range(3)]
    for one in lives:
        desk.client.start([one])
    for one in lives[:2]:
        desk.client.end(link_of(one))
    assert desk.tells(Ended(lives[0], "first"), Ended(lives[1], "second")) == []
    assert desk.client.watches(link_of(lives[2]))
    assert desk.tells(Ended(lives[2], "third")) == [(link_of(lives[2]), "third", [])]


def test_orphans_of_whom_it_ended_are_ended(desk: Desk) -> None:
    desk.client.start([LEAF])
    desk.client.end(link_of(LEAF))
    desk.asked()
    assert desk.tells(Ended(LEAF, "it had been killed just before", [engine(0), engine(1)])) == []
    assert desk.asked() == [End(b"engine-0"), End(b"engine-1")]
    assert desk.tells(Ended(engine(0), "it was killed"), Ended(engine(1), "it was killed")) == []


def test_it_tells_when_its_own_parent_is_gone(desk: Desk) -> None:
    assert desk.tells(Orphaned("it was killed")) == ["it was killed"]


def test_without_a_nursery_there_is_nothing_to_do(desk: Desk) -> None:
    desk.nursery.close()
    with pytest.raises(SystemExit, match="the nursery is gone"):
        desk.client.on_readable()
    with pytest.raises(SystemExit, match="the nursery is gone"):
        desk.client.start([engine(0)])
