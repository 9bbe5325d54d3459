"""Output of engines as it comes, while their code runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from hiersched.client.interrupts import Released
from hiersched.client.screen import Screen
from hiersched.data.cells import CellReply
from hiersched.data.outputs import Clear, Output, Shown, Text
from hiersched.errors import CompositeError, RemoteError, gist_of

if TYPE_CHECKING:
    from hiersched.client.pending import Pending
    from hiersched.client.selection import Part, Selection
    from hiersched.client.session import Session
    from hiersched.data.outcomes import Outcome

OnOutput = Callable[[list[int], Sequence[Output]], object]


class Teller:
    """Calls a function of the user's with what engines print: a listener."""

    def __init__(self, on_output: OnOutput) -> None:
        self._on_output = on_output

    def on_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """Tell."""
        with Released():
            self._on_output(ranks, outputs)

    def on_parts(self, pending: Pending) -> None:
        """Only output is told."""


def tell_output(session: Session, request: Pending | Selection, on_output: OnOutput) -> Callable[[], None]:
    """Call `on_output` with what is printed or displayed from now on. What ends that."""
    teller = Teller(on_output)
    for pending in request.requests():
        session.listen(pending, teller)

    def stop() -> None:
        for pending in request.requests():
            session.unlisten(pending, teller)

    return stop


class Stream:
    """Shows what comes of requests: a listener. single: of one engine only, nothing is labelled.

    Errors are shown as well, each different one once, and after `tb_limit` of them in a line.
    """

    def __init__(self, session: Session, *, single: bool) -> None:
        self._session = session
        self._screen = Screen(single=single)
        self._parts: dict[Part, None] = {}
        self._ended: set[Part] = set()
        self._tracebacks = 0
        self._turn = threading.RLock()  # what came before is shown before what comes now

    @contextmanager
    def flowing(self, request: Pending | Selection) -> Iterator[None]:
        """Show what comes of this request. What came before is shown first; nothing is shown twice, or lost."""
        places: dict[Pending, list[int]] = {}
        for pending, place in map(request.part, range(len(request.outcomes))):
            places.setdefault(pending, []).append(place)
        try:
            for pending, its_places in places.items():
                self.follow(pending, its_places)
            yield
        finally:
            for pending in {pending for pending, _ in self._parts}:
                self._session.unlisten(pending, self)

    def follow(self, pending: Pending, places: Sequence[int]) -> None:
        """Show what comes of these parts of a request, too."""
        with self._turn:
            if (pending, places[0]) in self._parts:
                return
            so_far = self._session.listen(pending, self)
            self._parts.update(dict.fromkeys((pending, place) for place in places))
            for place in places:
                self._show(pending.targets[place : place + 1] or (0,), so_far[place])
            self.on_parts(pending)

    def on_output(self, pending: Pending, ranks: list[int], outputs: Sequence[Output]) -> None:
        """These engines have printed or displayed this."""
        with self._turn, Released():
            mine = [rank for rank in ranks if (pending, pending.place_of(rank)) in self._parts]
            if mine:
                self._show(mine, outputs)

    def on_parts(self, pending: Pending) -> None:
        """Parts have ended: show what their cells gave, and how they failed."""
        with self._turn:
            fresh = [part for part in self._parts if part[0] is pending and part not in self._ended]
            ends: dict[tuple[str, str], tuple[list[int], CellReply | Exception]] = {}
            for part in fresh:
                outcome = pending.outcomes[part[1]]
                if outcome is None:
                    continue
                self._ended.add(part)
                end = _end_of(pending, outcome)
                if end is not None:
                    ends.setdefault((type(end).__name__, _text_of(end)), ([], end))[0].append(outcome.engine_id)
            with Released():
                for engines, end in ends.values():
                    self._show_end(engines, end)

    def _show(self, ranks: Sequence[int], outputs: Sequence[Output]) -> None:
        for output in outputs:
            if isinstance(output, Text):
                self._screen.print_text(output.stream, ranks, output.text)
            elif isinstance(output, Shown):
                self._screen.show(ranks, output)
            elif isinstance(output, Clear) and len(ranks) == len(self._parts):  # of all, or it would take the others'
                self._screen.clear(wait=output.wait)

    def _show_end(self, engines: list[int], shown: CellReply | Exception) -> None:
        if isinstance(shown, CellReply):
            self._screen.show_result(engines, shown)
            return
        self._tracebacks += 1
        whole = isinstance(shown, RemoteError) and self._tracebacks <= CompositeError.tb_limit
        self._screen.print_error(
            engines, shown.traceback_lines if whole and shown.traceback_lines else [gist_of(shown)]
        )


def _end_of(pending: Pending, outcome: Outcome) -> CellReply | Exception | None:
    """What there is to show of a part that has ended."""
    if outcome.error is not None:
        return outcome.error
    is_reply = pending.method == "execute" and isinstance(outcome.value, CellReply)
    return outcome.value if is_reply else None


def _text_of(end: CellReply | Exception) -> str:
    return gist_of(end) if isinstance(end, Exception) else repr(end.execute_result)
