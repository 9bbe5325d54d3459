"""The scheduler process: a core, its ports, its loop. The root has a front door for clients besides."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import msgspec
import uvloop
from tornado.ioloop import IOLoop

from hiersched.core.effects import Dropped, Link, link_of
from hiersched.core.place import Place
from hiersched.core.scheduler import SchedulerCore
from hiersched.core.topology import Child
from hiersched.nodes.facts import ClusterFacts
from hiersched.protocol.messages import Bye, Hello, Stop
from hiersched.runtime import connection
from hiersched.runtime.driver import Driver
from hiersched.runtime.keys import Gate
from hiersched.runtime.nursery import NurseryClient
from hiersched.runtime.zmq_link import Port, Uplink, context


class _NurserySpawner:
    """The driver's Spawner, on the nursery of this host."""

    def __init__(self, channel: socket.socket, address: str) -> None:
        self._links: dict[Link, Child] = {}
        self.client = NurseryClient(channel, self._on_ended)
        self.client.address = address
        self.driver: Driver | None = None

    def start(self, children: list[Child]) -> None:
        for child in children:
            self._links[link_of(child)] = child
        self.client.start(children)

    def end(self, link: Link) -> None:
        child = self._links.pop(link, None)
        if child is not None:
            self.client.end(child.kind, child.first)

    def watches(self, link: Link) -> bool:
        return link in self._links

    def _on_ended(self, child: Child, reason: str) -> None:
        assert self.driver is not None
        self._links.pop(link_of(child), None)
        if child.kind == "scheduler":  # what is read where an engine is meant
            reason = f"its scheduler was lost: {reason}"
        self.driver.on_child_ended(link_of(child), reason)


def run_scheduler(facts: ClusterFacts, child: Child, address: str, channel: socket.socket) -> None:
    """Be the sub-scheduler `child` under the parent at `address`, until the parent says to stop or is gone."""
    _run_loop(_run(facts, child, address, channel))


def run_root(facts: ClusterFacts, child: Child, channel: socket.socket, ready: int) -> None:
    """Be the root. When it can be reached, the connection is written to its file and to the descriptor `ready`."""
    _run_loop(_run(facts, child, "", channel, ready))


def _run_loop(main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # a wake-up costs a third of asyncio's own
        runner.run(main)


async def _run(facts: ClusterFacts, child: Child, parent: str, channel: socket.socket, ready: int = -1) -> None:
    is_root = not parent
    own = context()
    name = link_of(child)
    port = Port(own, f"ipc://{facts.directory}/{name.decode()}")
    ports = [port]
    place = Place(facts.cluster, facts.key, child.level, child.first, child.last)
    core = SchedulerCore(place, facts.plan)
    spawner = _NurserySpawner(channel, port.address)
    gate = None
    if is_root and facts.ip is not None:
        gate = Gate(own, lambda: driver.step(Dropped("unauthorised")))
        gate.start()
        ports.append(Port(own, f"tcp://{facts.ip}:*", gate))
    uplink = None if is_root else Uplink(own, parent, name)
    driver = Driver(core, ports, uplink, spawner)
    spawner.driver = driver
    done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: _finish(done, "it was told to stop"))
    IOLoop.current().add_handler(spawner.client.fileno(), spawner.client.on_readable, IOLoop.READ)
    if uplink is not None:
        host = socket.gethostname()
        uplink.send(
            Hello(facts.cluster, facts.key, "scheduler", name.decode(), os.getpid(), host, child.first, child.last)
        )
    driver.start(lambda reason: _finish(done, reason))
    if is_root:
        _announce(facts, ports, gate, ready)
    await done
    if is_root:
        for link in core.membership.clients:
            driver.say(link, Bye(done.result()))
    for child_link in core.membership.children:
        driver.say(child_link, Stop(done.result()))
    driver.stop()
    if gate is not None:
        gate.close()
    for socket_ in (*ports, *([uplink] if uplink is not None else [])):
        socket_.socket.linger = 200  # the last words may still be on their way
        socket_.socket.close()
    own.term()
    if driver.failed:
        raise SystemExit(os.EX_SOFTWARE)


def _finish(done: asyncio.Future[str], reason: str) -> None:
    if not done.done():
        done.set_result(reason)


def _announce(facts: ClusterFacts, ports: list[Port], gate: Gate | None, ready: int) -> None:
    """Write the connection file, and tell whoever waits for it."""
    found = connection.Connection(
        cluster=facts.cluster,
        key=facts.key,
        address=ports[0].address,
        host=socket.gethostname(),
        pid=os.getpid(),
        nursery=os.getppid(),
        tcp_address=ports[1].address if gate is not None else None,
        curve=gate.keys if gate is not None else None,
    )
    connection.write(connection.path_of(facts.cluster), found)
    if ready >= 0:
        with os.fdopen(ready, "wb") as pipe:
            pipe.write(msgspec.json.encode(found))
