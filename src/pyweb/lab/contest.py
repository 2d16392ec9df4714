"""pyweb and its peers under the same loads, in turn: rates, CPU time and memory.

In each block each server is started anew, and has its turn; the next block goes backwards. What is
compared is always of the same block. A run in which a request failed has no figure: it is noted,
with its numbers, and nobody's run is made again until it is good. Servers and the load share all
CPUs, as they do where one tries a server out. Not here: which servers there are (peers.py), and
words for people.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import guests, statistics, tools
from . import load as loads
from .build import CannotBuild
from .guards import SHARES
from .guests import Guest
from .load import OpenRun, Run, Target
from .peers import AGAIN, FORK, PREFORK, PREFORK_AGAIN, Peer
from .reports import Disturbed, Void
from .run import Failed
from .rungs import NAME, SIZE, Place
from .statistics import Estimate

CLOSING, KEPT = "ab", "wrk"
REFERENCES = {CLOSING: FORK, KEPT: PREFORK}
_AGAIN = {CLOSING: AGAIN, KEPT: PREFORK_AGAIN}
CONCURRENCY = 50
ABOUT = {
    CLOSING: f"a connection for each request, {CONCURRENCY} at a time",
    KEPT: f"{CONCURRENCY} connections that are kept",
}
# Of what a server has just carried.
FRACTION = 0.5
_SECONDS = {True: 0.5, False: 2.0}
# For children that are ending when the load has ended.
_REST = 0.1


@dataclass(frozen=True)
class Taken:
    """What a sound run took: requests/s, CPU time a request, memory of all processes halfway;
    None: it may not be looked at."""

    rate: float
    cpu_us: float
    memory_kb: float | None


@dataclass
class Contest:
    """`runs`: load -> server -> block. `failures`: load -> server -> a line for each run that
    failed. `void`: runs that were disturbed, by nobody's fault. `waits`: server -> latencies of
    each open loop. `told`: server -> what it is and was told. `missing`: a line for each that does
    not start."""

    runs: dict[str, dict[str, dict[int, Taken]]] = field(default_factory=dict)
    failures: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    waits: dict[str, list[Mapping[float, float]]] = field(default_factory=dict)
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    def values(self, load: str, server: str, what: str) -> dict[int, float]:
        """By block."""
        taken = self.runs.get(load, {}).get(server, {})
        found = {block: getattr(one, what) for block, one in taken.items()}
        return {block: value for block, value in found.items() if value is not None}

    def ratio(self, load: str, server: str) -> Estimate | None:
        """Of its requests/s to the reference's; None: there is no block in which both were
        sound."""
        return statistics.shared_ratio(
            self.values(load, REFERENCES[load], "rate"), self.values(load, server, "rate")
        )

    def last_rate(self, server: str) -> float | None:
        """Requests/s that it carried of late, a connection for each."""
        known = self.values(CLOSING, server, "rate")
        return known[max(known)] if known else None

    @property
    def same(self) -> Estimate | None:
        """A/A of the load in which it is worse."""
        known = [one for load in _AGAIN if (one := self.ratio(load, _AGAIN[load]))]
        return max(known, key=lambda one: abs(math.log(one.value)), default=None)

    def as_data(self) -> dict[str, Any]:
        """For JSON: an interval is [value, low, high]; requests/s, us, kB, seconds."""
        return {
            "aa": statistics.listed(self.same),
            "void": self.void,
            "missing": self.missing,
            "peers": list(self.told.values()),
            "loads": {load: {"about": ABOUT[load], "reference": REFERENCES[load],
                             "rows": dict(self._rows(load))} for load in ABOUT},
            "latencies": [
                {"server": server, "of_saturation": FRACTION}
                | {f"p{share * 100:g}": statistics.median([one[share] for one in each]).as_list()
                   for share in SHARES}
                for server, each in self.waits.items()
            ],
            "blocks": {load: {server: {str(block): vars(one) for block, one in blocks.items()}
                              for server, blocks in each.items()}
                       for load, each in self.runs.items()},
        }  # fmt: skip

    def _rows(self, load: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Of all that were tried, in the order in which they are told."""
        for server in self.told:
            if server not in self.runs.get(load, {}):
                continue
            runs = self.runs[load][server]
            failures = self.failures.get(load, {}).get(server, [])
            row: dict[str, Any] = {
                what: statistics.median_list(self.values(load, server, what).values())
                for what in ("rate", "cpu_us", "memory_kb")
            }
            row["ratio"] = statistics.listed(self.ratio(load, server))
            yield server, row | {"runs": len(runs), "failures": failures}


def setting(workers: int) -> list[str]:
    """What is equal, a line each."""
    return [
        f"each server on 127.0.0.1, with a file of {SIZE} bytes, in turn, started anew each time",
        f"{workers} workers where there are workers: one for each CPU; the load runs on these too",
        f"{CONCURRENCY} clients; a line in a log for each request; a backlog of 2048 if it can be"
        " told",
        "else as each server's documentation advises; its configuration is shown",
    ]


def steps(peers: Sequence[Peer], blocks: int) -> int:
    """How often `measure` ticks."""
    return sum(peer.find() is not None for peer in peers) * blocks


def measure(
    place: Place,
    peers: Sequence[Peer],
    blocks: int,
    *,
    quick: bool,
    tick: Callable[[str], None],
) -> Contest:
    """`quick`: without the open loop. Missing: no ab. Without wrk its load is left out."""
    found = Contest()
    program = None if quick else _openloop(place, found)
    here = [peer for peer in peers if peer.find()]
    found.missing += [peer.missing for peer in peers if peer not in here]
    if not shutil.which("wrk"):
        found.missing += tools.missing(["wrk"])
    found.told = {peer.name: _told(peer) for peer in here}
    for block in range(blocks):
        for number in statistics.turns(len(here), block):
            _take_turn(place, here[number], found, block, _SECONDS[quick], program)
            tick(here[number].name)
    found.told = {name: one for name, one in found.told.items() if "command" in one}
    return found


def _openloop(place: Place, found: Contest) -> Path | None:
    try:
        return place.programs.program("openloop")
    except CannotBuild as why:
        found.missing.append(f"{why} (what can't be measured: latencies)")
        return None


def _told(peer: Peer) -> dict[str, Any]:
    return {"name": peer.name, "title": peer.name, "version": guests.version(peer),
            "process": peer.process, "notes": list(peer.notes)}  # fmt: skip


def _take_turn(
    place: Place, peer: Peer, found: Contest, block: int, seconds: float, program: Path | None
) -> None:
    started = False
    try:
        with guests.running(peer, place, len(os.sched_getaffinity(0))) as guest:
            started = True
            _describe(found.told[peer.name], guest)
            carried = _loads(peer, guest, found, block, seconds)
            if program and carried and peer.name not in _AGAIN.values():
                _wait(peer, guest, found, block, carried, program, seconds)
    except Failed as why:
        if started:
            _drop(peer.name, str(why), found, block)
        elif str(why) not in found.missing:
            found.missing.append(str(why))


def _drop(name: str, why: str, found: Contest, block: int) -> None:
    """Of a server that has ended by itself, or had to be killed, no figure of this block counts."""
    for load, each in found.runs.items():
        if each.get(name, {}).pop(block, None):
            found.failures.setdefault(load, {}).setdefault(name, []).append(why)


def _describe(told: dict[str, Any], guest: Guest) -> None:
    """Once: what differs from block to block is a port."""
    if "command" in told:
        return
    told["command"] = guest.command
    told["configuration"] = guest.configuration
    told["notes"] += head_notes(guest.head)


def head_notes(head: bytes) -> list[str]:
    """What an answer lacks beside others."""
    lacking = [
        f"sends no {name}"
        for name in ("Date", "Last-Modified", "ETag")
        if not re.search(rf"\r\n{name}:".encode(), head, re.IGNORECASE)
    ]
    version = head[:8].decode("latin-1")
    return lacking + ([f"answers with {version}"] if version != "HTTP/1.1" else [])


def _loads(peer: Peer, guest: Guest, found: Contest, block: int, seconds: float) -> Run | None:
    """What it carried with a connection for each request; None: not soundly."""
    target = Target(guest.port, f"/{NAME}", SIZE)
    runs: dict[str, Callable[[], Run]] = {
        CLOSING: lambda: loads.ab_for(
            target, seconds=seconds, concurrency=CONCURRENCY, rate=found.last_rate(peer.name)
        ),
    }
    if peer.keeps and shutil.which("wrk"):
        runs[KEPT] = lambda: loads.wrk(target, seconds=seconds, concurrency=CONCURRENCY)
    carried = None
    for load, run in runs.items():
        found.runs.setdefault(load, {}).setdefault(peer.name, {})
        try:
            done, taken = _taken(run, guest, seconds)
        except Disturbed as why:
            found.void.append(f"{peer.name}, {load}: {why}")
            continue
        except Void as why:
            found.failures.setdefault(load, {}).setdefault(peer.name, []).append(str(why))
            continue
        found.runs[load][peer.name][block] = taken
        carried = done if load == CLOSING else carried
    return carried


def _taken(run: Callable[[], Run], guest: Guest, seconds: float) -> tuple[Run, Taken]:
    """Void."""
    memory: list[int | None] = []
    halfway = threading.Timer(seconds / 2, lambda: memory.append(guest.memory()))
    before = guest.cpu_seconds()
    halfway.start()
    try:
        done = run()
    finally:
        halfway.cancel()
        halfway.join()
    time.sleep(_REST)
    used = guest.cpu_seconds() - before
    pss = memory[0] if memory else guest.memory()
    kb = None if pss is None else pss / 1024
    return done, Taken(done.rate, used * 1e6 / done.requests, kb)


def _wait(
    peer: Peer,
    guest: Guest,
    found: Contest,
    block: int,
    carried: Run,
    program: Path,
    seconds: float,
) -> None:
    """At a share of what it has just carried; other arrivals in each block."""
    target = Target(guest.port, f"/{NAME}", SIZE)

    def run() -> OpenRun:
        return loads.latency_at(FRACTION, carried, target, program, seconds=seconds, seed=block + 1)

    try:
        latency = run().latency
    except Void as why:
        found.void.append(f"{peer.name}, open loop: {why}")
    else:
        found.waits.setdefault(peer.name, []).append(latency)
