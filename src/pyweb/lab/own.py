"""The model held against pyweb's own master: what its size says of its forks, and what they took.

A real server with stamps, one connection after the other. The stamps are around os.fork, so the
prediction is that of a raw fork of this size and what os.fork takes longer (model.Hooks). Not
here: the model.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass

from .. import procfs, stamps
from . import statistics
from .ladder import Plan, drive
from .model import Case, Findings
from .rungs import PYWEB, Place, Rung, pyweb
from .servers import running
from .statistics import Estimate

NAME = "pyweb's master, at work"


@dataclass(frozen=True)
class Size:
    """What a fork copies tables for."""

    mappings: int
    pages: int
    descriptors: int


def size_of(pid: int) -> Size:
    """OSError: it is gone."""
    private = procfs.memory(pid)[1] // _PAGE
    return Size(procfs.mappings(pid), private, len(procfs.descriptors(pid)))


_PAGE = os.sysconf("SC_PAGESIZE")


def hold(
    place: Place, plan: Plan, findings: Findings, hooks: Estimate, tick: Callable[[str], None]
) -> Case:
    """A fork of it, in ns, predicted and measured. Failed, OSError."""
    rung = Rung(PYWEB, "pyweb", pyweb())
    sizes, times = [], []
    for _ in range(plan.blocks):
        tick(NAME)
        with running(rung.command(place), cpu=plan.servers, with_stamps=True) as server:
            drive(place, plan, rung, server)
            sizes.append(size_of(server.master()))
            times.append(_fork_ns(server.records()))
    size = sizes[len(sizes) // 2]
    line = findings.fork.predict(size.mappings, size.pages, size.descriptors)
    predicted = plus(line, hooks)
    ratio = statistics.ratio([predicted.value] * len(times), times)
    measured = statistics.median(times)
    return Case(NAME, "fork", size.mappings, size.pages, size.descriptors, predicted, measured,
                ratio)  # fmt: skip


def _fork_ns(records: list[tuple[int, ...]]) -> float:
    """Until it has returned in the parent."""
    forks = [one for one in records if one[stamps.FORK_END]]
    return statistics.midmean([one[stamps.FORK_END] - one[stamps.FORK_BEGIN] for one in forks])


def plus(a: Estimate, b: Estimate) -> Estimate:
    """Of two that don't know of each other."""
    value = a.value + b.value
    low = value - math.hypot(a.value - a.low, b.value - b.low)
    return Estimate(value, low, value + math.hypot(a.high - a.value, b.high - b.value))
