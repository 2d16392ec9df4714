"""Runs the ladder: in each block each rung has a fresh server and one run without stamps, and one
with them; the next block goes through the rungs backwards.

One connection after the other, the servers on one CPU and their client on another. What is
compared is always of the same block. A run in which anything failed is void: it is told, and made
again. Not here: which rungs there are, and what a reader is shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from .. import stamps
from . import statistics
from .phases import NAMES, Attempt, Breakdown, breakdown
from .run import Failed, output
from .rungs import AGAIN, NAME, PYWEB, SIZE, Place, Rung, Step
from .servers import Server, running
from .statistics import Estimate
from .timeline import Timeline, median_connection, middle_of

# A void run is made again so often.
_TRIES = 3
_SECONDS = 120
# Without these there is nothing to say.
_INDISPENSABLE = (PYWEB, AGAIN)
# One connection.
_TOO_LONG = 5.0


@dataclass(frozen=True)
class Plan:
    """How much is measured. `connections` a run, after `warm` ones that don't count; `servers`
    and `client`: their CPUs, None: wherever."""

    blocks: int
    connections: int
    warm: int
    servers: int | None
    client: int | None


@dataclass
class Measured:
    """By rung, one value a block. `walls`: from one connect to the next, us, without stamps.
    `connections`: of pyweb, the median one of each block. `void`: runs that were thrown out, and
    why. `dropped`: rungs that could not be measured."""

    walls: dict[str, list[float]] = field(default_factory=dict)
    stamped: dict[str, list[Breakdown]] = field(default_factory=dict)
    connections: list[Timeline] = field(default_factory=list)
    void: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def wall(self, rung: str) -> Estimate:
        return statistics.median(self.walls[rung])

    def phase(self, rung: str, *names: str) -> list[float]:
        """Their sum, by block."""
        return [sum(one.phases[n] for n in names) for one in self.stamped[rung]]

    def elapsed(self, rung: str, *names: str) -> list[float]:
        """As phase, of what overlaps (phases.Breakdown); names that a rung has not are 0."""
        return [sum(one.elapsed.get(n, 0.0) for n in names) for one in self.stamped[rung]]

    @property
    def connection(self) -> Timeline | None:
        return middle_of(self.connections)

    @property
    def same(self) -> Estimate:
        """A/A: the default server against itself."""
        return statistics.ratio(self.walls[PYWEB], self.walls[AGAIN])


@dataclass(frozen=True)
class Difference:
    """What one thing more costs, us a connection. `ladder`: by wall times without stamps.
    `stamps`: by the phases that should know of it; `elsewhere`: by all others; None: no stamps."""

    step: Step
    ladder: Estimate
    stamps: Estimate | None
    elsewhere: Estimate | None

    @property
    def agrees(self) -> bool | None:
        """None: it can't be said."""
        known = self.stamps is not None and self.ladder.is_bounded and self.stamps.is_bounded
        return self.ladder.meets(self.stamps) if self.stamps and known else None


def count_of_runs(plan: Plan, rungs: Sequence[Rung], stamped: Sequence[str]) -> int:
    return plan.blocks * (len(rungs) + sum(rung.name in stamped for rung in rungs))


@dataclass(frozen=True)
class Seat:
    """A rung, where it is run, and where its figures go. `label`: said of it, where rungs of one
    name are run in several places."""

    rung: Rung
    place: Place
    found: Measured
    label: str = ""

    @property
    def title(self) -> str:
        return f"{self.label} {self.rung.title}".strip()

    @property
    def is_over(self) -> bool:
        """It is left out, or what it would be compared with is."""
        return not {self.rung.name, *_INDISPENSABLE}.isdisjoint(self.found.dropped)


def measure(
    place: Place,
    plan: Plan,
    rungs: Sequence[Rung],
    stamped: Sequence[str],
    tick: Callable[[str], None],
) -> Measured:
    """Failed: a rung can't be measured. CannotBuild. `tick` hears of each run that is done;
    `stamped`: names of the rungs that are also run with stamps."""
    found = Measured()
    measure_in_turn(plan, [Seat(rung, place, found) for rung in rungs], stamped, tick)
    return found


def measure_in_turn(
    plan: Plan, seats: Sequence[Seat], stamped: Sequence[str], tick: Callable[[str], None]
) -> None:
    """As measure, which has one place. A place whose pyweb can't be measured is given up; Failed:
    it was the last."""
    left = list(seats)
    for block in range(plan.blocks):
        for number in statistics.turns(len(left), block):
            if not left[number].is_over:
                _insist(plan, left[number], left, stamped, block, tick)
        left = [one for one in left if not one.is_over]
    for seat in seats:
        if seat.rung.name in seat.found.dropped:
            seat.found.walls.pop(seat.rung.name, None)
            seat.found.stamped.pop(seat.rung.name, None)


def _insist(
    plan: Plan,
    seat: Seat,
    seats: Sequence[Seat],
    stamped: Sequence[str],
    block: int,
    tick: Callable[[str], None],
) -> None:
    try:
        _take_turn(plan, seat, stamped, block, tick)
    except Failed:
        seat.found.dropped.append(seat.rung.name)
        seat.found.void.append(f"{seat.title}: left out, for it failed {_TRIES} times")
        needed = [one for one in seats if one.rung.name in _INDISPENSABLE]
        if needed and all(one.is_over for one in needed):
            raise


def _take_turn(
    plan: Plan, seat: Seat, stamped: Sequence[str], block: int, tick: Callable[[str], None]
) -> None:
    rung, found = seat.rung, seat.found

    def plain() -> None:
        attempts, _ = _sound(plan, seat, False)
        found.walls.setdefault(rung.name, []).append(_wall(attempts))
        tick(seat.title)

    def with_stamps() -> None:
        attempts, records = _sound(plan, seat, True)
        found.stamped.setdefault(rung.name, []).append(breakdown(records, attempts))
        if rung.name == PYWEB and (one := median_connection(records, attempts)):
            found.connections.append(one)
        tick(f"{seat.title}, with stamps")

    # So that the two of the A/A comparison, of which one has no stamps, are neighbours.
    runs = [with_stamps, plain] if rung.name in stamped else [plain]
    for run in runs if block % 2 == 0 else reversed(runs):
        run()


def _wall(attempts: Sequence[Attempt]) -> float:
    """us."""
    begins = [one.begin for one in attempts]
    return statistics.midmean([b - a for a, b in itertools.pairwise(begins)]) / 1e3


Records = list[tuple[int, ...]]


def _sound(plan: Plan, seat: Seat, with_stamps: bool) -> tuple[list[Attempt], Records]:
    """A run in which nothing failed."""
    for left in reversed(range(_TRIES)):
        try:
            return _run(seat.place, plan, seat.rung, with_stamps)
        except Failed as failure:
            seat.found.void.append(f"{seat.title}: {failure}")
            if not left:
                raise
    raise AssertionError


def _run(place: Place, plan: Plan, rung: Rung, with_stamps: bool) -> tuple[list[Attempt], Records]:
    command = rung.command(place)
    with running(command, cpu=plan.servers, with_stamps=with_stamps) as server:
        attempts = drive(place, plan, rung, server)
        records = server.records() if with_stamps else []
    _check_times(attempts)
    if with_stamps:
        _check(records, plan)
    return attempts, records


def _check_times(attempts: Sequence[Attempt]) -> None:
    """A client that waits for seconds has waited for a patience to end."""
    longest = max(one.end - one.begin for one in attempts) / 1e9
    if longest > _TOO_LONG:
        raise Failed(f"a connection took {longest:.1f} s")


def _check(records: Records, plan: Plan) -> None:
    """The connections that were really opened, as the server counts them."""
    opened = max((one[stamps.NUMBER] for one in records), default=0)
    if opened != plan.connections + plan.warm:
        raise Failed(f"{opened} connections, and {plan.connections + plan.warm} were made")


def drive(place: Place, plan: Plan, rung: Rung, server: Server) -> list[Attempt]:
    """Its client, once. Failed: a connection was not as it should be."""
    words = [str(place.programs.program("client")), str(server.port), f"/{NAME}"]
    words += [str(plan.connections), str(plan.warm), str(SIZE), *(["silent"] * rung.silent)]
    said = output(words, cpu=plan.client, seconds=_SECONDS)
    return [Attempt(*map(int, line.split())) for line in said.splitlines()]


def differences(found: Measured, steps: Sequence[Step]) -> list[Difference]:
    """Of the steps whose rungs were measured."""
    known = [step for step in steps if step.a in found.walls and step.b in found.walls]
    return [_difference(found, step) for step in known]


def _difference(found: Measured, step: Step) -> Difference:
    ladder = statistics.difference(found.walls[step.a], found.walls[step.b])
    if not (step.a in found.stamped and step.b in found.stamped and step.phases):
        return Difference(step, ladder, None, None)
    others = [name for name in NAMES if name not in step.phases]
    seen, rest = (
        statistics.difference(found.phase(step.a, *names), found.phase(step.b, *names))
        for names in (step.phases, others)
    )
    return Difference(step, ladder, seen, rest)
