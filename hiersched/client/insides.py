"""What code that reaches into ipyparallel's client finds there, by the names that it has for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hiersched.client.names import part_ids
from hiersched.client.targets import resolve_targets

if TYPE_CHECKING:
    from hiersched.client.session import Session


class Insides:
    """Names that begin with an underscore in ipyparallel too, and that extensions of it use all the same."""

    session: Session

    @property
    def _ids(self) -> list[int]:
        return list(self.session.engine_ids())

    @property
    def _engines(self) -> dict[int, str]:
        """{engine id: name}."""
        return {engine: f"engine-{engine}" for engine in self.session.engine_ids()}

    @property
    def _outstanding_dict(self) -> dict[str, set[str]]:
        """{engine's name: ids of the parts of calls that it owes an answer}."""
        owed: dict[str, set[str]] = {name: set() for name in self._engines.values()}
        for pending in self.session.open_requests():
            names = part_ids(pending.id, pending.targets)
            for name, engine, outcome in zip(names, pending.targets, list(pending.outcomes), strict=False):
                if outcome is None:
                    owed.setdefault(f"engine-{engine}", set()).add(name)
        return owed

    def _build_targets(self, targets: Any) -> tuple[list[bytes], list[int]]:
        """The names and the ids of engines. Raises UnknownEngine, NoEngines."""
        ids = resolve_targets(targets, self.session.engine_ids())
        return [f"engine-{engine}".encode() for engine in ids], list(ids)
