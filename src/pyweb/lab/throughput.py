"""pyweb's modes under load: requests/s by ab and wrk (closed loops), and latencies in an open loop.

In each block each server is started anew and has all loads; the next block goes through the
servers backwards. The default server is there twice (A/A). All processes of a server are on one
CPU, and the client on another: where they share them, a generator of load is late itself. So
figures are those of one core. A load that stays void is left out of its block, and said so.
Not here: the loads and their guards (load.py), and words for people.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from . import load as loads
from . import machine, statistics
from .build import CannotBuild
from .guards import SHARES
from .ladder import Plan
from .load import Target
from .reports import Void
from .rungs import NAME, SIZE, Place, pyweb
from .servers import running
from .statistics import Estimate

DEFAULT, AGAIN = "fork", "fork again"
SERVERS = {
    DEFAULT: (),
    AGAIN: (),
    "prefork": ("--mode", "prefork"),
    "thread": ("--mode", "thread"),
}
# Of what saturates: from half on a queue begins to show.
FRACTIONS = {True: (0.5,), False: (0.5, 0.7)}
_SECONDS = {True: 0.5, False: 3.0}


@dataclass
class Throughput:
    """`rates`: load -> server -> requests/s by block. `latencies`: (server, share of its
    saturation) -> share of requests -> seconds. `void`: runs that were thrown out, and why.
    `saturated`: server -> what it carried last."""

    rates: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    waits: dict[tuple[str, float], list[dict[float, float]]] = field(default_factory=dict)
    void: list[str] = field(default_factory=list)
    saturated: dict[str, loads.Run] = field(default_factory=dict)

    @property
    def servers(self) -> list[str]:
        return list(SERVERS)

    def rate(self, load: str, server: str) -> Estimate:
        return statistics.median(list(self.rates[load][server].values()))

    def ratio(self, load: str, server: str) -> Estimate | None:
        """Of the blocks in which both were sound; None: there are none."""
        rates = self.rates[load]
        return statistics.shared_ratio(rates.get(DEFAULT, {}), rates.get(server, {}))

    @property
    def same(self) -> Estimate | None:
        """Of the first load that both had; None: there was none."""
        known = (self.ratio(load, AGAIN) for load in self.rates)
        return next((one for one in known if one is not None), None)

    @property
    def latencies(self) -> dict[tuple[str, float], dict[float, Estimate]]:
        return {
            key: {s: statistics.median([one[s] for one in runs]) for s in SHARES}
            for key, runs in self.waits.items()
        }

    def as_data(self) -> dict[str, Any]:
        """For JSON: an interval is [value, low, high]; requests/s and seconds."""
        return {
            "aa": self.same.as_list() if self.same else None,
            "void": self.void,
            "rates": {
                load: {one: self.rate(load, one).as_list() for one in rates}
                for load, rates in self.rates.items()
            },
            "latencies": [
                {"server": name, "of_saturation": fraction}
                | {f"p{share * 100:g}": one.as_list() for share, one in each.items()}
                for (name, fraction), each in self.latencies.items()
            ],
            "blocks": self.rates,
        }


def steps(plan: Plan) -> int:
    return plan.blocks * len(SERVERS)


def measure(place: Place, plan: Plan, *, quick: bool, tick: Callable[[str], None]) -> Throughput:
    """Failed, Void, CannotBuild. A load whose tool is missing is left out."""
    found = Throughput()
    names = list(SERVERS)
    for block in range(plan.blocks):
        for number in statistics.turns(len(names), block):
            _take_turn(place, plan, names[number], quick, found, block)
            tick(names[number])
    return found


def _take_turn(
    place: Place, plan: Plan, name: str, quick: bool, found: Throughput, block: int
) -> None:
    command = pyweb(*SERVERS[name])(place)
    with running(command, cpu=plan.servers) as server:
        target = Target(server.port, f"/{NAME}", SIZE, machine.launcher(plan.client))
        for load, run in _loads(target, quick).items():
            if sound := _insist(run, f"{name}, {load}", found):
                found.rates.setdefault(load, {}).setdefault(name, {})[block] = sound.rate
        if name != AGAIN:
            _wait(place, target, name, quick, found, block)


R = TypeVar("R", bound=loads.Run)


def _insist(run: Callable[[], R], what: str, found: Throughput) -> R | None:
    """None: it was void as often as it was tried."""
    try:
        return loads.insist(run, found.void)
    except Void as why:
        found.void.append(f"{what} is left out: {why}")
        return None


def _loads(target: Target, quick: bool) -> dict[str, Callable[[], loads.Run]]:
    """Those whose tool is there; quick: one of each kind."""
    seconds = _SECONDS[quick]
    requests = round(300 * max(1.0, seconds))
    known: dict[str, tuple[str, Callable[[], loads.Run]]] = {
        "ab": ("ab", lambda: loads.ab(target, requests=requests)),
        "ab -k": ("ab", lambda: loads.ab_kept(target, requests=8 * requests)),
        "wrk": ("wrk", lambda: loads.wrk(target, seconds=seconds)),
        "wrk, closing": ("wrk", lambda: loads.wrk_closing(target, seconds=seconds)),
    }
    wanted = ("ab", "wrk") if quick else tuple(known)
    return {load: known[load][1] for load in wanted if shutil.which(known[load][0])}


def _wait(
    place: Place, target: Target, name: str, quick: bool, found: Throughput, block: int
) -> None:
    """At shares of what it has just carried (quick: carried first); other arrivals in each
    block."""
    if not any(shutil.which(tool) for tool in ("ab", "wrk")):
        return
    try:
        program = place.programs.program("openloop")
    except CannotBuild:
        return  # tools.missing tells it
    seconds = _SECONDS[quick]
    if not (quick and name in found.saturated):
        saturated = _insist(lambda: loads.saturation(target, seconds=seconds), name, found)
        if saturated is None:
            return
        found.saturated[name] = saturated
    carried = found.saturated[name]
    for fraction in FRACTIONS[quick]:

        def run(share: float = fraction) -> loads.OpenRun:
            return loads.latency_at(
                share, carried, target, program, seconds=seconds, seed=block + 1
            )

        waits = _insist(run, f"{name}, open loop at {fraction:.0%}", found)
        if waits is not None:
            found.waits.setdefault((name, fraction), []).append(dict(waits.latency))
