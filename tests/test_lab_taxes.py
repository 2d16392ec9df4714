"""Measurements that are known become taxes, a residual, words and JSON; no server runs here.

All times are halves and quarters, so that sums are exact.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence

import pytest
from rich.console import Console

from pyweb.lab import data, ladder, tell
from pyweb.lab import taxes as module
from pyweb.lab.ladder import Difference, Measured
from pyweb.lab.phases import CLIENT, NAMES, Breakdown
from pyweb.lab.rungs import AGAIN, LADDER, PYWEB, Step
from pyweb.lab.statistics import Estimate
from pyweb.lab.taxes import BASE, FORKED, POOL, Taxes

# With six and more, an interval has ends.
BLOCKS = 8
# How slow the machine was: the same for all of one block, so no difference may know of it.
DRIFT = [3.0, 0.0, 5.5, 1.0, 2.0, 0.5, 8.0, 4.0]
MEDIAN_DRIFT = 2.5

# us by phase, and what a wall has beyond them.
PHASE = {BASE: 1.0, FORKED: 9.0, PYWEB: 20.5, POOL: 4.0}
HIDDEN = {BASE: 0.5, FORKED: 0.5, PYWEB: 12.0, POOL: 0.25}
SERVERS = [name for name in NAMES if name not in (CLIENT, "wake")]


# What a page fault was measured to cost, us.
FAULT = Estimate(4.0, 3.0, 5.0)


def taxes(found: Measured) -> Taxes:
    return module.taxes(found, FAULT)


def broken(phases: dict[str, float], faults: float = 100) -> Breakdown:
    counts = {"MINOR_FAULTS": faults, "VOLUNTARY": 2, "INVOLUNTARY": 1, "CPU_US": 50}
    return Breakdown(sum(phases.values()), phases, phases, counts, 60)


def known(name: str, blocks: int = BLOCKS, **phases: float) -> tuple[list[float], list[Breakdown]]:
    """Of a rung: its walls, and its stamps."""
    each = dict.fromkeys(NAMES, PHASE.get(name, 2.0)) | phases
    wall = sum(each.values()) + HIDDEN.get(name, 0.0)
    return [wall + slow for slow in DRIFT[:blocks]], [broken(each)] * blocks


def measured(blocks: int = BLOCKS, **changed: dict[str, float]) -> Measured:
    """Of every rung; `changed`: phases of some, in place of those above."""
    found = Measured()
    for rung in LADDER:
        phases = changed.get(rung.name, {})
        found.walls[rung.name], found.stamped[rung.name] = known(rung.name, blocks, **phases)
    found.walls[AGAIN] = list(found.walls[PYWEB])
    return found


def exactly(value: float) -> list[float]:
    return [value, value, value]


def test_a_wall_is_the_median_of_its_blocks() -> None:
    sums = taxes(measured())
    assert sums.wall.value == PHASE[PYWEB] * len(NAMES) + HIDDEN[PYWEB] + MEDIAN_DRIFT
    assert sums.base.value == PHASE[BASE] * len(NAMES) + HIDDEN[BASE] + MEDIAN_DRIFT
    assert sums.wall.low < sums.wall.value < sums.wall.high


@pytest.mark.parametrize(
    ("tax", "a", "b"), [("fork", BASE, FORKED), ("interpreter", FORKED, PYWEB),
                        ("process", POOL, PYWEB)]
)  # fmt: skip
def test_a_tax_in_two_ways(tax: str, a: str, b: str) -> None:
    """By blocks: the drift of the machine is in neither. By stamps it is what the server worked,
    not what it slept and not its client."""
    found = getattr(taxes(measured()), tax)
    more = PHASE[b] - PHASE[a]
    assert found.ladder.as_list() == exactly(more * len(NAMES) + HIDDEN[b] - HIDDEN[a])
    assert found.stamps.as_list() == exactly(more * len(SERVERS))


def test_both_taxes_and_the_base_are_the_wall() -> None:
    sums = taxes(measured())
    whole = sums.base.value + sums.fork.ladder.value + sums.interpreter.ladder.value
    assert whole == sums.wall.value


def test_taxes_agree_where_their_intervals_meet() -> None:
    found = measured()
    found.walls[FORKED] = [wall + 1 for wall in found.walls[FORKED]]
    sums = taxes(found)
    assert not sums.fork.agrees
    # Walls of which the same is true, and no more.
    found.walls[FORKED] = [wall + sums.fork.stamps.value for wall in found.walls[BASE]]
    assert taxes(found).fork.agrees
    # Values that differ by more than one, in an interval that is as wide.
    found.walls[FORKED] = [
        wall + (1.5 if block % 2 else -1.0) for block, wall in enumerate(found.walls[FORKED])
    ]
    again = taxes(found).fork
    assert again.ladder.low < again.stamps.value < again.ladder.high
    assert again.agrees
    found.walls[FORKED] = [wall + 5 for wall in found.walls[FORKED]]
    assert not taxes(found).fork.agrees


@pytest.mark.parametrize(("of_pyweb", "explained"), [(30.0, 16.0), (10.0, 10.0), (16.0, 16.0)])
def test_the_residual_is_what_nobody_explains(of_pyweb: float, explained: float) -> None:
    """Of its sleep, only as much is explained as a C server needs."""
    sums = taxes(measured(**{PYWEB: {"wake": of_pyweb}, BASE: {"wake": 16.0}}))
    unexplained = HIDDEN[PYWEB] + of_pyweb - explained
    assert sums.residual.value == unexplained + MEDIAN_DRIFT
    assert sums.phases["wake"].as_list() == exactly(of_pyweb)
    assert 0 < sums.share.low < sums.share.value < sums.share.high
    assert sums.share.value == pytest.approx(sums.residual.value / sums.wall.value, rel=0.05)


def test_the_client_is_explained() -> None:
    """It is no tax by stamps, and not left over either."""
    short, long = taxes(measured()), taxes(measured(**{PYWEB: {CLIENT: 500.0}}))
    assert long.wall.value > short.wall.value + 400
    assert long.residual.as_list() == short.residual.as_list()
    assert long.interpreter.stamps.as_list() == short.interpreter.stamps.as_list()


def test_a_residual_can_be_below_nothing() -> None:
    """Stamps that say more than the wall: told as it is."""
    found = measured()
    found.walls[PYWEB] = [wall - 40 for wall in found.walls[PYWEB]]
    sums = taxes(found)
    slept_longer = PHASE[PYWEB] - PHASE[BASE]
    assert sums.residual.value == HIDDEN[PYWEB] + slept_longer + MEDIAN_DRIFT - 40
    assert sums.residual.value < 0
    assert sums.share.value < 0


def test_phases_and_counts_are_pywebs() -> None:
    found = measured()
    found.stamped[PYWEB] = [
        broken({name: float(place) for place, name in enumerate(NAMES)}, 200 + block)
        for block in range(BLOCKS)
    ]
    sums = taxes(found)
    assert [one.value for one in sums.phases.values()] == list(map(float, range(len(NAMES))))
    assert sums.fault == FAULT
    assert sums.faults == 103.5  # more than a child in C has
    assert sums.switches == 3


def test_blocks_must_be_as_many() -> None:
    """Values of different blocks are never compared."""
    found = measured()
    found.walls[FORKED].pop()
    with pytest.raises(ValueError, match=f"{BLOCKS} blocks, the other {BLOCKS - 1}"):
        taxes(found)


# A/A, and when to doubt.


def test_the_same_twice_is_compared_by_block() -> None:
    found = measured()
    assert found.same.as_list() == exactly(1.0)
    found.walls[AGAIN] = [wall * 1.25 for wall in found.walls[PYWEB]]
    assert found.same.as_list() == exactly(1.25)
    assert taxes(found).same.as_list() == exactly(1.25)


def on_top(same: Estimate | None, void: Sequence[str] = (), missing: Sequence[str] = ()) -> str:
    facts = {"cpu": "a cpu", "cpus": 2, "kernel": "6.1", "python": "CPython 3", "pinned": "so"}
    return rendered(lambda console: tell.on_top(console, facts, same, void, missing))


def rendered(show: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    show(console)  # type: ignore[operator]
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert isinstance(text, str)
    return text


@pytest.mark.parametrize("ratio", [0.98, 1.0, 1.02])
def test_quiet(ratio: float) -> None:
    text = on_top(Estimate(ratio, 0.5, 2.0))
    assert f"A/A {ratio:.3f} [0.500, 2.000]" in text
    assert "quiet" in text
    assert "NOISY" not in text


@pytest.mark.parametrize("ratio", [0.5, 0.979, 1.021, 3.0])
def test_noisy(ratio: float) -> None:
    """However narrow the interval is."""
    text = on_top(Estimate(ratio, ratio, ratio))
    assert f"A/A {ratio:.3f}" in text
    assert "NOISY" in text
    assert "quiet" not in text


def test_no_comparison_no_verdict() -> None:
    text = on_top(None)
    assert "A/A" not in text
    assert "a cpu · 2 · 6.1 · CPython 3 · so\n" in text


def test_runs_that_were_thrown_out_are_shown() -> None:
    """Each, as it was said: brackets are no markup."""
    void = ["pyweb: [Errno 111] refused", "C: accept, close: [bold]no[/bold] answer"]
    lines = on_top(Estimate(1, 1, 1), void, ["ab is not installed: [red]x"]).splitlines()
    assert [line for line in lines if line.startswith("void")] == [f"void: {one}" for one in void]
    assert lines[-1] == "ab is not installed: [red]x"


# The ten lines.


def shown(sums: Taxes) -> list[str]:
    lines = list(tell.taxes_lines(sums))
    assert all(len(line.splitlines()) == 1 for line in lines)
    return lines


def test_ten_lines() -> None:
    sums = taxes(measured())
    lines = shown(sums)
    assert len(lines) == 10
    assert tell.us(sums.wall) in lines[0]
    assert tell.us(sums.residual) in lines[-1]
    assert tell.percent(sums.share) in lines[-1]
    for part in (sums.fork.ladder, sums.fork.stamps, sums.interpreter.ladder, sums.inside,
                 sums.interpreter.stamps, sums.process.ladder, sums.process.stamps):  # fmt: skip
        assert any(tell.us(part) in line for line in lines)


def test_the_verdicts_stand_beside_what_they_judge() -> None:
    found = measured()
    found.walls[FORKED] = [wall + 1 for wall in found.walls[FORKED]]
    sums = taxes(found)
    # So that of the three only the interpreter tax is told alike in both ways.
    right = [wall + sums.interpreter.stamps.value for wall in found.walls[FORKED]]
    found.walls[PYWEB], found.walls[AGAIN] = right, right
    changed = taxes(found)
    verdicts = [changed.fork.agrees, changed.interpreter.agrees, changed.process.agrees]
    assert verdicts == [False, True, False]
    words = [line.rpartition(": ")[2].split(";")[0] for line in shown(changed)]
    assert [w for w in words if w.lower().startswith("they")] == [
        "THEY DISAGREE", "they agree", "THEY DISAGREE",
    ]  # fmt: skip


@pytest.mark.parametrize("blocks", [2, BLOCKS])
def test_no_markup_eats_an_interval(blocks: int) -> None:
    """As the command prints them; with too few blocks, too."""
    lines = shown(taxes(measured(blocks)))

    def show(console: Console) -> None:
        for line in lines:
            console.print(line, highlight=False, soft_wrap=True)

    assert rendered(show).splitlines() == lines


# Steps.


def step(*phases: str) -> Step:
    return Step("one thing more", BASE, FORKED, phases)


def test_a_step_in_two_ways() -> None:
    [one] = ladder.differences(measured(), [step("fork", "reap")])
    more = PHASE[FORKED] - PHASE[BASE]
    assert one.ladder.as_list() == exactly(more * len(NAMES) + HIDDEN[FORKED] - HIDDEN[BASE])
    assert one.stamps is not None
    assert one.stamps.as_list() == exactly(2 * more)
    assert one.elsewhere is not None
    assert one.elsewhere.as_list() == exactly((len(NAMES) - 2) * more)
    assert one.agrees is False


def test_a_step_agrees() -> None:
    found = measured(**{FORKED: dict.fromkeys(NAMES, PHASE[BASE]) | {"fork": 300.0}})
    one, other = ladder.differences(found, [step("fork"), step("reap")])
    assert one.agrees is True
    assert other.agrees is False


def test_a_step_without_stamps_has_no_verdict() -> None:
    found = measured()
    assert_unjudged(ladder.differences(found, [step()]))
    del found.stamped[FORKED]
    assert_unjudged(ladder.differences(found, [step("fork")]))


def assert_unjudged(found: list[Difference]) -> None:
    [one] = found
    assert (one.stamps, one.elsewhere, one.agrees) == (None, None, None)


def test_a_step_that_was_not_measured_is_left_out() -> None:
    found = measured()
    del found.walls[FORKED]
    assert ladder.differences(found, [step("fork")]) == []


def test_steps_are_shown_with_their_verdict() -> None:
    found = measured(**{FORKED: dict.fromkeys(NAMES, PHASE[BASE]) | {"fork": 300.0}})
    steps = [Step("first", BASE, FORKED, ("fork",)), Step("second", BASE, FORKED, ("reap",)),
             Step("third", BASE, FORKED, ())]  # fmt: skip
    table = tell.steps_table(ladder.differences(found, steps))
    text = rendered(lambda console: console.print(table)).splitlines()
    told = [next(line for line in text if item in line) for item in ("first", "second", "third")]
    assert ["DISAGREE" in line for line in told] == [False, True, False]
    assert ["agree" in line for line in told] == [True, False, False]


def test_rungs_are_shown_against_pyweb() -> None:
    found = measured()
    found.walls[BASE] = [wall / 4 for wall in found.walls[PYWEB]]
    table = tell.rungs_table(found, LADDER)
    text = rendered(lambda console: console.print(table))
    line = next(one for one in text.splitlines() if "C: accept, serve; no fork" in one)
    assert "0.250 [0.250, 0.250]" in line
    assert all(rung.title in text for rung in LADDER)


def test_phases_are_shown_with_what_they_are() -> None:
    text = rendered(lambda c: c.print(tell.phases_table(taxes(measured()).phases)))
    assert all(any(line.split()[1:2] == [name] for line in text.splitlines()) for name in NAMES)


# JSON.


def as_json(found: Measured) -> str:
    """As JSON is: it has no infinity."""
    answer = data.of_ladder(found, ladder.differences(found, [step("fork"), step()]), ())
    return json.dumps(answer | {"taxes": data.of_taxes(taxes(found))}, allow_nan=False)


def test_json_has_all() -> None:
    found = measured()
    found.void.append("pyweb: no")
    answer = json.loads(as_json(found))
    assert answer["void"] == ["pyweb: no"]
    assert answer["aa"] == exactly(1.0)
    assert answer["blocks"]["walls"] == found.walls
    assert answer["rungs"][PYWEB] == found.wall(PYWEB).as_list()
    assert [one["agrees"] for one in answer["steps"]] == [False, None]
    assert (answer["steps"][1]["stamps"], answer["steps"][1]["elsewhere"]) == (None, None)
    sums = taxes(found)
    assert answer["taxes"]["wall"] == sums.wall.as_list()
    assert answer["taxes"]["fork"]["stamps"] == sums.fork.stamps.as_list()
    assert answer["taxes"]["residual"] == sums.residual.as_list()
    assert set(answer["taxes"]["phases"]) == set(NAMES)


def numbers(answer: object) -> Iterable[object]:
    if isinstance(answer, dict | list):
        for one in answer.values() if isinstance(answer, dict) else answer:
            yield from numbers(one)
    elif not isinstance(answer, str):
        yield answer


@pytest.mark.parametrize("blocks", [1, 2, 5])
def test_json_of_few_blocks(blocks: int) -> None:
    """An interval without ends: null, for JSON has no other word."""
    answer = json.loads(as_json(measured(blocks)))
    value, low, high = answer["taxes"]["wall"]
    assert value > 0
    assert (low, high) == (None, None)
    assert all(isinstance(one, int | float | None) for one in numbers(answer))
