"""pyweb-lab: a question, a measurement, an answer that one can read, or --json.

Not here: what is measured and how.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..parse import ENGINES
from . import data, faults, ladder, machine, model, own, tell, throughput, tools
from . import load as loads
from .build import CannotBuild, Programs
from .ladder import Plan
from .reports import Void
from .run import Failed
from .rungs import LADDER, STEPS, SWITCH_STEPS, SWITCHES, Place, available
from .taxes import STAMPED, WANTED, phases_of, taxes

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_BROKEN_OFF = 0, 1, 2, 130

# Blocks, connections a run, and warm-up, by command; fewer blocks than six have no interval
# (statistics.median).
_QUICK = {"taxes": (16, 60, 10), "ladder": (6, 60, 10), "model": (6, 60, 10), "load": (6, 60, 10)}
_FULL = {"taxes": (40, 120, 20), "ladder": (24, 120, 20), "model": (12, 120, 20),
         "load": (10, 120, 20)}  # fmt: skip

# Of tables that go to a file.
_WIDTH = 120

_FAILURES = (Failed, CannotBuild, Void, loads.Missing, OSError)

# Those whose stamps say nothing that others' do not.
_UNSTAMPED = ("pyweb again",)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 if it could not be measured, 2 if that was no question."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=options.json == "-")
    if not console.is_terminal:
        console.width = _WIDTH
    if options.json and (complaint := _cannot_write(options.json)):
        print(f"pyweb-lab: {complaint}", file=sys.stderr)
        return EXIT_USAGE
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _break_off)  # as ^C does: no server may be left
    try:
        answer = _measured(options, console)
        if options.json:
            _write(options.json, answer)
    except _FAILURES as failure:
        print(f"pyweb-lab: {failure}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("pyweb-lab: broken off; nothing is kept", file=sys.stderr)
        return EXIT_BROKEN_OFF
    return EXIT_DONE


def _break_off(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pyweb-lab",
        description="What a connection costs because it gets a process, and because Python runs.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (about, run) in COMMANDS.items():
        one = commands.add_parser(name, help=about, description=about)
        one.set_defaults(run=run)
        one.add_argument("--quick", action="store_true", help="a minute, wider intervals")
        one.add_argument("--json", metavar="PATH", help="the figures as JSON; -: standard output")
        one.add_argument("--blocks", type=_blocks, metavar="N", help="repeat so often, at least 6")
        one.add_argument("--no-pin", action="store_true", help="leave the CPUs to the system")
    return parser


def _blocks(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 2 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 to 10000")
    return int(text)


def _measured(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="pyweb-lab-") as scratch:
        directory = Path(scratch)
        place = Place(directory, Programs(directory))
        place.prepare()
        facts = machine.facts() | {"pinned": _pinned(options)}
        run: Callable[..., dict[str, Any]] = options.run
        found = run(options, place, console, facts)
    return {"command": options.command, "quick": options.quick, "machine": facts} | found


def _pinned(options: argparse.Namespace) -> str:
    servers, client = _cpus(options)
    if servers is None:
        return tell.NOT_PINNED
    return f"servers on CPU {servers}, client on CPU {client}"


def _cpus(options: argparse.Namespace) -> tuple[int | None, int | None]:
    return (None, None) if options.no_pin else machine.server_cpu_and_client_cpu()


def _plan(options: argparse.Namespace) -> Plan:
    blocks, connections, warm = (_QUICK if options.quick else _FULL)[options.command]
    return Plan(options.blocks or blocks, connections, warm, *_cpus(options))


def _cannot_write(path: str) -> str | None:
    """Better said before a measurement than after it."""
    if path == "-":
        return None
    is_new = not os.path.exists(path)
    try:
        with open(path, "a", encoding="utf-8"):
            pass
        if is_new:
            os.unlink(path)
        return None
    except OSError as error:
        return f"--json {path}: {error.strerror}; name a file that can be written"


def _write(path: str, answer: dict[str, Any]) -> None:
    text = json.dumps(answer, indent=1, allow_nan=False) + "\n"
    if path == "-":
        sys.stdout.write(text)
    else:
        Path(path).write_text(text, "utf-8")


@contextlib.contextmanager
def _progress(console: Console, title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Gives what is to be called at each step."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    # Drawn at each step and not by a thread: that would be on a CPU that is measured.
    with Progress(*columns, console=console, transient=True, auto_refresh=False) as progress:
        task = progress.add_task("", total=total)

        def tick(text: str) -> None:
            progress.update(task, advance=1, description=text, refresh=True)

        yield tick


# The commands.


def _ladder(
    options: argparse.Namespace, place: Place, console: Console, facts: dict[str, Any]
) -> dict[str, Any]:
    plan = _plan(options)
    missing = []
    rungs = available(LADDER, ENGINES)
    try:
        place.programs.extension("rung")
    except CannotBuild as why:
        missing.append(f"{why} (what can't be measured: C inside CPython, and the taxes)")
        rungs = [one for one in rungs if not one.is_inside]
    stamped = [one.name for one in rungs if one.name not in _UNSTAMPED]
    if not options.quick:
        rungs += available(SWITCHES, ENGINES)
    total = ladder.count_of_runs(plan, rungs, stamped) + plan.blocks
    with _progress(console, "ladder", total) as tick:
        found = ladder.measure(place, plan, rungs, stamped, tick)
        fault = faults.price(place.programs, plan.blocks, plan.servers, tick)
    differences = ladder.differences(found, (*STEPS, *SWITCH_STEPS))
    tell.on_top(console, facts, found.same, found.void, missing)
    console.print(tell.rungs_table(found, rungs))
    console.print(tell.steps_table(differences))
    answer = data.of_ladder(found, differences)
    console.print(tell.phases_table(phases_of(found)))
    if set(WANTED) <= found.walls.keys():
        sums = taxes(found, fault)
        answer["taxes"] = data.of_taxes(sums)
        for line in tell.taxes_lines(sums):
            console.print(line, highlight=False, soft_wrap=True)
    return answer


def _taxes(
    options: argparse.Namespace, place: Place, console: Console, facts: dict[str, Any]
) -> dict[str, Any]:
    plan = _plan(options)
    rungs = [one for one in LADDER if one.name in WANTED]
    total = ladder.count_of_runs(plan, rungs, STAMPED) + plan.blocks
    with _progress(console, "taxes", total) as tick:
        found = ladder.measure(place, plan, rungs, STAMPED, tick)
        fault = faults.price(place.programs, plan.blocks, plan.servers, tick)
    tell.on_top(console, facts, found.same, found.void, [])
    if found.dropped:
        raise Failed(f"without {', '.join(found.dropped)} there are no taxes")
    sums = taxes(found, fault)
    for line in tell.taxes_lines(sums):
        console.print(line, highlight=False, soft_wrap=True)
    return data.of_ladder(found, ()) | {"taxes": data.of_taxes(sums)}


def _model(
    options: argparse.Namespace, place: Place, console: Console, facts: dict[str, Any]
) -> dict[str, Any]:
    plan = _plan(options)
    total = model.steps(quick=options.quick) + plan.blocks
    with _progress(console, "model", total) as tick:
        found = model.measure(place.programs, quick=options.quick, tick=tick, cpu=plan.servers)
        hooks = found.hooks.get("pyweb's master")
        work = [own.hold(place, plan, found, hooks.fork, tick)] if hooks else []
    tell.on_top(console, facts, found.same, [], found.skipped)
    cases = [*found.cases, *found.changes, *work]
    for line in tell.model_lines(found):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(tell.cases_table(cases))
    return found.as_data() | {"at_work": [one.as_data() for one in work]}


def _load(
    options: argparse.Namespace, place: Place, console: Console, facts: dict[str, Any]
) -> dict[str, Any]:
    plan = _plan(options)
    missing = tools.missing(["ab", "wrk", "cc", "taskset"])
    with _progress(console, "load", throughput.steps(plan)) as tick:
        found = throughput.measure(place, plan, quick=options.quick, tick=tick)
    tell.on_top(console, facts, found.same, found.void, missing)
    console.print(tell.rates_table(found))
    console.print(tell.latency_table(found))
    return found.as_data()


COMMANDS = {
    "ladder": ("Servers that differ in one thing each, and what each thing costs.", _ladder),
    "model": ("What a fork costs by mappings, pages, descriptors; predicted and measured.", _model),
    "load": ("Requests/s and latencies of pyweb's modes, under ab, wrk and an open loop.", _load),
    "taxes": ("The fork tax, the interpreter tax and the residual, in ten lines.", _taxes),
}
