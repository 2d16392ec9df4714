"""The two taxes and the residual, from a ladder that was measured with and without stamps.

fork tax         what a connection costs because it gets a process: from a C server without fork to
                 one that forks
interpreter tax  what it costs because Python runs, or is forked: from there to pyweb
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

BASE, FORKED, POOL = "c-serve", "c-fork-serve", "prefork"
# The C of FORKED, forked from inside CPython: what pyweb's children cost before there was a zygote.
INSIDE = "c-loop"
# The rungs that are needed, and those of them whose stamps are.
WANTED = (BASE, FORKED, INSIDE, PYWEB, "pyweb again", POOL)
STAMPED = (BASE, FORKED, PYWEB, POOL)
_NOT_THE_SERVERS = (CLIENT, "wake")
_WORK = tuple(name for name in NAMES if name not in _NOT_THE_SERVERS)


@dataclass(frozen=True)
class Tax:
    """us a connection. `hidden`: by how much more client and server wait, by stamps: below 0, work
    goes on where they had waited, and is cheaper by the ladder than it is."""

    ladder: Estimate
    stamps: Estimate
    hidden: Estimate

    @property
    def agrees(self) -> bool | None:
        """None: it can't be said."""
        if not (self.ladder.is_bounded and self.stamps.is_bounded):
            return None
        return self.ladder.meets(self.stamps)


@dataclass(frozen=True)
class Taxes:
    """us a connection; `residual` too, and as a share of `wall`. `inside`: the fork tax of C that
    is forked from inside CPython. `process`: pyweb with a process for each connection, against a
    pool. `phases`: of pyweb, by stamps. `fault`: what a page fault of a child costs, measured
    apart; `faults`: how many more a child of pyweb has than one in C; `switches`: of the CPU.
    `apart`: `wall`, made up of parts that were measured without pyweb's forks."""

    wall: Estimate
    base: Estimate
    fork: Tax
    inside: Estimate
    interpreter: Tax
    process: Tax
    residual: Estimate
    share: Estimate
    same: Estimate
    phases: dict[str, Estimate]
    fault: Estimate
    apart: Estimate
    faults: float
    switches: float


def taxes(found: Measured, fault: Estimate) -> Taxes:
    """Of a run that had at least WANTED, with stamps STAMPED. `fault`: see Taxes."""
    left = residuals(found)
    walls = found.walls[PYWEB]
    counts = [one.counts for one in found.stamped[PYWEB]]
    in_c = [one.counts for one in found.stamped[FORKED]]
    more = _faults(counts) - _faults(in_c)
    return Taxes(
        wall=found.wall(PYWEB),
        base=found.wall(BASE),
        fork=_tax(found, BASE, FORKED),
        inside=statistics.difference(found.walls[BASE], found.walls[INSIDE]),
        interpreter=_tax(found, FORKED, PYWEB),
        process=_tax(found, POOL, PYWEB),
        residual=statistics.median(left),
        share=statistics.median([r / w for r, w in zip(left, walls, strict=True)]),
        same=found.same,
        phases=phases_of(found),
        fault=fault,
        apart=statistics.median(_apart(found, fault.value * more)),
        faults=more,
        switches=statistics.midmean([one["VOLUNTARY"] + one["INVOLUNTARY"] for one in counts]),
    )


def phases_of(found: Measured) -> dict[str, Estimate]:
    """Of pyweb, by stamps: us."""
    return {name: statistics.median(found.phase(PYWEB, name)) for name in NAMES}


def _faults(counts: list[dict[str, float]]) -> float:
    return statistics.midmean([one["MINOR_FAULTS"] for one in counts])


def _apart(found: Measured, faults: float) -> list[float]:
    """By block: the fork, in C; what a pool does; and what page faults make it cost in a new
    process. What is missing: Python's accept loop, the way to the zygote, and whatever else is
    slower in a process that is new."""
    walls = (found.walls[name] for name in (FORKED, POOL, BASE))
    return [fork + pool - base + faults for fork, pool, base in zip(*walls, strict=True)]


def _tax(found: Measured, a: str, b: str) -> Tax:
    return Tax(
        ladder=statistics.difference(found.walls[a], found.walls[b]),
        stamps=statistics.difference(found.phase(a, *_WORK), found.phase(b, *_WORK)),
        hidden=statistics.difference(
            found.phase(a, *_NOT_THE_SERVERS), found.phase(b, *_NOT_THE_SERVERS)
        ),
    )


def residuals(found: Measured) -> list[float]:
    """By block: the wall time without stamps, less all stretches of time that the stamps name; of
    those in which the server slept and woke, only as much as the C server needs that doesn't fork.
    So it has what the stamps cost (then it is below 0), and what they don't see. That a stretch
    has a name doesn't tell why it is so long: for that there is `Taxes.apart`."""
    waking = [min(*pair) for pair in zip(found.phase(PYWEB, "wake"), found.phase(BASE, "wake"),
                                         strict=True)]  # fmt: skip
    worked = found.phase(PYWEB, *_WORK, CLIENT)
    walls = found.walls[PYWEB]
    return [wall - work - wake for wall, work, wake in zip(walls, worked, waking, strict=True)]
