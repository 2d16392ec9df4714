"""Some servers under one load, at the same time started and in turn loaded: how much each carries,
as a ratio to the first.

What peers.py measures is chosen to tell the whole; this is for one question. Not here: who they
are (rungs.py, peers.py), and what a run must be to count (load.py).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import guests, machine, peers, rungs, servers, statistics, usage
from . import load as loads
from .load import Target
from .reports import Void
from .run import Failed
from .rungs import NAME, Place

LOADS = {
    "ab": "a connection for each request",
    "wrk": "connections that are kept",
    "close": "wrk, a connection for each request",
    "open": "an open loop, at half of what each can carry on one CPU",
}
# Of those, which wrk makes.
BY_WRK = ("wrk", "close")
_FRACTION = 0.5
_OURS = "pyweb"
_RUNGS = {one.name: one for one in (*rungs.LADDER, *rungs.SWITCHES, *rungs.APART)}
# For children that are ending when the load has ended.
_REST = 0.1
# Of clients.
_SHARE = 0.99
# Decisions about files that are so young (s) do not last, which a site's are not (cache.py).
_SETTLED = 3.5
# Files, of which each is to be asked for before, some more than once: so many in a second.
_A_SECOND, _LONGEST = 100, 100.0


@dataclass(frozen=True)
class Load:
    """`concurrency`: clients; in an open loop, those by whom it was found what a server can carry.
    `piece`: bytes of the file that are asked for, first and last; None: the whole. `logs`: servers
    write a line for each request."""

    tool: str
    concurrency: int
    seconds: float
    piece: tuple[int, int] | None = None
    logs: bool = True

    @property
    def is_open(self) -> bool:
        """Servers have a CPU and their client another: where they share them the client is late
        itself."""
        return self.tool == "open"

    @property
    def about(self) -> str:
        asked = f", bytes {self.piece[0]} to {self.piece[1]}" if self.piece else ""
        silent = "" if self.logs else ", no logs"
        return f"{self.tool}, {self.concurrency} at a time: {LOADS[self.tool]}{asked}{silent}"


@dataclass(frozen=True)
class Entrant:
    """`server`: see `is_known`; `place`: what it serves. `name`: in the answer."""

    name: str
    server: str
    place: Place


@dataclass
class _Runner:
    """`family`: pids of all its processes. `carries`: see load.saturation; None: not asked for.
    `client`: the CPU for who loads it; None: any."""

    port: int
    family: Callable[[], list[int]]
    place: Place
    carries: loads.Run | None = None
    client: int | None = None
    turns: int = 0


@dataclass
class Race:
    """`rates` and `cpu`: server -> block -> requests/s, and CPU us a request, of the server's side;
    `waits`: what 99 of 100 clients waited at most (s), where the tool tells. `first`: from its
    start until it had answered for the first time (s). `size`: bytes of an answer's content.
    `failures`: a line for each run that has no figure."""

    size: int
    rates: dict[str, dict[int, float]] = field(default_factory=dict)
    cpu: dict[str, dict[int, float]] = field(default_factory=dict)
    waits: dict[str, dict[int, float]] = field(default_factory=dict)
    first: dict[str, float] = field(default_factory=dict)
    failures: dict[str, list[str]] = field(default_factory=dict)

    def as_data(self, load: Load) -> dict[str, Any]:
        """For JSON: an interval is [value, low, high]; requests/s, us, bytes/s, ms. `ratio` and
        the like: to the first."""
        first = next(iter(self.rates))
        return {
            "about": load.about,
            "size": self.size,
            "rows": {
                name: {
                    "rate": statistics.median_list(rates.values()),
                    "ratio": statistics.listed(statistics.shared_ratio(self.rates[first], rates)),
                    "cpu_us": statistics.median_list(self.cpu[name].values()),
                    "cpu_ratio": statistics.listed(
                        statistics.shared_ratio(self.cpu[first], self.cpu[name])
                    ),
                    "bytes": statistics.median_list([one * self.size for one in rates.values()]),
                    "p99_ms": statistics.median_list(
                        [one * 1000 for one in self.waits.get(name, {}).values()]
                    ),
                    "p99_ratio": statistics.listed(
                        statistics.shared_ratio(self.waits.get(first, {}), self.waits.get(name, {}))
                    ),
                    "first_s": self.first.get(name),
                    "failures": self.failures.get(name, []),
                }
                for name, rates in self.rates.items()
            },
        }


def known() -> list[str]:
    return [*_RUNGS, *peers.BY_NAME]


def is_known(name: str) -> bool:
    return name in known() or name.split()[:1] == [_OURS]


def entrants(place: Place, names: Sequence[str], files: Sequence[int] = ()) -> list[Entrant]:
    """Each server; of several numbers of files, with each."""
    places = [place.of_files(count) if count else place for count in files or (0,)]
    return [
        Entrant(f"{name}, {one.files} files" if one.files else name, name, one)
        for name in names
        for one in places
    ]


@contextlib.contextmanager
def _running(name: str, place: Place, number: int, *, logs: bool) -> Iterator[_Runner]:
    """Failed, build.CannotBuild."""
    if name in peers.BY_NAME:
        workers = len(os.sched_getaffinity(0))
        with guests.running(peers.BY_NAME[name], place, workers, logs=logs) as guest:
            yield _Runner(guest.port, guest.family, place)
        return
    if name in _RUNGS and (logs or _RUNGS[name].is_bare):
        command = _RUNGS[name].command(place)  # pyweb among them, as it is
    elif name in _RUNGS and name != _OURS:
        raise Failed(f"{name}: how its log is turned off is not known here; leave it out")
    else:
        log = str(place.directory / f"access{number}.log") if logs else "off"
        command = rungs.pyweb("--access-log", log, *shlex.split(name)[1:])(place)
    with servers.running(command, cpu=None) as server:
        yield _Runner(server.port, server.family, place)


def measure(
    all_of_them: Sequence[Entrant], load: Load, blocks: int, tick: Callable[[str], None]
) -> Race:
    """Failed, build.CannotBuild: one doesn't start. Missing: the load's tool."""
    size = load.piece[1] - load.piece[0] + 1 if load.piece else all_of_them[0].place.size
    cpus = machine.server_cpu_and_client_cpu() if load.is_open else (None, None)
    names = [one.name for one in all_of_them]
    found = Race(size, {name: {} for name in names}, {name: {} for name in names})
    with contextlib.ExitStack() as stack:
        runners = []
        for number, one in enumerate(all_of_them):
            begin = time.monotonic()
            with machine.pinned(cpus[0]):
                runner = stack.enter_context(
                    _running(one.server, one.place, number, logs=load.logs)
                )
            runner.client = cpus[1]
            runners.append(runner)
            with contextlib.suppress(Void):
                loads.answer(_target(runners[-1], load, size))
                found.first[one.name] = time.monotonic() - begin
        if any(one.place.files for one in all_of_them):
            time.sleep(_SETTLED)
        for runner in runners:
            _warm(runner, load, size)
        if load.is_open:
            loads.await_rest()
        for block in range(blocks):
            for number in statistics.turns(len(names), block):
                _take_turn(runners[number], names[number], load, block, found)
                tick(names[number])
    return found


def _warm(one: _Runner, load: Load, size: int) -> None:
    """What is done once is done before."""
    with contextlib.suppress(Void):
        if load.is_open:
            target = _target(one, load, size)
            one.carries = loads.saturation(target, concurrency=load.concurrency)
        else:
            _run(one, load, size, 1 + min(one.place.files / _A_SECOND, _LONGEST))


def _take_turn(one: _Runner, name: str, load: Load, block: int, found: Race) -> None:
    before = usage.cpu_seconds(one.family())
    try:
        run = _run(one, load, found.size, load.seconds)
    except Void as why:
        found.failures.setdefault(name, []).append(str(why))
        return
    time.sleep(_REST)
    used = usage.cpu_seconds(one.family()) - before
    found.rates[name][block] = run.rate
    # Of the smallest there is no measure: a tick is 10 ms where children are waited for.
    found.cpu[name][block] = max(used, 1e-9) * 1e6 / (run.rate * run.seconds)
    if run.latency.get(_SHARE):  # ab tells whole ms, of which 0 says nothing
        found.waits.setdefault(name, {})[block] = run.latency[_SHARE]


def _target(one: _Runner, load: Load, size: int) -> Target:
    launcher, files = machine.launcher(one.client), one.place.files
    return Target(one.port, f"/{NAME}", size, launcher, piece=load.piece, files=files)


def _run(one: _Runner, load: Load, size: int, seconds: float) -> loads.Run:
    """Missing, Void, build.CannotBuild."""
    target = _target(one, load, size)
    if load.tool == "ab":
        return loads.ab_for(target, seconds=seconds, concurrency=load.concurrency)
    if load.tool == "wrk":
        return loads.wrk(target, seconds=seconds, concurrency=load.concurrency)
    if load.tool == "close":
        return loads.wrk_closing(target, seconds=seconds, concurrency=load.concurrency)
    if one.carries is None:
        raise Void("it is not known what it can carry")
    program = one.place.programs.program("openloop")
    one.turns += 1
    return loads.latency_at(
        _FRACTION, one.carries, target, program, seconds=seconds, seed=one.turns
    )
