"""What a person at a terminal sees: tables and a few lines, and what must be said on top.

Not here: a figure that isn't given. Intervals are of 95 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import statistics
from .ladder import Difference, Measured
from .model import Case, Findings
from .phases import MEANINGS
from .rungs import PYWEB, Rung
from .statistics import QUIET, Estimate, is_quiet
from .taxes import Tax, Taxes
from .throughput import Throughput

NOT_PINNED = "not pinned"
# Of what has no phases, and is meant to be so.
ON_ALL = "servers and load on all CPUs"


def us(found: Estimate | None) -> str:
    """Microseconds, with their interval."""
    if found is None:
        return "-"
    return _shown(found, ".0f" if abs(found.value) >= 100 else ".1f")


def times(found: Estimate) -> str:
    return _shown(found, ".3f")


def percent(found: Estimate) -> str:
    return _shown(found, ".1%")


def _shown(found: Estimate, form: str) -> str:
    """[?]: of so few blocks there is no interval."""
    if not math.isfinite(found.high - found.low):
        return f"{found.value:{form}} [?]"
    return f"{found.value:{form}} [{found.low:{form}}, {found.high:{form}}]"


def on_top(console: Console, facts: Mapping[str, Any], same: Estimate | None, void: Sequence[str],
           missing: Sequence[str]) -> None:  # fmt: skip
    """The machine; and whatever should make the reader doubt."""
    shown = ("cpu", "cpus", "kernel", "python", "pinned")
    console.print(
        " · ".join(f"{facts[k]}" for k in shown if facts.get(k)), highlight=False, soft_wrap=True
    )
    if same is not None:
        console.print(noise(same))
    if facts.get("pinned") == NOT_PINNED:
        console.print(Text(f"{NOT_PINNED}: phases overlap, and say less", style="yellow"))
    for line in void:
        console.print(Text(f"void: {line}", style="bold red"))
    for line in missing:
        console.print(Text(line, style="yellow"))


def noise(same: Estimate, *, of: str = "") -> Text:
    """What an A/A says; `of`: where there are several."""
    verdict = "quiet" if is_quiet(same) else "NOISY: believe no small difference below"
    if not same.is_bounded:
        verdict = "too few blocks to tell"
    low, high = QUIET
    text = f"{of} A/A {times(same)}, may be {low} to {high}: {verdict}".strip()
    return Text(text, style="green" if is_quiet(same) else "bold red")


def rungs_table(found: Measured, rungs: Sequence[Rung]) -> Table:
    table = Table("rung", title="One connection at a time: from one connect to the next")
    for name in ("us", "times pyweb", "faults", "CPU us"):
        table.add_column(name, justify="right")
    for rung in rungs:
        if rung.name not in found.walls:
            continue
        ratio = statistics.ratio(found.walls[PYWEB], found.walls[rung.name])
        told = (_counted(found, rung, word) for word in ("MINOR_FAULTS", "CPU_US"))
        table.add_row(rung.title, us(found.wall(rung.name)), times(ratio), *told)
    return table


def _counted(found: Measured, rung: Rung, word: str) -> str:
    """Of a child, by wait4; nothing where there is none."""
    counts = [one.counts[word] for one in found.stamped.get(rung.name, ()) if word in one.counts]
    return f"{statistics.midmean(counts):.0f}" if counts else ""


def steps_table(found: Sequence[Difference]) -> Table:
    table = Table("one thing more", title="What it costs, in two ways (us a connection)")
    for name in ("ladder", "stamps", "elsewhere", ""):
        table.add_column(name, justify="right")
    for one in found:
        verdict = {True: "agree", False: "DISAGREE", None: ""}[one.agrees]
        style = "red" if one.agrees is False else None
        row = (one.step.item, us(one.ladder), us(one.stamps), us(one.elsewhere), verdict)
        table.add_row(*row, style=style)
    return table


def phases_table(phases: Mapping[str, Estimate]) -> Table:
    table = Table("phase", title="One connection of pyweb, by stamps (us)")
    table.add_column("us", justify="right")
    table.add_column("")
    table.add_column("what")
    whole = sum(one.value for one in phases.values())
    for name, one in phases.items():
        bar = "█" * round(40 * one.value / whole) if whole else ""
        table.add_row(name, us(one), bar, MEANINGS[name])
    return table


def model_lines(found: Findings) -> Iterator[str]:
    """The two lines, in the units of the field: us, and ns each."""
    for name, line, meaning in (
        ("fork", found.fork, "until fork has returned in the parent"),
        ("cycle", found.cycle, "until the child, which exits at once, has been waited for"),
    ):
        yield (
            f"{name:5} = {us(line.a.scaled(1e-3))} us"
            f" + {us(line.b)} ns a mapping + {us(line.c)} ns a private page"
            f" + {us(line.d)} ns a descriptor"
        )
        yield f"        {meaning}; the points miss it by {line.error:.1%}, r2 {line.r2:.3f}"
    for name, hooks in found.hooks.items():
        yield f"os.fork takes {us(hooks.fork.scaled(1e-3))} us longer than a raw fork in {name}"


def cases_table(cases: Sequence[Case]) -> Table:
    table = Table("process", "what", title="Predicted beside measured (us)")
    for name in ("mappings", "pages", "descriptors", "predicted", "measured", "ratio", ""):
        table.add_column(name, justify="right")
    for one in cases:
        sizes = (str(one.mappings), str(one.pages), str(one.descriptors))
        predicted, measured = us(one.predicted.scaled(1e-3)), us(one.measured.scaled(1e-3))
        known = one.predicted.is_bounded and one.measured.is_bounded
        verdict = "OFF" if not one.ok else "as predicted" if known else "too few blocks to tell"
        table.add_row(one.name, one.what, *sizes, predicted, measured, times(one.ratio), verdict)
    return table


def rates_table(found: Throughput) -> Table:
    table = Table("load", title="Requests/s, in turn: times the default server")
    for name in found.servers:
        table.add_column(name, justify="right")
    for load, rates in found.rates.items():
        cells = (_rate(found, load, name) if name in rates else "-" for name in found.servers)
        table.add_row(load, *cells)
    return table


def _rate(found: Throughput, load: str, name: str) -> str:
    rate = f"{found.rate(load, name).value:.0f}"
    ratio = found.ratio(load, name)
    return rate if ratio is None or name == found.servers[0] else f"{rate}, x {times(ratio)}"


def latency_table(found: Throughput) -> Table:
    table = Table("server", title="Latency in an open loop, from the scheduled start (ms)")
    table.add_column("of saturation", justify="right")
    for name in ("p50", "p75", "p90", "p99"):
        table.add_column(name, justify="right")
    for (name, fraction), run in found.latencies.items():
        cells = [us(one.scaled(1e3)) for one in run.values()]
        table.add_row(name, f"{fraction:.0%}", *cells)
    return table


def taxes_lines(found: Taxes) -> Iterator[str]:
    """Ten."""
    wall = found.wall.value
    yield f"wall time of a connection       {us(found.wall)} us: pyweb, mode fork, 1320 bytes"
    yield f"without fork, without Python    {us(found.base)} us: a C server on this machine"
    inside = f"inside CPython: {us(found.inside)}"
    yield f"fork tax          by ladder     {_of(found.fork.ladder, wall)}; {inside}"
    yield f"                  by stamps     {_of(found.fork.stamps, wall)}: {_word(found.fork)}"
    yield f"interpreter tax   by ladder     {_of(found.interpreter.ladder, wall)}"
    yield (
        f"                  by stamps     {_of(found.interpreter.stamps, wall)}:"
        f" {_word(found.interpreter)}"
    )
    yield (
        f"a process each, in pyweb        {us(found.process.ladder)} us more than a pool;"
        f" by stamps {us(found.process.stamps)}: {_word(found.process)}"
    )
    yield (
        f"page faults of the child        {found.faults:.0f} more than in C, {us(found.fault)} us"
        f" each: up to {found.faults * found.fault.value / wall:.0%} of it"
    )
    yield (
        f"from parts measured apart       {us(found.apart)} us: fork in C, pyweb's pool,"
        f" faults; {1 - found.apart.value / wall:.0%} are left"
    )
    yield f"residual                        {us(found.residual)} us, {percent(found.share)} of it"


def _of(part: Estimate, wall: float) -> str:
    return f"{us(part)} us, {part.value / wall:.0%} of it"


def _word(tax: Tax) -> str:
    if tax.agrees is False:
        return f"THEY DISAGREE; waiting changes by {us(tax.hidden)}"
    return "they agree" if tax.agrees else "too few blocks"
