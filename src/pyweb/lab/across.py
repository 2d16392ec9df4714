"""A ladder over several interpreters: in each block each rung has its turn with each of them, one
after the other, so what a block suffers they all suffer; rungs without an interpreter run once.

Not here: which interpreters there are, and what a reader is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from . import statistics
from .build import CannotBuild
from .ladder import Measured, Plan, Seat, measure_in_turn
from .rungs import AGAIN, LADDER, PYWEB, Place, Rung
from .statistics import Estimate

# Of rungs without an interpreter.
_BARE = ""
_WITHOUT_INTERPRETER = {one.name for one in LADDER if one.is_bare}


def seats(
    places: Mapping[str, Place], bare: Place, rungs: Sequence[Rung], missing: list[str]
) -> list[Seat]:
    """`places`: by the name of the interpreter; `bare`: where rungs without one are run. `missing`
    hears of interpreters for which no extension can be built."""
    found = {name: Measured() for name in places}
    alone = Measured()
    without = set(_without_headers(places, missing))
    taken = []
    for rung in rungs:
        if rung.is_bare:
            taken.append(Seat(rung, bare, alone, _BARE))
        else:
            able = [name for name in places if not (rung.is_inside and name in without)]
            taken += [Seat(rung, places[name], found[name], name) for name in able]
    return taken


def _without_headers(places: Mapping[str, Place], missing: list[str]) -> Iterator[str]:
    for name, place in places.items():
        try:
            place.programs.extension("rung")
        except CannotBuild as why:
            missing.append(f"{name}: {why} (what can't be measured: C inside it, and its taxes)")
            yield name


def measure(
    plan: Plan, taken: Sequence[Seat], stamped: Sequence[str], tick: Callable[[str], None]
) -> dict[str, Measured]:
    """By interpreter, each with the rungs that have none. One whose pyweb can't be measured is in
    it, without it (`has_pyweb`). Failed: there is no other. CannotBuild."""
    measure_in_turn(plan, taken, stamped, tick)
    found = {one.label: one.found for one in taken if one.label != _BARE}
    for alone in (one.found for one in taken if one.label == _BARE):
        for each in found.values():
            each.walls = alone.walls | each.walls
            each.stamped = alone.stamped | each.stamped
    return found


def void(taken: Sequence[Seat]) -> list[str]:
    """Of all of them; once each."""
    by_place = {id(one.found): one.found.void for one in taken}
    return [line for lines in by_place.values() for line in lines]


def has_pyweb(found: Measured) -> bool:
    return {PYWEB, AGAIN} <= found.walls.keys()


def ratios(found: Mapping[str, Measured]) -> dict[str, dict[str, Estimate]]:
    """rung -> interpreter -> its wall time / that of the first, block by block."""
    first, *others = found
    return {
        rung: {
            name: statistics.ratio(base, found[name].walls[rung])
            for name in others
            if rung in found[name].walls
        }
        for rung, base in found[first].walls.items()
        if rung not in _WITHOUT_INTERPRETER
    }
