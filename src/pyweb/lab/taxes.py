"""The two taxes and the residual, from a ladder that was measured with and without stamps.

fork tax         what a connection costs because it gets a process of this interpreter's size:
                 from a C server without fork to the same C, forked from inside CPython
interpreter tax  what it costs because Python runs: from there to pyweb
residual         wall time of a connection of pyweb, less all that is explained

Both taxes in two ways: by wall times without stamps (ladder), and by the stretches of time in
which the server says it did something (stamps). Not here: how they are told.
"""

from __future__ import annotations

from dataclasses import dataclass

from . import statistics
from .ladder import Measured
from .phases import CLIENT, NAMES
from .rungs import PYWEB
from .statistics import Estimate

BASE, FORKED, POOL = "c-serve", "c-loop", "prefork"
# The rungs that are needed, and those of them whose stamps are.
WANTED = (BASE, "c-fork-serve", FORKED, PYWEB, "pyweb again", POOL)
STAMPED = (BASE, FORKED, PYWEB, POOL)
_NOT_THE_SERVERS = (CLIENT, "wake")
_WORK = tuple(name for name in NAMES if name not in _NOT_THE_SERVERS)


@dataclass(frozen=True)
class Tax:
    """us a connection."""

    ladder: Estimate
    stamps: Estimate

    @property
    def agrees(self) -> bool:
        return self.ladder.meets(self.stamps)


@dataclass(frozen=True)
class Taxes:
    """us a connection; `residual` too, and as a share of `wall`. `in_c`: of the fork tax, what a
    small process in C has to pay. `process`: pyweb with a process for each connection, against a
    pool. `phases`: of pyweb, by stamps. `fault`: what a page fault of a child costs, measured
    apart; `faults`, `switches`: how many a child of pyweb has."""

    wall: Estimate
    base: Estimate
    fork: Tax
    in_c: Estimate
    interpreter: Tax
    process: Tax
    residual: Estimate
    share: Estimate
    same: Estimate
    phases: dict[str, Estimate]
    fault: Estimate
    faults: float
    switches: float


def taxes(found: Measured, fault: Estimate) -> Taxes:
    """Of a run that had at least WANTED, with stamps STAMPED. `fault`: see Taxes."""
    left = residuals(found)
    walls = found.walls[PYWEB]
    counts = [one.counts for one in found.stamped[PYWEB]]
    return Taxes(
        wall=found.wall(PYWEB),
        base=found.wall(BASE),
        fork=_tax(found, BASE, FORKED),
        in_c=statistics.difference(found.walls[BASE], found.walls["c-fork-serve"]),
        interpreter=_tax(found, FORKED, PYWEB),
        process=_tax(found, POOL, PYWEB),
        residual=statistics.median(left),
        share=statistics.median([r / w for r, w in zip(left, walls, strict=True)]),
        same=found.same,
        phases=phases_of(found),
        fault=fault,
        faults=statistics.midmean([one["MINOR_FAULTS"] for one in counts]),
        switches=statistics.midmean([one["VOLUNTARY"] + one["INVOLUNTARY"] for one in counts]),
    )


def phases_of(found: Measured) -> dict[str, Estimate]:
    """Of pyweb, by stamps: us."""
    return {name: statistics.median(found.phase(PYWEB, name)) for name in NAMES}


def _tax(found: Measured, a: str, b: str) -> Tax:
    return Tax(
        ladder=statistics.difference(found.walls[a], found.walls[b]),
        stamps=statistics.difference(found.phase(a), found.phase(b)),
    )


def residuals(found: Measured) -> list[float]:
    """By block. Explained is what client and server stamped as their work; and of the time in
    which the server slept and woke, as much as the C server needs that doesn't fork. What pyweb
    sleeps longer nobody explains, nor what the stamps themselves cost or hide."""
    waking = [min(*pair) for pair in zip(found.phase(PYWEB, "wake"), found.phase(BASE, "wake"),
                                         strict=True)]  # fmt: skip
    worked = found.phase(PYWEB, *_WORK, CLIENT)
    walls = found.walls[PYWEB]
    return [wall - work - wake for wall, work, wake in zip(walls, worked, waking, strict=True)]
