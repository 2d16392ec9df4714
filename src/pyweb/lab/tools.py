"""Which outside tools the laboratory wants, what it can't do without each, where they come from.

The rest of the laboratory runs without: what is missing is told in a line. Not here: how a tool is
called.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from .build import CannotBuild, compiler_command


@dataclass(frozen=True)
class Tool:
    """what   can't be measured without it
    get    the command that brings it (Debian's names)
    """

    is_there: Callable[[], bool]
    what: str
    get: str


def _command(name: str) -> Callable[[], bool]:
    return lambda: shutil.which(name) is not None


def _module(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _has_compiler() -> bool:
    """Whatever build.py would take."""
    try:
        compiler_command()
    except CannotBuild:
        return False
    return True


TOOLS = {
    "ab": Tool(
        _command("ab"), "throughput as the article measures it", "apt install apache2-utils"
    ),
    "wrk": Tool(_command("wrk"), "throughput with keep-alive at its best", "apt install wrk"),
    "cc": Tool(
        _has_compiler, "the reference programs in C, and latency", "apt install gcc libc6-dev"
    ),
    "taskset": Tool(
        _command("taskset"), "loads that are pinned to a CPU", "apt install util-linux"
    ),
    "numpy": Tool(partial(_module, "numpy"), "the fitted model", "pip install numpy"),
    "rich": Tool(partial(_module, "rich"), "the progress display", "pip install rich"),
}


def missing(names: Iterable[str]) -> list[str]:
    """A line for each of these that is not installed. KeyError: a name that is not in TOOLS."""
    return [_line(name) for name in names if not TOOLS[name].is_there()]


def _line(name: str) -> str:
    tool = TOOLS[name]
    return f"{name} is not installed: {tool.get} (what can't be measured: {tool.what})"
