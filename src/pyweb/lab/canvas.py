"""A figure of matplotlib becomes SVG that belongs to a page: its colours, its font, ids of its own.

Colours are words: what is drawn has a stand-in for each, and the SVG has `var(--word)` in its
place, so that one drawing does for light and dark. Text stays text. The same figure is always the
same text. Each picture is drawn twice, for wide and for narrow screens: text that is scaled down
to a phone can't be read. No pyplot: it keeps figures, and looks for a display. Not here: what is
drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# What can be drawn with; the page's style says what they look like.
INKS = ("ink", "faint", "line", "paper", "fork", "process", "books", "serve", "wait")
_STAND_INS = {ink: f"#fe{number:02x}ef" for number, ink in enumerate(INKS)}
# Of lines that are to be told apart, beside their dashes and marks.
SERIES = ("serve", "fork", "books", "process", "wait", "ink")

# Units of the figure: a pixel of a page, as long as it has room.
WIDTHS = {False: 940, True: 350}
FONT = 13
_DPI = 72  # then matplotlib's points are such units too
_LONGEST = 40
_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pyweb",
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.edgecolor": _STAND_INS["line"],
    "axes.labelcolor": _STAND_INS["faint"],
    "axes.titlecolor": _STAND_INS["ink"],
    "grid.color": _STAND_INS["line"],
    "grid.linewidth": 1.0,
    "text.color": _STAND_INS["ink"],
    "xtick.color": _STAND_INS["line"],
    "ytick.color": _STAND_INS["line"],
    "xtick.labelcolor": _STAND_INS["faint"],
    "ytick.labelcolor": _STAND_INS["ink"],
    "hatch.linewidth": 1.0,
    # Names are not ours: a dollar in them is no mathematics.
    "text.parse_math": False,
}

Draw = Callable[[bool], Figure]


def ink(name: str) -> str:
    """What to draw with. KeyError: there is no such ink."""
    return _STAND_INS[name]


def short(text: str, longest: int = _LONGEST) -> str:
    """Fit for a label, whatever somebody has called something."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def figure(narrow: bool, height: float) -> Figure:
    return Figure(figsize=(WIDTHS[narrow] / _DPI, height / _DPI), dpi=_DPI)


def place(
    of: Figure, left: float, top: float, height: float, right: float = 14.0, width: float = 0.0
) -> Axes:
    """Axes at a place in units, from the figure's top left corner; no width: up to `right` from its
    right edge."""
    whole, tall = of.get_size_inches() * _DPI
    wide = width or whole - left - right
    return of.add_axes((left / whole, 1 - (top + height) / tall, wide / whole, height / tall))


def picture(name: str, label: str, draw: Draw) -> str:
    """HTML. `draw`: gives the figure, for a narrow screen or a wide one. `label`: for whoever can't
    see it. `name`: of letters; no other picture on the page has it."""
    shown = [
        f'<div class="{kind}">{_svg(f"{name}-{kind}", label, draw, narrow)}</div>'
        for narrow, kind in ((False, "wide"), (True, "narrow"))
    ]
    return "".join(shown)


def _svg(name: str, label: str, draw: Draw, narrow: bool) -> str:
    buffer = io.StringIO()
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # The page's font has them, or it has not; ours only measures.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        drawn = draw(narrow)
        drawn.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    return _adopted(buffer.getvalue(), name, label)


def _adopted(text: str, name: str, label: str) -> str:
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            # Its style would be the whole page's.
            if child.tag == f"{_SVG}metadata" or (child.tag == f"{_SVG}defs" and _is_style(child)):
                parent.remove(child)
    for one in root.iter():
        _adopt(one, name)
    for unit in ("width", "height", "version"):
        root.attrib.pop(unit, None)
    root.attrib |= {"role": "img", "aria-label": label, "id": name}
    ElementTree.register_namespace("", _SVG.strip("{}"))
    return ElementTree.tostring(root, encoding="unicode")


def _is_style(defs: ElementTree.Element) -> bool:
    return any(child.tag == f"{_SVG}style" for child in defs)


def _adopt(one: ElementTree.Element, name: str) -> None:
    if "id" in one.attrib:
        one.attrib["id"] = f"{name}-{one.attrib['id']}"
    if (target := one.attrib.pop(_HREF, "")).startswith("#"):
        one.attrib["href"] = f"#{name}-{target[1:]}"
    for key, value in one.attrib.items():
        one.attrib[key] = value.replace("url(#", f"url(#{name}-")
    if style := one.attrib.get("style"):
        # Size and weight alone: the family is the page's. How it is said depends on the version.
        style = re.sub(r"font-family: [^;]*;? ?", "", style)
        style = re.sub(r"font: (?:(\d+|bold) )?([\d.]+px)[^;]*", _font, style)
        for word, stand_in in _STAND_INS.items():
            style = style.replace(stand_in, f"var(--{word})")
        one.attrib["style"] = style


def _font(found: re.Match[str]) -> str:
    weight = f"font-weight: {found[1]}; " if found[1] else ""
    return f"{weight}font-size: {found[2]}"
