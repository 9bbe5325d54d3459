"""The scheduler process: a core, its ports, its loop. The root has a front door for clients besides."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import msgspec
import uvloop
import zmq

from hiersched.core.effects import Dropped, link_of
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol.messages import Bye, Hello, Stop
from hiersched.runtime import connection
from hiersched.runtime.driver import Driver, Lodger
from hiersched.runtime.keys import Gate
from hiersched.runtime.nursery_client import NurseryClient
from hiersched.runtime.zmq_link import Port, Uplink, context

# What else to run in a scheduler's process, on its loop. The connection is the root's own, None in all others.
Lodge = Callable[[Driver, ClusterFacts, Child, connection.Connection | None], Lodger | None]


def _nobody(driver: Driver, facts: ClusterFacts, child: Child, found: connection.Connection | None) -> None:
    """A scheduler's process runs nothing else."""


def run_scheduler(
    facts: ClusterFacts, child: Child, address: str, channel: socket.socket, lodge: Lodge = _nobody
) -> None:
    """Be the sub-scheduler `child` under the parent at `address`, until the parent says to stop or is gone."""
    _run_loop(_run(facts, child, address, channel, lodge=lodge))


def run_root(facts: ClusterFacts, child: Child, channel: socket.socket, ready: int, lodge: Lodge = _nobody) -> None:
    """Be the root. When it can be reached, the connection is written to its file and to the descriptor `ready`."""
    _run_loop(_run(facts, child, "", channel, ready=ready, lodge=lodge))


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # a wake-up costs a third of asyncio's own
        runner.run(main)


async def _run(
    facts: ClusterFacts, child: Child, parent: str, channel: socket.socket, *, ready: int = -1, lodge: Lodge
) -> None:
    is_root = not parent
    own = context()
    ports = [Port(own, facts.address(link_of(child)))]
    place = Place(facts.cluster, facts.key, child.level, child.first, child.last, restarts=facts.restart)
    if is_root and facts.guests:
        place = msgspec.structs.replace(place, guests=True)
    core = SchedulerCore(place, facts.plan, {"pid": os.getpid(), "host": socket.gethostname()})
    gate = None
    if is_root and facts.ip is not None:
        gate = Gate(own, lambda: driver.step(Dropped("unauthorised")))
        gate.start()
        ports.append(Port(own, f"tcp://{facts.ip}:*", gate))
    uplink = None if is_root else _uplink(own, facts, child, parent)
    nursery = NurseryClient(
        channel,
        ports[0].address,
        on_ended=lambda *news: _tell_ended(driver, *news),
        on_orphaned=lambda reason: driver.on_orphaned(reason),
    )
    driver = Driver(core, ports, uplink, nursery)
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: _finish(done, "it was told to stop"))
    driver.start(lambda reason: _finish(done, reason))
    found = _connection(facts, ports, gate) if is_root else None
    lodger = lodge(driver, facts, child, found)
    if found is not None:
        _announce(found, facts, ready)
    _say_last_words(driver, core, await done)
    if lodger is not None:
        lodger.close()
    driver.stop()
    if gate is not None:
        gate.close()
    for socket_ in (*ports, *([uplink] if uplink is not None else [])):
        socket_.socket.linger = 200  # the last words may still be on their way
        socket_.socket.close()
    own.term()
    if driver.failed:
        raise SystemExit(os.EX_SOFTWARE)


def _uplink(own: zmq.Context[zmq.Socket[bytes]], facts: ClusterFacts, child: Child, parent: str) -> Uplink:
    """The link of `child` to its parent, with its hello on the way."""
    name = link_of(child)
    uplink = Uplink(own, parent, name, ancestors=facts.ancestors(child, parent))
    host = socket.gethostname()
    uplink.send(Hello(facts.cluster, facts.key, "scheduler", name.decode(), os.getpid(), host, child.first, child.last))
    return uplink


def _tell_ended(driver: Driver, child: Child, reason: str, orphans: Sequence[Child]) -> None:
    if child.kind == "scheduler":  # what is read where an engine is meant
        reason = f"its scheduler was lost: {reason}"
    driver.on_child_ended(link_of(child), reason, orphans)


def _say_last_words(driver: Driver, core: SchedulerCore, reason: str) -> None:
    """Send home who is still there. When it was a bug that ended this scheduler, its children go on without it."""
    if core.place.is_root:
        for link in core.membership.clients:
            driver.say(link, Bye(reason))
    if core.place.is_root or not driver.failed:
        for link in core.membership.children:
            driver.say(link, Stop(reason))


def _finish(done: asyncio.Future[str], reason: str) -> None:
    if not done.done():
        done.set_result(reason)


def _connection(facts: ClusterFacts, ports: list[Port], gate: Gate | None) -> connection.Connection:
    """How to reach this root."""
    host = socket.gethostname()
    return connection.Connection(
        cluster=facts.cluster,
        key=facts.key,
        address=ports[0].address,
        host=host,
        pid=os.getpid(),
        nursery=os.getppid(),
        tcp_address=ports[1].address.replace("//0.0.0.0:", f"//{host}:") if gate is not None else None,
        curve=gate.keys if gate is not None else None,
    )


def _announce(found: connection.Connection, facts: ClusterFacts, ready: int) -> None:
    """Write the connection file, and tell whoever waits for it."""
    connection.write(connection.path_of(facts.cluster, facts.files), found)
    if ready >= 0:
        with os.fdopen(ready, "wb") as pipe:
            pipe.write(msgspec.json.encode(found))
