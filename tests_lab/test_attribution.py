"""Planted costs are found where they belong. Timed, so not of `make test`: `make lab-test`.

1 ms of sleep while a head is parsed; 50 MB more that each fork copies page tables for; 200
descriptors more. Each is at least ten times what the phase varies by in which it must be found:
where a machine is so noisy that it isn't, the test says so and fails, for nothing was shown.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyweb.lab import ladder, machine, model, statistics
from pyweb.lab.build import Programs
from pyweb.lab.ladder import Measured, Plan
from pyweb.lab.model import Findings
from pyweb.lab.own import size_of
from pyweb.lab.phases import NAMES
from pyweb.lab.rungs import PYWEB, Place, Rung, pyweb
from pyweb.lab.servers import running
from pyweb.lab.statistics import Estimate

PLANTS = {
    "sleep": "import time; from pyweb import parse; _f = parse.Parser.parse;"
    " parse.Parser.parse = lambda *a: (time.sleep(0.001), _f(*a))[1]",
    "heap": "_planted = b'x' * (50 << 20)",
    "descriptors": "import os; _planted = [os.dup(2) for _ in range(200)]",
}
BLOCKS, FORKS = 12, 60


def rung(name: str) -> Rung:
    return Rung(name, name, pyweb(prelude=PLANTS.get(name, "")))


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as scratch:
        made = Place(Path(scratch), Programs(Path(scratch)))
        made.prepare()
        yield made


@pytest.fixture(scope="module")
def plan() -> Plan:
    return Plan(BLOCKS, FORKS, 10, *machine.server_cpu_and_client_cpu())


@pytest.fixture(scope="module")
def found(place: Place, plan: Plan) -> Measured:
    """All of them in turn, beside two that have nothing planted."""
    rungs = [rung(PYWEB), *(rung(name) for name in PLANTS), rung("same")]
    stamped = [one.name for one in rungs]
    return ladder.measure(place, plan, rungs, stamped, lambda _: None)


@pytest.fixture(scope="module")
def fitted(place: Place, plan: Plan) -> Findings:
    return model.measure(place.programs, quick=True, tick=lambda _: None, cpu=plan.servers)


def planted(found: Measured, name: str, *phases: str) -> Estimate:
    """us more than without it, in these phases."""
    return statistics.difference(found.phase(PYWEB, *phases), found.phase(name, *phases))


def spread(found: Measured, *phases: str) -> float:
    """us: by how much two that are the same differ there."""
    same = planted(found, "same", *phases)
    return max(abs(same.value), (same.high - same.low) / 2)


def test_a_sleep_is_found_where_it_sleeps(found: Measured) -> None:
    cost = planted(found, "sleep", "parse")
    assert 1000 < cost.value < 1500
    assert cost.value > 10 * spread(found, "parse")
    for name in NAMES:
        if name != "parse":
            assert abs(planted(found, "sleep", name).value) < 0.25 * cost.value, name
    wall = statistics.difference(found.walls[PYWEB], found.walls["sleep"])
    assert wall.low < cost.high
    assert cost.low < wall.high


# Where a fork and what it leaves behind are paid for.
OF_A_FORK = ("fork", "exit")


def test_a_heap_is_found_in_the_fork(found: Measured, fitted: Findings) -> None:
    """And the model knows how much it is: 50 MB are 12,800 pages, in a mapping of their own."""
    forked, whole = planted(found, "heap", "fork"), planted(found, "heap", *OF_A_FORK)
    assert whole.value > 10 * spread(found, *OF_A_FORK)
    assert forked.value > 10 * spread(found, "fork")
    elsewhere = [name for name in NAMES if name not in OF_A_FORK]
    assert abs(planted(found, "heap", *elsewhere).value) < 0.5 * whole.value
    for line, cost in ((fitted.fork, forked), (fitted.cycle, whole)):
        predicted = line.predict_change(pages=12_800, mappings=1).scaled(1e-3)
        assert predicted.meets(cost), (predicted, cost)


def test_descriptors_are_found_in_the_fork(found: Measured, fitted: Findings) -> None:
    """A child closes what isn't its own before it serves: that part is in `prepare`."""
    phases = ("fork", "prepare", "exit")
    cost = planted(found, "descriptors", *phases)
    predicted = fitted.cycle.predict_change(descriptors=200).scaled(1e-3)
    assert predicted.meets(cost), (predicted, cost)


def test_the_plants_are_planted(place: Place, plan: Plan) -> None:
    sizes = {}
    for name in (PYWEB, "heap", "descriptors"):
        with running(rung(name).command(place), cpu=plan.servers) as server:
            with contextlib.suppress(OSError):
                sizes[name] = size_of(server.master())
    assert 12_700 < sizes["heap"].pages - sizes[PYWEB].pages < 13_000
    assert sizes["descriptors"].descriptors - sizes[PYWEB].descriptors == 200
