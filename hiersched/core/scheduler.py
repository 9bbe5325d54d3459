"""One scheduler, root or not: events in, effects out.

What comes from above (the parent, or at the root a client) is work: calls are split over the children at once, tasks
wait for credit. What comes from below is answers: replies are gathered, results passed on, credit given back. The root
differs in two things only: it has clients where the others have a parent, and it tells them who is there.

Every handler takes (link, message, frames, now) and appends effects. Tasks are handed out, and results and news of
engines sent on, when the driver says that nothing more waits (`Drained`): one message then carries many.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from hiersched.core.blobs import BlobLedger
from hiersched.core.collectives import Gather
from hiersched.core.dispatch import Dispatcher
from hiersched.core.effects import (
    PARENT,
    ChildFailed,
    Close,
    Drained,
    Dropped,
    Effect,
    Event,
    Exit,
    Link,
    LinkDown,
    Received,
    Send,
    Spawn,
    Started,
    WakeAt,
    Woke,
)
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.metrics import Level, Metrics, merge
from hiersched.core.routing import Router
from hiersched.core.topology import TreePlan, children_of
from hiersched.kernels import bitset
from hiersched.limits import (
    BEAT_PERIOD_S,
    CLIENTS_MAX,
    FANOUT_MAX,
    LEAF_ENGINES_MAX,
    REQUESTS_OPEN_MAX,
    TASKS_IN_FLIGHT_PER_CLIENT_MAX,
    TASKS_PER_MESSAGE_MAX,
)
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, split_frames

Handler = Callable[[Link, Any, Sequence[Frame], float], None]


class Place(msgspec.Struct, frozen=True):
    """Where a scheduler stands. It covers ranks [first, last); level 0 is the root.

    watched: its neighbours' processes are watched by somebody who reports their end, so that silence means nothing.
    """

    cluster: str
    key: str
    level: int
    first: int
    last: int
    watched: bool = True

    @property
    def is_root(self) -> bool:
        return self.level == 0


class SchedulerCore:
    """The state machine of one scheduler."""

    def __init__(self, place: Place, plan: TreePlan) -> None:
        self.place = place
        self.plan = plan
        self.membership = Membership()
        self.router = Router()
        self.gather = Gather()
        self.dispatcher = Dispatcher()
        self.blobs = BlobLedger(is_root=place.is_root)
        self.metrics = Metrics(place.level)
        self._effects: list[Effect] = []
        self._results: dict[Link, tuple[list[m.Result], list[Frame]]] = {}
        self._joined = 0
        self._left = 0
        self._left_reason = ""
        self._surveys: dict[int, _OpenSurvey] = {}
        self._on_event: dict[type, Callable[[Any, float], None]] = {
            Received: self._on_received,
            Drained: self._on_drained,
            Started: self._on_started,
            Woke: self._on_woke,
            LinkDown: self._on_link_down,
            ChildFailed: self._on_child_failed,
            Dropped: self._on_dropped,
        }
        self._from_above: dict[type, Handler] = {
            m.Call: self._on_call,
            m.Tasks: self._on_tasks,
            m.Cancel: self._on_cancel,
            m.Blob: self._on_blob,
            m.Missing: self._on_missing,
            m.Survey: self._on_survey,
            m.Stop: self._on_stop,
            m.Beat: _ignore,
            m.Welcome: _ignore,
            m.Bye: self._on_bye,
            m.Refused: self._on_refused,
        }
        self._from_below: dict[type, Handler] = {
            m.Reply: self._on_reply,
            m.Results: self._on_results,
            m.Members: self._on_members,
            m.Want: self._on_want,
            m.Census: self._on_census,
            m.Beat: _ignore,
            m.Bye: self._on_bye,
        }

    def handle(self, event: Event, now: float) -> list[Effect]:
        """What is to be done about `event`, in order. now: seconds, of a clock that never goes back."""
        self._on_event[type(event)](event, now)
        effects, self._effects = self._effects, []
        return effects

    # --- events other than messages -----------------------------------------------------------------------------------

    def _on_started(self, event: Event, now: float) -> None:
        self.membership.heard_parent(now)
        self._effects.append(
            Spawn(children_of(self.plan, self.place.first, self.place.last, level=self.place.level))
        )
        self._effects.append(WakeAt(now + BEAT_PERIOD_S))

    def _on_woke(self, event: Event, now: float) -> None:
        """Beat to neighbouring schedulers; notice those that fell silent."""
        self._effects.append(WakeAt(now + BEAT_PERIOD_S))
        if self.place.watched:
            return
        for child in self.membership.schedulers():
            self._send(child.link, m.Beat())
        for child in self.membership.silent(now):
            self._lose_child(child.link, "missed its beats")
        if not self.place.is_root:
            self._send(PARENT, m.Beat())
            if self.membership.parent_is_lost(now):
                self._effects.append(Exit("the parent missed its beats"))

    def _on_link_down(self, event: LinkDown, now: float) -> None:
        if event.link == PARENT:
            self._effects.append(Exit(f"the parent is gone: {event.reason}"))
        elif event.link in self.membership.children:
            self._lose_child(event.link, event.reason)
        elif event.link in self.membership.clients:
            self._lose_client(event.link)

    def _on_child_failed(self, event: ChildFailed, now: float) -> None:
        """A child never came: report its ranks as left, so that whoever waits for them learns why."""
        self._left |= (
            bitset.of_range(event.child.first, event.child.last)
            & ~self.membership.members
        )
        self._left_reason = event.reason

    def _on_dropped(self, event: Dropped, now: float) -> None:
        self.metrics.counts[event.kind] += 1

    def _on_drained(self, event: Event, now: float) -> None:
        """Hand out tasks, pass on results, tell who came and went."""
        if len(self.dispatcher):
            self._hand_out()
        for link, (results, frames) in self._results.items():
            self._send(link, m.Results(results), frames)
        self._results.clear()
        if self._joined or self._left:
            news = m.Members(
                bitset.to_wire(self._joined),
                bitset.to_wire(self._left),
                self._left_reason,
            )
            for link in (
                [PARENT] if not self.place.is_root else list(self.membership.clients)
            ):
                self._send(link, news)
            self._joined = self._left = 0
            self._left_reason = ""

    # --- messages -----------------------------------------------------------------------------------------------------

    def _on_received(self, event: Received, now: float) -> None:
        link, message = event.link, event.message
        self.metrics.counts["messages_in"] += 1
        membership = self.membership
        if link in membership.children:
            handler = self._from_below.get(type(message))
            membership.heard(link, now)
        elif link in membership.clients:
            handler = self._from_above.get(type(message))
        elif link == PARENT:
            handler = (
                self._from_above.get(type(message)) if not self.place.is_root else None
            )
            membership.heard_parent(now)
        elif type(message) is m.Hello:
            handler = self._on_hello
        else:
            self.metrics.counts["unauthorised"] += 1
            self._send(
                link,
                m.Refused(
                    "NotAuthorised", "this link has not said hello; connect again"
                ),
            )
            return
        if handler is None:
            self.metrics.counts["malformed"] += 1
            return
        handler(link, message, event.frames, now)

    def _on_hello(
        self, link: Link, hello: m.Hello, frames: Sequence[Frame], now: float
    ) -> None:
        """Take a child or a client in, or say why not."""
        refusal = self._why_not(hello)
        if refusal is not None:
            self.metrics.counts[
                "unauthorised" if refusal.code == "NotAuthorised" else "refused"
            ] += 1
            self._send(link, refusal)
            self._effects.append(Close(link))
            return
        neighbour = Neighbour(
            link,
            hello.role,
            hello.uuid,
            hello.first,
            hello.last,
            hello.pid,
            heard_s=now,
        )
        if hello.role == "client":
            self.membership.add_client(neighbour)
        else:
            self._joined |= self.membership.add_child(neighbour)
            self.router.rebuild(self.membership.children.values())
        facts: dict[str, Any] = {}
        if hello.role == "client":
            facts = {
                "cluster": self.place.cluster,
                "plan": msgspec.to_builtins(self.plan),
                "tasks_in_flight_max": TASKS_IN_FLIGHT_PER_CLIENT_MAX,
            }
        members = bitset.to_wire(
            self.membership.members & ~self._joined
        )  # those that just joined are news to come
        self._send(link, m.Welcome(neighbour.session, members, facts))

    def _why_not(self, hello: m.Hello) -> m.Refused | None:
        place = self.place
        if hello.cluster != place.cluster:
            return m.Refused(
                "ConnectionFileError",
                f"this is cluster {place.cluster!r}, not {hello.cluster!r}: the connection file is stale",
            )
        if hello.key != place.key:
            return m.Refused(
                "NotAuthorised",
                "wrong key: use the connection file that this cluster wrote",
            )
        if hello.role == "client":
            if not place.is_root:
                return m.Refused("NotAuthorised", "clients connect to the root")
            if len(self.membership.clients) >= CLIENTS_MAX:
                return m.Refused(
                    "CapacityError", f"the root already has {CLIENTS_MAX} clients"
                )
            return None
        if not place.first <= hello.first < hello.last <= place.last:
            return m.Refused(
                "PlanError",
                f"ranks {hello.first}..{hello.last - 1} do not belong to this scheduler",
            )
        if self.membership.has_range(hello.first, hello.last) is not None:
            return m.Refused(
                "PlanError", f"ranks {hello.first}..{hello.last - 1} are taken"
            )
        if len(self.membership.children) >= max(FANOUT_MAX, LEAF_ENGINES_MAX):
            return m.Refused(
                "CapacityError", "this scheduler has all the children it may have"
            )
        return None

    def _on_bye(
        self, link: Link, bye: m.Bye, frames: Sequence[Frame], now: float
    ) -> None:
        if link in self.membership.clients:
            self._lose_client(link)
        elif link != PARENT:
            self._lose_child(link, bye.reason)

    def _on_refused(
        self, link: Link, refused: m.Refused, frames: Sequence[Frame], now: float
    ) -> None:
        self._effects.append(Exit(f"the parent refused this scheduler: {refused.text}"))

    def _on_stop(
        self, link: Link, stop: m.Stop, frames: Sequence[Frame], now: float
    ) -> None:
        """Pass the word on and go; whoever started the processes sees to it that none stays."""
        for child in self.membership.children:
            self._send(child, stop)
        for client in self.membership.clients:
            self._send(client, m.Bye(stop.reason))
        self._effects.append(Exit(stop.reason))

    # --- requests: down at once, up when complete ---------------------------------------------------------------------

    def _on_call(
        self, link: Link, call: m.Call, frames: Sequence[Frame], now: float
    ) -> None:
        targets = bitset.from_wire(call.targets)
        self.metrics.counts["requests"] += 1
        if call.parts and len(call.parts) != targets.bit_count():
            self.metrics.counts["malformed"] += 1
            self._refuse_call(link, call, "a call must bring one part per target")
            return
        if (
            len(self.gather.open) >= REQUESTS_OPEN_MAX
            or call.request in self.gather.open
        ):
            self._refuse_call(
                link,
                call,
                f"more than {REQUESTS_OPEN_MAX} requests are open, or this one is already",
            )
            return
        if self.place.is_root:
            self.blobs.named(link, [call.function, *call.needs])
            for part in call.parts:
                self.blobs.named(link, part.needs)
        shares, unknown = self.router.split(targets)
        self.gather.begin(call.request, link, targets)
        for child, share in shares:
            part_call, part_frames = (
                (call, frames)
                if share == targets
                else _share_of(call, frames, targets, share)
            )
            self.blobs.supply(child.link, _needs_of(part_call), self._effects)
            self._send(child.link, part_call, part_frames)
        if unknown:
            self._reply(
                self.gather.lose(
                    call.request, unknown, m.ENGINE_UNKNOWN, "there is no such engine"
                )
            )

    def _refuse_call(self, link: Link, call: m.Call, text: str) -> None:
        self._send(
            link, m.Reply(call.request, [], [m.Loss(call.targets, m.REFUSED, text)])
        )

    def _on_reply(
        self, link: Link, reply: m.Reply, frames: Sequence[Frame], now: float
    ) -> None:
        self._reply(
            self.gather.answer(reply, frames, self.membership.children[link].members)
        )

    def _reply(self, finished: tuple[Link, m.Reply, Sequence[Frame]] | None) -> None:
        if finished is not None:
            self._send(*finished)

    # --- tasks: every level picks the child ---------------------------------------------------------------------------

    def _on_tasks(
        self, link: Link, batch: m.Tasks, frames: Sequence[Frame], now: float
    ) -> None:
        self.metrics.counts["tasks"] += len(batch.tasks)
        if self.place.is_root:
            if (
                len(self.dispatcher.flights) + len(batch.tasks)
                > TASKS_IN_FLIGHT_PER_CLIENT_MAX * CLIENTS_MAX
            ):
                for task in batch.tasks:
                    self._result(
                        link,
                        task.id,
                        m.REFUSED,
                        "the root holds as many tasks as it may",
                    )
                return
            named = {task.function for task in batch.tasks}
            for task in batch.tasks:
                named.update(task.needs)
            self.blobs.named(link, named)
        self.dispatcher.submit(batch.tasks, frames, link)

    def _hand_out(self) -> None:
        for child, flights in self.dispatcher.assign(self.membership.children.values()):
            for start in range(0, len(flights), TASKS_PER_MESSAGE_MAX):
                batch = flights[start : start + TASKS_PER_MESSAGE_MAX]
                needs = {flight.task.function for flight in batch}
                frames: list[Frame] = []
                for flight in batch:
                    if flight.task.frames:
                        frames.extend(flight.frames)
                    if flight.task.needs:
                        needs.update(flight.task.needs)
                self.blobs.supply(child.link, sorted(needs), self._effects)
                self._send(
                    child.link, m.Tasks([flight.task for flight in batch]), frames
                )
        if len(self.dispatcher) and not self.membership.members:
            self._give_back("no engine is left")

    def _on_results(
        self, link: Link, batch: m.Results, frames: Sequence[Frame], now: float
    ) -> None:
        child = self.membership.children[link]
        start = 0
        for result, flight in zip(
            batch.results, self.dispatcher.settle(child, batch.results), strict=True
        ):
            end = start + result.frames
            if flight is None:
                self.gather.late += 1
            elif result.code == m.ENGINE_UNKNOWN and self.membership.members:
                self.dispatcher.requeue(
                    flight
                )  # it did not run there; it can elsewhere
            else:
                results, result_frames = self._results_for(flight.owner)
                results.append(result)
                if end > start:
                    result_frames.extend(frames[start:end])
            start = end

    def _on_cancel(
        self, link: Link, cancel: m.Cancel, frames: Sequence[Frame], now: float
    ) -> None:
        withdrawn, further = self.dispatcher.cancel(cancel.tasks, link)
        for flight in withdrawn:
            self._result(
                flight.owner, flight.task.id, m.CANCELLED, "cancelled before it started"
            )
        for child, ids in further.items():
            self._send(child, m.Cancel(ids))

    def _give_back(self, text: str) -> None:
        """No engine can take what waits here: say so, so that it is run elsewhere or reported."""
        for flight in self.dispatcher.drain():
            self._result(flight.owner, flight.task.id, m.ENGINE_UNKNOWN, text)

    def _result(
        self, owner: Link, task_id: int, code: int, text: str, rank: int = 0
    ) -> None:
        results, _ = self._results_for(owner)
        results.append(m.Result(task_id, rank, 0, code, text.encode(), 0))

    def _results_for(self, owner: Link) -> tuple[list[m.Result], list[Frame]]:
        entry = self._results.get(owner)
        if entry is None:
            entry = self._results[owner] = ([], [])
        return entry

    # --- blobs --------------------------------------------------------------------------------------------------------

    def _on_blob(
        self, link: Link, blob: m.Blob, frames: Sequence[Frame], now: float
    ) -> None:
        self.blobs.on_blob(blob.digest, frames[0], self._effects)

    def _on_want(
        self, link: Link, want: m.Want, frames: Sequence[Frame], now: float
    ) -> None:
        self.blobs.on_want(link, want.digests, self._effects)

    def _on_missing(
        self, link: Link, missing: m.Missing, frames: Sequence[Frame], now: float
    ) -> None:
        self.blobs.on_missing(missing.digests, self._effects)

    # --- who is there -------------------------------------------------------------------------------------------------

    def _on_members(
        self, link: Link, news: m.Members, frames: Sequence[Frame], now: float
    ) -> None:
        child = self.membership.children[link]
        joined, left = self.membership.change(
            child, bitset.from_wire(news.joined), bitset.from_wire(news.left)
        )
        self._joined |= joined
        if left:
            self._settle_lost(left, news.reason)
        failed = bitset.from_wire(news.left) & ~left
        if failed:  # engines that never came
            self._left |= failed
            self._left_reason = news.reason

    def _lose_child(self, link: Link, reason: str) -> None:
        """Settle what a child still owed, so that no caller waits for it."""
        child = self.membership.remove_child(link)
        if child is None:
            return
        self.router.rebuild(self.membership.children.values())
        self.blobs.forget_child(link)
        self._effects.append(Close(link))
        rank = child.first
        for flight in self.dispatcher.lose(child):
            self._result(flight.owner, flight.task.id, m.ENGINE_LOST, reason, rank)
        for survey in list(self._surveys.values()):
            self._count(survey, link, [])
        self._settle_lost(child.members, reason)

    def _settle_lost(self, ranks: int, reason: str) -> None:
        for finished in self.gather.lose_everywhere(ranks, m.ENGINE_LOST, reason):
            self._reply(finished)
        self._joined &= ~ranks
        self._left |= ranks
        self._left_reason = reason

    def _lose_client(self, link: Link) -> None:
        """Nobody waits for a client's work any more: drop what has not started, ignore the rest when it comes."""
        del self.membership.clients[link]
        self.gather.forget(link)
        self._results.pop(link, None)
        _, further = self.dispatcher.cancel(self.dispatcher.owned_by(link), link)
        for child, ids in further.items():
            self._send(child, m.Cancel(ids))
        self.blobs.forget_client(link, self._effects)
        self._effects.append(Close(link))

    # --- counters -----------------------------------------------------------------------------------------------------

    def _on_survey(
        self, link: Link, survey: m.Survey, frames: Sequence[Frame], now: float
    ) -> None:
        """Collect the counters of the subtree."""
        asked = {child.link for child in self.membership.schedulers()}
        for child in asked:
            self._send(child, survey)
        entry = _OpenSurvey(survey.request, link, asked, [self._own_counters()])
        self._surveys[survey.request] = entry
        self._count(entry, None, [])

    def _on_census(
        self, link: Link, census: m.Census, frames: Sequence[Frame], now: float
    ) -> None:
        entry = self._surveys.get(census.request)
        if entry is not None:
            self._count(entry, link, census.levels)

    def _count(
        self, survey: _OpenSurvey, link: Link | None, levels: list[Level]
    ) -> None:
        if link is not None:
            survey.awaited.discard(link)
            survey.tables.append(levels)
        if not survey.awaited and self._surveys.pop(survey.request, None) is not None:
            self._send(survey.asker, m.Census(survey.request, merge(survey.tables)))

    def _own_counters(self) -> list[Level]:
        counts = self.metrics.counts
        counts["late"] = self.gather.late
        counts["engines"] = sum(
            child.role == "engine" for child in self.membership.children.values()
        )
        counts["tasks_waiting"] = len(self.dispatcher)
        counts["tasks_in_flight"] = len(self.dispatcher.flights) - len(self.dispatcher)
        counts["requests_open"] = len(self.gather.open)
        counts["blob_bytes"] = self.blobs.store.bytes
        return self.metrics.levels()

    def _send(
        self, link: Link, message: m.Message, frames: Sequence[Frame] = ()
    ) -> None:
        self.metrics.counts["messages_out"] += 1
        self._effects.append(Send(link, message, frames))


class _OpenSurvey(msgspec.Struct):
    request: int
    asker: Link
    awaited: set[Link]
    tables: list[list[Level]]


def _ignore(
    link: Link, message: m.Message, frames: Sequence[Frame], now: float
) -> None:
    """Being heard was all this message was for."""


def _needs_of(call: m.Call) -> list[bytes]:
    needs = [] if call.function == m.NO_FUNCTION else [call.function]
    needs.extend(call.needs)
    for part in call.parts:
        needs.extend(part.needs)
    return needs


def _share_of(
    call: m.Call, frames: Sequence[Frame], targets: int, share: int
) -> tuple[m.Call, Sequence[Frame]]:
    """The part of a call that goes to one child."""
    wire = bitset.to_wire(share)
    if not call.parts:
        return m.Call(
            call.request, wire, call.lane, call.function, call.needs, []
        ), frames
    pieces = split_frames([part.frames for part in call.parts], frames)
    parts: list[m.Part] = []
    own: list[Frame] = []
    for rank, part, piece in zip(
        bitset.ranks_of(targets), call.parts, pieces, strict=True
    ):
        if share >> rank & 1:
            parts.append(part)
            own.extend(piece)
    return m.Call(call.request, wire, call.lane, call.function, call.needs, parts), own
