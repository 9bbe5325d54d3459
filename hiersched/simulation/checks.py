"""What must hold in every world, whatever breaks in it.

`Checker` looks on at every scheduler after each of its events: nobody waits for the dead; credit is what is in flight,
and never more than one task above a child's width; every queue keeps its bound; a call passes each link once, and each
answer to it; a call never runs twice on an engine, and a task only after it failed or was lost, within its retries.
That requests end once and in order is checked by the client's `Request`. `leftovers` says what is still held when all
should be over.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from hiersched.core import effects as e
from hiersched.core.membership import Neighbour
from hiersched.core.receipts import targets_of
from hiersched.core.topology import TreePlan
from hiersched.errors import Bug
from hiersched.kernels import bitset
from hiersched.limits import (
    BLOB_STORE_BYTES_MAX,
    CHILDREN_MAX,
    CLIENTS_MAX,
    KEPT_BYTES_MAX,
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


@dataclass(slots=True, eq=False)
class _Runs:
    """How often a task has run, where it did so last, and how that ended; None while it has not."""

    count: int
    engine: SimEngine
    code: int | None = None


class Checker:
    """Checks every scheduler after each of its events, and all that runs. Raises Bug at the first thing found wrong."""

    def __init__(self, plan: TreePlan) -> None:
        self._plan = plan
        self._one_host = len(plan.hosts) == 1
        self._calls_heard: set[tuple[e.Link, e.Link, m.TaskId]] = set()  # scheduler, neighbour, request
        self._calls_told: set[tuple[e.Link, e.Link, m.TaskId]] = set()
        self._replies_heard: dict[tuple[e.Link, e.Link, m.TaskId], int] = {}  # ranks
        self._replies_told: dict[tuple[e.Link, e.Link, m.TaskId], int] = {}
        self._calls_run: set[tuple[m.TaskId, int]] = set()
        self._tasks_run: dict[m.TaskId, _Runs] = {}
        self._terms: dict[m.TaskId, m.Terms] = {}
        self._at_root: set[m.TaskId] = set()

    # --- what runs ----------------------------------------------------------------------------------------------------

    def on_submit(self, task: m.TaskId, terms: m.Terms) -> None:
        """A task is about to be sent by its client."""
        self._terms[task] = terms

    def has_reached_root(self, request: m.TaskId) -> bool:
        """Whether the root has read this call or task while its client was there."""
        return request in self._at_root

    def on_start(self, work: m.Call | m.Task, engine: SimEngine) -> None:
        """Something starts on an engine."""
        if isinstance(work, m.Call):
            if (work.request, engine.rank) in self._calls_run:
                raise Bug(f"request {work.request} runs twice (place {engine.rank})")
            self._calls_run.add((work.request, engine.rank))
            return
        terms = self._terms.get(work.id)
        if terms is not None:
            self._check_terms(work, terms, engine)
        runs = self._tasks_run.get(work.id)
        if runs is None:
            self._tasks_run[work.id] = _Runs(1, engine)
            return
        if runs.count > (terms.retries if terms is not None else 0):
            raise Bug(f"request {work.id} runs twice (time {runs.count + 1})")
        if self._one_host and runs.code != m.RAISED and runs.engine.ended_s > engine.network.timeline.now_s:
            raise Bug(f"task {work.id} runs again, though engine {runs.engine.rank} lives (code {runs.code})")
        self._tasks_run[work.id] = _Runs(runs.count + 1, engine)

    def on_end(self, work: m.Call | m.Task, engine: SimEngine, code: int) -> None:
        """What started there is over."""
        if isinstance(work, m.Task) and self._tasks_run[work.id].engine is engine:
            self._tasks_run[work.id].code = code

    def _check_terms(self, task: m.Task, terms: m.Terms, engine: SimEngine) -> None:
        """It starts where it may, and after what it waits for."""
        targets = bitset.from_wire(terms.targets)
        if targets and not targets >> engine.rank & 1:
            raise Bug(f"task {task.id} starts on engine {engine.rank}, where it may run on {bitset.text_of(targets)}")
        returned = [(runs := self._tasks_run.get(one)) is not None and runs.code == 0 for one in terms.inputs]
        if not all(returned):
            raise Bug(f"task {task.id} starts before the tasks whose results it takes")
        for dependency in (terms.after, terms.follow):
            if dependency is None or dependency.failure or not dependency.tasks:
                continue
            returned = [(runs := self._tasks_run.get(one)) is not None and runs.code == 0 for one in dependency.tasks]
            if not (all(returned) if dependency.all else any(returned)):
                raise Bug(f"task {task.id} starts before the tasks that it waits for")

    # --- schedulers ---------------------------------------------------------------------------------------------------

    def after_event(self, node: SimScheduler, event: e.Event, effects: Sequence[e.Effect]) -> None:
        """`node` has handled `event`, and `effects` are about to be performed."""
        touched = [event.link] if isinstance(event, e.Received) else []
        if isinstance(event, e.Received):
            self._note(self._calls_heard, self._replies_heard, node, event.link, event.message)
            if event.link in node.core.membership.clients:
                self._at_root.update(_asked_in(event.message))
        for effect in effects:
            if type(effect) is e.Send:
                self._note(self._calls_told, self._replies_told, node, effect.link, effect.message)
                if type(effect.message) is m.Tasks:
                    touched.append(effect.link)
                    self._check_grant(node, effect.link, effect.message)
            elif type(effect) is e.Climb:  # a new parent is told what the old one may have kept to itself
                self._replies_told = {key: told for key, told in self._replies_told.items() if key[0] != node.link}
        _check_waiting(node)
        _check_bounds(node)
        children = node.core.membership.children
        for child in children.values() if isinstance(event, e.LinkDown) else _those(touched, children):
            _check_credit(node, child)

    def _note(
        self,
        calls: set[tuple[e.Link, e.Link, m.TaskId]],
        replies: dict[tuple[e.Link, e.Link, m.TaskId], int],
        node: SimScheduler,
        link: e.Link,
        message: object,
    ) -> None:
        """A collective passes here: once from each neighbour and once to each, but for answers that go ahead."""
        if isinstance(message, m.Call):
            entry = (node.link, link, message.request)
            if entry in calls:
                _fail(node, f"more than one Call of request {message.request} with {link!r}")
            calls.add(entry)
        elif isinstance(message, m.Reply):
            if link in node.core.membership.clients:  # one that joins a session again is told all of it again
                link = b"%b %d" % (link, node.edges[link].number)
            entry = (node.link, link, message.request)
            before, ranks = replies.get(entry, 0), targets_of(message)
            if before & ranks:
                twice = bitset.text_of(before & ranks)
                _fail(node, f"more than one Reply of {twice} to request {message.request} with {link!r}")
            replies[entry] = before | ranks

    def _check_grant(self, node: SimScheduler, link: e.Link, batch: m.Tasks) -> None:
        child = node.core.membership.children[link]
        if child.load > child.width + 1 + _ROUNDING:
            _fail(node, f"{link!r} has {child.width} engines and is given tasks up to {child.load:.3f} of them")
        if len(batch.tasks) > TASKS_PER_MESSAGE_MAX:
            _fail(node, f"{len(batch.tasks)} tasks in one message")


def _asked_in(message: object) -> list[m.TaskId]:
    if isinstance(message, m.Call):
        return [message.request]
    return [task.id for task in message.tasks] if isinstance(message, m.Tasks) else []


def _those(links: Iterable[e.Link], children: dict[e.Link, Neighbour]) -> list[Neighbour]:
    return [children[link] for link in links if link in children]


def _check_waiting(node: SimScheduler) -> None:
    """Whoever owes an answer is there: an engine, or the scheduler that speaks for it, or they are about to come."""
    open_requests = node.core.calls.gather.open
    if not open_requests:
        return
    there = 0
    for child in node.core.membership.children.values():
        there |= child.reach
    for link, process in node.children.items() if len(node.core.orphans) else ():
        if link in node.core.orphans and process.child is not None:
            there |= bitset.of_range(process.child.first, process.child.last)
    for request, entry in open_requests.items():
        if entry.pending & there != entry.pending:
            dead = entry.pending ^ (entry.pending & there)
            _fail(node, f"request {request} waits for {bitset.text_of(dead)}, which are gone")


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
        ("waiting events", len(node.inbox) + len(node.news), LINK_MESSAGES_MAX),
        ("children", len(core.membership.children), CHILDREN_MAX),
        ("bytes of kept answers", core.receipts.kept.bytes if core.receipts.kept.held > 1 else 0, KEPT_BYTES_MAX),
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
) -> Iterator[str]:
    """What is still held by the processes that live at `now_s`: nothing when everything has come to rest."""
    alive = [node for node in schedulers if node.ended_s > now_s]
    for node in alive:
        for what in _held(node):
            yield f"{node.link.decode()}: {what}"
    living = [engine for engine in engines if engine.ended_s > now_s]
    for engine in living:
        if not engine.at_rest:
            yield f"engine {engine.rank} is at work, or keeps {engine.kept} answers"
    ranks = bitset.of_ranks(engine.rank for engine in living)
    if alive and alive[0].uplink is None and alive[0].core.membership.members != ranks:
        yield f"the root is wrong about {bitset.text_of(alive[0].core.membership.members ^ ranks)}"
    for client in clients:
        if client.ended_s > now_s:
            name = client.link.decode()
            if not client.at_rest:
                yield f"{name}: {len(client.open)} requests, {len(client.pins)} blobs, {client.in_flight} tasks"
            if client.members != ranks:
                yield f"{name} is wrong about {bitset.text_of(client.members ^ ranks)}"


def _held(node: SimScheduler) -> Iterator[str]:
    core = node.core
    for what, count in (
        ("open requests", len(core.calls.gather.open)),
        ("tasks", len(core.work.dispatcher.flights)),
        ("waiting tasks", len(core.work.dispatcher)),
        ("tasks that wait for others", core.work.blocked),
        ("surveys", len(core.surveys.open)),
        ("orders", len(core.orders.open)),
        ("questions", len(core.questions.open)),
        ("blobs waited for", core.blobs.waiting),
        ("orphans", len(core.orphans)),
        ("orphans that came early", len(core.family.early)),
        ("guests without a rank", len(core.enrolment)),
        ("answers to acknowledge", core.receipts.leftovers()),
        ("pieces of output", len(core.relay)),
        ("events", len(node.inbox) + len(node.news)),
    ):
        if count:
            yield f"{count} {what}"
    for child in core.membership.children.values():
        if child.load or child.tasks:
            yield f"{child.link.decode()} is charged with {child.load} for {len(child.tasks)} tasks"
