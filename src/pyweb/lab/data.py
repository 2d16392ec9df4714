"""What was measured, as plain data for JSON: each estimate is [value, low, high], times in us.

null: not known. Not here: what it means.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .ladder import Difference, Measured
from .rungs import Rung
from .statistics import Estimate, listed
from .taxes import Tax, Taxes


def as_json(answer: Mapping[str, Any]) -> str:
    """ValueError: a number that JSON has not."""
    return json.dumps(answer, indent=1, allow_nan=False) + "\n"


def of_ladder(
    found: Measured, differences: Sequence[Difference], rungs: Sequence[Rung]
) -> dict[str, Any]:
    """By rung and step; `blocks` has what all estimates were made of."""
    return {
        "aa": found.same.as_list(),
        "void": found.void,
        "titles": {rung.name: rung.title for rung in rungs if rung.name in found.walls},
        "rungs": {name: found.wall(name).as_list() for name in found.walls},
        "connection": found.connection.as_data() if found.connection else None,
        "steps": [_of_difference(one) for one in differences],
        "blocks": {
            "walls": found.walls,
            "phases": {n: [one.phases for one in each] for n, each in found.stamped.items()},
            "elapsed": {n: [one.elapsed for one in each] for n, each in found.stamped.items()},
            "counts": {n: [one.counts for one in each] for n, each in found.stamped.items()},
        },
    }


def _of_difference(one: Difference) -> dict[str, Any]:
    return {
        "item": one.step.item,
        "from": one.step.a,
        "to": one.step.b,
        "ladder": one.ladder.as_list(),
        "stamps": listed(one.stamps),
        "elsewhere": listed(one.elsewhere),
        "agrees": one.agrees,
    }


def of_ratios(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    """rung -> interpreter -> its wall time, times the first interpreter's."""
    return {rung: {name: one.as_list() for name, one in each.items()}
            for rung, each in found.items()}  # fmt: skip


def of_taxes(found: Taxes) -> dict[str, Any]:
    return {
        "wall": found.wall.as_list(),
        "base": found.base.as_list(),
        "fork": _of_tax(found.fork),
        "fork_inside": found.inside.as_list(),
        "interpreter": _of_tax(found.interpreter),
        "process": _of_tax(found.process),
        "residual": found.residual.as_list(),
        "residual_share": found.share.as_list(),
        "phases": {name: one.as_list() for name, one in found.phases.items()},
        "fault": found.fault.as_list(),
        "from_parts": found.apart.as_list(),
        "minor_faults": found.faults,
        "context_switches": found.switches,
    }


def _of_tax(one: Tax) -> dict[str, Any]:
    return {
        "ladder": one.ladder.as_list(),
        "stamps": one.stamps.as_list(),
        "hidden": one.hidden.as_list(),
        "agrees": one.agrees,
    }
