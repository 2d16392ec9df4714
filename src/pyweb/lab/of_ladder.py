"""The ladder's answer as sections: the taxes, one connection, all rungs, and what each step costs.

Whatever is not in the answer is told in its section. Not here: how it is drawn and written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import curves, forms, plots
from .forms import Cell, number, percent, words
from .layout import Key, Section, Table
from .phases import CLIENT, MEANINGS, NAMES
from .plots import Bar, Span
from .rungs import PYWEB
from .statistics import estimate, midmean

# Phases in a handful of groups: (ink, its name, which).
GROUPS = (
    ("fork", "fork(2)", ("fork",)),
    ("process", "the process begins and ends", ("start", "exit", "reap")),
    ("books", "accept, and the master's books", ("accept", "admit", "books", "round")),
    ("serve", "serving", ("prepare", "parse", "open", "decide", "send", "log", "leave")),
    ("wait", "client and waiting", ("wake", CLIENT)),
)
LEGEND = tuple(Key(ink, title) for ink, title, _ in GROUPS)
_INK_OF = {name: ink for ink, _, names in GROUPS for name in names}
_ABSENT = "The ladder was not measured."

Part = Mapping[str, Any]


def sections(part: Part | None) -> list[Section]:
    ladder = part or {}
    return [_taxes(ladder), _connection(ladder), _rungs(ladder), _steps(ladder)]


def _taxes(ladder: Part) -> Section:
    name, title = "taxes", "The two taxes, and what is left"
    sums = ladder.get("taxes") or {}
    wall, base = estimate(sums.get("wall")), estimate(sums.get("base"))
    if wall is None:
        why = _ABSENT if not ladder else "No taxes: the ladder lacks a rung that they need."
        return Section(name, title, absent=why)
    residual = estimate(sums.get("residual"))
    start = (("process", base.value),) if base else ()
    bars = []
    for how in ("ladder", "stamps"):
        fork, python = (estimate((sums.get(tax) or {}).get(how)) for tax in _TAXES)
        if fork and python:
            bars.append(Bar(f"by {how}", (*start, ("fork", fork.value), ("serve", python.value))))
    if residual:
        bars.append(Bar("all stretches that stamps name", (("books", wall.value - residual.value),),
                        note=f"residual {number(residual.value)}"))  # fmt: skip
    if apart := estimate(sums.get("from_parts")):
        bars.append(Bar("from parts measured apart", (("wait", apart.value),)))
    picture = plots.stacked(
        name, "Two taxes as parts of a connection's time", [bars], line=wall.value
    )
    return Section(
        name, title, picture=picture if bars else "",
        lead="One connection at a time. The dashed line is the wall time of a connection of pyweb"
        " in mode fork; the taxes lead up to it in two ways that know nothing of each other.",
        legend=(Key("process", "a C server that does not fork"), Key("fork", "fork tax"),
                Key("serve", "interpreter tax"), Key("books", "named by stamps"),
                Key("wait", "from parts measured apart")),
        tables=(_taxes_table(sums, wall.value),),
        notes=tuple(_notes(sums)),
    )  # fmt: skip


_TAXES = {"fork": "fork tax", "interpreter": "interpreter tax"}
_PROCESS = {"process": "a process for each connection, against pyweb's pool"}
_ALONE = {
    "base": "a C server that does not fork",
    "fork_inside": "fork of C from inside CPython",
    "residual": "residual: what no stretch names",
    "from_parts": "the whole, from parts measured apart",
}


def _taxes_table(sums: Part, wall: float) -> Table:
    rows = [(forms.text("wall time of a connection"), forms.figure(sums.get("wall")),
             forms.share(1.0), forms.figure(None), forms.text(""))]  # fmt: skip
    for key, title in (_TAXES | _PROCESS).items():
        tax = sums.get(key) or {}
        rows.append((forms.text(title), forms.figure(tax.get("ladder")),
                     _share(tax.get("ladder"), wall), forms.figure(tax.get("stamps")),
                     verdict(tax.get("agrees"))))  # fmt: skip
    for key, title in _ALONE.items():
        part = _share(sums.get(key), wall)
        # As the headline has it: the median of shares is not the share of medians.
        if key == "residual" and (of_blocks := estimate(sums.get("residual_share"))):
            part = forms.share(of_blocks.value)
        rows.append((forms.text(title), forms.figure(sums.get(key)), part, forms.figure(None),
                     forms.text("")))  # fmt: skip
    heads = ("what", "by ladder, us", "of the wall time", "by stamps, us", "do they agree")
    return Table("The taxes, us a connection, with intervals of 95 %", heads, tuple(rows))


def _share(listed: forms.Listed, wall: float) -> Cell:
    found = estimate(listed)
    return forms.share(found.value / wall if found and wall else None)


def verdict(agrees: bool | None) -> Cell:
    """None: it can't be said."""
    if agrees is None:
        return forms.text("too few blocks to tell")
    return forms.text("they agree" if agrees else "they disagree", bad=not agrees)


def _notes(sums: Part) -> list[str]:
    found = []
    for key, title in _TAXES.items():
        tax = sums.get(key) or {}
        if tax.get("agrees") is False:
            hidden = words(estimate(tax.get("hidden")), "us")
            found.append(f"The two ways disagree about the {title}: by stamps, time spent waiting"
                         f" changes by {hidden}.")  # fmt: skip
    faults, each = sums.get("minor_faults"), estimate(sums.get("fault"))
    if faults is not None and each:
        found.append(f"A child of pyweb has {number(faults)} page faults more than one in C, at"
                     f" {words(each, 'us')} each.")  # fmt: skip
    return found


def _connection(ladder: Part) -> Section:
    name, title = "connection", "One connection of median length"
    connection = ladder.get("connection") or {}
    stretches = [one for one in connection.get("stretches") or ()
                 if {"who", "phase", "begin", "end"} <= one.keys()]  # fmt: skip
    if not stretches:
        why = "No single connection was kept." if ladder else _ABSENT
        return Section(name, title, absent=why)
    spans = [
        Span(one["who"], one["phase"], "wait" if one["who"] == "client"
             else _INK_OF.get(one["phase"], "wait"), one["begin"], one["end"])
        for one in sorted(stretches, key=lambda one: _LANES.get(one["who"], 9))
    ]  # fmt: skip
    wall = connection.get("wall") or 0.0
    rows = tuple(
        (forms.text(one["who"]), forms.text(one["phase"]), forms.text(one.get("what")),
         forms.plain(one["begin"]), forms.plain(one["end"]),
         forms.plain(one["end"] - one["begin"]))
        for one in stretches
    )  # fmt: skip
    table = Table("Every stretch of it, us since connect(2)",
                  ("who", "phase", "what", "begin", "end", "us"), rows)  # fmt: skip
    return Section(
        name, title,
        lead=f"{number(wall)} us from its client's connect(2) until it saw the end (dashed)."
        " Client, master and child on one clock; on a CPU that two share, a stretch has what the"
        " other did meanwhile.",
        picture=plots.waterfall(name, "A waterfall of one connection", spans, wall),
        legend=LEGEND, tables=(table,),
    )  # fmt: skip


_LANES = {"client": 0, "master": 1, "child": 2}


def _rungs(ladder: Part) -> Section:
    name, title = "rungs", "Where a connection's time goes, rung by rung"
    walls = ladder.get("rungs") or {}
    if not walls:
        return Section(name, title, absent=_ABSENT)
    phases = (ladder.get("blocks") or {}).get("phases") or {}
    titles = ladder.get("titles") or {}
    bars, rows, missing = [], [], []
    for rung, listed in walls.items():
        wall = estimate(listed)
        means = _means(phases.get(rung) or ())
        if not means:
            missing.append(titles.get(rung, rung))
        sums = [sum(means.get(one, 0.0) for one in names) for _, _, names in GROUPS]
        parts = tuple(zip((ink for ink, _, _ in GROUPS), sums, strict=True))
        mark, note = (wall.value, number(wall.value)) if wall else (None, "")
        bars.append(Bar(titles.get(rung, rung), parts, mark, note))
        cells = [forms.plain(us if means else None) for us in sums]
        rows.append((forms.text(titles.get(rung, rung)), forms.figure(listed), *cells))
    heads = ("rung", "wall time by ladder, us", *(f"{title}, us" for _, title, _ in GROUPS))
    notes = [f"Without stamps: {', '.join(missing)}."] if missing else []
    return Section(
        name, title,
        lead="Each rung has one thing more than another. Bars: what the stamps say. The upright"
        " mark and the number: wall time, from servers that keep no stamps. Short and long ones"
        " have a scale each.",
        picture=plots.stacked(name, "Wall time and phases of each rung", _panels(bars)),
        legend=LEGEND,
        tables=(Table("All rungs, us a connection", heads, tuple(rows)), *_phases(ladder)),
        notes=tuple(notes),
    )  # fmt: skip


def _means(blocks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for block in blocks for name in block)
    return {name: midmean([block.get(name, 0.0) for block in blocks]) for name in names}


def _panels(bars: Sequence[Bar]) -> list[list[Bar]]:
    """Those that would be specks beside the longest have a scale of their own."""
    limit = max(bar.end for bar in bars) / 6
    small = [bar for bar in bars if bar.end < limit]
    return [small, [bar for bar in bars if bar.end >= limit]]


def _phases(ladder: Part) -> list[Table]:
    found = (ladder.get("taxes") or {}).get("phases") or {}
    if not found:
        return []
    group = {name: title for _, title, names in GROUPS for name in names}
    rows = tuple(
        (forms.text(name), forms.text(MEANINGS.get(name, "")), forms.text(group.get(name, "")),
         forms.figure(found[name]))
        for name in NAMES if name in found
    )  # fmt: skip
    heads = ("phase", "what", "group", "us")
    return [Table("Every phase of pyweb, mode fork, by stamps", heads, rows)]


def _steps(ladder: Part) -> Section:
    name, title = "steps", "What one thing more costs"
    steps = [one for one in ladder.get("steps") or () if "item" in one]
    if not steps:
        return Section(name, title, absent="No steps were measured." if ladder else _ABSENT)
    rows = [
        curves.Dots(one["item"], (estimate(one.get("ladder")), estimate(one.get("stamps"))))
        for one in steps
    ]
    cells = tuple(
        (forms.text(one["item"]), forms.text(one.get("from")), forms.text(one.get("to")),
         forms.figure(one.get("ladder")), forms.figure(one.get("stamps")),
         forms.figure(one.get("elsewhere")), verdict(one.get("agrees"))
         if one.get("stamps") else forms.text(""))
        for one in steps
    )  # fmt: skip
    heads = ("one thing more", "from", "to", "by ladder, us", "by stamps, us", "elsewhere, us",
             "do they agree")  # fmt: skip
    return Section(
        name, title,
        lead="The difference of two rungs that differ in one thing; with intervals of 95 %, by wall"
        " times and by stamps. The axis is linear up to 100 us, then"
        " logarithmic.",
        picture=curves.dots(name, "Cost of each step", rows, scale="symlog", line=0.0, unit=" us"),
        legend=curves.keys(["by ladder", "by stamps"]),
        tables=(Table("Each step, us a connection", heads, cells),),
    )  # fmt: skip


def headline(part: Part | None) -> str:
    """The main finding, in a sentence."""
    sums = (part or {}).get("taxes") or {}
    wall = estimate(sums.get("wall"))
    if wall is None:
        return "What a connection costs was not measured."
    said = [f"A connection of {PYWEB} takes {number(wall.value)} us"]
    parts: list[str] = []
    for key, title in _TAXES.items():
        if tax := estimate((sums.get(key) or {}).get("ladder")):
            verb = "" if parts else "is "
            parts.append(f"{percent(tax.value / wall.value)} {verb}the {title}")
    if share := estimate(sums.get("residual_share")):
        parts.append(f"nothing explains {percent(share.value)}")
    return f"{': '.join([*said, ', '.join(parts)]) if parts else said[0]}."
