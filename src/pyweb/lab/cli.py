"""pyweb-lab: a question, a measurement, an answer that one can read, or --json.

Not here: what is measured and how (commands.py).
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from .build import Programs
from .commands import COMMANDS
from .data import as_json
from .rungs import Place
from .session import FAILURES, Session, Unusable, check_writable

EXIT_DONE, EXIT_FAILED, EXIT_USAGE, EXIT_BROKEN_OFF = 0, 1, 2, 130

# Of tables that go to a file.
_WIDTH = 120


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 if it could not be measured, 2 if that was no question."""
    options = _parser().parse_args(arguments)
    console = Console(stderr=options.json == "-")
    if not console.is_terminal:
        console.width = _WIDTH
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _break_off)  # as ^C does: no server may be left
    try:
        if options.json and options.json != "-":
            check_writable("--json", options.json)
        answer = _answered(options, console)
        if options.json:
            _write(options.json, answer)
    except Unusable as complaint:
        print(f"pyweb-lab: {complaint}", file=sys.stderr)
        return EXIT_USAGE
    except FAILURES as failure:
        print(f"pyweb-lab: {failure}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        kept = "nothing is kept"
        if options.command == "report" and options.json:
            kept = f"{options.json} has the parts that were done"
        print(f"pyweb-lab: broken off; {kept}", file=sys.stderr)
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
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.about, description=command.about)
        command.arguments(one)
        if command.measures:
            _how_much(one)
        one.add_argument("--json", metavar="PATH", help="the figures as JSON; -: standard output")
    return parser


def _how_much(one: argparse.ArgumentParser) -> None:
    one.add_argument("--quick", action="store_true", help="a minute or a few, wider intervals")
    one.add_argument("--blocks", type=_blocks, metavar="N", help="repeat so often, at least 6")
    one.add_argument("--no-pin", action="store_true", help="leave the CPUs to the system")


def _blocks(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or not 2 <= int(text) <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 to 10000")
    return int(text)


def _answered(options: argparse.Namespace, console: Console) -> dict[str, Any]:
    command = COMMANDS[options.command]
    with tempfile.TemporaryDirectory(prefix="pyweb-lab-") as scratch:
        directory = Path(scratch)
        session = Session(options.command, options, Place(directory, Programs(directory)), console)
        if not command.measures:
            return {"command": options.command} | command.run(session)
        session.place.prepare()
        return session.headed(command.run(session))


def _write(path: str, answer: dict[str, Any]) -> None:
    if path == "-":
        sys.stdout.write(as_json(answer))
    else:
        Path(path).write_text(as_json(answer), "utf-8")
