"""What a client asks of an engine's cell lane, and what the engine answers beside output."""

from __future__ import annotations

from typing import Any

import msgspec


class Cell(msgspec.Struct, array_like=True, frozen=True):
    """Code to run as a notebook cell. silent: no result is shown and no execution count is used."""

    code: str
    silent: bool = True


class CellReply(msgspec.Struct, array_like=True, frozen=True):
    """How a cell ended. execute_result: {"data": mime bundle, "metadata": {...}} of its last expression, if any."""

    execution_count: int
    execute_result: dict[str, Any] | None

    def __repr__(self) -> str:
        shown = "" if self.execute_result is None else self.execute_result["data"].get("text/plain", "")
        return f"<cell {self.execution_count}: {shown}>" if shown else f"<cell {self.execution_count}>"
