"""The article's own experiment, made again: its two loads by ab, the process limit that ended its
server, and the connection pool that it ends with.

Shell's Home, 2009-10-21: a Python server that forks for each connection answered 70 requests/s of
`ab -n 1000 -c 100`, and died of [Errno 11] under `ab -n 10000 -c 100`; Apache beside it answered
1,264. Here all are measured in turn, on one machine; a run in which a request failed is told, and
has no figure. Not here: how servers are started (guests.py), and how it is told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, TypeVar

from . import limits, statistics, usage
from . import load as loads
from .guests import Guest
from .load import Run, Target
from .peers import AGAIN, APACHE, FORK, PLAIN, PREFORK, THREAD
from .reports import Disturbed, Void
from .run import Failed
from .rungs import NAME, SIZE
from .statistics import Estimate
from .visitors import ANSWERED, Visit, visit

# What the article says, of its own machine: the mean and the longest are of ab's row `Total`.
PUBLISHED = {
    "server": {"about": "ab -n 1000 -c 100, 1320 bytes",
               "rate": 70.48, "mean_ms": 127, "max_ms": 12_332},
    "apache": {"about": "ab -n 10000 -c 1000, 45 bytes",
               "rate": 1263.56, "mean_ms": 263, "max_ms": 7895},
}  # fmt: skip
CONCURRENCY = 100
LOADS = {"ab -n 1000 -c 100": 1000, "ab -n 10000 -c 100": 10_000}
POOL = "a pool of connections"
# Of a pool that a client keeps.
POOLED = 10
_POOL_REQUESTS = {True: 300, False: 2000}
# At the limit: twice as many clients as there may be processes.
PROCESSES = 100
# Until a server has said what it says when it starts.
_SETTLES = 0.5
_VISIT = Visit(count=200, hold=1.0, patience=30.0)

SERVERS = (PLAIN, FORK, AGAIN, PREFORK, THREAD, APACHE)
# Those that keep connections; and those that the limit is tried on.
KEEPING = (FORK, PREFORK, THREAD, APACHE)
LIMITED = (PLAIN, FORK, PREFORK, APACHE)


@dataclass(frozen=True)
class AtLimit:
    """`ends`: how many clients had which end (visitors.py). `alive`: it still ran; `again`: it
    answered one more client afterwards, the limit being lifted. `said`: its last line."""

    ends: Mapping[str, int]
    alive: bool
    again: bool
    said: str


# Starts a server by its name, of a user's processes (None: ours), until the end of the block.
# Failed.
Start = Callable[[str, int | None], AbstractContextManager[Guest]]
Tick = Callable[[str], None]
# What a run gives: one of ab's, or the two of a pool.
R = TypeVar("R")
Answer = dict[str, Any]


@dataclass
class Article:
    """`runs`: load -> server -> block -> what ab said. `kept` and `anew`: server -> block -> us a
    request. `failures`: load -> server -> a line for each run that failed. `missing`: a line for
    each server that does not start. `void`: runs that were disturbed."""

    runs: dict[str, dict[str, dict[int, Run]]] = field(default_factory=dict)
    kept: dict[str, dict[int, float]] = field(default_factory=dict)
    anew: dict[str, dict[int, float]] = field(default_factory=dict)
    failures: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    limit: dict[str, AtLimit] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    @property
    def same(self) -> Estimate | None:
        """A/A; None: there is no block in which both were sound."""
        return next((found for load in self.runs if (found := self.ratio(load, FORK, AGAIN))), None)

    def ratio(self, load: str, a: str, b: str) -> Estimate | None:
        """Of b's requests/s to a's, of the blocks in which both were sound."""
        return statistics.shared_ratio(self._rates(load, a), self._rates(load, b))

    def _rates(self, load: str, server: str) -> dict[int, float]:
        """By block."""
        return {n: run.rate for n, run in self.runs.get(load, {}).get(server, {}).items()}

    def as_data(self) -> Answer:
        """For JSON: an interval is [value, low, high]; requests/s, ms, us."""
        return {
            "aa": statistics.listed(self.same),
            "void": self.void,
            "missing": self.missing,
            "titles": {name: name for name in SERVERS},
            "published": PUBLISHED,
            "loads": {
                load: {"about": _ABOUT, "rows": _rows(SERVERS, partial(self._row, load))}
                for load in LOADS
            },
            "limit": {
                "about": f"{_VISIT.count} clients at once, each of which sends half of its request"
                f" and waits for the others, and no more than {PROCESSES} further processes",
                "processes": PROCESSES,
                "rows": {name: _of_limit(one) for name, one in self.limit.items()},
            },
            "pool": {
                "about": f"{POOLED} clients by ab: their connections are kept (-k), or are new for"
                " each request; wall time a request, whoever of them had it",
                "rows": _rows(KEEPING, self._pool_row),
            },
        }

    def _row(self, load: str, name: str) -> Answer | None:
        """None: it was not tried."""
        runs = list(self.runs.get(load, {}).get(name, {}).values())
        failures = self.failures.get(load, {}).get(name, [])
        if not runs and not failures:
            return None
        return {
            "rate": statistics.median_list([run.rate for run in runs]),
            "ratio": statistics.listed(self.ratio(load, PLAIN, name)),
            "mean_ms": statistics.median_list(
                [1e3 * run.mean for run in runs if run.mean is not None]
            ),
            "max_ms": statistics.median_list([1e3 * run.latency[1.0] for run in runs]),
            "runs": len(runs),
            "failures": failures,
        }

    def _pool_row(self, name: str) -> Answer | None:
        """None: it was not tried."""
        kept, anew = self.kept.get(name, {}), self.anew.get(name, {})
        failures = self.failures.get(POOL, {}).get(name, [])
        if not kept and not anew and not failures:
            return None
        return {
            "kept": statistics.median_list(kept.values()),
            "new": statistics.median_list(anew.values()),
            "ratio": statistics.listed(statistics.shared_ratio(kept, anew)),
            "failures": failures,
        }


def _rows(names: Iterable[str], row: Callable[[str], Answer | None]) -> Answer:
    return {name: found for name in names if (found := row(name))}


_ABOUT = f"the article's load: a connection for each request, {CONCURRENCY} at a time"


def _of_limit(one: AtLimit) -> Answer:
    return {"answered": one.ends.get(ANSWERED, 0), "asked": sum(one.ends.values()),
            "ends": dict(one.ends), "alive": one.alive, "again": one.again,
            "said": one.said}  # fmt: skip


def steps(blocks: int) -> int:
    """How often `measure` ticks."""
    return blocks * (len(SERVERS) + len(KEEPING)) + len(LIMITED)


def measure(start: Start, blocks: int, *, quick: bool, tick: Tick) -> Article:
    """`quick`: of the load of 10,000 requests one run each."""
    found = Article()
    for block in range(blocks):
        for number in statistics.turns(len(SERVERS), block):
            _loads(start, SERVERS[number], found, block, quick)
            tick(SERVERS[number])
        for number in statistics.turns(len(KEEPING), block):
            _pool(start, KEEPING[number], found, block, _POOL_REQUESTS[quick])
            tick(f"{KEEPING[number]}, a pool of connections")
    for name in LIMITED:
        _at_the_limit(start, name, found)
        tick(f"{name}, at its process limit")
    return found


def _loads(start: Start, name: str, found: Article, block: int, quick: bool) -> None:
    for load, requests in LOADS.items():
        if quick and block and requests == max(LOADS.values()):
            continue

        def run(target: Target, requests: int = requests) -> Run:
            return loads.ab(target, requests=requests, concurrency=CONCURRENCY)

        sound = _run(start, name, run, found.failures.setdefault(load, {}), found)
        if sound is not None:
            found.runs.setdefault(load, {}).setdefault(name, {})[block] = sound


def _pool(start: Start, name: str, found: Article, block: int, requests: int) -> None:
    def kept(target: Target) -> Run:
        return loads.ab_kept(target, requests=requests, concurrency=POOLED)

    def anew(target: Target) -> Run:
        return loads.ab(target, requests=requests, concurrency=POOLED)

    def both(target: Target) -> tuple[Run, Run]:
        return kept(target), anew(target)

    sound = _run(start, name, both, found.failures.setdefault(POOL, {}), found)
    if sound is not None:
        for run, times in zip(sound, (found.kept, found.anew), strict=True):
            times.setdefault(name, {})[block] = 1e6 / run.rate


def _run(
    start: Start,
    name: str,
    run: Callable[[Target], R],
    failures: dict[str, list[str]],
    found: Article,
) -> R | None:
    """Of a fresh server. None: it has no figure, and why is noted."""
    started = False
    try:
        with start(name, None) as server:
            started = True
            return run(Target(server.port, f"/{NAME}", SIZE))
    except Disturbed as why:
        found.void.append(f"{name}: {why}")
    except Void as why:
        failures.setdefault(name, []).append(str(why))
    except Failed as why:
        if started:
            failures.setdefault(name, []).append(str(why))
        elif str(why) not in found.missing:
            found.missing.append(str(why))
    return None


def _at_the_limit(start: Start, name: str, found: Article) -> None:
    """A server that dies of it is no failed measurement: that is what is asked."""
    uid = limits.spare_user()
    try:
        with start(name, uid) as server:
            found.limit[name] = _press(server, uid)
    except Failed as why:
        if name not in found.limit:
            found.missing.append(f"at the process limit, {name}: {why}")


def _press(server: Guest, uid: int) -> AtLimit:
    family = server.family()
    time.sleep(_SETTLES)
    before = len(server.said())
    with limits.limited(family, uid, PROCESSES):
        ends = visit(server.port, f"/{NAME}", SIZE, _VISIT)
        alive = usage.lives(family[0])
    again = visit(server.port, f"/{NAME}", SIZE, replace(_VISIT, count=1, hold=0.0))
    said = [server.as_told(line) for line in server.said()[before:]]
    return AtLimit(dict(ends), alive, again[ANSWERED] == 1, said[-1] if said else "")
