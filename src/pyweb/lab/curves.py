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
from .forms import number as written
from .layout import Key
from .statistics import Estimate

_WIDE_LABELS = 292.0
# Between the marks of one row.
_APART = 11.0
# Under text that lies on a line.
_ON_PAPER = {"facecolor": ink("paper"), "edgecolor": "none", "pad": 1.0}
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
    """`series`: its colour, dashes and marks. `x`, `y`: of the same length. `found`: points with
    their intervals."""

    title: str
    series: int
    x: tuple[float, ...] = ()
    y: tuple[float, ...] = ()
    found: tuple[tuple[float, Estimate], ...] = ()


def keys(titles: Sequence[str]) -> tuple[Key, ...]:
    """A legend: of the first series, the second, and so on."""
    return tuple(Key(_color(n), title, SYMBOLS[n % len(SYMBOLS)])
                 for n, title in enumerate(titles))  # fmt: skip


def _color(series: int) -> str:
    return SERIES[series % len(SERIES)]


def dots(
    name: str, label: str, rows: Sequence[Dots], *, scale: str, line: float | None = None,
    unit: str = "",
) -> str:  # fmt: skip
    """`scale`: log, or symlog where figures may be below 0. `line`: what all are compared to."""

    most = max(len(row.found) for row in rows)

    def draw(narrow: bool) -> Figure:
        pitch = max(30.0, _APART * most + 6) + (16.0 if narrow else 0)
        height = pitch * len(rows)
        drawn = figure(narrow, height + 44)
        axes = place(drawn, 8.0 if narrow else _WIDE_LABELS, 6.0, height, right=22.0)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_yticks(range(len(rows)), [] if narrow else [short(row.title, 46) for row in rows])
        axes.tick_params(axis="y", length=0, pad=8)
        _scale(axes, rows, scale, line, unit, narrow)
        for number, row in enumerate(rows):
            _row(axes, row, number, pitch, narrow)
        return drawn

    return picture(name, label, draw)


def _row(axes: Axes, row: Dots, number: int, pitch: float, narrow: bool) -> None:
    y = number + (8.0 / pitch if narrow else 0)
    if narrow:
        axes.annotate(short(row.title, 44), (0, number - 0.5 + 10.0 / pitch),
                      va="center", color=ink("ink"), bbox=_ON_PAPER,
                      xycoords=("axes fraction", "data"))  # fmt: skip
    if row.note:
        axes.annotate(short(row.note, 44 if narrow else 70), (0, y), (4, 0), va="center",
                      xycoords=("axes fraction", "data"), textcoords="offset points",
                      color=ink("fork"), bbox=_ON_PAPER)  # fmt: skip
    present = [(series, found) for series, found in enumerate(row.found) if found]
    for position, (series, found) in enumerate(present):
        at = y + _APART / pitch * (position - (len(present) - 1) / 2)
        color = ink(_color(series))
        if found.is_bounded:
            axes.plot([found.low, found.high], [at, at], color=color, linewidth=2.4,
                      solid_capstyle="round")  # fmt: skip
        axes.plot([found.value], [at], _MARKS[series % len(_MARKS)], color=color, markersize=9,
                  markeredgecolor=ink("paper"), markeredgewidth=1.0)  # fmt: skip
        if len(present) == 1:
            end = found.high if found.is_bounded else found.value
            axes.annotate(written(found.value), (end, at), (9, 0), textcoords="offset points",
                          va="center", color=ink("ink"), bbox=_ON_PAPER)  # fmt: skip


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
        axes.set_xlim(min(values) / 1.25, max(values) * 1.5)
        _log_ticks(axes, "x", min(values) / 1.25, max(values) * 1.5, narrow)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,g}{unit}")
    axes.grid(axis="x")
    axes.tick_params(axis="x", length=0, pad=6)
    if line is not None:
        axes.axvline(line, color=ink("ink"), linewidth=1.2, linestyle=(0, (4, 3)))


def _log_ticks(axes: Axes, axis: str, low: float, high: float, narrow: bool) -> None:
    """1, 2, 5 as long as that is not too many; 1 alone may be once on an axis, or never."""
    span = high / low
    subs: tuple[float, ...] = (1.0, 2.0, 5.0)
    if span >= 200:
        subs = (1.0,)
    elif narrow and span > 20:
        subs = (1.0, 3.0)
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
            for one in each:
                _line(axes, one)
            axes.set_xlabel(x_name, labelpad=8)
            _finish(axes, narrow, not x_ticks)
            if not narrow:
                _ends(axes, each)
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


def _line(axes: Axes, one: Line) -> None:
    color, place_ = ink(_color(one.series)), one.series % len(_MARKS)
    if one.x:
        axes.plot(one.x, one.y, color=color, linewidth=1.8, linestyle=_DASHES[place_])
    for x, found in one.found:
        if found.is_bounded and found.low > 0:
            axes.plot([x, x], [found.low, found.high], color=color, linewidth=2.4)
        axes.plot([x], [found.value], _MARKS[place_], markersize=8, color=color,
                  markeredgecolor=ink("paper"))  # fmt: skip


def _ends(axes: Axes, each: Sequence[Line]) -> None:
    """Names beside the ends of lines, and none upon another."""
    last = float("-inf")
    for one in sorted((line for line in each if line.x), key=lambda line: line.y[-1]):
        end = one.x[-1], one.y[-1]
        height = axes.transData.transform(end)[1]
        last = max(height, last + _LINE)
        axes.annotate(short(one.title, 16), end, (12, last - height), va="center",
                      textcoords="offset points", color=ink(_color(one.series)),
                      annotation_clip=False)  # fmt: skip


# From one line of text to the next.
_LINE = 15.0
