"""What leaves an engine while the user's code runs: pieces of what it prints. And a lookout for announced mail.

A call that prints little, or ends soon, takes its output along with its answer. Only when it has printed
OUTPUT_PIECE_BYTES_MAX, or runs on for OUTPUT_FLUSH_S after it printed something, does a piece go ahead: the first is
sent by whoever printed, the second by a thread, which starts when something is first printed and sleeps while nothing
is. So code that prints nothing never pays for any of this.

The same thread looks out for what a doorbell has announced and what was not there yet when it rang.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import sys
import threading
import time

from hiersched.data.outputs import pack_outputs
from hiersched.kernels import bitset
from hiersched.limits import OUTPUT_FLUSH_S, OUTPUT_PIECE_BYTES_MAX
from hiersched.nodes.floor import OURS, THEIRS, Floor
from hiersched.nodes.line import Line
from hiersched.nodes.transcript import Transcript
from hiersched.protocol import messages as m


class Speaker:
    """Sends the output of one engine's code while it runs. request: the call or task that runs, or ran last."""

    def __init__(self, line: Line, floor: Floor, transcript: Transcript, rank: int) -> None:
        self.request: m.TaskId = 0
        self._line = line
        self._floor = floor
        self._transcript = transcript
        self._wire_rank = bitset.to_wire(1 << rank)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._awake = False  # the thread will look at the transcript within OUTPUT_FLUSH_S
        self._watch_until_s = 0.0
        self._closed = False
        transcript.heard, transcript.alarm = self._on_output, 1

    def speak(self, *, last: bool = False) -> None:
        """Send what has gathered; by whoever has the link. last: the code that made it has ended."""
        outputs = self._transcript.finish() if last else self._transcript.take()
        if outputs:
            self._line.uplink.send(m.Outputs([m.Piece(self.request, self._wire_rank)]), [pack_outputs(outputs)])

    def watch(self, until_s: float) -> None:
        """Ring the doorbell again if mail comes while the user's code runs, until this time."""
        if not self._watch_until_s:
            self._watch_until_s = until_s
            self._stir()

    def silence(self) -> None:
        """This is a forked process now: it has neither the thread nor the link."""
        self._transcript.heard, self._transcript.alarm = lambda: None, sys.maxsize

    def close(self) -> None:
        """End the thread."""
        self.silence()
        self._closed = True
        if self._thread is not None:
            os.eventfd_write(self._bell, 1)
            self._thread.join()
        os.close(self._bell)

    # --- in the thread that prints ------------------------------------------------------------------------------------

    def _on_output(self) -> None:
        """Something was printed: have it sent in time, or send it now."""
        floor = self._floor
        if floor.state == OURS:  # a thread of the user's, between two calls: it goes with the next one
            return
        act = self._speak_now if self._transcript.size >= OUTPUT_PIECE_BYTES_MAX else self._wake
        if not floor.is_main():
            act()
        elif floor.state == THEIRS:
            floor.borrow(act)

    def _speak_now(self) -> None:
        if self._floor.take_link():
            try:
                self.speak()
                if self._watch_until_s and self._line.uplink.readable():  # sending may have eaten the news of mail
                    self._floor.on_mail()
            finally:
                self._floor.give_link()

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._transcript.alarm = OUTPUT_PIECE_BYTES_MAX
            self._stir()

    def _stir(self) -> None:
        """Have the thread look at what it is to do."""
        with self._starting:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="speaker", daemon=True)
                try:
                    thread.start()
                except RuntimeError:  # the user's code has taken all threads: output goes with the answers
                    return
                self._thread = thread
        os.eventfd_write(self._bell, 1)

    # --- in the speaker's thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        """Speak up when it is time; keep a lookout; otherwise sleep."""
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # signals are for the main thread
        due_s = math.inf
        while not self._closed:
            watching = self._watch_until_s > 0.0
            self._sleep(min(due_s, self._watch_until_s if watching else math.inf), watching=watching)
            now_s = time.monotonic()
            if 0.0 < self._watch_until_s <= now_s:
                self._watch_until_s = 0.0
            if due_s <= now_s:
                due_s = self._speak_up(now_s)
            elif self._awake and due_s == math.inf:
                due_s = now_s + OUTPUT_FLUSH_S

    def _sleep(self, until_s: float, *, watching: bool) -> None:
        """Until then, or until stirred; `watching`: or until there is mail, for which the doorbell is rung."""
        sleep = select.poll()
        sleep.register(self._bell, select.POLLIN)
        mail = self._line.fileno() if watching else -1
        if watching:
            sleep.register(mail, select.POLLIN)
        timeout_ms = None if until_s == math.inf else max(0, math.ceil((until_s - time.monotonic()) * 1000))
        for descriptor, _ in sleep.poll(timeout_ms):
            if descriptor == self._bell:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._bell)
            elif descriptor == mail:
                self._watch_until_s = 0.0  # whoever has the floor next begins a new lookout
                if self._floor.state != OURS:
                    self._floor.ring_again()

    def _speak_up(self, now_s: float) -> float:
        """Send what has gathered; when to look again, infinite if nothing has, or nobody runs that could have more."""
        if self._transcript.size and self._floor.state != OURS:
            self._speak_now()
            return now_s + OUTPUT_FLUSH_S
        self._awake = False
        self._transcript.alarm = 1
        if self._transcript.size and self._floor.state != OURS:  # printed meanwhile
            self._awake = True
            return now_s + OUTPUT_FLUSH_S
        return math.inf
