"""The fork model's answer as a section: cost against heap size. Not here: how it is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import curves, forms
from .curves import Line
from .forms import Cell, words
from .layout import Section, Table
from .statistics import estimate

Part = Mapping[str, Any]
_PAGES_A_MB = 256  # of 4 KiB
_US = 1e-3
_KINDS = {
    "cycle": "until the child, which exits at once, has been waited for",
    "fork": "until fork has returned in the parent",
}


def section(part: Part | None) -> Section:
    name, title = "model", "What a fork costs, by the size of the heap"
    model = part or {}
    lines = {what: line for what in _KINDS if _coefficients(line := model.get(what) or {})}
    if not lines:
        return Section(name, title, absent="The fork model was not measured.")
    cases = [one for one in (*(model.get("cases") or ()), *(model.get("at_work") or ()))
             if {"what", "mappings", "pages", "descriptors"} <= one.keys()]  # fmt: skip
    # Of whom the line is drawn: mappings and descriptors are held, pages vary.
    typical: Part = next((one for one in cases if one["mappings"] > 0), {})
    held = typical.get("mappings", 0), typical.get("descriptors", 0)
    drawn = [_line(what, line, cases, held) for what, line in lines.items()]
    return Section(
        name, title,
        lead="Lines: the model, fitted to processes in C, for one with"
        f" {held[0]} mappings and {held[1]} descriptors. Marks: interpreters that it was not fitted"
        " to, each with mappings and descriptors of its own. Both axes are logarithmic.",
        picture=curves.lines(name, "Fork cost against heap size", [("", drawn)], y_name="us",
                             x_name="private pages, MB"),
        legend=curves.keys(list(_KINDS.values())),
        tables=tuple(_tables(model, lines, cases)), notes=tuple(_notes(model)),
    )  # fmt: skip


def _coefficients(line: Part) -> bool:
    return all(estimate(line.get(one)) for one in "abcd")


def _line(what: str, line: Part, cases: list[Part], held: tuple[int, int]) -> Line:
    mine = [one for one in cases if one["what"] == what and one["pages"] > 0]
    found = tuple((one["pages"] / _PAGES_A_MB, known.scaled(_US)) for one in mine
                  if (known := estimate(one.get("measured"))))  # fmt: skip
    sizes = [mb for mb, _ in found] or [1.0, 100.0]
    low, high = min(sizes) / 2, max(sizes) * 1.5
    x = tuple(low * (high / low) ** (step / 40) for step in range(41))
    a, b, c, d = (line[one][0] for one in "abcd")
    y = tuple((a + b * held[0] + c * mb * _PAGES_A_MB + d * held[1]) * _US for mb in x)
    return Line(what, list(_KINDS).index(what), x, y, found)


def _tables(model: Part, lines: Mapping[str, Part], cases: list[Part]) -> list[Table]:
    names = {"a": _US, "b": 1.0, "c": 1.0, "d": 1.0}
    rows = tuple(
        (forms.text(_KINDS[what]), *(forms.figure(line[one], by) for one, by in names.items()),
         forms.share(line.get("error")), forms.plain(line.get("r2")))
        for what, line in lines.items()
    )  # fmt: skip
    found = [Table("The model's lines", _OF_LINES, rows)]
    held = tuple(_case(one) for one in (*cases, *(model.get("changes") or ())))
    if held:
        found.append(Table("Predicted beside measured", _OF_CASES, held))
    return found


_OF_LINES = ("what", "always, us", "a mapping, ns", "a private page, ns", "a descriptor, ns",
             "points miss it by", "r2")  # fmt: skip
# The verdict where it is seen, also on a phone.
_OF_CASES = ("process", "until", "verdict", "mappings", "pages", "descriptors", "predicted, us",
             "measured, us", "measured / predicted")  # fmt: skip


def _case(one: Part) -> tuple[Cell, ...]:
    ok = one.get("ok")
    verdict = "" if ok is None else "as predicted" if ok else "off"
    ratio = estimate(one.get("ratio"))
    if ok and ratio and not ratio.is_bounded:
        verdict = "too few blocks to tell"
    return (
        forms.text(one.get("name")), forms.text(one.get("what")),
        forms.text(verdict, bad=ok is False),
        *(forms.plain(one.get(size)) for size in ("mappings", "pages", "descriptors")),
        forms.figure(one.get("predicted"), _US), forms.figure(one.get("measured"), _US),
        forms.figure(one.get("ratio")),
    )  # fmt: skip


def _notes(model: Part) -> list[str]:
    found = []
    for name, hooks in (model.get("hooks") or {}).items():
        if known := estimate((hooks or {}).get("fork")):
            found.append(f"os.fork takes {words(known.scaled(_US), 'us')} longer than a raw fork in"
                         f" {name}.")  # fmt: skip
    return found
