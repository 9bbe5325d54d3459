"""What is asked about a subtree: its counters, the queues of its engines, why a task has not ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hiersched.core.effects import Link
from hiersched.core.metrics import Level
from hiersched.kernels import bitset
from hiersched.protocol import messages as m
from hiersched.protocol.framing import Frame

if TYPE_CHECKING:
    from hiersched.core.scheduler import SchedulerCore


class Inquiries:
    """Answers about `core`, from what its parts know, and about what is below it, from its child schedulers."""

    def __init__(self, core: SchedulerCore) -> None:
        self._core = core

    # --- counters and queues ------------------------------------------------------------------------------------------

    def on_survey(self, link: Link, survey: m.Survey, frames: Sequence[Frame], now: float) -> None:
        """Count what is here, and have those below counted."""
        schedulers = [child.link for child in self._core.membership.schedulers()]
        own = m.Census(survey.request, self.counters(), self._queues(bitset.from_wire(survey.targets)))
        self._core.surveys.begin(link, survey, schedulers, own)

    def on_census(self, link: Link, census: m.Census, frames: Sequence[Frame], now: float) -> None:
        """What a child has counted."""
        self._core.surveys.answer(link, census)

    def counters(self) -> list[Level]:
        """What this scheduler has counted and holds, as a table of one level."""
        core = self._core
        counts = dict(core.outbox.counts)
        counts["messages_in"] = core.messages_in
        counts["messages_out"] = core.outbox.messages_out
        counts["late"] = counts.get("late", 0) + core.calls.gather.late
        counts["engines"] = sum(child.role == "engine" for child in core.membership.children.values())
        counts["engines_starting"] = core.births.starting(core.membership.children)
        counts["tasks_waiting"] = len(core.work.dispatcher)
        counts["tasks_in_flight"] = len(core.work.dispatcher.flights) - len(core.work.dispatcher)
        counts["requests_open"] = len(core.calls.gather.open)
        counts["blob_bytes"] = core.blobs.store.bytes
        return [(core.place.level, 1, counts, dict(counts))]

    def _queues(self, targets: int) -> list[m.Queue]:
        """What those engines have to do that are children of this scheduler."""
        engines = [child for child in self._core.membership.children.values() if child.role == "engine"]
        asked = [child for child in engines if targets >> child.first & 1]
        if not asked:
            return []
        owed = self._core.calls.gather.owed_by([child.first for child in asked])
        return [m.Queue(child.first, owed[child.first], len(child.tasks), child.completed) for child in asked]

    # --- one task -----------------------------------------------------------------------------------------------------

    def on_why(self, link: Link, why: m.Why, frames: Sequence[Frame], now: float) -> None:
        """Say what keeps a task, or ask the child scheduler that has it."""
        core = self._core
        state, text, ranks, child = "unknown", "no task or call of this number is open", 0, None
        call = core.calls.why(why.task)
        task = core.work.why(why.task) if call is None else None
        if call is not None:
            state, (text, ranks) = "sent", call
        elif task is not None:
            state, text, ranks, child = task
        holder = core.membership.children.get(child) if child is not None else None
        if holder is not None and holder.role == "scheduler":
            core.questions.pass_on(link, why, holder.link)
        else:
            core.outbox.send(link, m.Because(why.request, state, text, bitset.to_wire(ranks)))

    def on_because(self, link: Link, because: m.Because, frames: Sequence[Frame], now: float) -> None:
        """What a child knows about a task."""
        self._core.questions.on_because(link, because)

    # --- neighbours go ------------------------------------------------------------------------------------------------

    def forget_child(self, link: Link) -> None:
        """A child is gone: it answers nothing more, and carries out nothing."""
        core = self._core
        core.surveys.forget_child(link)
        core.questions.forget_child(link)
        core.orders.forget_child(link)

    def forget_asker(self, link: Link) -> None:
        """Whoever asked is gone."""
        core = self._core
        core.surveys.forget_asker(link)
        core.questions.forget_asker(link)
        core.orders.forget_asker(link)
