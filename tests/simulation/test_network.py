"""A link is reliable and in order until it breaks; a partition only makes it late."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hiersched.core.costs import ORDINARY
from hiersched.errors import UserError
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Bye, Message
from hiersched.simulation.network import Edge, Network, Node, Weather
from hiersched.simulation.timeline import Timeline


class Listener(Node):
    """Remembers when it heard what."""

    def __init__(self, name: bytes, host: str, timeline: Timeline) -> None:
        super().__init__(name, host)
        self.timeline = timeline
        self.heard: list[tuple[float, str]] = []
        self.down: list[str] = []

    def receive(self, edge: Edge, link: bytes, message: Message, frames: Sequence[Frame]) -> None:
        self.heard.append((self.timeline.now_s, message.reason))

    def link_down(self, link: bytes, reason: str) -> None:
        self.down.append(reason)


class Pair:
    """Two nodes and the link between them."""

    def __init__(self, weather: Weather = Weather(), *, hosts: str = "ab", seed: int = 1) -> None:  # noqa: B008
        self.timeline = Timeline()
        self.network = Network(self.timeline, weather, Random(seed))
        self.parent = Listener(b"parent", hosts[0], self.timeline)
        self.child = Listener(b"child", hosts[1], self.timeline)
        self.edge = self.network.connect(self.parent, self.child)

    def say(self, *words: str, at_s: float = 0.0) -> None:
        for word in words:
            self.edge.down.send(at_s, Bye(word))

    def run(self, until_s: float = 100.0) -> list[str]:
        """Let time pass. What the child has heard."""
        self.timeline.run(lambda: False, until_s)
        return [word for _, word in self.child.heard]


def test_a_hop_takes_its_time_and_one_between_hosts_longer():
    near, far = Pair(hosts="aa"), Pair(hosts="ab")
    for pair, delay_s in ((near, ORDINARY.hop_s), (far, ORDINARY.hop_s + ORDINARY.network_s)):
        pair.say("hello", at_s=1.0)
        pair.run()
        assert pair.child.heard == [(1.0 + delay_s, "hello")]


@settings(max_examples=30)
@given(seed=st.integers(0, 1_000), words=st.lists(st.sampled_from("abc"), max_size=20))
def test_jitter_delays_and_never_reorders(seed: int, words: list[str]):
    pair = Pair(Weather(jitter_s=0.5), seed=seed)
    pair.say(*words)
    assert pair.run() == words


def test_what_is_sent_into_a_partition_arrives_when_it_is_over():
    pair = Pair()
    pair.network.cut([pair.edge])
    pair.say("one", "two")
    assert pair.run(until_s=5.0) == []
    pair.network.heal([pair.edge])
    pair.say("three", at_s=5.0)
    assert pair.run() == ["one", "two", "three"]
    assert pair.child.down == pair.parent.down == []


def test_two_partitions_through_one_link_must_both_end():
    pair = Pair()
    pair.network.cut([pair.edge])
    pair.network.cut([pair.edge])
    pair.say("one")
    pair.network.heal([pair.edge])
    assert pair.run(until_s=5.0) == []
    pair.network.heal([pair.edge])
    assert pair.run() == ["one"]


def test_a_broken_link_loses_what_is_under_way_and_both_ends_notice():
    pair = Pair()
    pair.say("lost")
    pair.network.snap(pair.edge)
    pair.say("lost too")
    assert pair.run() == []
    assert pair.child.down == pair.parent.down == ["the connection broke"]


def test_a_message_may_find_its_link_broken():
    pair = Pair(Weather(breaks=1.0))
    pair.say("lost")
    assert pair.run() == []
    assert pair.edge.broken


def test_on_one_host_no_link_breaks_by_itself():
    pair = Pair(Weather(breaks=1.0), hosts="aa")
    pair.say("here")
    assert pair.run() == ["here"]


def test_who_goes_to_another_parent_hears_nothing_more_from_the_old_one():
    pair = Pair()
    pair.say("heard", at_s=0.0)
    pair.say("under way", at_s=1.0)
    pair.run(until_s=1.0)
    other = Listener(b"other", "b", pair.timeline)
    pair.network.connect(other, pair.child).down.send(1.0, Bye("from the other"))
    assert pair.run() == ["heard", "from the other"]


def test_what_had_not_left_when_its_sender_ended_never_does():
    pair = Pair()
    pair.say("left before", at_s=1.0)
    pair.say("left after", at_s=1.0 + 1e-6)
    pair.parent.ended_s = 1.0
    assert pair.run() == ["left before"]


def test_the_dead_hear_nothing():
    pair = Pair()
    pair.say("too late", at_s=1.0)
    pair.child.ended_s = 1.0
    assert pair.run() == []


def test_only_on_its_own_host_is_a_dead_neighbour_noticed_at_once():
    near, far = Pair(hosts="aa"), Pair(hosts="ab")
    for pair in (near, far):
        pair.child.ended_s = 1.0
    assert near.edge.unreachable(2.0)
    assert not near.edge.unreachable(0.5)
    assert not far.edge.unreachable(2.0)


@pytest.mark.parametrize("wrong", [{"jitter_s": -1.0}, {"jitter_s": 2.0}, {"breaks": 1.5}, {"notice_s": -0.1}])
def test_weather_that_makes_no_sense_is_refused(wrong: dict[str, float]):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Weather(**wrong)
