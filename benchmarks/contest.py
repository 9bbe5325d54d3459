"""Ours against one peer at a time, in interleaved rounds: ours, peer, ours, peer, ...

Whatever drifts on the machine hits both alike. Only two systems are alive during a race, since some peers keep a core
busy while idle. Ours starts once per contest and is measured again in every race; a table shows it as it was in the
race against the best peer (report.py). The first round warms up and is not counted.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.host import Host, HostFailed
from benchmarks.peer import OURS, PeerMissing
from benchmarks.report import Samples


@dataclass(frozen=True)
class Entry:
    """One line of a race: which peer does what, under which name."""

    name: str  # in the tables; several entries may be one peer used in different ways
    peer: str
    figure: Callable[..., list[float]]  # one of figures.py
    options: dict[str, Any] = field(default_factory=dict)


class Contest:
    """Races with `n` workers on each side. As a context manager it starts ours and stops it for sure.

    missing: entry or peer name -> why it has no figure; filled as peers fail.
    allowed: the peers asked for; None means all. ours: under which name the peer goes that is ours.
    """

    def __init__(
        self, n: int, missing: dict[str, str], *, allowed: Sequence[str] | None = None, ours: str = OURS
    ) -> None:
        self.n = n
        self._name = ours
        self._missing = missing
        self._allowed = allowed
        self._ours: Host | None = None

    def __enter__(self) -> "Contest":
        self._ours = self.start(self._name)
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours is not None:
            self.stop(self._ours)

    def race(self, ours: Sequence[Entry], peer: str, entries: Sequence[Entry], *, rounds: int) -> Samples:
        """Samples of `rounds` interleaved rounds of `ours` and of the entries of `peer`, which lives for this race.

        Entries without a living peer are absent; ours is measured even if it then races alone. There is no race
        against a peer that was not asked for.
        """
        if not self._asks_for(peer):
            return {}
        host = self.start(peer)
        hosts = {self._name: self._ours, peer: host}
        try:
            return self._run([*ours, *entries], hosts, rounds)
        finally:
            if host is not None:
                self.stop(host)

    def _run(self, entries: Sequence[Entry], hosts: dict[str, Host | None], rounds: int) -> Samples:
        racing = [entry for entry in entries if hosts[entry.peer] is not None]
        samples: Samples = {entry.name: [] for entry in racing}
        for number in range(rounds + 1):
            for entry in list(racing):
                host = hosts[entry.peer]
                assert host is not None
                try:
                    round_samples = host.measure(entry.figure, entry.options)
                except HostFailed as failure:
                    self._missing[f"{entry.name}, n={self.n}"] = str(failure)
                    racing.remove(entry)
                    del samples[entry.name]
                    continue
                if number > 0:
                    samples[entry.name].extend(round_samples)
        return samples

    def start(self, label: str) -> Host | None:
        """A living host that the caller must stop; None, with the reason kept, if there can be none."""
        if not self._asks_for(label):
            return None
        host = Host(label, self.n)
        try:
            host.open()
            host.start()
        except BaseException as reason:
            host.close()
            if not isinstance(reason, PeerMissing | HostFailed):
                raise
            self._missing[label] = str(reason)
            return None
        return host

    def stop(self, host: Host) -> float | None:
        """Seconds that the peer took to stop, None if it failed to; either way all its processes are gone."""
        try:
            return host.stop()
        except HostFailed as failure:
            self._missing[f"{host.label}, stop of {self.n}"] = str(failure)
            return None
        finally:
            host.close()
            if host.left_behind:
                reason = f"{host.left_behind} processes had to be killed"
                self._missing[f"{host.label}, after its stop of {self.n}"] = reason

    def _asks_for(self, label: str) -> bool:
        """Whether `label` takes part; keeps the reason if it does not."""
        if label == self._name or self._allowed is None or label in self._allowed:
            return True
        self._missing[label] = "not asked for"
        return False
