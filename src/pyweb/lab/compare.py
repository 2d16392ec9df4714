"""Two answers of one command: what differs between their machines, and between their figures.

B / A, with an interval, and whether that allows to speak of a change. Two runs are independent
samples, not pairs of blocks: block 3 of one has nothing to do with block 3 of the other. So the
interval of a ratio is made of the two intervals, in the logarithm (there a ratio is a difference,
and what is as likely twice as half has a middle), each side's half-widths by quadrature. What can
be 0 or below (a step, a residual) is compared by difference.

What this can't know: two runs of the same thing differ by more than their blocks do (other
neighbours, another layout of memory). Their A/As tell a part of that, so no change that is smaller
than these deviate is called one. Not here: files, and words for people.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .figures import Data, Figure, NotAnAnswer, Section, sections
from .statistics import Estimate

# Verdicts.
CHANGED, SAME, WITHIN_AA, UNKNOWN = "changed", "same", "within A/A", "can't be told"
# Of what has a 95 % interval and did not change, so much is outside of it.
_BY_CHANCE = 0.05
# MemTotal differs a little by kernel.
_SAME_MEMORY = 0.05

NOT_TOLD = "not told"


@dataclass(frozen=True)
class Change:
    """One figure in both. `by`: B / A, or B - A where `is_ratio` is not so. `noise`: what an A/A
    deviates by, in units of the figure. `size`: for sorting, relative to what it is made of."""

    section: str
    a: Figure
    b: Figure
    by: Estimate
    is_ratio: bool
    noise: float

    @property
    def delta(self) -> float:
        return self.b.estimate.value - self.a.estimate.value

    @property
    def size(self) -> float:
        whole = min(self.a.made_of, self.b.made_of)
        return abs(self.delta) / whole if whole else math.inf if self.delta else 0.0

    @property
    def within(self) -> float:
        """How far from no change the interval goes: a share of A, or in the figure's unit."""
        none = 1.0 if self.is_ratio else 0.0
        return max(abs(self.by.high - none), abs(self.by.low - none))

    @property
    def verdict(self) -> str:
        if not self.by.is_bounded:
            return UNKNOWN
        if self.by.has(1.0 if self.is_ratio else 0.0):
            return SAME
        return WITHIN_AA if abs(self.delta) <= self.noise else CHANGED


@dataclass(frozen=True)
class Comparison:
    """`differs`: by name of a fact, what A and B say of it. `same`: by section, both A/As.
    `only_in`: of A and of B, what the other has not."""

    command: str
    differs: dict[str, tuple[str, str]]
    is_other_machine: bool
    same: dict[str, tuple[Estimate | None, Estimate | None]]
    changes: tuple[Change, ...]
    only_in: tuple[list[str], list[str]]

    def count(self, verdict: str) -> int:
        return sum(one.verdict == verdict for one in self.changes)

    @property
    def told(self) -> int:
        """How many there are of which something can be said."""
        return len(self.changes) - self.count(UNKNOWN)

    @property
    def by_chance(self) -> float:
        """So many would leave their interval, were nothing different. At most: what is within
        A/A is not counted as changed."""
        return self.told * _BY_CHANCE


def compare(a: Data, b: Data) -> Comparison:
    """NotAnAnswer: they are of different commands, or not of pyweb-lab."""
    if a["command"] != b["command"]:
        raise NotAnAnswer(
            f"A is an answer of {a['command']}, B of {b['command']}: only the same can be compared"
        )
    facts_a, facts_b = _facts(a), _facts(b)
    in_a, in_b = ({one.name: one for one in sections(answer)} for answer in (a, b))
    is_other = _is_other_machine(facts_a, facts_b)
    both = [(one, in_b[name]) for name, one in in_a.items() if name in in_b]
    return Comparison(
        command=str(a["command"]),
        differs=_differs(facts_a, facts_b),
        is_other_machine=is_other,
        same={one.name: (one.same, other.same) for one, other in both},
        changes=tuple(change for pair in both for change in _changes(*pair, is_other)),
        only_in=(list(_missing(in_a, in_b)), list(_missing(in_b, in_a))),
    )


def _facts(answer: Data) -> dict[str, Any]:
    machine = answer.get("machine", {})
    if not isinstance(machine, Mapping):
        raise NotAnAnswer("its machine is not as pyweb-lab --json writes it")
    return {**machine, "quick": answer.get("quick")}


def _differs(a: dict[str, Any], b: dict[str, Any]) -> dict[str, tuple[str, str]]:
    names = dict.fromkeys([*a, *b])
    return {n: (_said(a.get(n)), _said(b.get(n))) for n in names if a.get(n) != b.get(n)}


def _said(value: Any) -> str:
    if value is None:
        return NOT_TOLD
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _is_other_machine(a: dict[str, Any], b: dict[str, Any]) -> bool:
    """By what no upgrade changes. Another kernel or Python alone is what one wants to compare."""
    if any(a.get(name) != b.get(name) for name in ("cpu", "cpus")):
        return True
    memory = [facts.get("memory_mb") for facts in (a, b)]
    if not all(isinstance(one, int | float) for one in memory):
        return False
    return not math.isclose(*memory, rel_tol=_SAME_MEMORY)  # type: ignore[arg-type]


def _missing(ours: dict[str, Section], theirs: dict[str, Section]) -> Iterator[str]:
    for name, section in ours.items():
        if name not in theirs:
            yield f"{name or 'a ladder of one interpreter'}, all of it"
            continue
        there = {one.key for one in theirs[name].figures}
        for one in section.figures:
            if one.key not in there:
                yield ": ".join(filter(None, (name, one.group, one.name)))


def _changes(a: Section, b: Section, is_other: bool) -> Iterator[Change]:
    """Ratios inside of the runs first, where they are the better ones."""
    deviation = max(_deviation(a.same), _deviation(b.same))
    theirs = {one.key: one for one in b.figures}
    pairs = [(one, theirs[one.key]) for one in a.figures if one.key in theirs]
    for one, other in sorted(pairs, key=lambda pair: is_other and not pair[0].is_inside):
        yield change(a.name, one, other, deviation)


def _deviation(same: Estimate | None) -> float:
    """In the logarithm: 0.5 is as far off as 2."""
    return abs(math.log(same.value)) if same and same.value > 0 else 0.0


def change(section: str, a: Figure, b: Figure, deviation: float) -> Change:
    """`deviation`: of an A/A, in the logarithm."""
    is_ratio = _is_above_zero(a.estimate) and _is_above_zero(b.estimate)
    by = ratio(a.estimate, b.estimate) if is_ratio else minus(a.estimate, b.estimate)
    noise = math.expm1(deviation) * min(a.made_of, b.made_of) if a.is_timed else 0.0
    return Change(section, a, b, by, is_ratio, noise)


def _is_above_zero(one: Estimate) -> bool:
    """All of it, as far as it is known."""
    return one.value > 0 and (one.low > 0 or not one.is_bounded)


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """b / a, of two that don't know of each other. ValueError: one is not above 0."""
    if a.value <= 0 or b.value <= 0:
        raise ValueError("a ratio is of values above 0")
    value = b.value / a.value
    if not (a.is_bounded and b.is_bounded):
        return Estimate(value, -math.inf, math.inf)
    down = math.hypot(math.log(b.value / b.low), math.log(a.high / a.value))
    up = math.hypot(math.log(b.high / b.value), math.log(a.value / a.low))
    return Estimate(value, value * math.exp(-down), value * math.exp(up))


def minus(a: Estimate, b: Estimate) -> Estimate:
    """b - a, of two that don't know of each other."""
    value = b.value - a.value
    if not (a.is_bounded and b.is_bounded):
        return Estimate(value, -math.inf, math.inf)
    down = math.hypot(b.value - b.low, a.high - a.value)
    return Estimate(value, value - down, value + math.hypot(b.high - b.value, a.value - a.low))


def as_data(found: Comparison) -> dict[str, Any]:
    """For JSON; `within` as of Change; null: not known."""
    return {
        "of": found.command,
        "differs": {name: list(pair) for name, pair in found.differs.items()},
        "other_machine": found.is_other_machine,
        "aa": {
            name: [one.as_list() if one else None for one in pair]
            for name, pair in found.same.items()
        },
        "changed": found.count(CHANGED),
        "told": found.told,
        "by_chance": round(found.by_chance, 2),
        "figures": [_change_as_data(one) for one in found.changes],
        "only_in_a": found.only_in[0],
        "only_in_b": found.only_in[1],
    }


def _change_as_data(one: Change) -> dict[str, Any]:
    return {
        "section": one.section,
        "group": one.a.group,
        "name": one.a.name,
        "unit": one.a.unit,
        "a": one.a.estimate.as_list(),
        "b": one.b.estimate.as_list(),
        "by": "ratio" if one.is_ratio else "difference",
        "change": one.by.as_list(),
        "within": one.within if math.isfinite(one.within) else None,
        "verdict": one.verdict,
    }
