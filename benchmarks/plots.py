"""Pictures of the reports: one file per question, one panel per case.

A case measured at three or more numbers of engines becomes lines over that number, any other one a list of dots at its
largest number. All axes are logarithmic, since peers differ by orders of magnitude: equal distances are equal ratios. A
log axis has no zero, so there are no bars, and what is missing has no dot.
"""

import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.report import MISSING, Report, Row, by_case, show

PANEL_WIDTH = 6.4  # inches, as all sizes here
LINES_HEIGHT = 3.9
DOTS_HEIGHT, DOT_HEIGHT = 1.1, 0.27  # a panel of dots, and each dot in it
COLUMNS_MAX = 2
TITLE_CHARACTERS = 44  # of a line
SHORT_RANGE = 50.0  # highest / lowest
LINE_NS_MIN = 3
OURS_COLOR = "#0b62a8"
PEER_COLORS = ("#d1602d", "#3c8d5a", "#8a5aa8", "#b08a1e", "#5d6b78", "#b8456b", "#4a9aa8")
DOT_COLOR = "#7d8994"
TEXT_COLOR = "#2b3138"
GRID_COLOR = "#e4e8ec"
STYLE: dict[str, Any] = {
    "font.size": 10,
    "text.color": TEXT_COLOR,
    "axes.labelcolor": TEXT_COLOR,
    "axes.edgecolor": "#9aa4ae",
    "xtick.color": TEXT_COLOR,
    "ytick.color": TEXT_COLOR,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
}
OURS_NAME = "hiersched"


def draw(report: Report, path: Path) -> None:
    """Write the picture of `report` to `path` (PNG)."""
    panels = [rows for rows in by_case(report.rows).values() if _drawable(rows)]
    if not panels:
        return
    columns = min(COLUMNS_MAX, len(panels))
    heights = [max(map(_height, panels[first : first + columns])) for first in range(0, len(panels), columns)]
    with pyplot.rc_context(STYLE):
        figure, grid = pyplot.subplots(
            len(heights),
            columns,
            figsize=(PANEL_WIDTH * columns, sum(heights) + 0.4),
            height_ratios=heights,
            squeeze=False,
            layout="constrained",
        )
        for axes, rows in zip(grid.flat, panels, strict=False):
            draw_panel(axes, rows)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        figure.suptitle(report.title, x=0.01, ha="left", fontsize=14, fontweight="bold")
        figure.savefig(path, dpi=130, facecolor="white")
        pyplot.close(figure)


def draw_panel(axes: Axes, rows: Sequence[Row]) -> None:
    """One case."""
    better = "higher is better" if rows[0].higher_is_better else "lower is better"
    if _is_lines(rows):
        _draw_lines(axes, rows)
        axes.set_title(textwrap.fill(rows[0].case, TITLE_CHARACTERS))
        axes.set_ylabel(f"{rows[0].unit} ({better})")
    else:
        row = max(rows, key=lambda row: row.n)
        _draw_dots(axes, row)
        axes.set_title(textwrap.fill(f"{row.case}, n={row.n}", TITLE_CHARACTERS))
        axes.set_xlabel(f"{row.unit} ({better})")


def _is_lines(rows: Sequence[Row]) -> bool:
    return len({row.n for row in rows}) >= LINE_NS_MIN


def _height(rows: Sequence[Row]) -> float:
    contenders = 1 + max(len(row.peers) for row in rows)
    return LINES_HEIGHT if _is_lines(rows) else DOTS_HEIGHT + DOT_HEIGHT * contenders


def _drawable(rows: Sequence[Row]) -> bool:
    return any(value is not None for row in rows for value in (row.ours, *row.peers.values()))


def _draw_lines(axes: Axes, rows: Sequence[Row]) -> None:
    ordered = sorted(rows, key=lambda row: row.n)
    series = {OURS_NAME: [(row.n, row.ours) for row in ordered]}
    for name in dict.fromkeys(name for row in ordered for name in row.peers):
        series[name] = [(row.n, row.peers.get(name)) for row in ordered]
    colors = iter(PEER_COLORS * len(series))
    for name, points in series.items():
        known = [(n, value) for n, value in points if value is not None]
        if not known:
            continue
        ours = name == OURS_NAME
        axes.plot(
            *zip(*known, strict=True),
            label=name,
            color=OURS_COLOR if ours else next(colors),
            linewidth=2.6 if ours else 1.5,
            marker="o",
            markersize=5 if ours else 4,
            zorder=3 if ours else 2,
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator([row.n for row in ordered]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    _plain_log_ticks(axes.yaxis)
    axes.set_xlabel("engines")
    axes.grid(color=GRID_COLOR)
    axes.legend(frameon=False, fontsize=9)


def _draw_dots(axes: Axes, row: Row) -> None:
    """Best on top, ours in colour, the missing at the bottom."""
    named = [(OURS_NAME, row.ours), *row.peers.items()]
    known = [(name, value) for name, value in named if value is not None]
    known.sort(key=lambda pair: pair[1], reverse=row.higher_is_better)
    missing = [name for name, value in named if value is None]
    values = [value for _, value in known]
    axes.set_xscale("log")
    axes.set_xlim(10 ** math.floor(math.log10(min(values)) - 0.3), max(values) * 8)
    for place, (name, value) in enumerate(known):
        ours = name == OURS_NAME
        axes.plot(value, place, "o", color=OURS_COLOR if ours else DOT_COLOR, markersize=9 if ours else 7)
        _write(axes, show(value), (value, place), shift=8, weight="bold" if ours else "normal")
    for place in range(len(known), len(named)):
        _write(axes, MISSING, (axes.get_xlim()[0], place), shift=4)
    axes.set_yticks(range(len(named)), [name for name, _ in known] + missing)
    axes.set_ylim(len(named) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    _plain_log_ticks(axes.xaxis)
    axes.grid(color=GRID_COLOR)


def _write(axes: Axes, text: str, at: tuple[float, float], *, shift: float, weight: str = "normal") -> None:
    """`text` in data coordinates, `shift` points to the right."""
    axes.annotate(text, at, xytext=(shift, 0), textcoords="offset points", va="center", fontsize=9, fontweight=weight)


def _plain_log_ticks(axis: Axis) -> None:
    """Powers of ten, written out; over a short range 2 and 5 times these as well, so that there are always some."""
    low, high = axis.get_view_interval()
    short = high / low < SHORT_RANGE
    axis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5) if short else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_formatter(NullFormatter())


def draw_all(reports: Sequence[Report], directory: Path) -> None:
    """Write a picture per report into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    for report in reports:
        draw(report, directory / f"{report.question}.png")
