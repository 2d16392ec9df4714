"""pyweb-lab ladder: which rungs, with which interpreters, and what is shown and kept of it.

With one interpreter (this one, if none is named) it is a ladder; with several, one run over all of
them (across.py). Not here: how a rung is run, and how an interpreter is found.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..parse import ENGINES
from . import across, data, faults, interpreters, ladder, tell, tell_across
from .build import CannotBuild, Programs
from .interpreters import Interpreter, NoInterpreter
from .ladder import Measured
from .run import Failed
from .rungs import AGAIN, LADDER, PYWEB, STEPS, SWITCH_STEPS, SWITCHES, Place, Rung, available
from .session import Answer, Session, Tick, Unusable
from .statistics import Estimate
from .taxes import WANTED, phases_of, taxes

_NAMES = tuple(rung.name for rung in (*LADDER, *SWITCHES))


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--python", metavar="NAME,NAME", type=_words, default=(),
        help="compare interpreters, by version (3.12), name or path [this one]",
    )  # fmt: skip
    parser.add_argument(
        "--rungs", metavar="NAME,NAME", type=_rungs, default=(),
        help=f"these alone, beside {PYWEB} [--quick: all but switches]: {', '.join(_NAMES)}",
    )  # fmt: skip


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words) or len(set(words)) != len(words):
        raise argparse.ArgumentTypeError(f"{text!r}: names, none twice, with a comma between")
    return words


def _rungs(text: str) -> tuple[str, ...]:
    words = _words(text)
    if unknown := [word for word in words if word not in _NAMES]:
        known = ", ".join(_NAMES)
        raise argparse.ArgumentTypeError(
            f"there is no rung {', '.join(unknown)}; there are {known}"
        )
    return words


def run(session: Session) -> Answer:
    """Unusable: there is no such interpreter. Failed, CannotBuild."""
    # A report has a ladder, and not its options.
    names: Sequence[str] = getattr(session.options, "python", ())
    if not names:
        return _alone(session, session.place, session.facts())
    missing: list[str] = []
    found = _interpreters(session, names, missing)
    facts = session.facts() | {"python": ", ".join(one.title for one in found.values())}
    places = {name: _place(session, name, one) for name, one in found.items()}
    if len(names) == 1:
        (place,) = places.values()
        return {"machine": facts} | _alone(session, place, facts)
    return {"machine": facts} | _several(session, places, facts, missing)


# Which interpreters.


def _interpreters(
    session: Session, names: Sequence[str], missing: list[str]
) -> dict[str, Interpreter]:
    """By version; of two of one version the second has a number. `missing` hears of those that
    can't be given pyweb."""
    try:
        found = [interpreters.find(name) for name in names]
    except NoInterpreter as why:
        raise Unusable(f"--python {why}") from None
    ready: dict[str, Interpreter] = {}
    for number, one in enumerate(found):
        try:
            able = interpreters.equipped(
                one, session.place.directory / f"python-{number}", session.say
            )
        except NoInterpreter as why:
            missing.append(str(why))
            continue
        ready[_label(able.version, ready)] = able
    if not ready:
        raise Failed("; ".join(missing))
    return ready


def _label(version: str, taken: Mapping[str, object]) -> str:
    same = sum(one == version or one.startswith(f"{version} (") for one in taken)
    return f"{version} ({same + 1})" if same else version


def _place(session: Session, name: str, one: Interpreter) -> Place:
    directory = session.place.directory / f"programs-{name}"
    directory.mkdir()
    programs = Programs(directory, include=one.include, suffix=one.suffix)
    return replace(session.place, programs=programs, python=one.path, package=one.package)


# Which rungs.


@dataclass(frozen=True)
class _Choice:
    """`stamped`: names of those that are also run with stamps: not the A/A's, for they say nothing
    that others do not, and no switch, for a step to one is told by its wall times alone."""

    rungs: list[Rung]
    stamped: list[str]

    @property
    def has_taxes(self) -> bool:
        return set(WANTED) <= {one.name for one in self.rungs}


def _choice(session: Session) -> _Choice:
    """Nothing can be said without pyweb and its A/A."""
    named: Sequence[str] = getattr(session.options, "rungs", ())
    all_of_them = (*LADDER, *(() if session.quick and not named else SWITCHES))
    rungs = available(all_of_them, ENGINES)
    if named:
        rungs = [one for one in rungs if one.name in (*named, PYWEB, AGAIN)]
    return _Choice(rungs, [one.name for one in rungs if one in LADDER and one.name != AGAIN])


# With one interpreter.


def _alone(session: Session, place: Place, facts: Mapping[str, Any]) -> Answer:
    plan, choice = session.plan(), _choice(session)
    missing = []
    if any(one.is_inside for one in choice.rungs):
        try:
            place.programs.extension("rung")
        except CannotBuild as why:
            missing.append(f"{why} (what can't be measured: C inside CPython, and the taxes)")
            choice = replace(choice, rungs=[one for one in choice.rungs if not one.is_inside])
    total = ladder.count_of_runs(plan, choice.rungs, choice.stamped)
    with session.progress(total + plan.blocks * choice.has_taxes) as tick:
        found = ladder.measure(place, plan, choice.rungs, choice.stamped, tick)
        fault = _fault(session, choice, tick)
    tell.on_top(session.console, facts, found.same, found.void, missing)
    session.console.print(tell.rungs_table(found, choice.rungs))
    answer = _answer(found, choice) | {"missing": missing}
    session.console.print(tell.steps_table(ladder.differences(found, _ALL_STEPS)))
    session.console.print(tell.phases_table(phases_of(found)))
    return answer | _told_taxes(session, found, fault)


_ALL_STEPS = (*STEPS, *SWITCH_STEPS)


def _fault(session: Session, choice: _Choice, tick: Tick) -> Estimate | None:
    """The price of a page fault; None: there are no taxes to be told."""
    if not choice.has_taxes:
        return None
    plan = session.plan()
    return faults.price(session.place.programs, plan.blocks, plan.servers, tick)


def _answer(found: Measured, choice: _Choice) -> Answer:
    return data.of_ladder(found, ladder.differences(found, _ALL_STEPS), choice.rungs)


def _told_taxes(session: Session, found: Measured, fault: Estimate | None) -> Answer:
    """None where a rung that they need is missing."""
    if fault is None or not set(WANTED) <= found.walls.keys():
        return {}
    sums = taxes(found, fault)
    session.say(*tell.taxes_lines(sums))
    return {"taxes": data.of_taxes(sums)}


# With several.


def _several(
    session: Session, places: Mapping[str, Place], facts: Mapping[str, Any], missing: list[str]
) -> Answer:
    plan, choice = session.plan(), _choice(session)
    taken = across.seats(places, session.place, choice.rungs, missing)
    total = ladder.count_of_runs(plan, [one.rung for one in taken], choice.stamped)
    with session.progress(total + plan.blocks * choice.has_taxes) as tick:
        found = across.measure(plan, taken, choice.stamped, tick)
        fault = _fault(session, choice, tick)
    void = across.void(taken)
    whole = {name: one for name, one in found.items() if across.has_pyweb(one)}
    ratios = across.ratios(whole)
    tell.on_top(session.console, facts, None, void, missing)
    for name, one in whole.items():
        session.console.print(tell.noise(one.same, of=name))
    session.console.print(tell_across.table(whole, ratios, choice.rungs))
    answers = {}
    for name, one in whole.items():
        if fault is not None:
            session.say("", f"{name}:")
        answers[name] = _answer(one, choice) | _told_taxes(session, one, fault)
    return {
        "void": void,
        "missing": missing,
        "interpreters": answers,
        "ratios": data.of_ratios(ratios),
    }
