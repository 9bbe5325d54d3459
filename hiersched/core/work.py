"""Load-balanced work: tasks wait for what they depend on, then for credit, and go down in batches; results come up.

Every task that was taken on ends with exactly one result for whoever sent it. At the root a task may first wait for
others, and one that fails may run again (docs/decisions/0009); the other schedulers pass on what comes. Results gather
until the driver has nothing more to tell; then `hand_out` first releases the tasks that have waited for these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from hiersched.core.answers import Answers
from hiersched.core.blobs import BlobLedger
from hiersched.core.conditions import depends
from hiersched.core.dependencies import Dependencies, Failed
from hiersched.core.dispatch import NOBODY, Dispatcher
from hiersched.core.effects import Link
from hiersched.core.membership import Membership, Neighbour
from hiersched.core.outbox import Outbox
from hiersched.core.queues import ANY, Flight
from hiersched.core.retries import cancelled, last_word, outcome_of, runs_again, without_value
from hiersched.core.wording import GOES_ON, engines_text
from hiersched.kernels import bitset
from hiersched.limits import CLIENTS_MAX, TASKS_IN_FLIGHT_PER_CLIENT_MAX
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame, batches, split_frames

SendResults = Callable[[Link, m.Results, Sequence[Frame]], None]
Reason = tuple[str, str, int, Link | None]  # state, text, ranks that it is about, the child to ask further

_NEVER_S = float("inf")
_TASKS_MAX = TASKS_IN_FLIGHT_PER_CLIENT_MAX * CLIENTS_MAX


class Work:
    """The tasks of one scheduler, and the results it is about to pass on.

    send_results: sends a batch to the parent or to a client, or keeps it for one that is away; the outbox's `send` if
    None. expected: ranks of engines that are gone and being replaced: what only they may run waits for them.
    """

    def __init__(
        self,
        outbox: Outbox,
        membership: Membership,
        blobs: BlobLedger,
        *,
        is_root: bool,
        send_results: SendResults | None = None,
    ) -> None:
        self.dispatcher = Dispatcher()
        self.expected = 0
        self._outbox = outbox
        self._membership = membership
        self._blobs = blobs
        self._is_root = is_root
        self._send_results = send_results or outbox.send
        self._answers: dict[Link, Answers] = {}
        self._dependencies: dict[Link, Dependencies] = {}  # of the clients that have used any

    # --- what is there ------------------------------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Something waits to be handed out or passed on."""
        return bool(self.dispatcher.flights) or any(answers.results for answers in self._answers.values())

    @property
    def blocked(self) -> int:
        """Tasks that wait for others."""
        return sum(len(dependencies.blocked) for dependencies in self._dependencies.values())

    @property
    def next_deadline_s(self) -> float:
        """When to call `on_time`; infinite if nothing is due."""
        if not self._dependencies:
            return _NEVER_S
        return min(dependencies.next_deadline_s for dependencies in self._dependencies.values())

    def owner_of(self, task: m.TaskId) -> Link | None:
        """Who sent a task that has not ended; None if it is not known, or nobody wants it any more."""
        flight = self.dispatcher.flights.get(task)
        if flight is not None:
            return flight.owner if flight.owner != NOBODY else None
        return next((link for link, those in self._dependencies.items() if task in those.blocked), None)

    def owned_by(self, link: Link) -> list[m.TaskId]:
        """The tasks of a client that have not ended, and those whose results are about to be passed on."""
        dependencies, answers = self._dependencies.get(link), self._answers.get(link)
        return [
            *self.dispatcher.owned_by(link),
            *(dependencies.blocked if dependencies is not None else ()),
            *(result.id for result in (answers.results if answers is not None else ())),
        ]

    def tries(self) -> list[m.Try]:
        """All tasks that are here or further down, and those whose results are about to go up."""
        results = [(result.id, result.attempt) for answers in self._answers.values() for result in answers.results]
        return [*[m.try_of(flight.task) for flight in self.dispatcher.flights.values()], *results]

    def why(self, task: m.TaskId) -> Reason | None:
        """What keeps a task from ending; None if it is not known here."""
        for dependencies in self._dependencies.values():
            text = dependencies.why(task)
            if text is not None:
                return "dependency", text, 0, None
        flight = self.dispatcher.flights.get(task)
        if flight is None:
            return None
        child = flight.child
        if child is None:
            return self._why_waiting(flight)
        if self._membership.children.get(child.link) is not child:
            return "waiting", "the scheduler that had it was lost, and who has it now is being found out", 0, None
        ranks = self._allowed(flight) & child.members
        text = f"it was sent to {engines_text(ranks) if ranks else 'a scheduler'}"
        if flight.standing is not None and flight.standing.interrupted:
            text += f"; {GOES_ON}"
        return "sent", text, ranks, child.link

    def _why_waiting(self, flight: Flight) -> Reason:
        ranks = self._allowed(flight) & self._membership.members
        if ranks:
            return "waiting", f"every engine that it may run on is busy: {engines_text(ranks)}", ranks, None
        ranks = self._allowed(flight) & self.expected
        soon = f"; {engines_text(ranks)} will be" if ranks else ""
        return "waiting", f"no engine that it may run on is there{soon}", ranks, None

    def _allowed(self, flight: Flight) -> int:
        return ANY if flight.standing is None else flight.standing.allowed

    # --- tasks come ---------------------------------------------------------------------------------------------------

    def on_tasks(self, link: Link, batch: m.Tasks, frames: Sequence[Frame], now: float) -> None:
        """Take on a batch."""
        tasks = batch.tasks
        self._outbox.counts["tasks"] += len(tasks)
        if len(self.dispatcher.flights) + self.blocked + len(tasks) > _TASKS_MAX:
            for task in tasks:
                text = "the scheduler holds as many tasks as it may"
                self._answers_for(link).add(without_value(task, m.REFUSED, text))
            return
        self._blobs.named(link, _digests_of(tasks))
        asking = [task.terms for task in tasks if task.terms is not None]
        if asking and self._is_root and any(depends(terms) for terms in asking):
            self._take_in_order(link, tasks, frames, now)
        else:
            self.dispatcher.submit(tasks, frames, link)
        if batch.seen and self._is_root:
            self._answers_for(link).seen(batch.seen)

    def _take_in_order(self, link: Link, tasks: Sequence[m.Task], frames: Sequence[Frame], now: float) -> None:
        """Take on a batch in which tasks may depend on others, also on those before them."""
        dependencies = self._dependencies.get(link)
        if dependencies is None:
            is_open = self._is_open_for(link)
            dependencies = self._dependencies[link] = Dependencies(self._answers_for(link), is_open)
        self._advance_for(link, dependencies)
        pieces = split_frames([task.frames for task in tasks], frames)
        for task, piece in zip(tasks, pieces, strict=True):
            if task.terms is None or not depends(task.terms):
                self.dispatcher.submit([task], piece, link)
            elif task.id not in dependencies.blocked and task.id not in self.dispatcher.flights:
                dependencies.add(task, piece, now)
                if dependencies.ready or dependencies.failed:
                    self._follow_up(link, dependencies)
                    self._advance_for(link, dependencies)

    def _is_open_for(self, link: Link) -> Callable[[m.TaskId], bool]:
        flights = self.dispatcher.flights

        def is_open(task: m.TaskId) -> bool:
            flight = flights.get(task)
            return flight is not None and flight.owner == link

        return is_open

    # --- what becomes of those that wait for others -------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Tasks that have waited for others as long as they may end."""
        for link, dependencies in self._dependencies.items():
            dependencies.on_time(now)
            self._follow_up(link, dependencies)

    def _advance(self) -> None:
        """Tell those who wait what has ended, and what ends thereby, until there is no more to tell."""
        for link, dependencies in self._dependencies.items():
            self._advance_for(link, dependencies)

    def _advance_for(self, link: Link, dependencies: Dependencies) -> None:
        answers = self._answers[link]
        while True:
            for result, size in answers.news():
                dependencies.on_ended(result, size)
                if dependencies.failed:
                    self._follow_up(link, dependencies)
            if not dependencies.ready:
                break
            self._follow_up(link, dependencies)  # which may end others

    def _follow_up(self, link: Link, dependencies: Dependencies) -> None:
        """Queue what may run now, end what never can."""
        ready, failed = dependencies.take()
        tasks: list[m.Task] = []
        all_frames: list[Frame] = []
        for task, frames, follows in ready:
            if follows != ANY and not follows & self._alive:
                text = f"this task has to run on {engines_text(follows)}, to follow others, and none of these is left"
                failed.append(Failed(task.id, m.DEPENDENCY, text))
                continue
            if task.needs and link in self._membership.clients:  # one that is away has nothing to send
                self._blobs.named(link, task.needs)
            tasks.append(task)
            all_frames.extend(frames)
        self.dispatcher.submit(tasks, all_frames, link)
        for task_id, code, text in failed:
            self._end(link, task_id, code, text)

    # --- tasks end ----------------------------------------------------------------------------------------------------

    def on_results(self, child: Neighbour, batch: m.Results, frames: Sequence[Frame]) -> None:
        """Take in what a child's engines answer."""
        start = 0
        owner: Link | None = None
        again: list[Flight] = []
        for result, flight in zip(batch.results, self.dispatcher.settle(child, batch.results), strict=True):
            end = start + result.frames
            if flight is None:
                self._outbox.counts["late"] += 1
            elif result.code and self._goes_back(flight, result, frames[start:end], 1 << result.rank):
                again.append(flight)
            else:
                if flight.owner != owner:
                    owner = flight.owner
                    answers = self._answers_for(owner)
                answers.results.append(outcome_of(flight, result) if result.code else result)
                if result.frames:
                    answers.frames.extend(frames[start:end])
            start = end
        if again:
            self.dispatcher.put_back(again, self._alive)

    def on_lost(self, child: Neighbour, reason: str) -> None:
        """A child is gone, with the tasks it held, each of which may have run.

        An engine runs them in the order sent. But its last answers may have been lost with it, even those that it had
        sent: they leave the process later. And how long a function runs is a guess: any of these may have been over at
        once. So nobody can tell how far the engine came, and none of what it held is known not to have run.
        """
        self._may_have_run(self.dispatcher.lose(child), child, reason)

    def _may_have_run(self, flights: Sequence[Flight], child: Neighbour, reason: str) -> None:
        """These were at a child that is gone."""
        again: list[Flight] = []
        is_engine = child.role == "engine"
        failed = child.members if is_engine else 0  # a scheduler's engines may live
        rank = child.first if is_engine else m.NO_RANK
        for flight in flights:
            result = without_value(flight.task, m.ENGINE_LOST, reason, rank)
            if self._goes_back(flight, result, (), failed):
                again.append(flight)
            else:
                self._answers_for(flight.owner).add(result)
        self.dispatcher.put_back(again, self._alive)

    def _goes_back(self, flight: Flight, result: m.Result, frames: Sequence[Frame], failed: int) -> bool:
        again = runs_again(flight, result, frames, failed=failed, is_root=self._is_root)
        if again and result.code != m.ENGINE_UNKNOWN:
            self._outbox.counts["retries"] += 1
        return again

    def _end(self, owner: Link, task: m.TaskId, code: int, text: str) -> None:
        self._answers_for(owner).add(m.Result(task, m.NO_RANK, 0, code, text.encode(), 0))

    # --- schedulers are lost, and their children adopted --------------------------------------------------------------

    def adopt(self, lost: Neighbour, child: Neighbour, holds: Iterable[m.Try]) -> None:
        """Of the tasks in flight at a lost scheduler, those that `child` holds are in flight there from now on."""
        withdrawn: dict[bool, list[m.TaskId]] = {}  # meanwhile; by whether they are to be interrupted
        for flight in self.dispatcher.move(holds, lost, child):
            standing = flight.standing
            if standing is not None and standing.withdrawn:
                withdrawn.setdefault(standing.interrupted, []).append(flight.task.id)
        for running, ids in withdrawn.items():
            self._outbox.send(child.link, m.Cancel(ids, running))

    def settle_lost(self, lost: Neighbour, *, doubtful_before: float, reason: str) -> None:
        """All orphans of a lost scheduler have said what they hold: nobody has what is still in flight there.

        doubtful_before: what was sent before this epoch may have run. What was sent later did not, and does elsewhere.
        """
        again: list[Flight] = []
        doubtful: list[Flight] = []
        for flight in self.dispatcher.lose(lost):
            if flight.epoch < doubtful_before:
                doubtful.append(flight)
            elif flight.standing is not None and flight.standing.withdrawn:
                self._answers_for(flight.owner).add(cancelled(flight.task))
            else:
                again.append(flight)
        self.dispatcher.put_back(again, self._alive)
        self._may_have_run(doubtful, lost, reason)

    # --- nobody wants them any more -----------------------------------------------------------------------------------

    def on_cancel(self, link: Link, cancel: m.Cancel, frames: Sequence[Frame], now: float) -> None:
        """Withdraw what waits here; pass on the rest to where it is."""
        dependencies = self._dependencies.get(link)
        blocked = dependencies.withdraw(cancel.tasks) if dependencies is not None else ()
        waiting = [flight.task for flight in self._withdraw(cancel.tasks, link, running=cancel.running)]
        answers = self._answers_for(link)
        for task in (*blocked, *waiting):
            answers.add(cancelled(task))

    def forget_owner(self, link: Link) -> None:
        """A client is gone: what has not started never will, what runs is interrupted, and nobody wants the results."""
        self._dependencies.pop(link, None)
        self._withdraw(self.dispatcher.owned_by(link), link, running=True)
        self.dispatcher.disown(link)
        self._answers.pop(link, None)

    def on_rejoined(self, link: Link, results: int) -> None:
        """A client joins a session that was left. So many results are sent to it again; it counts from there."""
        self._answers_for(link).send_again(results)

    def _withdraw(self, ids: Sequence[m.TaskId], owner: Link, *, running: bool) -> list[Flight]:
        withdrawn, further = self.dispatcher.cancel(ids, owner, running=running)
        for child, their_ids in further.items():
            if self._membership.children.get(child.link) is child:  # or else whoever adopts them is told
                self._outbox.send(child.link, m.Cancel(their_ids, running))
        return withdrawn

    # --- out ----------------------------------------------------------------------------------------------------------

    def hand_out(self) -> None:
        """Give waiting tasks to children that have credit. What no engine may run ends."""
        if self._dependencies:
            self._advance()
        dispatcher = self.dispatcher
        while len(dispatcher):
            stranded = dispatcher.stranded(self._alive)
            if not stranded:
                break
            for flight in stranded:
                self._answers_for(flight.owner).add(*last_word(flight))
            self._advance()  # others may have waited for these, and be stranded too
        if not len(dispatcher):
            return
        children = self._membership.children.values()
        for child, flights in dispatcher.assign(children, self._membership.replacements.epoch):
            tasks = [flight.task if flight.standing is None else _as_sent(flight, child) for flight in flights]
            frames = [frame for flight in flights for frame in flight.frames]
            for these, theirs in batches(tasks):
                self._blobs.supply(child.link, sorted(_digests_of(tasks[these])), self._outbox)
                self._outbox.send(child.link, m.Tasks(tasks[these]), frames[theirs])

    def pass_on(self) -> None:
        """Send the results that have gathered. `hand_out` goes before, so that others know of them."""
        self._answers.pop(NOBODY, None)
        for link, answers in self._answers.items():
            if answers.results:
                results, frames = answers.take()
                for these, theirs in batches(results):
                    self._send_results(link, m.Results(results[these]), frames[theirs])

    @property
    def _alive(self) -> int:
        return self._membership.members | self.expected

    def _answers_for(self, owner: Link) -> Answers:
        answers = self._answers.get(owner)
        if answers is None:
            answers = self._answers[owner] = Answers(remembers=self._is_root and owner != NOBODY)
        return answers


def _as_sent(flight: Flight, child: Neighbour) -> m.Task:
    """The task with what its terms mean to `child`; to an engine they mean nothing."""
    task, standing = flight.task, flight.standing
    if standing is None or child.role == "engine":
        return task
    hint = standing.hint if child.covers(standing.hint) else -1
    if standing.allowed != ANY:
        targets = bitset.to_wire(standing.allowed & child.reach, child.least)
    elif hint < 0 and not standing.priority:
        return task
    else:
        targets = (0, b"")
    terms = m.Terms(targets, hint, standing.priority)
    return m.Task(task.id, task.function, task.needs, task.payload, task.frames, terms, task.given, task.attempt)


def _digests_of(tasks: Sequence[m.Task]) -> set[m.Digest]:
    digests = {task.function for task in tasks}
    for task in tasks:
        if task.needs:
            digests.update(task.needs)
    return digests
