"""The driver turns what happens into events, and effects into sends, forks and timers. It knows no scheduling."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest

from hiersched.core import effects as e
from hiersched.core.effects import link_of
from hiersched.core.topology import Child, Host, plan_tree
from hiersched.errors import ProtocolError, VersionMismatch
from hiersched.limits import EVENTS_PER_STEP_MAX
from hiersched.protocol import messages as m
from hiersched.runtime import driver as driver_module
from hiersched.runtime.driver import Driver
from hiersched.runtime.zmq_link import Gone, Unreachable
from tests.runtime.stage import FakeCore, Stage, staged

ENGINE = Child(kind="engine", first=3, last=4, host="here", level=1)
LEAF = Child(kind="scheduler", first=3, last=5, host="here", level=1)


def hello(pid: int, *, role: m.Role = "client", host: str | None = None) -> m.Hello:
    return m.Hello("cluster", "key", role, "uuid", pid, host or socket.gethostname(), 0, 0)


def blamed(error: Exception, link: bytes) -> Exception:
    error.link = link  # type: ignore[attr-defined]
    return error


# --- in ---------------------------------------------------------------------------------------------------------------


def test_messages_become_events_and_a_drained_follows() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        assert [type(event) for event in stage.core.events] == [e.Started, e.Drained]
        await stage.rest()
        stage.core.events.clear()
        stage.port.brings((b"a", m.Beat()), (b"b", m.Blob(bytes(16)), b"data"))
        await stage.until(lambda: stage.core.of(e.Drained))
        assert stage.core.events[:2] == [
            e.Received(b"a", m.Beat(), []),
            e.Received(b"b", m.Blob(bytes(16)), [b"data"]),
        ]

    staged(story)


def test_many_messages_are_taken_in_portions() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        await stage.rest()
        stage.core.events.clear()
        stage.port.brings(*[(b"a", m.Beat())] * (2 * EVENTS_PER_STEP_MAX + 10))
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2 * EVENTS_PER_STEP_MAX + 10)
        first = stage.core.events.index(e.Drained())
        assert first == EVENTS_PER_STEP_MAX  # others are heard in between

    staged(story)


def test_what_is_no_message_is_counted_and_the_rest_is_heard() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        old = blamed(VersionMismatch("the peer speaks version 0"), b"old")
        stage.port.brings(blamed(ProtocolError("noise"), b"x"), (b"a", m.Beat()), old, (b"b", m.Beat()))
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2)
        assert stage.core.of(e.Dropped) == [e.Dropped("malformed"), e.Dropped("version")]
        assert stage.port.sent == [(b"old", m.Refused("VersionMismatch", "the peer speaks version 0"), ())]

    staged(story)


def test_an_edge_that_sending_ate_is_made_up_for() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        await stage.rest()
        stage.core.on(e.Woke, e.Send(b"a", m.Beat()))
        stage.port.brings((b"a", m.Beat()))
        stage.driver.step(e.Woke())  # comes first, and its send eats the edge
        await stage.until(lambda: stage.core.of(e.Received))

    staged(story)


# --- out --------------------------------------------------------------------------------------------------------------


def test_effects_are_performed_in_order() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        stage.core.on(
            e.Received, e.Send(b"a", m.Stop("1")), e.Send(b"a", m.Blob(bytes(16)), [b"2"]), e.Close(b"a"), e.Exit("3")
        )
        stage.port.brings((b"a", m.Beat()))
        await stage.until(lambda: stage.exits)
        assert stage.port.sent == [(b"a", m.Stop("1"), ()), (b"a", m.Blob(bytes(16)), [b"2"])]
        assert (stage.spawner.ended, stage.exits) == ([b"a"], ["3"])

    staged(story)


def test_who_cannot_be_reached_is_down() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        stage.port.unreachable[b"a"] = Unreachable("its queue is full")
        stage.core.on(e.Received, e.Send(b"a", m.Beat()), e.Send(b"unheard", m.Beat()))
        stage.port.brings((b"a", m.Beat()))
        await stage.until(lambda: len(stage.core.of(e.LinkDown)) == 2)
        assert stage.core.of(e.LinkDown) == [
            e.LinkDown(b"a", "its queue is full"),
            e.LinkDown(b"unheard", "it was never heard of"),
        ]

    staged(story)


def test_of_who_closed_its_connection_the_watch_will_tell() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        link = link_of(ENGINE)
        stage.port.unreachable[link] = Gone("it closed its connection")
        stage.spawner.watched.add(link)
        for _ in range(2):
            stage.core.on(e.Received, e.Send(link, m.Beat()))
        stage.port.brings((link, m.Beat()))
        await stage.until(lambda: stage.core.of(e.Received))
        assert not stage.core.of(e.LinkDown)
        stage.driver.on_child_ended(link, "it was killed by SIGKILL")
        assert stage.core.of(e.LinkDown) == [e.LinkDown(link, "it was killed by SIGKILL")]
        stage.spawner.watched.clear()  # nobody watches others
        stage.port.brings((link, m.Beat()))
        await stage.until(lambda: len(stage.core.of(e.LinkDown)) == 2)

    staged(story)


def test_the_earliest_time_wakes_it() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        now = time.monotonic()
        stage.core.on(e.Received, e.WakeAt(now + 1_000), e.WakeAt(now), e.WakeAt(now + 2_000))
        stage.port.brings((b"a", m.Beat()))
        await stage.until(lambda: stage.core.of(e.Woke))
        stage.core.on(e.Received, e.WakeAt(now))  # it can be asked for again
        stage.port.brings((b"a", m.Beat()))
        await stage.until(lambda: len(stage.core.of(e.Woke)) == 2)

    staged(story)


# --- children ---------------------------------------------------------------------------------------------------------


def test_links_are_named_after_ranks() -> None:
    assert link_of(ENGINE) == b"engine-3"
    assert link_of(Child(kind="scheduler", first=4, last=8, host="here", level=1)) == b"scheduler-1-4-8"


def test_a_child_that_ends_before_its_hello_has_failed() -> None:
    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([ENGINE]))
        stage.start()
        assert stage.spawner.started == [ENGINE]
        stage.driver.on_child_ended(link_of(ENGINE), "it exited with code 1")
        assert stage.core.of(e.ChildFailed) == [e.ChildFailed(ENGINE, "it exited with code 1")]

    staged(story)


def test_a_child_that_ends_after_its_hello_is_down() -> None:
    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([ENGINE]))
        stage.start()
        stage.port.brings((link_of(ENGINE), hello(os.getpid(), role="engine")))
        await stage.until(lambda: stage.core.of(e.Received))
        stage.driver.on_child_ended(link_of(ENGINE), "it exited with code 0")
        assert stage.core.of(e.LinkDown) == [e.LinkDown(link_of(ENGINE), "it exited with code 0")]

    staged(story)


def test_a_child_that_says_nothing_in_time_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "START_TIMEOUT_S", 0.0)

    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([ENGINE]))
        stage.start()
        await stage.until(lambda: stage.core.of(e.ChildFailed))
        assert stage.spawner.ended == [link_of(ENGINE)]
        assert "it did not say hello within" in stage.core.of(e.ChildFailed)[0].reason

    staged(story)


def test_a_child_comes_with_the_plan_of_its_tree() -> None:
    plan = plan_tree([Host("here", 4, 4)], first_rank=3)

    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([ENGINE], plan))
        stage.start()
        assert stage.spawner.plan is plan

    staged(story)


def test_signals_go_to_processes() -> None:
    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Signal([b"engine-3", b"engine-4"], e.DOORBELL))
        stage.start()
        assert stage.spawner.signalled == [([b"engine-3", b"engine-4"], 0)]

    staged(story)


# --- children that take the place of others ---------------------------------------------------------------------------

GONE_PID = 2**22 + 1  # above any that a system gives


def test_what_the_dead_had_said_is_not_taken_for_words_of_their_successors() -> None:
    link = link_of(ENGINE)

    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([ENGINE]))
        stage.start()
        stage.port.brings((link, hello(os.getpid(), role="engine")))
        await stage.until(lambda: stage.core.of(e.Received))
        stage.core.on(e.LinkDown, e.Close(link), e.Spawn([ENGINE]))
        stage.driver.on_child_ended(link, "it was killed")
        stage.core.events.clear()
        first, second = hello(GONE_PID, role="engine"), hello(os.getpid(), role="engine")
        stage.port.brings((link, m.Want([])), (link, first), (link, m.Want([])), (link, second), (link, m.Beat()))
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2)
        await stage.rest()
        assert [event.message for event in stage.core.of(e.Received)] == [second, m.Beat()]

    staged(story)


def test_whose_end_is_being_told_is_not_found_out_otherwise() -> None:
    """To read its last words may lead to others being sent to it."""
    link = link_of(LEAF)

    async def story(stage: Stage) -> None:
        stage.start()
        stage.port.brings((link, m.Beat()))
        await stage.until(lambda: stage.core.of(e.Received))
        stage.port.unreachable[link] = Gone("it closed its connection")
        stage.core.on(e.Received, e.Send(link, m.Beat()))
        stage.port.waiting.append((link, m.Beat()))
        stage.driver.on_child_ended(link, "it was killed", [ENGINE])
        assert stage.core.of(e.LinkDown) == [e.LinkDown(link, "it was killed", [ENGINE])]

    staged(story)


def test_a_successor_that_ends_before_its_hello_has_failed() -> None:
    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([ENGINE]))
        stage.core.on(e.ChildFailed, e.Spawn([ENGINE]))
        stage.start()
        stage.driver.on_child_ended(link_of(ENGINE), "first")
        stage.driver.on_child_ended(link_of(ENGINE), "second")
        assert stage.core.of(e.ChildFailed) == [e.ChildFailed(ENGINE, "first"), e.ChildFailed(ENGINE, "second")]

    staged(story)


def test_a_successor_has_as_much_time_to_start_as_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(stage: Stage) -> None:
        spawns = [e.Spawn([ENGINE]), e.Spawn([ENGINE])]
        stage.core.on(e.Started, spawns[0])
        stage.core.on(e.ChildFailed, spawns[1])
        stage.start()
        stage.driver.on_child_ended(link_of(ENGINE), "it was killed")
        stage.driver._check_started(spawns[0])
        assert stage.spawner.ended == []
        stage.driver._check_started(spawns[1])
        assert stage.spawner.ended == [link_of(ENGINE)]

    staged(story)


# --- orphans ----------------------------------------------------------------------------------------------------------


def test_a_lost_scheduler_is_told_with_its_orphans() -> None:
    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([LEAF]))
        stage.start()
        stage.port.brings((link_of(LEAF), hello(os.getpid(), role="scheduler")))
        await stage.until(lambda: stage.core.of(e.Received))
        stage.driver.on_child_ended(link_of(LEAF), "it was killed", [ENGINE])
        assert stage.core.of(e.LinkDown) == [e.LinkDown(link_of(LEAF), "it was killed", [ENGINE])]
        stage.port.brings((link_of(ENGINE), hello(os.getpid(), role="engine")))
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2)

    staged(story)


def test_orphans_of_a_scheduler_that_was_never_heard_are_told_of() -> None:
    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.Spawn([LEAF]))
        stage.start()
        stage.driver.on_child_ended(link_of(LEAF), "it was killed", [ENGINE])
        assert stage.core.of(e.LinkDown) == [e.LinkDown(link_of(LEAF), "it was killed", [ENGINE])]
        assert not stage.core.of(e.ChildFailed)

    staged(story)


def test_an_orphan_that_ends_before_its_hello_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver_module, "START_TIMEOUT_S", 0.0)  # which is not for it

    async def story(stage: Stage) -> None:
        stage.start()
        stage.driver.on_child_ended(link_of(LEAF), "it was killed", [ENGINE])
        await stage.rest()
        stage.driver.on_child_ended(link_of(ENGINE), "it was killed as well")
        assert stage.core.of(e.LinkDown)[1:] == [e.LinkDown(link_of(ENGINE), "it was killed as well")]
        assert stage.spawner.ended == []

    staged(story)


def test_a_hello_that_was_overtaken_by_the_end_of_its_sender_is_not_heard() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        stage.driver.on_child_ended(link_of(LEAF), "it was killed", [ENGINE])
        stage.driver.on_child_ended(link_of(ENGINE), "it was killed as well")
        stage.port.brings((link_of(ENGINE), hello(GONE_PID, role="engine")), (b"other", m.Beat()))
        await stage.until(lambda: stage.core.of(e.Received))
        assert [event.link for event in stage.core.of(e.Received)] == [b"other"]

    staged(story)


# --- climbing ---------------------------------------------------------------------------------------------------------

GREETING = hello(1, role="scheduler")


def test_an_orphan_climbs_to_its_nearest_living_ancestor() -> None:
    async def story(stage: Stage) -> None:
        uplink = stage.uplink
        assert uplink is not None
        stage.core.on(e.LinkDown, e.Climb("killed"), e.Send(e.PARENT, GREETING))
        stage.start()
        await stage.rest()
        uplink.living -= {"parent", "grandparent"}
        uplink.waiting.append(m.Stop("not read yet"))
        stage.driver.on_orphaned("killed")
        assert stage.core.of(e.LinkDown) == [e.LinkDown(e.PARENT, "killed")]
        assert uplink.sent == [("root", GREETING)]
        assert not stage.core.of(e.Received)  # what was not read has never happened
        uplink.brings(m.Beat())  # and the new link is listened to
        await stage.until(lambda: stage.core.of(e.Received))
        assert stage.exits == []

    staged(story, "parent", "grandparent", "root")


def test_who_has_climbed_already_stays() -> None:
    """Word of the end of the second of two ancestors comes after both were found dead."""

    async def story(stage: Stage) -> None:
        uplink = stage.uplink
        assert uplink is not None
        stage.core.on(e.LinkDown, e.Climb("killed"))
        stage.start()
        uplink.living -= {"parent", "grandparent"}
        for _ in range(2):
            stage.driver.on_orphaned("killed")
        assert len(stage.core.of(e.LinkDown)) == 1
        assert uplink.parent == "root"

    staged(story, "parent", "grandparent", "root")


def test_who_finds_no_ancestor_ends() -> None:
    async def story(stage: Stage) -> None:
        assert stage.uplink is not None
        stage.core.on(e.LinkDown, e.Climb("it was killed"), e.Send(e.PARENT, GREETING))
        stage.start()
        stage.uplink.living.clear()
        stage.driver.on_orphaned("it was killed")
        assert stage.exits == ["no ancestor is left: it was killed"]

    staged(story, "parent", "root")


# --- clients ----------------------------------------------------------------------------------------------------------


def test_a_client_of_this_host_is_down_when_its_process_ends() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as client:
            stage.port.brings((b"client", hello(client.pid)))
            await stage.until(lambda: stage.core.of(e.Received))
            assert not stage.core.of(e.LinkDown)
            client.kill()
        await stage.until(lambda: stage.core.of(e.LinkDown))
        assert stage.core.of(e.LinkDown) == [e.LinkDown(b"client", "its process ended")]

    staged(story)


def test_the_last_words_of_a_client_are_heard_first() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as client:
            stage.port.brings((b"client", hello(client.pid)))
            await stage.until(lambda: stage.core.of(e.Received))
            stage.port.waiting.append((b"client", m.Bye("done")))  # without an edge
            client.kill()
        await stage.until(lambda: stage.core.of(e.LinkDown))
        assert stage.core.events.index(e.Received(b"client", m.Bye("done"), [])) < stage.core.events.index(
            e.LinkDown(b"client", "its process ended")
        )

    staged(story)


def test_a_client_that_was_let_go_is_no_longer_watched() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as client:
            stage.core.on(e.Received)
            stage.core.on(e.Received, e.Close(b"client"))
            stage.port.brings((b"client", hello(client.pid)), (b"client", m.Bye("done")))
            await stage.until(lambda: len(stage.core.of(e.Received)) == 2)
            client.kill()
        stage.port.brings((b"other", m.Beat()))
        await stage.until(lambda: len(stage.core.of(e.Received)) == 3)
        assert not stage.core.of(e.LinkDown)

    staged(story)


@pytest.mark.parametrize("pid", [0, -1, 2**22 + 1, 2**70])
def test_a_process_that_cannot_be_watched_is_not(pid: int) -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        stage.port.brings((b"client", hello(pid)), (b"remote", hello(os.getpid(), host="elsewhere")))
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2)
        assert stage.exits == []

    staged(story)


def test_a_client_that_comes_again_is_the_one_that_is_watched() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        command = [sys.executable, "-c", "input()"]
        with (
            subprocess.Popen(command, stdin=subprocess.PIPE) as first,
            subprocess.Popen(command, stdin=subprocess.PIPE) as second,
        ):
            stage.port.brings((b"client", hello(first.pid)), (b"client", hello(second.pid)))
            await stage.until(lambda: len(stage.core.of(e.Received)) == 2)
            first.kill()
            first.wait()
            stage.port.brings((b"client", m.Beat()))
            await stage.until(lambda: len(stage.core.of(e.Received)) == 3)
            assert not stage.core.of(e.LinkDown)
            second.kill()
            await stage.until(lambda: stage.core.of(e.LinkDown))

    staged(story)


def test_a_client_that_comes_again_as_its_predecessor_ends_is_not_down() -> None:
    """The hello waits to be read when the end is seen."""

    async def story(stage: Stage) -> None:
        stage.start()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as first:
            stage.port.brings((b"client", hello(first.pid)))
            await stage.until(lambda: stage.core.of(e.Received))
            stage.port.waiting.append((b"client", hello(os.getpid())))  # without an edge
            first.kill()
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2)
        await stage.rest()
        assert not stage.core.of(e.LinkDown)

    staged(story)


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_bug_ends_it_instead_of_the_patience_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken(FakeCore):
        def handle(self, event: e.Event, now: float) -> list[e.Effect]:
            if type(event) is e.Received:
                raise KeyError("lost")
            return super().handle(event, now)

    async def story(stage: Stage) -> None:
        stage.driver = Driver(Broken(), [stage.port], None, stage.spawner)  # type: ignore[arg-type]
        stage.start()
        assert not stage.driver.failed
        stage.port.brings((b"a", m.Beat()))
        await stage.until(lambda: stage.exits)
        assert "a bug in hiersched" in stage.exits[0]
        assert stage.driver.failed

    staged(story)
    assert "KeyError: 'lost'" in capsys.readouterr().err


def test_a_bug_in_the_news_ends_it_too(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> None:
        raise KeyError("unknown child")

    async def story(stage: Stage) -> None:
        stage.start()
        stage.spawner.tells(lambda: stage.driver.on_child_ended(b"engine-3", "it was killed"))
        await stage.until(lambda: stage.core.of(e.LinkDown))
        stage.spawner.tells(broken)
        await stage.until(lambda: stage.exits)
        assert stage.driver.failed

    staged(story)
    assert "KeyError: 'unknown child'" in capsys.readouterr().err


def test_what_the_loop_still_holds_does_nothing_after_the_end() -> None:
    async def story(stage: Stage) -> None:
        stage.core.on(e.Started, e.WakeAt(time.monotonic()))
        stage.start()
        stage.port.brings((b"a", m.Beat()))
        stage.driver.stop()
        seen = len(stage.core.events)
        await stage.rest()
        stage.driver.step(e.Woke())
        stage.driver.on_child_ended(b"engine-0", "late")
        assert len(stage.core.events) == seen

    staged(story)


def test_a_last_word_to_who_is_gone_is_lost() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        stage.port.brings((b"a", m.Beat()), (b"b", m.Beat()))
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2)
        stage.port.unreachable[b"a"] = Gone("it closed its connection")
        for link in (b"a", b"b", b"never"):
            stage.driver.say(link, m.Bye("the end"))
        assert stage.port.sent == [(b"b", m.Bye("the end"), ())]

    staged(story)


# --- neighbours in this process ---------------------------------------------------------------------------------------


def test_a_neighbour_in_this_process_speaks_hears_and_takes_its_signals_itself() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        heard: list[tuple[m.Message, object]] = []
        signals: list[int] = []
        stage.driver.take_in(b"guest", lambda message, frames: heard.append((message, frames)), signals.append)
        stage.core.on(e.Received, e.Send(b"guest", m.Beat(), (b"frame",)), e.Signal([b"guest", b"engine-3"], 2))
        stage.driver.hear(b"guest", (hello(1, role="engine"), ()), (m.Beat(), ()))
        assert [event.message for event in stage.core.of(e.Received)] == [hello(1, role="engine"), m.Beat()]
        assert heard == [(m.Beat(), (b"frame",))]
        assert signals == [2]
        assert stage.spawner.signalled == [([b"engine-3"], 2)]
        stage.core.on(e.Woke, e.Signal([b"guest"], 15))
        stage.driver.step(e.Woke())
        assert (signals, len(stage.spawner.signalled)) == ([2, 15], 1)
        stage.core.on(e.Woke, e.Close(b"guest"), e.Send(b"guest", m.Beat()))
        stage.driver.step(e.Woke())
        assert [event.link for event in stage.core.of(e.LinkDown)] == [b"guest"]

    staged(story)


def test_a_neighbour_in_this_process_hears_what_others_cause() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        heard: list[m.Message] = []
        stage.driver.take_in(b"door", lambda message, frames: heard.append(message))
        stage.core.on(e.Received, e.Send(b"door", m.Stop("1")), e.Send(b"a", m.Beat()), e.Send(b"door", m.Stop("2")))
        stage.port.brings((b"a", m.Beat()))
        await stage.until(lambda: heard)
        assert heard == [m.Stop("1"), m.Stop("2")]
        assert stage.port.sent == [(b"a", m.Beat(), ())]

    staged(story)


def test_what_a_neighbour_in_this_process_says_is_heard_at_once_and_in_one_step() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        await stage.rest()
        stage.core.events.clear()
        stage.driver.take_in(b"door", lambda message, frames: None)
        stage.driver.hear(b"door", (m.Beat(), ()), (m.Blob(bytes(16)), (b"data",)))
        assert stage.core.events == [
            e.Received(b"door", m.Beat(), ()),
            e.Received(b"door", m.Blob(bytes(16)), (b"data",)),
            e.Drained(),
        ]
        stage.core.events.clear()
        stage.core.unsettled = False
        stage.driver.hear(b"door", (m.Beat(), ()))
        assert [type(event) for event in stage.core.events] == [e.Received]

    staged(story)


def test_an_edge_that_a_neighbour_in_this_process_ate_is_made_up_for() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        await stage.rest()
        stage.driver.take_in(b"door", lambda message, frames: None)
        stage.core.on(e.Received, e.Send(b"a", m.Beat()))
        stage.port.brings((b"a", m.Beat()))
        stage.driver.hear(b"door", (m.Stop("said"), ()))  # comes first, and what it causes eats the edge
        await stage.until(lambda: len(stage.core.of(e.Received)) == 2)

    staged(story)


def test_after_the_stop_nobody_in_this_process_is_heard() -> None:
    async def story(stage: Stage) -> None:
        stage.start()
        stage.driver.take_in(b"door", lambda message, frames: None)
        stage.core.events.clear()
        stage.driver.stop()
        stage.driver.hear(b"door", (m.Beat(), ()))
        assert stage.core.events == []

    staged(story)


def test_a_neighbour_in_this_process_that_breaks_ends_it() -> None:
    async def story(stage: Stage) -> None:
        def breaks(message: m.Message, frames: object) -> None:
            raise RuntimeError("a bug")

        stage.start()
        stage.driver.take_in(b"door", breaks)
        stage.core.on(e.Received, e.Send(b"door", m.Beat()))
        stage.driver.hear(b"door", (m.Beat(), ()))
        assert stage.driver.failed
        assert len(stage.exits) == 1
        assert "a bug" in stage.exits[0]

    staged(story)
