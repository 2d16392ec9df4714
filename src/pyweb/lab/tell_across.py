"""What a person sees of a ladder over several interpreters. Not here: a figure that isn't given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table

from .ladder import Measured
from .rungs import Rung
from .statistics import Estimate
from .tell import times, us


def table(
    found: Mapping[str, Measured],
    ratios: Mapping[str, Mapping[str, Estimate]],
    rungs: Sequence[Rung],
) -> Table:
    """A rung x interpreter: us, and times the first; of rungs without an interpreter us alone."""
    first = next(iter(found))
    made = Table("rung", title=f"One connection at a time, us; in turn: times {first}")
    for name in found:
        made.add_column(name, justify="right")
    for rung in rungs:
        cells = [_cell(found, ratios, rung, name) for name in found]
        if any(cells):
            made.add_row(rung.title, *cells)
    return made


def _cell(
    found: Mapping[str, Measured],
    ratios: Mapping[str, Mapping[str, Estimate]],
    rung: Rung,
    name: str,
) -> str:
    is_first = name == next(iter(found))
    if rung.name not in found[name].walls or (rung.is_bare and not is_first):
        return ""
    wall = us(found[name].wall(rung.name))
    ratio = ratios.get(rung.name, {}).get(name)
    return wall if ratio is None else f"{wall}\nx {times(ratio)}"
