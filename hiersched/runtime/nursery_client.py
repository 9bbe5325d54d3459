"""A scheduler's side of the nursery: it starts, signals and ends children there, and hears of their end."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from hiersched.core.effects import Link, link_of
from hiersched.core.topology import Child, TreePlan
from hiersched.runtime.nursery_channel import Birth, Channel, Closed, End, Ended, Orphaned, Signal, Word


class NurseryClient:
    """A `driver.Spawner`. on_ended(child, reason, orphans): a child is no more, and its children are ours. on_orphaned
    (reason): whoever had started this process is no more.

    The nursery tells of each end exactly once, also of those asked for. These are not passed on: whoever ends a child
    has done with it.
    """

    def __init__(
        self,
        channel: socket.socket,
        address: str,
        *,
        on_ended: Callable[[Child, str, Sequence[Child]], None],
        on_orphaned: Callable[[str], None],
    ) -> None:
        self._channel = Channel(channel)
        self._address = address
        self._on_ended = on_ended
        self._on_orphaned = on_orphaned
        self._children: dict[Link, Child] = {}

    def fileno(self) -> int:
        """The descriptor that becomes readable when there is news."""
        return self._channel.fileno()

    def start(self, children: list[Child], plan: TreePlan | None = None) -> None:
        """Start one process for each child, which will connect to this scheduler's address."""
        self._children.update((link_of(child), child) for child in children)
        self._send(Birth(children, self._address, plan))

    def end(self, link: Link) -> None:
        """See to it that this child is gone, with all below it; nothing happens if it is already."""
        if self._children.pop(link, None) is not None:
            self._send(End(link))

    def signal(self, links: list[Link], number: int) -> None:
        """Send a signal to those of these children that live; 0: ring their doorbell."""
        known = [link for link in links if link in self._children]
        if known:
            self._send(Signal(known, number))

    def watches(self, link: Link) -> bool:
        """Whether it will tell of this child's end."""
        return link in self._children

    def on_readable(self) -> None:
        """Pass on the news."""
        while True:
            try:
                word = self._channel.receive_nowait()
            except Closed:
                raise SystemExit("the nursery is gone") from None
            if word is None:
                return
            if type(word) is Ended:
                self._on_ended_word(word)
            elif type(word) is Orphaned:
                self._on_orphaned(word.reason)

    def _on_ended_word(self, word: Ended) -> None:
        self._children.update((link_of(orphan), orphan) for orphan in word.orphans)
        if self._children.pop(link_of(word.child), None) is not None:
            self._on_ended(word.child, word.reason, word.orphans)
        else:
            for orphan in word.orphans:  # it had ended of its own before the nursery was asked to see to it
                self.end(link_of(orphan))

    def _send(self, word: Word) -> None:
        try:
            self._channel.send(word)
        except Closed:
            raise SystemExit("the nursery is gone") from None
