"""Showing what calls printed and displayed, when they have ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

from hiersched.client.metadata import Metadata
from hiersched.client.screen import Screen
from hiersched.data.cells import CellReply

Value = TypeVar("Value")
Group = tuple[list[int], Value]  # engines, and what is the same for all of them


def show_outputs(
    parts: Sequence[Metadata],
    values: Sequence[Any],
    *,
    single: bool,
    groupby: str = "type",
    result_only: bool = False,
) -> None:
    """Show stdout, stderr and displayed objects of `parts`, and what their cells gave, which is among `values`.

    groupby: 'type' all stdout first, then all stderr, then what was displayed; 'engine' one engine after the other;
    'order' as 'type', but the first displayed object of every engine, then the second, and so on. single: no labels.
    """
    if groupby not in ("type", "engine", "order"):
        raise ValueError(f"groupby must be 'type', 'engine' or 'order', not {groupby!r}")
    screen = Screen(single=single)
    pairs = list(zip(parts, values, strict=True))
    if groupby == "engine":
        for pair in pairs:
            _show([pair], screen, in_rows=False, result_only=result_only)
    else:
        _show(pairs, screen, in_rows=groupby == "order", result_only=result_only)


def _show(pairs: Sequence[tuple[Metadata, Any]], screen: Screen, *, in_rows: bool, result_only: bool) -> None:
    """Show these parts together: what is the same for several of them, once."""
    parts = [part for part, _ in pairs]
    if not result_only:
        for stream in ("stdout", "stderr"):
            for engines, text in _grouped(parts, lambda part, stream=stream: part[stream]):
                screen.print_text(stream, engines, text, whole=True)
        _show_displayed(parts, screen, in_rows=in_rows)
    replies = [(part, value) for part, value in pairs if isinstance(value, CellReply) and value.execute_result]
    shown = {id(part): value for part, value in replies}
    for engines, _ in _grouped([part for part, _ in replies], lambda part: shown[id(part)].execute_result):
        reply = next(value for part, value in replies if part["engine_id"] == engines[0])
        screen.show_result(engines, reply)


def _show_displayed(parts: Sequence[Metadata], screen: Screen, *, in_rows: bool) -> None:
    if not in_rows:
        for engines, outputs in _grouped(parts, lambda part: part["outputs"]):
            screen.display(engines, outputs)
        return
    for row in zip_longest(*(part["outputs"] for part in parts)):
        at_hand = {id(part): output for part, output in zip(parts, row, strict=True)}
        for engines, output in _grouped(parts, lambda part, at_hand=at_hand: at_hand[id(part)]):
            screen.display(engines, [output])


def _grouped(parts: Sequence[Metadata], what: Callable[[Metadata], Value]) -> list[Group[Value]]:
    """Engines for which `what` is the same, in the order in which it first comes; not those for which it is empty."""
    groups: list[Group[Value]] = []
    by_text: dict[str, list[int]] = {}
    for part in parts:
        value = what(part)
        if not value:
            continue
        engines = by_text.get(value) if isinstance(value, str) else _equal(groups, value)
        if engines is None:
            engines = []
            groups.append((engines, value))
            if isinstance(value, str):
                by_text[value] = engines
        engines.append(part["engine_id"])
    return groups


def _equal(groups: Sequence[Group[Value]], value: Value) -> list[int] | None:
    """The engines of the group with this value."""
    return next((engines for engines, other in groups if other == value), None)
