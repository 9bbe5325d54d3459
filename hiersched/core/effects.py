"""What happens to a core, and what it wants done.

The whole interface of a scheduler: `core.handle(event, now_s) -> list[Effect]`. Whoever drives it (a process with
sockets, or the simulation) feeds events and performs the effects in order. `Drained` follows each batch of events:
that is when tasks are handed out and results passed on, so that many events share one message.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import msgspec

from hiersched.core.topology import Child, TreePlan
from hiersched.protocol.framing import Frame
from hiersched.protocol.messages import Message

Link: TypeAlias = bytes  # a neighbour: the routing id of a child or client, or PARENT

PARENT: Link = b""
DOORBELL = 0  # in the place of a signal's number


def link_of(child: Child) -> Link:
    """The name under which a child connects to its parent; unique in a cluster."""
    if child.kind == "engine":
        return b"engine-%d-%d" % (child.first, child.birth) if child.birth else b"engine-%d" % child.first
    return b"scheduler-%d-%d-%d" % (child.level, child.first, child.last)


# --- events -----------------------------------------------------------------------------------------------------------


class Started(msgspec.Struct, frozen=True):
    """The process runs and can be reached: time to start the children."""


class Received(msgspec.Struct, frozen=True):
    """A message came in. frames: its payload, opaque."""

    link: Link
    message: Message
    frames: Sequence[Frame] = ()


class LinkDown(msgspec.Struct, frozen=True):
    """The neighbour's process has ended or cannot be reached; nothing more comes from it.

    orphans: of a child scheduler on this host, the children that it leaves. They live, and are this scheduler's now:
    they will say hello, or be reported as ended.
    """

    link: Link
    reason: str
    orphans: Sequence[Child] = ()


class ChildFailed(msgspec.Struct, frozen=True):
    """A child that was to be started ended before its hello, or never came."""

    child: Child
    reason: str


class Dropped(msgspec.Struct, frozen=True):
    """The driver refused something before it was a message. kind: 'malformed', 'version' or 'unauthorised'."""

    kind: str


class Woke(msgspec.Struct, frozen=True):
    """The time asked for by WakeAt has come."""


class Drained(msgspec.Struct, frozen=True):
    """No more events wait for now: hand out tasks, pass results on."""


Event = Started | Received | LinkDown | ChildFailed | Dropped | Woke | Drained


# --- effects ----------------------------------------------------------------------------------------------------------


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a message over a link. Messages of one link arrive in this order."""

    link: Link
    message: Message
    frames: Sequence[Frame] = ()


class WakeAt(msgspec.Struct, frozen=True):
    """Ask for a `Woke` at this time, in seconds of the driver's clock. The earliest one counts."""

    time_s: float


class Spawn(msgspec.Struct, frozen=True):
    """Start these children. plan: of the tree below them, if it is not the one that this process was started with."""

    children: list[Child]
    plan: TreePlan | None = None


class Signal(msgspec.Struct, frozen=True):
    """Send a signal to the processes of children on this host.

    number: of the signal; DOORBELL: there is a message that cannot wait until they look.
    """

    links: list[Link]
    number: int


class Climb(msgspec.Struct, frozen=True):
    """The parent is gone: connect to the nearest living ancestor, which is PARENT from now on; if none lives, end."""

    reason: str


class Close(msgspec.Struct, frozen=True):
    """Forget a link. If it is a child's process of this host, end it."""

    link: Link


class Exit(msgspec.Struct, frozen=True):
    """This process has nothing more to do."""

    reason: str


Effect = Send | WakeAt | Spawn | Signal | Climb | Close | Exit
