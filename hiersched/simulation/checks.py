"""What must hold in every world, whatever breaks in it.

`Checker` looks on at every scheduler after each of its events: nobody waits for the dead; credit is what is in flight,
and never more than one task above a child's width; every queue keeps its bound; for one collective a scheduler hears
each neighbour once and tells each neighbour once (blobs and news of engines apart); nothing runs twice. That requests
end once and in order is checked by the client's `Request`. `leftovers` says what is still held when all should be over.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

from hiersched.core import effects as e
from hiersched.core.membership import Neighbour
from hiersched.core.topology import TreePlan
from hiersched.errors import Bug
from hiersched.kernels import bitset
from hiersched.limits import (
    BLOB_STORE_BYTES_MAX,
    CLIENTS_MAX,
    LINK_MESSAGES_MAX,
    REQUESTS_OPEN_MAX,
    TASKS_IN_FLIGHT_PER_CLIENT_MAX,
    TASKS_PER_MESSAGE_MAX,
)
from hiersched.protocol import messages as m
from hiersched.simulation.client import SimClient
from hiersched.simulation.engine import SimEngine
from hiersched.simulation.scheduler import SimScheduler

_ROUNDING = 1e-6  # of a sum of credits


class Checker:
    """Checks every scheduler after each of its events. Raises Bug at the first thing that is wrong."""

    def __init__(self, plan: TreePlan) -> None:
        self._plan = plan
        self._heard: set[tuple[e.Link, e.Link, m.TaskId]] = set()  # scheduler, neighbour, request
        self._told: set[tuple[e.Link, e.Link, m.TaskId]] = set()
        self._ran: set[tuple[m.TaskId, int]] = set()

    def on_run(self, work: m.TaskId, place: int) -> None:
        """A call starts on the engine of rank `place`, or a task anywhere (place -1)."""
        if (work, place) in self._ran:
            raise Bug(f"request {work} runs twice (place {place})")
        self._ran.add((work, place))

    def after_event(self, node: SimScheduler, event: e.Event, effects: Sequence[e.Effect]) -> None:
        """`node` has handled `event`, and `effects` are about to be performed."""
        touched = [event.link] if isinstance(event, e.Received) else []
        if isinstance(event, e.Received):
            self._note(self._heard, node, event.link, event.message)
        for effect in effects:
            if type(effect) is e.Send:
                self._note(self._told, node, effect.link, effect.message)
                if type(effect.message) is m.Tasks:
                    touched.append(effect.link)
                    self._check_grant(node, effect.link, effect.message)
        _check_waiting(node)
        _check_bounds(node)
        children = node.core.membership.children
        for child in children.values() if isinstance(event, e.LinkDown) else _those(touched, children):
            _check_credit(node, child)

    def _note(
        self, seen: set[tuple[e.Link, e.Link, m.TaskId]], node: SimScheduler, link: e.Link, message: object
    ) -> None:
        """A collective passes here: once from each neighbour, and once to each."""
        if isinstance(message, m.Call | m.Reply):
            entry = (node.link, link, message.request)
            if entry in seen:
                _fail(node, f"more than one {type(message).__name__} of request {message.request} with {link!r}")
            seen.add(entry)

    def _check_grant(self, node: SimScheduler, link: e.Link, batch: m.Tasks) -> None:
        child = node.core.membership.children[link]
        if child.load > child.width + 1 + _ROUNDING:
            _fail(node, f"{link!r} has {child.width} engines and is given tasks up to {child.load:.3f} of them")
        if len(batch.tasks) > TASKS_PER_MESSAGE_MAX:
            _fail(node, f"{len(batch.tasks)} tasks in one message")


def _those(links: Iterable[e.Link], children: dict[e.Link, Neighbour]) -> list[Neighbour]:
    return [children[link] for link in links if link in children]


def _check_waiting(node: SimScheduler) -> None:
    """Whoever owes an answer is there: an engine, or the child scheduler that speaks for it."""
    open_requests = node.core.calls.gather.open
    if not open_requests:
        return
    there = 0
    for child in node.core.membership.children.values():
        there |= child.reach
    for entry in open_requests.values():
        if entry.pending & there != entry.pending:
            dead = entry.pending ^ (entry.pending & there)
            _fail(node, f"request {entry.request} waits for {bitset.text_of(dead)}, which are gone")


def _check_credit(node: SimScheduler, child: Neighbour) -> None:
    flights = node.core.work.dispatcher.flights
    weight = 0.0
    for task_id in child.tasks:
        flight = flights.get(task_id)
        if flight is None or flight.child is not child:
            _fail(node, f"{child.link!r} is charged with task {task_id}, which it does not hold")
        weight += flight.weight
    if abs(weight - child.load) > _ROUNDING:
        _fail(node, f"{child.link!r} holds tasks worth {weight} engines and is charged with {child.load}")


def _check_bounds(node: SimScheduler) -> None:
    core = node.core
    for what, count, most in (
        ("open requests", len(core.calls.gather.open), REQUESTS_OPEN_MAX),
        ("tasks", len(core.work.dispatcher.flights), TASKS_IN_FLIGHT_PER_CLIENT_MAX * CLIENTS_MAX),
        ("waiting events", len(node.inbox), LINK_MESSAGES_MAX),
        ("clients", len(core.membership.clients), CLIENTS_MAX),
        ("bytes of blobs", core.blobs.store.bytes if len(core.blobs.store) > 1 else 0, BLOB_STORE_BYTES_MAX),
    ):
        if count > most:
            _fail(node, f"{count} {what}, where {most} is the bound")


def _fail(node: SimScheduler, text: str) -> NoReturn:
    raise Bug(f"{node.link.decode()}: {text}")


# --- when all is over -------------------------------------------------------------------------------------------------


def leftovers(
    schedulers: Iterable[SimScheduler], engines: Iterable[SimEngine], *, clients: Iterable[SimClient], now_s: float
) -> list[str]:
    """What is still held by the processes that live at `now_s`; empty when everything has come to rest."""
    found = []
    alive = [node for node in schedulers if node.ended_s > now_s]
    for node in alive:
        found += [f"{node.link.decode()}: {what}" for what in _held(node)]
    living = [engine for engine in engines if engine.ended_s > now_s]
    found += [f"engine {engine.rank} is at work" for engine in living if not engine.at_rest]
    ranks = bitset.of_ranks(engine.rank for engine in living)
    if alive and alive[0].uplink is None and alive[0].core.membership.members != ranks:
        found.append(f"the root is wrong about {bitset.text_of(alive[0].core.membership.members ^ ranks)}")
    for client in clients:
        if client.ended_s > now_s:
            name = client.link.decode()
            if not client.at_rest:
                found.append(f"{name}: {len(client.open)} requests, {len(client.pins)} blobs, {client.in_flight} tasks")
            if client.members != ranks:
                found.append(f"{name} is wrong about {bitset.text_of(client.members ^ ranks)}")
    return found


def _held(node: SimScheduler) -> list[str]:
    core = node.core
    held = {
        "open requests": len(core.calls.gather.open),
        "tasks": len(core.work.dispatcher.flights),
        "waiting tasks": len(core.work.dispatcher),
        "surveys": len(core.surveys.open),
        "blobs waited for": core.blobs.waiting,
        "events": len(node.inbox),
    }
    found = [f"{count} {what}" for what, count in held.items() if count]
    for child in core.membership.children.values():
        if child.load or child.tasks:
            found.append(f"{child.link.decode()} is charged with {child.load} for {len(child.tasks)} tasks")
    return found
