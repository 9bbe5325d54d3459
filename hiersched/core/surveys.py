"""Counters of a whole subtree, and the queues of its engines, asked for and merged on the way up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from hiersched.core.effects import Link
from hiersched.core.metrics import Level, merge
from hiersched.core.outbox import Outbox
from hiersched.limits import INQUIRIES_OPEN_MAX
from hiersched.protocol.messages import Census, Queue, Survey


@dataclass(slots=True, eq=False)
class _OpenSurvey:
    request: int
    asker: Link
    awaited: set[Link]
    tables: list[list[Level]]
    queues: list[Queue] = field(default_factory=list)


class Surveys:
    """The surveys of one scheduler that are not complete yet."""

    def __init__(self, outbox: Outbox) -> None:
        self.open: dict[int, _OpenSurvey] = {}
        self._outbox = outbox

    def begin(self, asker: Link, survey: Survey, schedulers: Iterable[Link], own: Census) -> None:
        """Ask the child schedulers; `own` is what this one has to say, and all there is to hear above the bound."""
        if len(self.open) >= INQUIRIES_OPEN_MAX or survey.request in self.open:
            self._outbox.send(asker, own)
            return
        entry = _OpenSurvey(survey.request, asker, set(schedulers), [own.levels], [*own.queues])
        self.open[survey.request] = entry
        for link in sorted(entry.awaited):
            self._outbox.send(link, survey)
        self._finish(entry)

    def answer(self, link: Link, census: Census) -> None:
        """What a child has counted."""
        entry = self.open.get(census.request)
        if entry is not None and link in entry.awaited:
            entry.awaited.discard(link)
            entry.tables.append(census.levels)
            entry.queues += census.queues
            self._finish(entry)

    def forget_child(self, link: Link) -> None:
        """A child is gone: its subtree goes uncounted."""
        for entry in [entry for entry in self.open.values() if link in entry.awaited]:
            entry.awaited.discard(link)
            self._finish(entry)

    def forget_asker(self, link: Link) -> None:
        """Whoever asked is gone."""
        self.open = {request: entry for request, entry in self.open.items() if entry.asker != link}

    def _finish(self, entry: _OpenSurvey) -> None:
        if not entry.awaited and self.open.pop(entry.request, None) is not None:
            self._outbox.send(entry.asker, Census(entry.request, merge(entry.tables), entry.queues))
