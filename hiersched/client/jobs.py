"""The calls of a client, by AsyncResult, id or place in its history: waiting for them, withdrawing them, finding them.

An id is that of one engine's part of a call, as AsyncResult.msg_ids has them, or of a whole call, as the history has
them. Results live in their AsyncResults and nowhere else: neither the root nor the client keeps what nobody holds, but
for a session that was joined. What ipyparallel asks of its hub is answered from what this client knows of its own last
calls: when they were made, where they ran, and whether they succeeded.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import wait as wait_for_futures
from dataclasses import replace
from operator import index
from typing import TYPE_CHECKING, Any

from hiersched.client.call_future import CallFuture
from hiersched.client.calls_by_id import MetadataById, ResultsById
from hiersched.client.names import calls_text, engine_of, is_name, name_of, part_ids, request_of
from hiersched.client.pump import deadline_of, left_of
from hiersched.client.records import described, meets
from hiersched.client.results import AsyncHubResult, AsyncResult, at_most
from hiersched.client.selection import Selection, split_by
from hiersched.client.targets import describe_ids, resolve_targets
from hiersched.client.waits import wait_watched
from hiersched.errors import UnknownTask, UserError, gist_of
from hiersched.protocol.messages import SESSION_SHIFT

if TYPE_CHECKING:
    from hiersched.client.orders import Explanation
    from hiersched.client.pending import Pending
    from hiersched.client.selection import Part
    from hiersched.client.session import Session


class Jobs:
    """What a client knows of its calls. block: whether methods that can do both wait."""

    session: Session
    block: bool

    # --- which there are ----------------------------------------------------------------------------------------------

    @property
    def history(self) -> list[str]:
        """Ids of the session's last calls and tasks, oldest first: at most CALLS_RECALLED_MAX."""
        return [name_of(request) for request in self.session.history()]

    @property
    def outstanding(self) -> set[str]:
        """Ids of the parts of calls that have not ended."""
        return {
            part
            for pending in self.session.open_requests()
            for part, outcome in zip(part_ids(pending.id, pending.targets), list(pending.outcomes), strict=False)
            if outcome is None
        }

    @property
    def results(self) -> ResultsById:
        """{id: result} of the calls that have ended and are held, errors in the places of results."""
        return ResultsById(self)

    @property
    def metadata(self) -> MetadataById:
        """{id: Metadata} of the calls that are open or held."""
        return MetadataById(self)

    def get_result(self, indices_or_msg_ids: Any = None, block: bool | None = None, owner: bool = True) -> AsyncResult:
        """An AsyncResult of calls given by id, AsyncResult or place in the history; by default of the last one.

        Of a session that was joined, calls of its former clients too; so those of other clients of this process, while
        these are open. owner: if not, it is an AsyncHubResult, as code for ipyparallel tells them apart. Raises
        UnknownTask, or ResultDropped for a call whose AsyncResult nobody has held.
        """
        jobs = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        listed = isinstance(jobs, (list, tuple, set))
        if isinstance(jobs, AsyncResult):
            result = jobs
        else:
            parts = [part for job in (jobs if listed else [jobs]) for part in self._parts_of(job)]
            if not parts:
                raise UserError("give at least one call")
            kind = AsyncResult if owner else AsyncHubResult
            result = self._result_of(parts, single=len(parts) == 1 and not listed, kind=kind)
        if self.block if block is None else block:
            result.wait()
        return result

    def _result_of(self, parts: list[Part], *, single: bool, kind: type[AsyncResult] = AsyncResult) -> AsyncResult:
        """An AsyncResult of these parts: of the request itself, if they are all of it.

        Raises UserError for calls of several clients.
        """
        first = parts[0][0]
        session = self.session.session_of(first.id)
        if any(pending.id >> SESSION_SHIFT != first.id >> SESSION_SHIFT for pending, _ in parts):
            raise UserError("these are calls of several clients: get the results of each client's apart")
        whole = [(first, place) for place in range(len(first.outcomes))]
        request = first if parts == whole else Selection(session, parts)
        return kind(session, request, name=first.method, single=single)

    def _parts_of(self, job: Any) -> list[Part]:
        """The parts of requests that one job names."""
        if isinstance(job, CallFuture):
            return [(pending, place) for pending in job.requests() for place in range(len(pending.outcomes))]
        name = self._id_of(job)
        request, engine = request_of(name), engine_of(name)
        pending = self.session.session_of(request).find(request)
        if engine is not None:
            if engine not in pending.targets:
                raise UnknownTask(f"{name!r} is no part of a call on engines {describe_ids(pending.targets)}")
            return [(pending, pending.place_of(engine))]
        return [(pending, place) for place in range(len(pending.outcomes))]

    def _id_of(self, job: Any) -> str:
        """The id that stands for a call. Raises UnknownTask for what is neither id nor place, TypeError."""
        if hasattr(job, "__index__"):
            history, place = self.history, index(job)
            if not -len(history) <= place < len(history):
                raise UnknownTask(f"there is no call {place}: {calls_text(history)}")
            return history[place]
        if not isinstance(job, str):
            raise TypeError(f"a call is named by its AsyncResult, its id or its place in the history, not by {job!r}")
        if not is_name(job):
            raise UnknownTask(f"{job!r} is no id of a call; {calls_text(self.history)}")
        return job

    def _requests_of(self, jobs: Any) -> list[Pending]:
        listed = jobs if isinstance(jobs, (list, tuple, set)) else [jobs]
        return list(dict.fromkeys(pending for job in listed for pending, _ in self._parts_of(job)))

    # --- waiting and withdrawing --------------------------------------------------------------------------------------

    def wait(self, jobs: Any = None, timeout: float | None = -1) -> bool:
        """Wait for calls: AsyncResults, other futures, ids, places in the history; by default all outstanding ones.

        timeout: seconds, None or negative for ever. True if they have ended in time.
        """
        timeout_s = at_most(timeout)
        if jobs is None:
            return wait_watched(self.session.wait, self.session.open_requests(), timeout_s)
        listed = list(jobs) if isinstance(jobs, Iterable) and not isinstance(jobs, (str, CallFuture)) else [jobs]
        ends_at = deadline_of(timeout_s)
        foreign, own = split_by(
            lambda job: hasattr(job, "add_done_callback") and not isinstance(job, CallFuture), listed
        )
        for job in own:
            future = job if isinstance(job, CallFuture) else self.get_result(job, block=False)
            if not future.wait_until_done(left_of(ends_at)):
                return False
        return not wait_for_futures(foreign, left_of(ends_at)).not_done

    def wait_interactive(self, jobs: Any = None, interval: float = 1.0, timeout: float | None = -1.0) -> bool:
        """`wait` under a progress bar. interval: seconds between two looks at it."""
        if jobs is None:
            jobs = [name_of(pending.id) for pending in self.session.open_requests()]
        if isinstance(jobs, (list, tuple, set)) and not jobs:
            return True
        return bool(self.get_result(jobs).wait_interactive(interval, timeout))

    def abort(self, jobs: Any = None, targets: Any = None, block: bool | None = None, running: bool = False) -> None:
        """Withdraw calls that have not started: AsyncResults or ids; by default all that are outstanding.

        targets: of calls on engines, only those that these engines owe an answer. running: interrupt what has started.
        What was queued ends with TaskCancelled at once; `block` is accepted for ipyparallel's sake.
        """
        requests = self.session.open_requests() if jobs is None else self._requests_of(jobs)
        if targets is not None and jobs is None:
            meant = set(resolve_targets(targets, self.session.engine_ids()))
            requests = [pending for pending in requests if not pending.targets or meant.intersection(pending.missing())]
        self.session.cancel(requests, running=running)

    def why(self, task: Any) -> Explanation | list[Explanation]:
        """Why a task or call has not ended: a state and a text, one for each if several are given."""
        if isinstance(task, (list, tuple)):
            return [self._explained(request) for job in task for request in self._ids_to_explain(job)]
        explained = [self._explained(request) for request in self._ids_to_explain(task)]
        return explained[0] if len(explained) == 1 else explained

    def _explained(self, request: int) -> Explanation:
        explanation = self.session.why(request)
        try:
            pending = self.session.find(request)
        except UnknownTask:  # it was let go, and its label and error with it
            return explanation
        text = explanation.text
        if explanation.state == "done" and pending.failed:
            errors = (outcome.error for outcome in pending.outcomes if outcome is not None)
            text += f", {gist_of(next(error for error in errors if error is not None))}"
        return replace(explanation, label=pending.label, text=text)

    def _ids_to_explain(self, job: Any) -> list[int]:
        if isinstance(job, CallFuture):
            return [pending.id for pending in job.requests()]
        return [request_of(self._id_of(job))]

    # --- what ipyparallel's hub would know ----------------------------------------------------------------------------

    def result_status(self, msg_ids: Any, status_only: bool = True) -> dict[str, Any]:
        """{'pending': ids, 'completed': ids} of these calls; unless `status_only`, also {id: result}.

        Raises UnknownTask or ResultDropped as `get_result` does, and the error of a call that failed.
        """
        listed = msg_ids if isinstance(msg_ids, (list, tuple, set)) else [msg_ids]
        status: dict[str, Any] = {"pending": [], "completed": []}
        for job in listed:
            result = self.get_result(job, block=False)
            for part in result.split():
                (name,) = part.msg_ids
                status["completed" if part.done() else "pending"].append(name)
                if part.done() and not status_only:
                    status[name] = part.get()
        return status

    def purge_results(self, jobs: Any = (), targets: Any = ()) -> None:
        """List these calls no longer in the history, or 'all'; hold no answers that came for a session that was joined.

        targets: if there are any, all calls are meant. Raises ValueError if nothing is named, RuntimeError for a call
        that has not ended.
        """
        if not jobs and not targets:
            raise ValueError("say which: jobs or targets")
        everything = jobs == "all" or bool(targets)
        requests = self.session.open_requests() if everything else self._requests_of(jobs)
        running = [name_of(pending.id) for pending in requests if not pending.done]
        if running:
            raise RuntimeError(f"calls that have not ended cannot be purged: {', '.join(running[:8])}")
        self.session.forget_requests(None if everything else [pending.id for pending in requests])

    purge_local_results = purge_results
    purge_hub_results = purge_results

    def purge_everything(self) -> None:
        """`purge_results('all')`."""
        self.purge_results("all")

    def hub_history(self) -> list[str]:
        """`history`: that of this session, for nobody records those of others."""
        return self.history

    def db_query(
        self, query: dict[str, Any] | None = None, keys: str | list[str] | None = None
    ) -> list[dict[str, Any]]:
        """What is known of the calls in the history that meet the query, a dict each.

        query: in MongoDB's manner, with $lt, $lte, $gt, $gte, $eq, $ne, $in, $nin, $exists. keys: what each dict is to
        have beside 'msg_id'. All Metadata is there while an AsyncResult is held; else 'submitted', 'engine_id' and
        'status'. Raises UserError for another operator.
        """
        wanted = [keys] if isinstance(keys, str) else keys
        found = [facts for facts in map(described, self.session.records()) if meets(facts, query or {})]
        if wanted is None:
            return found
        return [{key: facts.get(key) for key in ("msg_id", *wanted)} for facts in found]

    def resubmit(self, indices_or_msg_ids: Any = None, metadata: Any = None, block: bool | None = None) -> AsyncResult:
        """The same tasks again, as others; by default the last one. Their AsyncResults must still be held.

        metadata: accepted for ipyparallel's sake. Raises UserError for a call on engines, or a task that was too large
        to be kept or took results of others; UnknownTask or ResultDropped as `get_result` does.
        """
        jobs = -1 if indices_or_msg_ids is None else indices_or_msg_ids
        again = [self.session.resubmit(pending) for pending in self._requests_of(jobs)]
        single = len(again) == 1 and not isinstance(jobs, (list, tuple, set))
        result = self._result_of([(pending, 0) for pending in again], single=single)
        if self.block if block is None else block:
            result.wait()
        return result
