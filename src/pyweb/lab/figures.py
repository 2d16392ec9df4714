"""The figures of an answer, as `--json` wrote it: what a comparison can lay beside another's.

A report has parts, and a ladder over several interpreters has one for each: a Section is what has
an A/A of its own. Here are the names of the fields and their units, so a command that gets a new
figure gets a line here. Not here: files, what differs, and whether that can be said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import statistics
from .statistics import Estimate

Data = Mapping[str, Any]

US, NS, MS, RATE, TIMES, KB, COUNT = "us", "ns", "ms", "req/s", "x", "kB", "each"
# The default server's rung and load: others are given in units of it.
_PYWEB, _DEFAULT = "pyweb", "fork"
_LEAST, _MOST = 1e-30, 1e30


class NotAnAnswer(Exception):
    """Not what pyweb-lab writes: a line that says what is wrong."""


@dataclass(frozen=True)
class Figure:
    """`made_of`: how large what it was made of is, in the same unit: a difference of two wall
    times has their noise, not its own. `is_timed`: what disturbs times disturbs it. `is_inside`: a
    ratio of two that took turns, so a part of what a machine is has gone out of it."""

    group: str
    name: str
    unit: str
    estimate: Estimate
    made_of: float
    is_timed: bool = True
    is_inside: bool = False

    @property
    def key(self) -> tuple[str, str]:
        return self.group, self.name


@dataclass(frozen=True)
class Section:
    """`name`: empty where an answer is all of one piece. `same`: its A/A; None: it has none."""

    name: str
    same: Estimate | None
    figures: tuple[Figure, ...]


def sections(answer: Data) -> list[Section]:
    """NotAnAnswer: it is of no command that has figures, or has another shape."""
    try:
        return list(_sections("", str(answer["command"]), answer))
    except (LookupError, TypeError, AttributeError, ValueError):
        # What is wrong with the shape of a file is told as one thing, wherever it shows.
        raise NotAnAnswer("its figures are not as pyweb-lab --json writes them") from None


def _sections(name: str, command: str, answer: Data) -> Iterator[Section]:
    if command == "report":
        for part, one in answer["parts"].items():
            yield from _sections(_under(name, part), part, one)
    elif command == "ladder" and "interpreters" in answer:
        for version, one in answer["interpreters"].items():
            yield from _sections(_under(name, version), command, one)
    elif command in _FIGURES:
        yield Section(name, estimate(answer.get("aa")), tuple(_FIGURES[command](answer)))
    elif not name:
        raise NotAnAnswer(f"there is nothing to compare in an answer of {command!r}")


def _under(name: str, part: str) -> str:
    return f"{name}, {part}" if name else part


def estimate(data: Any) -> Estimate | None:
    """Of [value, low, high]; None: null. TypeError, ValueError: it is neither."""
    if data is None:
        return None
    value, low, high = data
    if not all(end is None or _is_number(end) for end in (low, high)) or not _is_number(value):
        raise TypeError("no estimate")
    return statistics.estimate(data)


def _is_number(value: Any) -> bool:
    """One that can be measured: beyond these their ratios would overflow."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return value == 0 or _LEAST < abs(value) < _MOST


def _figure(group: str, name: str, unit: str, data: Any, *, scale: float = 1.0,
            made_of: float | None = None, is_timed: bool = True,
            is_inside: bool = False) -> Iterator[Figure]:  # fmt: skip
    """None where it is null. `made_of` in the unit of the data, as `scale` is times it."""
    found = estimate(data)
    if found is not None:
        scaled = found.scaled(scale)
        whole = abs(scaled.value) if made_of is None else made_of * scale
        yield Figure(group, name, unit, scaled, whole, is_timed, is_inside)


# Of each command.


def _of_ladder(answer: Data) -> Iterator[Figure]:
    rungs = answer["rungs"]
    for name, one in rungs.items():
        yield from _figure("rungs", name, US, one)
    for step in answer.get("steps", ()):
        whole = max(rungs[step[end]][0] for end in ("from", "to"))
        yield from _figure("steps", step["item"], US, step["ladder"], made_of=whole)
    if taxes := answer.get("taxes"):
        yield from _of_taxes(taxes)
    yield from _rungs_by_pyweb(answer)


_TAXES = (("fork", "fork tax"), ("interpreter", "interpreter tax"), ("process", "a process each"))
_PARTS = (
    ("fork_inside", "fork tax of C inside CPython"),
    ("from_parts", "from parts measured apart"),
    ("residual", "residual"),
)


def _of_taxes(taxes: Data) -> Iterator[Figure]:
    wall = taxes["wall"][0]
    for key, name in _TAXES:
        for way in ("ladder", "stamps"):
            yield from _figure("taxes", f"{name}, by {way}", US, taxes[key][way], made_of=wall)
    for key, name in _PARTS:
        if key in taxes:
            yield from _figure("taxes", name, US, taxes[key], made_of=wall)
    yield from _figure("taxes", "a page fault of a child", US, taxes["fault"])
    for key, name in (("minor_faults", "page faults"), ("context_switches", "context switches")):
        yield from _figure("taxes", name, COUNT, [taxes[key], None, None], is_timed=False)
    for name, one in taxes["phases"].items():
        yield from _figure("phases of pyweb", name, US, one)


def _rungs_by_pyweb(answer: Data) -> Iterator[Figure]:
    """Block by block, so that what a block suffered goes out."""
    walls = answer.get("blocks", {}).get("walls", {})
    for name, wall in walls.items():
        if name != _PYWEB and _PYWEB in walls:
            ratio = statistics.ratio(walls[_PYWEB], wall)
            yield Figure("rungs, in units of pyweb", name, TIMES, ratio, ratio.value,
                         is_inside=True)  # fmt: skip


def _of_model(answer: Data) -> Iterator[Figure]:
    """Which is in ns."""
    for what in ("fork", "cycle"):
        line = answer[what]
        yield from _figure(f"model of a {what}", "at least", US, line["a"], scale=1e-3)
        for key, name in (("b", "a mapping"), ("c", "a private page"), ("d", "a descriptor")):
            yield from _figure(f"model of a {what}", name, NS, line[key])
    for kind in ("cases", "changes", "at_work"):
        for case in answer.get(kind, ()):
            name = f"{case['name']}, {case['what']}"
            yield from _figure("processes, measured", name, US, case["measured"], scale=1e-3)
            yield from _figure("measured / predicted", name, TIMES, case["ratio"], is_inside=True)
    for name, hooks in answer.get("hooks", {}).items():
        yield from _figure("os.fork beyond a raw fork", name, US, hooks["fork"], scale=1e-3)


def _of_load(answer: Data) -> Iterator[Figure]:
    for load, rates in answer["rates"].items():
        for server, one in rates.items():
            yield from _figure("requests/s", f"{load}, {server}", RATE, one)
    yield from _latencies(answer)
    for load, rates in answer.get("blocks", {}).items():
        yield from _rates_by_default(load, rates)


def _rates_by_default(load: str, rates: Data) -> Iterator[Figure]:
    """Of the blocks in which both were sound."""
    default = rates.get(_DEFAULT, {})
    for server, each in rates.items():
        both = sorted(default.keys() & each.keys(), key=int)
        if server != _DEFAULT and both:
            ratio = statistics.ratio([default[n] for n in both], [each[n] for n in both])
            yield Figure(f"requests/s, in units of {_DEFAULT}", f"{load}, {server}", TIMES, ratio,
                         ratio.value, is_inside=True)  # fmt: skip


def _latencies(answer: Data) -> Iterator[Figure]:
    for one in answer.get("latencies", ()):
        where = f"{one['server']} at {one['of_saturation']:.0%}"
        for key in sorted(one.keys() - {"server", "of_saturation"}):
            yield from _figure("latency", f"{where}, {key}", MS, one[key], scale=1e3)


def _of_peers(answer: Data) -> Iterator[Figure]:
    for load, found in answer["loads"].items():
        for peer, row in found["rows"].items():
            name = f"{load}, {peer}"
            yield from _figure("requests/s", name, RATE, row.get("rate"))
            if peer != found.get("reference"):
                yield from _figure("requests/s, in units of the reference", name, TIMES,
                                   row.get("ratio"), is_inside=True)  # fmt: skip
            yield from _figure("CPU a request", name, US, row.get("cpu_us"))
            yield from _figure("memory", name, KB, row.get("memory_kb"), is_timed=False)
    yield from _latencies(answer)


def _of_article(answer: Data) -> Iterator[Figure]:
    for load, found in answer["loads"].items():
        for server, row in found["rows"].items():
            name = f"{load}, {server}"
            yield from _figure("requests/s", name, RATE, row.get("rate"))
            yield from _figure("requests/s, in units of the article's kind", name, TIMES,
                               row.get("ratio"), is_inside=True)  # fmt: skip
            yield from _figure("a request, mean", name, MS, row.get("mean_ms"))
            yield from _figure("a request, the longest", name, MS, row.get("max_ms"))
    for server, row in answer.get("pool", {}).get("rows", {}).items():
        yield from _figure("pool, a request", f"{server}, kept", US, row.get("kept"))
        yield from _figure("pool, a request", f"{server}, new", US, row.get("new"))
        yield from _figure("pool, new / kept", server, TIMES, row.get("ratio"), is_inside=True)


_FIGURES = {
    "ladder": _of_ladder,
    "taxes": _of_ladder,
    "model": _of_model,
    "load": _of_load,
    "peers": _of_peers,
    "article": _of_article,
}
