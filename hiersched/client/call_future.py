"""A standard future over one request.

Who waits on it pumps the link in its own thread, so that no other thread has to wake between the reply and the code
that asked. Everything else that understands futures (as_completed, asyncio, callbacks) is told by the session. Results
are unpickled by the thread that reads them; what is announced is only that, and how, the call has ended.

Most futures are only asked for their result. The standard future's own state, a third of what a future costs, is
therefore made when somebody first uses it, which always begins with its condition.

A future may be an argument of a load-balanced task, however deep: the task waits for it, and takes its result from
where that lives.
"""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from threading import Condition, Lock
from typing import TYPE_CHECKING, Any

from hiersched.client.bindings import small_result
from hiersched.client.interrupts import Held, Released
from hiersched.data.outcomes import original_of
from hiersched.errors import UserError
from hiersched.limits import CANCEL_TIMEOUT_S, INTERRUPT_TIMEOUT_S

if TYPE_CHECKING:
    from hiersched.client.pending import Pending
    from hiersched.client.selection import Selection
    from hiersched.client.session import Session
    from hiersched.data.serialize import Ticket


_making = Lock()


class CallFuture(Future):
    """The one outcome of a load-balanced call."""

    def __init__(self, session: Session, pending: Pending | Selection) -> None:
        self._session = session
        self._pending: Any = pending
        self._held = False  # a cancellation came too late
        self._error_raised: BaseException | None = None
        self._own_condition: Condition | None = None

    @property
    def _condition(self) -> Condition:
        if self._own_condition is None:
            with Held():
                with _making:
                    made = self._own_condition is None
                    if made:
                        super().__init__()
                        self._own_condition = self._fresh_condition
                if made:
                    self._pending.add_done_callback(self._announce)
        assert self._own_condition is not None
        return self._own_condition

    @_condition.setter
    def _condition(self, fresh: Condition) -> None:
        self._fresh_condition = fresh  # seen by others only when all the rest is made

    def _announce(self, pending: Pending) -> None:
        """Tell those who wait in other threads that the request has ended."""
        if pending.cancelled:
            super().cancel()
            self.set_running_or_notify_cancel()
        elif pending.failed:
            self.set_exception(self._first_error())
        else:
            self.set_result(None)

    def _invoke_callbacks(self) -> None:
        """The standard future's own; they are the user's code, which a Ctrl-C may strike."""
        with Released():
            super()._invoke_callbacks()

    def wait_until_done(self, timeout_s: float | None) -> bool:
        """Block until the request has ended. False if it has not within `timeout_s`."""
        return self._pending.done or self._session.wait((self._pending,), timeout_s)

    def _first_error(self) -> BaseException | None:
        """What the call raised, as the standard executors give it: the user's exception, where it can be rebuilt."""
        if self._error_raised is None:
            errors = [outcome.error for outcome in self._pending.outcomes if outcome.error is not None]
            self._error_raised = original_of(errors[0]) if errors else None
        return self._error_raised

    def _late(self, timeout_s: float | None) -> str:
        """What a TimeoutError says."""
        return f"no result within {timeout_s} s"

    def _settled(self, timeout_s: float | None) -> None:
        """Wait as the standard future does. Raises TimeoutError and, where the call was withdrawn, CancelledError."""
        if not self._pending.done and not self.wait_until_done(timeout_s):
            raise TimeoutError(self._late(timeout_s))
        if self._pending.cancelled:
            raise CancelledError(str(self._first_error()))

    # --- the standard interface ---------------------------------------------------------------------------------------

    def done(self) -> bool:
        """Whether the call has ended, in whatever way."""
        return self._pending.done

    def cancelled(self) -> bool:
        """Whether the call was withdrawn, before it started or by interrupting it."""
        return self._pending.done and self._pending.cancelled

    def running(self) -> bool:
        """Whether the call is known to run: an engine had started it when a cancellation reached it."""
        return self._held and not self._pending.done

    def cancel(self, running: bool = False) -> bool:
        """Withdraw the call. True if it never ran and never will; False if it has started or ended.

        running: interrupt what has started, which raises KeyboardInterrupt in it; True then if nothing of it was left
        to end otherwise. Waits for the answer from where the call is, but no longer than CANCEL_TIMEOUT_S: then it is
        taken as running; where it is interrupted, than INTERRUPT_TIMEOUT_S, for its code may have to tidy up.
        """
        if not self._pending.done and (running or not self._held):
            self._session.cancel(self._pending.requests(), running=running)
            self._held = not self.wait_until_done(INTERRUPT_TIMEOUT_S if running else CANCEL_TIMEOUT_S)
        return self.cancelled()

    def interrupt(self) -> bool:
        """`cancel(running=True)`."""
        return self.cancel(running=True)

    def result(self, timeout: float | None = None) -> Any:
        """The call's result. Raises its error, CancelledError, or TimeoutError after `timeout` seconds."""
        self._settled(timeout)
        if self._pending.failed:
            raise self._first_error()
        return self._pending.outcomes[0].value

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The call's error, None where it succeeded. Raises CancelledError or TimeoutError as `result` does."""
        self._settled(timeout)
        return self._first_error() if self._pending.failed else None

    # --- as an argument of others -------------------------------------------------------------------------------------

    def requests(self) -> list[Pending]:
        """The requests that it stands for."""
        return self._pending.requests()

    def __hiersched_result__(self) -> Ticket:
        """What stands for the result where this is an argument of a task. Raises UserError where it is not one."""
        first, *others = self.requests()
        if others or len(first.outcomes) != 1:
            raise UserError(f"{self!r} is not the result of one task, as an argument has to be: pass get()")
        return first.id, None, small_result(first)

    def __repr__(self) -> str:
        pending = self._pending
        if not pending.done:
            return f"<{type(self).__name__}: {'running' if self._held else 'pending'}>"
        if pending.cancelled:
            return f"<{type(self).__name__}: cancelled>"
        return f"<{type(self).__name__}: {f'failed, {self._first_error()}' if pending.failed else 'finished'}>"
