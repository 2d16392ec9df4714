"""Figures with their intervals, as dots in rows and as lines over an axis.

Gives HTML (canvas.picture). Where an interval is not known, none is drawn. Not here: what the
figures mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from .canvas import SERIES, figure, ink, picture, place, short
from .statistics import Estimate

_WIDE_LABELS = 292.0
_MARKS = ("o", "s", "D", "^", "v", "P")
# The same for a legend in text.
SYMBOLS = ("●", "■", "◆", "▲", "▼", "✚")
_DASHES = ("-", (0, (5, 2)), (0, (2, 2)), "-.", (0, (8, 2)), ":")


@dataclass(frozen=True)
class Dots:
    """A row. `found`: one for each series; None: it has no figure. `note`: said in its place."""

    title: str
    found: tuple[Estimate | None, ...]
    note: str = ""


@dataclass(frozen=True)
class Line:
    """`x`, `y`: of the same length. `found`: points with their intervals."""

    title: str
    ink: str
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    found: tuple[tuple[float, Estimate], ...] = ()
    hollow: bool = False


def dots(
    name: str, label: str, rows: Sequence[Dots], *, scale: str, line: float | None = None,
    unit: str = "",
) -> str:  # fmt: skip
    """`scale`: log, or symlog where figures may be below 0. `line`: what all are compared to."""

    def draw(narrow: bool) -> Figure:
        pitch = 42.0 if narrow else 30.0
        height = pitch * len(rows)
        drawn = figure(narrow, height + 44)
        axes = place(drawn, 8.0 if narrow else _WIDE_LABELS, 6.0, height, right=22.0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [] if narrow else [short(row.title, 46) for row in rows])
        axes.tick_params(axis="y", length=0, pad=8)
        _scale(axes, rows, scale, line, unit, narrow)
        for number, row in enumerate(rows):
            _row(axes, row, number + (0.2 if narrow else 0), number, narrow)
        return drawn

    return picture(name, label, draw)


def _row(axes: Axes, row: Dots, y: float, number: int, narrow: bool) -> None:
    if narrow:
        axes.annotate(short(row.title, 44), (0, number - 0.22), va="center", color=ink("ink"),
                      xycoords=("axes fraction", "data"))  # fmt: skip
    if row.note:
        axes.annotate(short(row.note, 44 if narrow else 70), (0, y), (4, 0), va="center",
                      xycoords=("axes fraction", "data"), textcoords="offset points",
                      color=ink("fork"))  # fmt: skip
    for series, found in enumerate(row.found):
        if found is None:
            continue
        at = y + 0.2 * (series - (len(row.found) - 1) / 2)
        color = ink(SERIES[series % len(SERIES)])
        if found.is_bounded:
            axes.plot([found.low, found.high], [at, at], color=color, linewidth=2.4,
                      solid_capstyle="round")  # fmt: skip
        axes.plot([found.value], [at], _MARKS[series % len(_MARKS)], color=color, markersize=7,
                  markeredgecolor=ink("paper"), markeredgewidth=1.0)  # fmt: skip


def _scale(
    axes: Axes, rows: Sequence[Dots], scale: str, line: float | None, unit: str, narrow: bool
) -> None:
    values = [line] if line is not None else []
    for found in (one for row in rows for one in row.found if one):
        values += [found.value, *((found.low, found.high) if found.is_bounded else ())]
    if scale == "symlog":
        axes.set_xscale("symlog", linthresh=100.0, linscale=0.8)
        axes.set_xlim(min([0, *values]) * 1.3 - 20, max([100, *values]) * 1.3)
        steps = (-10_000, -1000, -100, 0, 100, 1000, 10_000, 100_000)
        axes.xaxis.set_major_locator(FixedLocator(steps[::2] if narrow else steps))
    else:
        values = [value for value in values if value > 0] or [1.0]
        axes.set_xscale("log")
        axes.set_xlim(min(values) / 1.25, max(values) * 1.25)
        _log_ticks(axes, "x", min(values) / 1.25, max(values) * 1.25, narrow)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,g}{unit}")
    axes.grid(axis="x")
    axes.tick_params(axis="x", length=0, pad=6)
    if line is not None:
        axes.axvline(line, color=ink("ink"), linewidth=1.2, linestyle=(0, (4, 3)))


def _log_ticks(axes: Axes, axis: str, low: float, high: float, narrow: bool) -> None:
    """1, 2, 5 as long as that is not too many."""
    span = high / low
    subs = (1.0, 2.0, 5.0) if span < 200 and not (narrow and span > 20) else (1.0,)
    one = axes.xaxis if axis == "x" else axes.yaxis
    one.set_major_locator(LogLocator(subs=subs, numticks=12))
    one.set_minor_locator(NullLocator())


def lines(
    name: str, label: str, panels: Sequence[tuple[str, Sequence[Line]]], *, x_name: str,
    y_name: str, x_ticks: Sequence[str] = (),
) -> str:  # fmt: skip
    """Below each other. `x_ticks`: names of x = 0, 1, ...; none: x is logarithmic, as y always
    is."""

    def draw(narrow: bool) -> Figure:
        height, gap = (260.0, 92.0) if narrow else (300.0, 92.0)
        drawn = figure(narrow, (height + gap) * len(panels))
        for number, (title, each) in enumerate(panels):
            top = 30.0 + (height + gap) * number
            axes = place(drawn, 58.0, top, height, right=12.0 if narrow else 130.0)
            axes.set_title(f"{y_name}{', ' if title else ''}{title}", pad=12, x=0)
            axes.set_yscale("log")
            if x_ticks:
                axes.set_xticks(range(len(x_ticks)), list(x_ticks))
            else:
                axes.set_xscale("log")
            for place_, one in enumerate(each):
                _line(axes, one, place_, narrow)
            axes.set_xlabel(x_name, labelpad=8)
            _finish(axes, narrow, not x_ticks)
        return drawn

    return picture(name, label, draw)


def _finish(axes: Axes, narrow: bool, is_log: bool) -> None:
    axes.grid()
    axes.tick_params(length=0, pad=6)
    axes.tick_params(axis="y", labelcolor=ink("faint"))
    for axis in ("x", "y") if is_log else ("y",):
        low, high = axes.get_xlim() if axis == "x" else axes.get_ylim()
        _log_ticks(axes, axis, low, high, narrow)
        one = axes.xaxis if axis == "x" else axes.yaxis
        one.set_major_formatter(lambda x, _: f"{x:,g}")


def _line(axes: Axes, one: Line, number: int, narrow: bool) -> None:
    color = ink(one.ink)
    if one.x:
        axes.plot(one.x, one.y, color=color, linewidth=1.8, linestyle=_DASHES[number % len(_DASHES)])  # fmt: skip
    for x, found in one.found:
        if found.is_bounded and found.low > 0:
            axes.plot([x, x], [found.low, found.high], color=color, linewidth=2.0)
        axes.plot([x], [found.value], _MARKS[number % len(_MARKS)], markersize=7,
                  color=ink("paper") if one.hollow else color,
                  markeredgecolor=color if one.hollow else ink("paper"))  # fmt: skip
    ends = (*zip(one.x, one.y, strict=True), *((x, found.value) for x, found in one.found))
    if ends and not narrow and one.title:
        axes.annotate(short(one.title, 18), max(ends), (10, 0), textcoords="offset points",
                      va="center", color=color, annotation_clip=False)  # fmt: skip
