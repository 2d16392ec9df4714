"""One call of pyweb-lab: where it measures, how much, on which CPUs, and how it shows its progress.

Not here: the words of the command line (cli.py), and what is measured (commands.py).
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from . import machine, tell
from .build import CannotBuild
from .ladder import Plan
from .load import Missing
from .reports import Void
from .run import Failed
from .rungs import Place

Tick = Callable[[str], None]
Answer = dict[str, Any]

# Blocks, connections a run, and warm-up, by command; fewer blocks than six have no interval
# (statistics.median).
_QUICK = {"taxes": (16, 60, 10), "ladder": (6, 60, 10), "model": (6, 60, 10), "load": (6, 60, 10),
          "peers": (6, 0, 0), "article": (6, 0, 0), "race": (6, 0, 0),
          "hold": (6, 0, 0)}  # fmt: skip
_FULL = {"taxes": (40, 120, 20), "ladder": (24, 120, 20), "model": (12, 120, 20),
         "load": (10, 120, 20),
         "peers": (8, 0, 0), "article": (6, 0, 0), "race": (12, 0, 0),
         "hold": (6, 0, 0)}  # fmt: skip

# Where a server is tried out as one would try it out: on all CPUs, beside its load.
_EVERYWHERE = ("peers", "article", "race", "hold")

# What a measurement may end with: a line each.
FAILURES = (Failed, CannotBuild, Void, Missing, OSError)


class Unusable(Exception):
    """What was asked for can't be done, whatever the machine: a line that says what to do."""


def check_writable(option: str, path: str) -> None:
    """Better said before a measurement than after it. Unusable."""
    is_new = not os.path.exists(path)
    try:
        with open(path, "a", encoding="utf-8"):
            pass
        if is_new:
            os.unlink(path)
    except OSError as error:
        raise Unusable(
            f"{option} {path}: {error.strerror}; name a file that can be written"
        ) from None


@dataclass(frozen=True)
class Session:
    """`command`: whose numbers of blocks and connections are taken (a report has several)."""

    command: str
    options: argparse.Namespace
    place: Place
    console: Console

    @property
    def quick(self) -> bool:
        return bool(self.options.quick)

    def cpus(self) -> tuple[int | None, int | None]:
        """Of servers and their client; None: left to the system."""
        return (None, None) if self.options.no_pin else machine.server_cpu_and_client_cpu()

    def plan(self) -> Plan:
        blocks, connections, warm = (_QUICK if self.quick else _FULL)[self.command]
        return Plan(self.options.blocks or blocks, connections, warm, *self.cpus())

    def facts(self) -> dict[str, Any]:
        if self.command in _EVERYWHERE:
            return machine.facts() | {"pinned": tell.ON_ALL}
        servers, client = self.cpus()
        pinned = f"servers on CPU {servers}, client on CPU {client}"
        return machine.facts() | {"pinned": tell.NOT_PINNED if servers is None else pinned}

    def headed(self, answer: Answer) -> Answer:
        """With what every measurement says first."""
        head = {"command": self.command, "quick": self.quick, "date": date.today().isoformat()}
        return head | {"machine": self.facts()} | answer

    @contextlib.contextmanager
    def progress(self, total: int) -> Iterator[Tick]:
        """Gives what is to be called at each step, with its name."""
        columns = (TextColumn(self.command), BarColumn(), MofNCompleteColumn(),
                   TimeRemainingColumn(), TextColumn("{task.description}"))  # fmt: skip
        # Drawn at each step and not by a thread: that would be on a CPU that is measured.
        with Progress(
            *columns, console=self.console, transient=True, auto_refresh=False
        ) as progress:
            task = progress.add_task("", total=total)

            def tick(text: str) -> None:
                progress.update(task, advance=1, description=text, refresh=True)

            yield tick

    def say(self, *lines: str) -> None:
        """Whole lines, wherever a terminal ends."""
        for line in lines:
            self.console.print(line, highlight=False, soft_wrap=True)


Measure = Callable[[Session], Answer]
