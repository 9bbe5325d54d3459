"""What an asynchronous call gives at once: its result as soon as there is one.

`AsyncResult` stands for one request on one or many engines. Errors stay beside the good results: a call on a single
engine raises that engine's error itself, a call on several raises a CompositeError that carries everything, and
`get(return_exceptions=True)` gives errors in the places of results. It is also a concurrent.futures.Future, and can be
awaited. Nothing is unpickled before it is read.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import zmq

from hiersched.client.display import show_outputs
from hiersched.client.progress import Bar, Stage, Wait, here, watched
from hiersched.client.pump import deadline_of, left_of
from hiersched.client.quorum import Quorum, needed_for
from hiersched.client.result_parts import ResultParts
from hiersched.client.selection import Selection, split_by
from hiersched.client.streaming import OnOutput, Stream, tell_output
from hiersched.client.targets import describe_ids
from hiersched.errors import ClusterLost, CompositeError, QuorumNotReached, TaskCancelled, TaskInterrupted

if TYPE_CHECKING:
    from hiersched.client.metadata import Metadata
    from hiersched.client.pending import Pending
    from hiersched.client.session import Session

Join = Callable[[list[Any]], Any]


class AsyncResult(ResultParts):
    """The results of one request.

    name: of the function, for messages; single: one result and not a list of them; join: makes the final result of
    the list of results, where all parts succeeded; return_exceptions: what `get` does unless told otherwise. Facts
    about its parts are at hand as attributes and by key: `ar.engine_id`, `ar['stdout']`. See Metadata.
    """

    owner = True  # as ipyparallel has it: a result lives as long as somebody holds this
    _return_exceptions = False
    _unit = "task"

    def __init__(
        self,
        session: Session,
        pending: Pending | Selection,
        *,
        name: str,
        single: bool = False,
        join: Join | None = None,
    ) -> None:
        self._join = join
        super().__init__(session, pending, name=name, single=single)

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait(self, timeout: float | None = -1, return_when: str | None = None) -> Any:
        """Block until every part has ended, at most `timeout` seconds (None or negative: for ever). True if so.

        A wait for several parts that lasts shows a progress bar for that long, if somebody can see it. So do `get` and
        iterating.
        return_when: FIRST_COMPLETED, FIRST_EXCEPTION or ALL_COMPLETED of concurrent.futures. Then gives two sets of
        AsyncResults, of the parts that have ended and of the others.
        """
        if return_when is None:
            return self.wait_until_done(at_most(timeout))
        self._wait_until(self._condition_of(return_when), at_most(timeout))
        parts = self.split()
        ended = {part for part in parts if part.done()}
        return ended, set(parts) - ended

    def _condition_of(self, return_when: str) -> Callable[[], bool]:
        """Whether enough parts have ended. Raises ValueError."""
        conditions: dict[str, Callable[[], bool]] = {
            ALL_COMPLETED: self.done,
            FIRST_COMPLETED: lambda: self.progress > 0,
            FIRST_EXCEPTION: lambda: self.done() or self._some_failed(),
        }
        if return_when not in conditions:
            raise ValueError(f"return_when must be one of {', '.join(conditions)}, not {return_when!r}")
        return conditions[return_when]

    def _some_failed(self) -> bool:
        return self._pending.failed

    def wait_until_done(self, timeout_s: float | None) -> bool:
        """Block until every part has ended, under a progress bar if it lasts. False if not within `timeout_s`."""
        return self._pending.done or self._watched(self._block, timeout_s)

    def _wait_until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        """Block until parts have made `condition()` hold, under a progress bar if it lasts. False if not in time."""
        return condition() or self._watched(lambda slice_s: self._block_until(condition, slice_s), timeout_s)

    def wait_unshown(self, timeout: float | None = -1) -> bool:
        """`wait`, and no progress bar however long it lasts."""
        return self._pending.done or self._block(at_most(timeout))

    def _block(self, timeout_s: float | None) -> bool:
        return super().wait_until_done(timeout_s)

    def _block_until(self, condition: Callable[[], bool], timeout_s: float | None) -> bool:
        return condition() or self._session.wait_for_parts(self.requests(), condition, timeout_s)

    def _watched(self, wait: Wait, timeout_s: float | None) -> bool:
        """`wait(timeout_s)`, under a progress bar if it lasts and there are several parts."""
        if len(self) < 2:
            return wait(timeout_s)
        return watched(wait, timeout_s, done=lambda: self.progress, bar=self._bar)

    def _bar(self, stage: Stage) -> Bar:
        """One that nobody has asked for. Where output is shown as it comes, it would stand in the middle of it."""
        flows = any(request.listeners for request in self.requests())
        where = Stage(None) if flows else stage
        return Bar.at_once(len(self), self._unit, title=self._fname, going_s=self.elapsed, stage=where)

    def ready(self) -> bool:
        """Whether every part has ended."""
        return self.done()

    def successful(self) -> bool:
        """Whether every part succeeded. Raises RuntimeError while some have not ended."""
        if not self.done():
            raise RuntimeError(f"{self!r} has not ended; wait() first")
        return not self._pending.failed

    def wait_interactive(
        self,
        interval: float = 0.1,
        timeout: float | None = -1,
        widget: bool | None = None,
        return_when: str | None = ALL_COMPLETED,
    ) -> bool:
        """`wait` under a progress bar, if it lasts and somebody can see it. Whether it ended in time.

        interval: seconds between two looks at it. widget: whether the bar is a widget; by default in notebooks.
        """
        condition = self._condition_of(return_when or ALL_COMPLETED)
        with Bar(len(self), self._unit, title=self._fname, going_s=self.elapsed, stage=here(widget)) as bar:
            return bar.wait(
                lambda slice_s: self._block_until(condition, slice_s),
                lambda: self.progress,
                at_most(timeout),
                period_s=interval,
            )

    def wait_for_output(self, timeout: float | None = -1) -> bool:
        """`wait`: what a part printed has come when its result has."""
        return bool(self.wait(timeout))

    @property
    def sent(self) -> bool:
        """Whether the arguments may be changed: they are copied when the call is made."""
        return True

    @property
    def _tracker(self) -> zmq.MessageTracker:
        """One that has nothing to wait for: code that reaches into ipyparallel's results asks it for `done`."""
        return zmq.MessageTracker()

    @property
    def _sent_event(self) -> threading.Event:
        sent = threading.Event()
        sent.set()
        return sent

    def wait_for_send(self, timeout: float | None = -1) -> None:
        """Block until `sent`. Raises TimeoutError where that takes longer than `timeout` seconds."""

    def __await__(self) -> Generator[Any, None, Any]:
        return asyncio.wrap_future(self).__await__()

    # --- stopping -----------------------------------------------------------------------------------------------------

    def abort(self) -> bool:
        """Withdraw what has not started: `cancel`. Raises RuntimeError where everything has ended."""
        if self.done():
            raise RuntimeError(f"{self!r} has ended; nothing is left to abort")
        return self.cancel()

    def send_signal(self, sig: int | str) -> list[int]:
        """Send a signal, by number or name, to the engines that have not answered; to which it was sent.

        It strikes whatever runs there now. To interrupt this call and nothing else, use `interrupt`.
        """
        from hiersched.client.signals import signal_number

        number = signal_number(sig)
        waited = self._pending.missing() if self._pending.targets else []
        return self._session.order(waited, "signal", number) if waited else []

    # --- results ------------------------------------------------------------------------------------------------------

    def get(
        self, timeout: float | None = None, return_exceptions: bool | None = None, return_when: str | None = None
    ) -> Any:
        """The result, or a list of results in the order of the targets.

        timeout: seconds, None or negative for ever. Raises TimeoutError naming who has not answered; the error of a
        single target; CompositeError where any of several failed; TaskCancelled where all was withdrawn; ClusterLost.
        return_exceptions: give errors, do not raise them. return_when: with FIRST_EXCEPTION, errors are raised as soon
        as there is one, and what has not come by then is missing.
        """
        if return_when == FIRST_EXCEPTION:
            self._wait_until(self._condition_of(return_when), at_most(timeout))
        elif not self._pending.done:
            self.wait_until_done(at_most(timeout))
        if not self._pending.done and not (return_when == FIRST_EXCEPTION and self._pending.failed):
            raise TimeoutError(self._late(timeout))
        if not self._pending.failed:
            return self._value()
        if self._return_exceptions if return_exceptions is None else return_exceptions:
            values = self._values()
            return values[0] if self._single else values
        error = self._error()
        assert error is not None, "a failed request holds an error"
        raise error

    @property
    def r(self) -> Any:
        """The result: get()."""
        return self.get()

    def result(self, timeout: float | None = None) -> Any:
        """The result, as the standard future gives it: get(), but a withdrawn call raises CancelledError."""
        self._settled(timeout)
        return self.get()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What get() would raise, or None. Raises TimeoutError and CancelledError as `result` does."""
        self._settled(timeout)
        return self._error()

    def get_dict(self, timeout: float | None = -1) -> dict[int, Any]:
        """{engine id: result}. Raises as get() does, and ValueError where an engine gave several results."""
        values = self.get(timeout)
        listed = [values] if self._single else values
        engines = [part["engine_id"] for part in self._parts()]
        if len(set(engines)) != len(engines) or len(listed) != len(engines):
            raise ValueError(f"{self._fname} has several results of one engine; use get()")
        return dict(zip(engines, listed, strict=True))

    @property
    def result_dict(self) -> dict[int, Any]:
        """get_dict()."""
        return self.get_dict()

    def quorum(self, share: float = 0.99, timeout: float | None = None) -> Quorum:
        """Wait until this share of the parts has answered, well or not; what they gave, and who is missing.

        Raises QuorumNotReached, a TimeoutError that names the stragglers and holds what there is, if they have not
        within `timeout` seconds; ValueError for a share that is none.
        """
        needed = needed_for(share, len(self))
        reached = self._wait_until(lambda: self.progress >= needed, at_most(timeout))
        quorum = Quorum(*self._so_far(), self._missing())
        if not reached:
            late = QuorumNotReached(f"{self._fname}: {share:.0%} did not answer within {timeout} s: {quorum}")
            late.quorum = quorum
            raise late
        return quorum

    def _missing(self) -> list[int]:
        return sorted(self._pending.missing())

    # --- errors -------------------------------------------------------------------------------------------------------

    def _value(self) -> Any:
        """The result of a request none of whose parts failed."""
        if self._single:
            return self._value_at(0)
        values = [self._value_at(place) for place in range(len(self._pending.outcomes))]
        return values if self._join is None else self._join(values)

    def _first_error(self) -> BaseException | None:
        return self._error()

    def _error(self) -> Exception | None:
        """What get() raises; None where nothing failed."""
        pending = self._pending
        if not pending.failed:
            return None
        if self._single:
            return pending.outcomes[0].error
        results, errors = self._so_far()
        keys = self._keys()
        good = [results.get(key) for key in keys]
        unit = "" if len(set(pending.targets)) == len(keys) else "part "
        where = f"{len(errors)} of {len(keys)} {'engines' if not unit else 'parts'}: {describe_ids(errors)}"
        if pending.cancelled:
            kind = TaskInterrupted if any(isinstance(e, TaskInterrupted) for e in errors.values()) else TaskCancelled
            return kind(f"{self._fname} was cancelled on {where}")
        lost = next((error for error in errors.values() if isinstance(error, ClusterLost)), None)
        if lost is not None:
            gone = type(lost)(str(lost))
            gone.errors, gone.results = errors, good
            return gone
        return CompositeError(f"{self._fname} failed on {where}", errors, good, unit)

    # --- parts --------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        """Results in the order of the targets, each as soon as it is known. Raises the error of a failed one."""
        if self._single:
            raise TypeError("the result of a single engine cannot be iterated; use get()")
        for place in range(len(self._pending.outcomes)):
            self._wait_until(lambda place=place: self._pending.outcomes[place] is not None, None)
            yield self._value_at(place)

    def as_completed(
        self, timeout: float | None = None, return_exceptions: bool | None = None
    ) -> Iterator[tuple[int, Any]]:
        """(engine id, result) of each part as it comes, whatever the order.

        timeout: seconds from now in which all must have come, or TimeoutError is raised. return_exceptions: give errors
        in the places of results, do not raise them.
        """
        ends_at = deadline_of(at_most(timeout))
        give = self._return_exceptions if return_exceptions is None else return_exceptions
        read = self._value_or_error if give else self._value_at
        left = list(range(len(self._pending.outcomes)))
        while left:
            ready, left = split_by(lambda place: self._pending.outcomes[place] is not None, left)
            for place in ready:
                yield self._pending.targets[place], read(place)
            given = len(self) - len(left)
            if left and not self._wait_until(lambda given=given: self.progress > given, left_of(ends_at)):
                raise TimeoutError(self._late(timeout))

    def split(self) -> tuple[AsyncResult, ...]:
        """One AsyncResult for each part, to be waited for apart; itself where there is but one."""
        if len(self._pending.outcomes) == 1:
            return (self,)
        known: tuple[AsyncResult, ...] | None = self.__dict__.get("_split")
        if known is None:
            known = self._split = tuple(self._of([part], single=True) for part in self._all_parts())
        return known

    @classmethod
    def join(cls, *async_results: AsyncResult) -> AsyncResult:
        """Several results as one, with the parts of all. Raises ValueError for none."""
        if not async_results:
            raise ValueError("give at least one AsyncResult to join")
        first = async_results[0]
        if len(async_results) == 1:
            return first
        parts = [part for result in async_results for part in result._all_parts()]
        return first._of(parts, single=False)

    def _all_parts(self) -> list[tuple[Pending, int]]:
        return [self._pending.part(place) for place in range(len(self._pending.outcomes))]

    def _of(self, parts: list[tuple[Pending, int]], *, single: bool) -> AsyncResult:
        made = AsyncResult(self._session, Selection(self._session, parts), name=self._fname, single=single)
        made._return_exceptions, made._read = self._return_exceptions, self._read
        return made

    def __getitem__(self, key: int | slice | str) -> Any:
        """By int or slice: results, TimeoutError while they are not all there. By name: metadata, at any time."""
        if isinstance(key, str):
            return self._fact(key)
        if not isinstance(key, (int, slice)):
            raise TypeError(f"results are named by int or slice, facts by str, not by {type(key).__name__}")
        return self.get(0)[key]

    # --- output -------------------------------------------------------------------------------------------------------

    @contextmanager
    def stream_output(self) -> Iterator[None]:
        """Within the block, show what the parts print and display as it comes, what came before included."""
        with Stream(self._session, single=self._single).flowing(self._pending):
            yield

    def add_output_callback(self, callback: OnOutput) -> Callable[[], None]:
        """Call `callback(engine ids, outputs)` with what is printed or displayed from now on. What ends that.

        It runs in the thread that receives. outputs: see hiersched.data.outputs.
        """
        return tell_output(self._session, self._pending, callback)

    def display_outputs(self, groupby: str = "type", result_only: bool = False) -> None:
        """Show what the parts printed, displayed and gave; what is the same for several engines is shown once.

        groupby: 'type', 'engine' or 'order'. result_only: no output, only what cells gave. Raises TimeoutError while
        some parts have not ended, ValueError for another `groupby`.
        """
        if not self.done():
            raise TimeoutError(self._late(0))
        parts, values = self._shown_parts(), self._values()
        show_outputs(parts, values, single=self._single, groupby=groupby, result_only=result_only)

    def _shown_parts(self) -> list[Metadata]:
        return self._parts()


class AsyncHubResult(AsyncResult):
    """An AsyncResult of a call that somebody else may have made: what `get_result(..., owner=False)` gives.

    There is no hub: it is the same result, by the name that code written for ipyparallel asks for.
    """

    owner = False


def at_most(timeout: float | None) -> float | None:
    """ipyparallel's timeouts as ours: None and negative ones mean for ever."""
    return None if timeout is None or timeout < 0 else timeout
