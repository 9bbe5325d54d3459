"""How every request of a session ended: twelve bytes for each, so that a million of them can be depended on.

Requests are numbered by one counter, so the ledger is arrays over these numbers. Above LEDGER_ENTRIES_MAX the older
half is forgotten.
"""

from __future__ import annotations

from array import array

from hiersched.client.names import name_of
from hiersched.limits import CALLS_RECALLED_MAX, LEDGER_ENTRIES_MAX
from hiersched.protocol.messages import SESSION_SHIFT, TaskId

_NOTHING = -(1 << 31)  # no request of this number has ended
_NUMBER = (1 << SESSION_SHIFT) - 1
_SPARE = 1_024  # entries made ahead


class Ledger:
    """The requests of one session that have ended. Used under the session's lock."""

    def __init__(self) -> None:
        self.session = 0
        self._joined_at = 1  # the number of the first request that this client made
        self._first = 1  # the number that the first entry is for
        self._ends = array("i")  # the rank it ran on; for one that failed -1 - rank
        self._submitted = array("d")  # seconds since the epoch

    def begin(self, session: int, next_number: int) -> None:
        """Requests are of this session. next_number: of the next one; a session that is joined has some already."""
        self.session = session
        self._joined_at = next_number
        self._first = max(1, next_number - LEDGER_ENTRIES_MAX // 2)
        self._ends = array("i")
        self._submitted = array("d")

    def __len__(self) -> int:
        return len(self._ends)

    def note(self, request: TaskId, rank: int, submitted_s: float, *, ok: bool) -> None:
        """A request has ended. rank: NO_RANK if it ran nowhere; submitted_s: since the epoch."""
        place = (request & _NUMBER) - self._first
        if place >= len(self._ends):
            place -= self._make_room(place + 1)
        if place >= 0:
            self._ends[place] = rank if ok else -1 - rank
            self._submitted[place] = submitted_s

    def _make_room(self, entries: int) -> int:
        """Have so many entries, and some to spare. How many older ones are forgotten for it."""
        fresh = entries - len(self._ends) + _SPARE
        self._ends.extend([_NOTHING] * fresh)
        self._submitted.extend([0.0] * fresh)
        forgotten = 0
        if len(self._ends) > LEDGER_ENTRIES_MAX:
            forgotten = max(entries, LEDGER_ENTRIES_MAX) // 2
            self._ends = self._ends[forgotten:]
            self._submitted = self._submitted[forgotten:]
            self._first += forgotten
        return forgotten

    def end_of(self, request: TaskId) -> tuple[bool, int] | None:
        """(whether it succeeded, the rank it ran on); None if none of this number has ended, or it is forgotten."""
        place = (request & _NUMBER) - self._first
        if request >> SESSION_SHIFT != self.session or not 0 <= place < len(self._ends):
            return None
        end = self._ends[place]
        if end == _NOTHING:
            return None
        return (True, end) if end >= 0 else (False, -1 - end)

    def submitted_s(self, request: TaskId) -> float:
        """When a request was submitted that has ended and is not forgotten; seconds since the epoch."""
        return self._submitted[(request & _NUMBER) - self._first]

    def why_unknown(self, request: TaskId) -> str:
        """What to say about a request that is not open, and of which `end_of` knows nothing."""
        session, number, name = request >> SESSION_SHIFT, request & _NUMBER, name_of(request)
        if session != self.session:
            return f"{name} is a call of session {session}, and this one is number {self.session}"
        if 0 < number < self._first:
            return f"call {name} ended so long ago that it is forgotten: {LEDGER_ENTRIES_MAX} are remembered"
        if 0 < number < self._joined_at:
            return f"call {name} ended before this client joined the session, and its answer was not kept"
        return f"there is no call {name} in this session"

    def recent(self) -> list[TaskId]:
        """The last CALLS_RECALLED_MAX numbers that have ended, as ids, oldest first."""
        begin = max(0, len(self._ends) - _SPARE - CALLS_RECALLED_MAX)
        lead = self.session << SESSION_SHIFT
        ended = [lead | self._first + begin + n for n, end in enumerate(self._ends[begin:]) if end != _NOTHING]
        return ended[-CALLS_RECALLED_MAX:]
