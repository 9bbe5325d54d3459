"""What neighbours say first."""

from __future__ import annotations

from hiersched.protocol import messages as m


def held(introduction: m.Hello) -> list[m.TaskId]:
    """The calls and tasks that an orphan says it holds."""
    return [number for number, _ in introduction.holds]
