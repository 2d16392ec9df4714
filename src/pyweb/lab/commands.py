"""What pyweb-lab can be asked: each measures, shows what came out, and gives it as data.

Not here: the words of the command line (cli.py), how it is measured, and how it is told.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from . import (
    climbing,
    comparing,
    data,
    faults,
    holding,
    ladder,
    model,
    own,
    racing,
    reporting,
    rivals,
    tell,
    throughput,
    tools,
)
from .run import Failed
from .rungs import LADDER
from .session import Answer, Measure, Session
from .taxes import STAMPED, WANTED, taxes


def measure_taxes(session: Session) -> Answer:
    plan = session.plan()
    rungs = [one for one in LADDER if one.name in WANTED]
    total = ladder.count_of_runs(plan, rungs, STAMPED) + plan.blocks
    with session.progress(total) as tick:
        found = ladder.measure(session.place, plan, rungs, STAMPED, tick)
        fault = faults.price(session.place.programs, plan.blocks, plan.servers, tick)
    tell.on_top(session.console, session.facts(), found.same, found.void, [])
    if found.dropped:
        raise Failed(f"without {', '.join(found.dropped)} there are no taxes")
    sums = taxes(found, fault)
    session.say(*tell.taxes_lines(sums))
    return data.of_ladder(found, (), rungs) | {"taxes": data.of_taxes(sums)}


def measure_model(session: Session) -> Answer:
    plan = session.plan()
    programs = session.place.programs
    with session.progress(model.steps(quick=session.quick) + plan.blocks) as tick:
        found = model.measure(programs, quick=session.quick, tick=tick, cpu=plan.servers)
        hooks = found.hooks.get("pyweb's master")
        work = [own.hold(session.place, plan, found, hooks.fork, tick)] if hooks else []
    tell.on_top(session.console, session.facts(), found.same, [], found.skipped)
    session.say(*tell.model_lines(found))
    session.console.print(tell.cases_table([*found.cases, *found.changes, *work]))
    return found.as_data() | {"at_work": [one.as_data() for one in work]}


def measure_load(session: Session) -> Answer:
    plan = session.plan()
    missing = tools.missing(["ab", "wrk", "cc", "taskset"])
    with session.progress(throughput.steps(plan)) as tick:
        found = throughput.measure(session.place, plan, quick=session.quick, tick=tick)
    tell.on_top(session.console, session.facts(), found.same, found.void, missing)
    session.console.print(tell.rates_table(found))
    session.console.print(tell.latency_table(found))
    return found.as_data() | {"missing": missing}


def make_report(session: Session) -> Answer:
    return reporting.report(session, {name: COMMANDS[name].run for name in PARTS})


@dataclass(frozen=True)
class Command:
    """`arguments`: what it understands beside --json; `measures`: then also --quick, --blocks and
    --no-pin."""

    about: str
    run: Measure
    arguments: Callable[[argparse.ArgumentParser], None] = lambda _: None
    measures: bool = True


COMMANDS = {
    "taxes": Command("The fork tax, the interpreter tax and the residual, in ten lines.",
                     measure_taxes),
    "ladder": Command("Servers that differ in one thing each, and what each thing costs.",
                      climbing.run, climbing.arguments),
    "model": Command("What a fork costs by mappings, pages, descriptors; predicted and measured.",
                     measure_model),
    "load": Command("Requests/s and latencies of pyweb's modes, under ab, wrk and an open loop.",
                    measure_load),
    "peers": Command("pyweb beside other servers: rates, CPU time, memory, failures.",
                     rivals.run_contest, rivals.arguments),
    "article": Command("The article's loads, its process limit and its pool of connections.",
                       rivals.run_article),
    "race": Command("Some servers under one load: how much each carries, beside the first.",
                    racing.run, racing.arguments),
    "hold": Command("Memory of connections that are open at once.", holding.run,
                    holding.arguments),
    "report": Command("All of these, on a page that one can look at.", make_report,
                      reporting.arguments),
    "compare": Command("What differs between two answers, and whether that can be said.",
                       comparing.run, comparing.arguments, measures=False),
}  # fmt: skip
# Of a report, in the order in which they are measured.
PARTS = ("ladder", "model", "load", "peers", "article")
