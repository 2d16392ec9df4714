"""The experiment behind the fork model: which processes are measured, and the model held against
others.

Fitted (fit.py) on synthetic processes (c/forks.c) whose mappings, private pages and descriptors
vary together: each pair of levels of two of them comes once, so that none is taken for another.
Held against interpreters (heaps.py): a small one, one like pyweb's master, and heaps of Python
objects; and what os.fork takes longer than a raw fork in the same process.

A block is a fresh process of each kind; the order of a block is that of the one before, backwards.
All times are ns. `fork`: until it has returned in the parent; `cycle`: until the child, which exits
at once, has been waited for. Not here: words for people.
"""

from __future__ import annotations

import itertools
import random
import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import heaps, machine, statistics
from .build import CannotBuild, Programs
from .fit import Model, Point, fit
from .run import Failed, output
from .statistics import Estimate

__all__ = ["Case", "Failed", "Findings", "Hooks", "Model", "measure"]

# Levels, from the lowest to the highest. What a master could have, and far beyond.
_MAPPINGS = {True: (0, 100, 600), False: (0, 60, 250, 1000)}
_PAGES = {True: (0, 3000, 25_600), False: (0, 2500, 25_000, 300_000)}
_DESCRIPTORS = {True: (0, 200, 1200), False: (0, 100, 400, 1600)}
_BLOCKS = {True: 6, False: 8}
# Of pages, where there is no memory for the highest.
_MODEST = 50_000
# What 1 GB needs: the process, its children's page tables, and room for everybody else.
_MEMORY_FOR_1_GB = 2500 << 20
# A process may need so many for itself.
_OWN_DESCRIPTORS = 32
# As long as one process may take; they end far sooner.
_LIMIT = 120.0

# As spawn.py starts a master.
_BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from pyweb.lab.heaps import main; main(sys.argv[2:])"
)
_PACKAGE = str(Path(__file__).parent.parent.parent)
# Of two sorts of forks in heaps.py.
_RAW, _PYTHON = "raw", "python"
# Of a master that has more than another: only the difference is held against the model.
_PLANTED = {
    heaps.LARGE: f"pyweb's master, {heaps.PLANTED_MB} MB more",
    heaps.OPEN: f"pyweb's master, {heaps.PLANTED_DESCRIPTORS} descriptors more",
}
# The same once more: what differs is noise.
_AGAIN = "pyweb's master, again"
_WITH_HOOKS = (heaps.SMALL, heaps.MASTER)

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Case:
    """The model held against a process. `what`: fork or cycle. `ratio`: measured / predicted, block
    by block: what favours a block favours both."""

    name: str
    what: str
    mappings: int
    pages: int
    descriptors: int
    predicted: Estimate
    measured: Estimate
    ratio: Estimate

    @property
    def ok(self) -> bool:
        return self.predicted.meets(self.measured)

    def as_data(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "what": self.what,
            "mappings": self.mappings,
            "pages": self.pages,
            "descriptors": self.descriptors,
            "predicted": self.predicted.as_list(),
            "measured": self.measured.as_list(),
            "ratio": self.ratio.as_list(),
            "ok": self.ok,
        }


@dataclass(frozen=True)
class Hooks:
    """os.fork minus raw fork in the same process (ns): until it has returned in the parent, and
    with os._exit and os.waitpid."""

    fork: Estimate
    cycle: Estimate

    def as_data(self) -> dict[str, list[float | None]]:
        return {"fork": self.fork.as_list(), "cycle": self.cycle.as_list()}


@dataclass(frozen=True)
class Findings:
    """`hooks`: by the name of the process, of those that are small: of a large heap they would be
    the difference of two large numbers. `skipped`: a line for each that was not measured.
    `same`: A/A, a cycle of pyweb's master against the same once more; None: not measured."""

    fork: Model
    cycle: Model
    cases: tuple[Case, ...]
    changes: tuple[Case, ...]
    hooks: dict[str, Hooks]
    skipped: tuple[str, ...]
    same: Estimate | None

    def as_data(self) -> dict[str, Any]:
        """For JSON; an interval is [value, low, high]."""
        return {
            "unit": "ns",
            "fork": self.fork.as_data(),
            "cycle": self.cycle.as_data(),
            "cases": [case.as_data() for case in self.cases],
            "aa": self.same.as_list() if self.same else None,
            "changes": [case.as_data() for case in self.changes],
            "hooks": {name: hooks.as_data() for name, hooks in self.hooks.items()},
            "skipped": list(self.skipped),
        }


@dataclass(frozen=True)
class _Job:
    """A process to be measured: `size` of a synthetic one (mappings, pages, descriptors), or
    `heap`, what heaps.py shall be."""

    name: str
    count: int
    size: tuple[int, int, int] = (0, 0, 0)
    heap: str = ""

    def command(self, programs: Programs) -> list[str]:
        """build.CannotBuild."""
        if not self.heap:
            return [str(programs.program("forks")), *map(str, self.size), str(self.count)]
        where = programs.extension("cycles").parent
        python = [sys.executable, "-P", "-S", "-c", _BOOT, _PACKAGE]
        return [*python, str(where), self.heap, str(self.count)]


@dataclass(frozen=True)
class _Run:
    """What a process told: its size, and midmeans of (fork, cycle) by the sort of fork."""

    size: tuple[int, int, int]
    means: dict[str, tuple[float, float]]


def steps(*, quick: bool) -> int:
    """How often `measure` ticks."""
    return len(_jobs(quick)) * _BLOCKS[quick]


def measure(programs: Programs, *, quick: bool, tick: Tick, cpu: int | None) -> Findings:
    """Quick: half a minute; else some 2 minutes, on a loaded machine up to 4. `tick`: called before
    each process, with its name. build.CannotBuild, Failed."""
    jobs, skipped = _jobs(quick), _skipped(quick)
    try:
        programs.extension("cycles")
    except CannotBuild as why:
        skipped.append(f"all interpreters: {why}")
        jobs = [job for job in jobs if not job.heap]
    runs = _all(jobs, programs, _BLOCKS[quick], tick, cpu)
    synthetic = [runs[job] for job in jobs if not job.heap]
    models = {what: fit([_point(one, i) for one in synthetic]) for i, what in _KINDS}
    by_heap = {job.heap: runs[job] for job in jobs if job.name != _AGAIN}
    again = [runs[job] for job in jobs if job.name == _AGAIN]
    held = {job.name: runs[job] for job in sorted(jobs, key=lambda job: _order(job.heap))
            if job.heap in by_heap and job.heap not in _PLANTED and job.name != _AGAIN
            and job.heap}  # fmt: skip
    return Findings(
        fork=models["fork"],
        cycle=models["cycle"],
        cases=tuple(_case(name, what, i, models[what], found)
                    for name, found in held.items() for i, what in _KINDS),
        changes=tuple(_change(more, i, what, models[what], by_heap)
                      for more in _PLANTED if more in by_heap for i, what in _KINDS),
        hooks={job.name: _hooks(runs[job]) for job in jobs
               if job.heap in _WITH_HOOKS and job.name != _AGAIN},
        skipped=tuple(skipped),
        same=statistics.ratio(_times(by_heap[heaps.MASTER], 1), _times(again[0], 1))
        if again else None,
    )  # fmt: skip


# The two times of a fork, in the order in which processes tell them.
_KINDS = ((0, "fork"), (1, "cycle"))


def _jobs(quick: bool) -> list[_Job]:
    """Shuffled, so that no level has one half of a block to itself; always the same."""
    found = [_Job(_name(size), _count(size[1]), size=size) for size in design(quick)]
    found.append(_Job("a small interpreter", 40, heap=heaps.SMALL))
    found.append(_Job("pyweb's master", 40, heap=heaps.MASTER))
    found.append(_Job(_AGAIN, 40, heap=heaps.MASTER))
    found += [_Job(name, 40, heap=heap) for heap, name in _PLANTED.items()]
    found.append(_Job("a heap of 100 MB", 12, heap="100"))
    if not quick and _has_memory():
        found.append(_Job("a heap of 1 GB", 6, heap="1000"))
    random.Random(1).shuffle(found)
    return found


def _order(heap: str) -> int:
    """Of the cases: the smallest first."""
    return int(heap) if heap.isdigit() else (heap == heaps.MASTER)


def _skipped(quick: bool) -> list[str]:
    if quick or _has_memory():
        return []
    available = machine.available_memory() >> 20
    return [f"a heap of 1 GB: {_MEMORY_FOR_1_GB >> 20} MB must be available, {available} MB are"]


def _has_memory() -> bool:
    return machine.available_memory() >= _MEMORY_FOR_1_GB


def design(quick: bool) -> list[tuple[int, int, int]]:
    """Mappings, pages and descriptors to be added to each synthetic process.

    A Graeco-Latin half: two factors in full, and of the third the level that stands in a Latin
    square, which is not the diagonal one: there, without pages, descriptors would grow as mappings
    do. And each factor alone at its highest but one (of cheap ones, to its highest).
    """
    mappings, pages, descriptors = _MAPPINGS[quick], _pages(quick), _descriptors(quick)
    size = len(mappings)
    found = [
        (mappings[i], pages[j], descriptors[_latin(i, j, size)])
        for i, j in itertools.product(range(size), repeat=2)
    ]
    alone = [(mappings[-1], 0, 0), (0, pages[-2], 0), (0, 0, descriptors[-1])]
    return found + [one for one in alone if one not in found]


def _latin(i: int, j: int, size: int) -> int:
    """3: 2i + j in the integers modulo 3. 4: the same, 2i + j, in the field of four elements."""
    return (2 * i + j) % 3 if size == 3 else (0, 2, 3, 1)[i] ^ j


def _pages(quick: bool) -> tuple[int, ...]:
    levels = _PAGES[quick]
    return levels if quick or _has_memory() else (*levels[:-1], _MODEST)


def _descriptors(quick: bool) -> tuple[int, ...]:
    """As many as the system allows, at most."""
    levels = _DESCRIPTORS[quick]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard == resource.RLIM_INFINITY or hard >= levels[-1] + _OWN_DESCRIPTORS:
        return levels
    room = max(hard - _OWN_DESCRIPTORS, 0)
    return tuple(level * room // levels[-1] for level in levels)


def _count(pages: int) -> int:
    """Forks of a process: of the large ones few, for they take long, and differ less."""
    return max(8, min(100, 600_000 // (pages + 6000)))


def _name(size: tuple[int, int, int]) -> str:
    return "{} mappings, {} pages, {} descriptors".format(*size)


def _all(
    jobs: Sequence[_Job], programs: Programs, blocks: int, tick: Tick, cpu: int | None
) -> dict[_Job, list[_Run]]:
    """Of each job a run for each block."""
    commands = [job.command(programs) for job in jobs]
    found: dict[_Job, list[_Run]] = {job: [] for job in jobs}
    for block in range(blocks):
        for place in statistics.turns(len(jobs), block):
            tick(jobs[place].name)
            found[jobs[place]].append(_read(output(commands[place], cpu=cpu, seconds=_LIMIT)))
    return found


def _read(text: str) -> _Run:
    """Of c/forks.c, whose forks are all raw, or of heaps.py."""
    first, *rest = text.splitlines()
    mappings, pages, descriptors = map(int, first.split())
    cycles: dict[str, list[tuple[int, int]]] = {}
    for line in rest:
        *sort, forked, waited = line.split()
        cycles.setdefault(sort[0] if sort else _RAW, []).append((int(forked), int(waited)))
    means = {sort: _midmeans(pairs) for sort, pairs in cycles.items()}
    return _Run((mappings, pages, descriptors), means)


def _midmeans(pairs: list[tuple[int, int]]) -> tuple[float, float]:
    forked, waited = zip(*pairs, strict=True)
    return statistics.midmean(forked), statistics.midmean(waited)


def _point(runs: list[_Run], kind: int) -> Point:
    return Point(*_size(runs), _times(runs, kind))


def _size(runs: list[_Run]) -> tuple[int, int, int]:
    """It hardly differs from block to block: by what the heap of an interpreter happens to be."""
    told = zip(*(run.size for run in runs), strict=True)
    mappings, pages, descriptors = (sorted(counts)[len(runs) // 2] for counts in told)
    return mappings, pages, descriptors


def _times(runs: list[_Run], kind: int, sort: str = _RAW) -> tuple[float, ...]:
    return tuple(run.means[sort][kind] for run in runs)


def _case(name: str, what: str, kind: int, model: Model, runs: list[_Run]) -> Case:
    size, times = _size(runs), _times(runs, kind)
    return Case(
        name,
        what,
        *size,
        predicted=model.predict(*size),
        measured=statistics.median(times),
        ratio=statistics.ratio(model.predict_by_block(*size), times),
    )


def _change(more: str, kind: int, what: str, model: Model, by_heap: dict[str, list[_Run]]) -> Case:
    """What was planted, as the model would have it and as it was measured; the numbers are those
    of the change."""
    plain, planted = by_heap[heaps.MASTER], by_heap[more]
    pairs = zip(_size(plain), _size(planted), strict=True)
    mappings, pages, descriptors = (after - before for before, after in pairs)
    predicted = model.predict_change(mappings=mappings, pages=pages, descriptors=descriptors)
    measured = statistics.difference(_times(plain, kind), _times(planted, kind))
    return Case(
        _PLANTED[more], what, mappings, pages, descriptors, predicted, measured,
        measured.scaled(1 / predicted.value),
    )  # fmt: skip


def _hooks(runs: list[_Run]) -> Hooks:
    fork, cycle = (
        statistics.difference(_times(runs, kind), _times(runs, kind, _PYTHON)) for kind, _ in _KINDS
    )
    return Hooks(fork, cycle)
