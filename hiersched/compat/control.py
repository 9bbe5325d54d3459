"""The control channel: what old clients do to engines beside calling functions on them.

Signals, ends and restarts are orders to whoever holds the engine's process; requests are withdrawn where they wait;
a namespace is emptied by a call. Every request is answered, by an error if it names no engine, or nothing that engines
of this cluster do.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from hiersched.client.pending import Pending
from hiersched.client.signals import signal_number
from hiersched.compat.contents import OK, error_content, plain_error
from hiersched.compat.exchange import Exchange
from hiersched.compat.roster import Roster
from hiersched.compat.wire import Message, Wire
from hiersched.data.namespace import clear
from hiersched.data.outcomes import Outcome
from hiersched.data.serialize import Packer
from hiersched.errors import UnknownEngine, UserError
from hiersched.protocol.framing import Frame

Content = dict[str, Any]


class Control:
    """send: takes the frames of a reply. A request's idents are its client and the uuid of the engine it is for."""

    def __init__(self, wire: Wire, roster: Roster, exchange: Exchange, *, send: Callable[[list[Frame]], None]) -> None:
        self._wire, self._roster, self._exchange, self._send = wire, roster, exchange, send
        self._packer = Packer()
        self._handlers: dict[str, Callable[[Message, int], None]] = {
            "signal_request": self._signal,
            "interrupt_request": self._interrupt,
            "abort_request": self._abort,
            "clear_request": self._clear,
            "shutdown_request": self._shutdown,
            "usage_request": self._usage,
        }

    def answer(self, message: Message) -> None:
        """Do what is asked, and answer, now or once it is done."""
        try:
            self._handler_of(message.msg_type)(message, self._rank_of(message))
        except Exception as error:  # whatever it is, who asked shall know
            self._reply(message, error_content(error))

    def _handler_of(self, kind: str) -> Callable[[Message, int], None]:
        try:
            return self._handlers[kind]
        except KeyError:
            known = ", ".join(self._handlers)
            raise UserError(f"engines of this cluster do not answer {kind!r}; they answer {known}") from None

    def _rank_of(self, message: Message) -> int:
        uuid = message.idents[1].decode(errors="replace") if len(message.idents) > 1 else ""
        rank = self._roster.rank_of(uuid)
        if rank is None:
            raise UnknownEngine(f"there is no engine {uuid!r}, or not any more")
        return rank

    def _reply(self, message: Message, content: Content) -> None:
        self._send(self._wire.pack(message.reply_type, content, parent=message.header_raw, idents=message.idents))

    # --- orders -------------------------------------------------------------------------------------------------------

    def _signal(self, message: Message, rank: int) -> None:
        sig = message.content["sig"]
        if not isinstance(sig, (int, str)):
            raise UserError(f"a signal is a number or a name, not {sig!r}")
        self._order(message, rank, "signal", signal_number(sig) if sig else 0)  # 0 asks whether it is alive

    def _interrupt(self, message: Message, rank: int) -> None:
        self._order(message, rank, "signal", signal.SIGINT)

    def _shutdown(self, message: Message, rank: int) -> None:
        restart = bool(message.content.get("restart", False))
        self._order(message, rank, "restart" if restart else "stop", content={**OK, "restart": restart})

    def _order(
        self,
        message: Message,
        rank: int,
        verb: Literal["signal", "stop", "restart"],
        number: int = 0,
        content: Content = OK,
    ) -> None:
        def on_done(ranks: list[int]) -> None:
            done = rank in ranks
            self._reply(message, content if done else plain_error("EngineError", f"engine {rank} is gone"))

        self._exchange.order([rank], verb, number, on_done)

    # --- requests -----------------------------------------------------------------------------------------------------

    def _abort(self, message: Message, rank: int) -> None:
        """Withdraw these requests, if they may run on this engine; without any, all that wait for it."""
        msg_ids = message.content.get("msg_ids") or []
        msg_ids = [msg_ids] if isinstance(msg_ids, str) else msg_ids
        if not isinstance(msg_ids, list):
            raise UserError("say in 'msg_ids' which requests are to be aborted, as a list of ids")
        if not msg_ids:
            self._exchange.cancel(self._exchange.ids.open_on(rank))
            self._reply(message, OK)
            return
        open_here = self._exchange.ids.withdrawn(msg_id for msg_id in msg_ids if isinstance(msg_id, str))
        self._exchange.cancel(pending for pending in open_here if not pending.targets or rank in pending.targets)
        self._reply(message, OK)

    # --- calls --------------------------------------------------------------------------------------------------------

    def _clear(self, message: Message, rank: int) -> None:
        self._call(message, rank, clear, lambda outcome: OK)

    def _usage(self, message: Message, rank: int) -> None:
        self._call(message, rank, print_usage, _printed)

    def _call(
        self, message: Message, rank: int, function: Callable[[], Any], told: Callable[[Outcome], Content]
    ) -> None:
        """Answer once a function of ours has ended on the engine."""
        pending = self._exchange.call([rank], self._packer.pack_call(function))
        pending.add_done_callback(partial(self._on_called, message, told))
        self._exchange.flush()

    def _on_called(self, message: Message, told: Callable[[Outcome], Content], pending: Pending) -> None:
        outcome = pending.outcomes[0]
        assert outcome is not None, "a request that is done has all outcomes"
        try:
            content = error_content(outcome.error) if outcome.error is not None else told(outcome)
        except (ValueError, TypeError) as error:  # somebody else has printed into it
            content = error_content(error)
        self._reply(message, content)


def _printed(outcome: Outcome) -> Content:
    """What the call printed in its last line: unlike what it returned, nothing that would have to be unpickled here."""
    return {**OK, **json.loads(outcome.stdout.strip().rpartition("\n")[2])}


# --- on the engines ---------------------------------------------------------------------------------------------------


def print_usage() -> None:
    """What the process of this engine and those below it use, in the words of ipykernel: percent of a core, bytes."""
    import psutil

    own = psutil.Process()
    cpu_percent, memory_bytes = 0.0, 0
    for process in [own, *own.children(recursive=True)]:
        try:
            cpu_percent += process.cpu_percent(None)
            memory_bytes += process.memory_full_info().pss
        except psutil.Error:
            continue  # it has ended meanwhile, or is somebody else's
    used = {
        "hostname": socket.gethostname(),
        "pid": os.getpid(),
        "kernel_cpu": cpu_percent,
        "kernel_memory": memory_bytes,
        "host_cpu_percent": psutil.cpu_percent(),
        "cpu_count": psutil.cpu_count(logical=True),
        "host_virtual_memory": dict(psutil.virtual_memory()._asdict()),
    }
    print(json.dumps(used))
