"""The price of a page fault in a child: what it costs that a forked process writes.

After a fork all private pages are shared until one of the two writes: then the kernel copies the
page, and frees the copy when the child is gone. A child that runs Python writes to hundreds (each
object that it looks at has a count of references). How many is in wait4's rusage (ru_minflt); the
price is measured here, by children in C that do nothing else. Not here: what follows.
"""

from __future__ import annotations

from collections.abc import Callable

from . import statistics
from .build import Programs
from .run import output
from .statistics import Estimate

# Of a process like pyweb's master, and what one of its children writes to.
_PAGES, _TOUCHED, _FORKS = 2500, 600, 25
_SECONDS = 60


def price(
    programs: Programs, blocks: int, cpu: int | None, tick: Callable[[str], None]
) -> Estimate:
    """us a fault, from the write to the freeing. CannotBuild, Failed."""
    without: list[float] = []
    touching: list[float] = []
    for block in range(blocks):
        for number in statistics.turns(2, block):
            found = touching if number else without
            found.append(_cycle(programs, _TOUCHED * number, cpu))
        tick("the price of a page fault")
    return statistics.difference(without, touching).scaled(1e-3 / _TOUCHED)


def _cycle(programs: Programs, touched: int, cpu: int | None) -> float:
    """ns from fork to the end of wait4."""
    words = [str(programs.program("touches")), str(_PAGES), str(touched), str(_FORKS)]
    lines = output(words, cpu=cpu, seconds=_SECONDS).splitlines()
    return statistics.midmean([int(line.split()[1]) for line in lines])
