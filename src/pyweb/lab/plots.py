"""Where time goes, as bars: parts of a whole side by side, and one connection as a waterfall.

All times in us. Gives HTML (canvas.picture). Not here: what the parts mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .canvas import FONT, WIDTHS, figure, ink, picture, place, short
from .forms import number

_WIDE_LABELS = 292.0
_BAR = 0.62


@dataclass(frozen=True)
class Bar:
    """`parts`: (ink, us), from left to right. `mark`: the same measured otherwise; None: it is
    not. `note`: at the bar's end."""

    title: str
    parts: tuple[tuple[str, float], ...]
    mark: float | None = None
    note: str = ""

    @property
    def end(self) -> float:
        return max(sum(us for _, us in self.parts if us > 0), self.mark or 0)


@dataclass(frozen=True)
class Span:
    """A stretch of a waterfall."""

    lane: str
    title: str
    ink: str
    begin: float
    end: float


def stacked(
    name: str, label: str, panels: Sequence[Sequence[Bar]], line: float | None = None
) -> str:
    """Panels below each other, with a scale each. `line`: where a vertical line stands."""
    shown = [panel for panel in panels if panel]

    def draw(narrow: bool) -> Figure:
        pitch = 42.0 if narrow else 30.0
        heights = [pitch * len(panel) for panel in shown]
        gap = 44.0
        drawn = figure(narrow, sum(heights) + gap * len(shown) - 4)
        top = 8.0
        for panel, height in zip(shown, heights, strict=True):
            axes = place(drawn, 4.0 if narrow else _WIDE_LABELS, top, height, right=12.0)
            _bars(axes, panel, narrow, line)
            top += height + gap
        return drawn

    return picture(name, label, draw)


def _bars(axes: Axes, bars: Sequence[Bar], narrow: bool, line: float | None) -> None:
    most = max([*(bar.end for bar in bars), line or 0, 1e-9])
    low = min([0.0, *(bar.mark for bar in bars if bar.mark is not None)])
    axes.set_xlim(low, most * (1.32 if narrow else 1.18))
    _rows(axes, [bar.title for bar in bars], narrow)
    thick = 0.4 if narrow else _BAR
    for row, bar in enumerate(bars):
        at = row + (0.24 if narrow else 0)
        left = 0.0
        for color, us in bar.parts:
            if us > 0:
                axes.barh(at, us, thick, left, color=ink(color), edgecolor=ink("paper"),
                          linewidth=1.0)  # fmt: skip
                _inside(axes, us, left, at, most, narrow)
                left += us
        if bar.mark is not None:
            axes.plot([bar.mark] * 2, [at - thick * 0.72, at + thick * 0.72], color=ink("ink"),
                      linewidth=2.0, solid_capstyle="butt")  # fmt: skip
        if bar.note:
            axes.annotate(bar.note, (bar.end, at), (7, 0), textcoords="offset points",
                          va="center", color=ink("ink"))  # fmt: skip
    if line is not None:
        axes.axvline(line, color=ink("ink"), linewidth=1.2, linestyle=(0, (4, 3)))
    _us_below(axes, narrow)


def _inside(axes: Axes, us: float, left: float, at: float, most: float, narrow: bool) -> None:
    """A part's number, where it fits."""
    text = number(us)
    room = us / most * (WIDTHS[narrow] - (0 if narrow else _WIDE_LABELS)) / 1.4
    if room > len(text) * FONT * 0.7 + 8:
        axes.annotate(text, (left + us / 2, at), ha="center", va="center", color=ink("paper"),
                      fontsize=FONT - 1)  # fmt: skip


def _rows(axes: Axes, titles: Sequence[str], narrow: bool) -> None:
    """From top to bottom; where there is no room beside them, titles stand above."""
    axes.set_ylim(len(titles) - 0.5, -0.5)
    axes.set_yticks(range(len(titles)))
    axes.tick_params(axis="y", length=0, pad=8)
    if narrow:
        axes.set_yticklabels([])
        for row, title in enumerate(titles):
            axes.annotate(short(title, 44), (0, row - 0.26), xycoords=("axes fraction", "data"),
                          va="center", color=ink("ink"))  # fmt: skip
    else:
        axes.set_yticklabels([short(title, 46) for title in titles])


def _us_below(axes: Axes, narrow: bool) -> None:
    axes.grid(axis="x")
    axes.tick_params(axis="x", length=0, pad=6)
    axes.locator_params(axis="x", nbins=4 if narrow else 8)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:,g} us" if x else "0")


def waterfall(name: str, label: str, spans: Sequence[Span], wall: float) -> str:
    """A line for each stretch, lane by lane; `wall`: where the connection ends for its client."""
    lanes = list(dict.fromkeys(span.lane for span in spans))
    most = max([wall, *(span.end for span in spans)]) or 1.0
    pitch, head = 23.0, 30.0

    def draw(narrow: bool) -> Figure:
        height = pitch * len(spans) + head * len(lanes)
        drawn = figure(narrow, height + 44)
        axes = place(drawn, 4.0, 4.0, height, right=12.0)
        axes.set_xlim(0, most * 1.01)
        axes.set_ylim(height, 0)
        axes.set_yticks([])
        axes.axvline(wall, color=ink("ink"), linewidth=1.2, linestyle=(0, (4, 3)))
        y = 0.0
        for lane in lanes:
            axes.annotate(short(lane), (0, y + head * 0.62), color=ink("ink"), weight="bold",
                          xycoords=("axes fraction", "data"), va="center")  # fmt: skip
            y += head
            for span in (one for one in spans if one.lane == lane):
                _span(axes, span, y + pitch / 2, most, narrow)
                y += pitch
        _us_below(axes, narrow)
        return drawn

    return picture(name, label, draw)


def _span(axes: Axes, span: Span, y: float, most: float, narrow: bool) -> None:
    """Its name stands where there is room: to the right, or to the left, or on it."""
    axes.barh(y, max(span.end - span.begin, most * 0.003), 15.0, span.begin, color=ink(span.ink))
    text = f"{short(span.title, 24)}  {number(span.end - span.begin)}"
    needs = len(text) * FONT * 0.62 / WIDTHS[narrow] * most
    color, offset, at, side = "ink", 6, span.end, "left"
    if span.end + needs > most:
        offset, at, side = -6, span.begin, "right"
        if span.begin < needs:
            color, at = "paper", min(span.end, most)
    bbox = {"facecolor": ink("paper"), "edgecolor": "none", "pad": 1.0} if color == "ink" else None
    axes.annotate(text, (at, y), (offset, 0), textcoords="offset points", ha=side, va="center",
                  color=ink(color), bbox=bbox)  # fmt: skip
