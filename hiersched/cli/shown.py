"""How things are shown: with boxes and colours on a terminal, as plain columns where a program or a file reads them."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from hiersched.core.topology import TreePlan

_PLAIN_WIDTH = 1_000  # characters: lines in a file are never broken


def console() -> Console:
    """Standard output, as it is now."""
    on_terminal = Console(highlight=False)
    return on_terminal if on_terminal.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def table(*columns: str, numbers: int = 0) -> Table:
    """An empty table. numbers: so many of the last columns are flush right."""
    boxed = console().is_terminal
    made = Table(box=box.ROUNDED if boxed else None, pad_edge=boxed, header_style="bold")
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place >= len(columns) - numbers else "left")
    return made


def tree_text(plan: TreePlan) -> str:
    """A plan in a few words."""
    if plan.schedulers == 1:
        return "root only"
    return f"{plan.schedulers} schedulers, depth {plan.depth}, fanout {plan.fanout}, {plan.leaf_engines} engines a leaf"


def counted(count: int, what: str) -> str:
    """'1 engine', '4 engines'."""
    return f"{count:,} {what}{'s' * (count != 1)}"
