"""The ladder as data: servers that differ in one thing each, and what each difference is called.

Reference programs in C, the same C inside CPython, small servers in Python, and pyweb with its
modes, engines and switches. Not here: how they are run, and what comes out.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from .build import Programs
from .phases import OF_THE_FORK
from .servers import Command, family_command

_PACKAGE = str(Path(__file__).parent.parent.parent)

# What is served: the file of the project's other measurements.
NAME, SIZE = "page.txt", 1320
_PIECE = 1 << 20
# Of many files, so many in a directory; spread.lua knows both.
_DIRECTORY = 1000
MANY = "d{directory:03}/{number:06}.txt"


@dataclass(frozen=True)
class Place:
    """Where a ladder is measured: the file that is served, its programs, the interpreter, and the
    directory that has pyweb for it. `files`: so many more of the same content are beside it."""

    directory: Path
    programs: Programs
    python: str = sys.executable
    package: str = _PACKAGE
    size: int = SIZE
    files: int = 0

    @property
    def site(self) -> Path:
        return self.directory / (f"site-{self.files}" if self.files else "site")

    @property
    def file(self) -> Path:
        return self.site / NAME

    @property
    def log(self) -> Path:
        return self.directory / (f"access-{self.files}.log" if self.files else "access.log")

    def prepare(self) -> None:
        self.site.mkdir(exist_ok=True)
        with open(self.file, "wb") as file:
            for at in range(0, self.size, _PIECE):
                file.write(b"x" * min(_PIECE, self.size - at))
        for number in range(self.files):
            one = self.site / MANY.format(directory=number // _DIRECTORY, number=number)
            if number % _DIRECTORY == 0:
                one.parent.mkdir(exist_ok=True)
            one.write_bytes(b"x" * self.size)

    def of_size(self, size: int) -> Place:
        """The same, with a file of so many bytes."""
        other = replace(self, size=size)
        other.prepare()
        return other

    def of_files(self, files: int) -> Place:
        """The same, in a directory that has so many more."""
        other = replace(self, files=files)
        other.prepare()
        return other


@dataclass(frozen=True)
class Rung:
    """`silent`: its client sends nothing, and gets nothing but the end. `is_bare`: there is no
    interpreter in it. `is_pure`: it is told to be, so where there is no compiled engine it is like
    another. `is_inside`: it needs an extension module of ours, and so Python's headers."""

    name: str
    title: str
    command: Callable[[Place], Command]
    silent: bool = False
    is_bare: bool = False
    is_pure: bool = False
    is_inside: bool = False


@dataclass(frozen=True)
class Step:
    """From one rung to another is one thing more. `phases`: where the stamps should see it, or
    () where one of the two has none."""

    item: str
    a: str
    b: str
    phases: tuple[str, ...]


def _c(mode: str) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        program = place.programs.program("server")
        return Command((str(program), mode, f"/{NAME}", str(place.file)))

    return command


def _toy(name: str) -> Callable[[Place], Command]:
    def command(place: Place) -> Command:
        extension = str(place.programs.extension("rung"))
        words = (place.python, "-P", "-S", "-m", "pyweb.lab.toy", name, f"/{NAME}")
        # Without `site`, as pyweb's master, so it must be told where pyweb is.
        return Command((*words, str(place.file), extension), environ={"PYTHONPATH": place.package})

    return command


def _inside(name: str, title: str) -> Rung:
    return Rung(name, title, _toy(name), is_inside=True)


def pyweb(*options: str, prelude: str = "") -> Callable[[Place], Command]:
    """`prelude`: Python that its master runs before all else; the laboratory's own tests plant
    costs with it."""

    def command(place: Place) -> Command:
        start = ["-m", "pyweb"] if not prelude else ["-c", _planted(prelude)]
        words = [
            place.python,
            *start,
            "0",
            "-d",
            str(place.file.parent),
            "--access-log",
            str(place.log),
        ]
        return family_command([*words, *options])

    return command


def _planted(prelude: str) -> str:
    return (
        "import sys; from pyweb import spawn;"
        f" spawn.BOOT = spawn.BOOT.replace('from pyweb.generation', {prelude!r} +"
        " '\\nfrom pyweb.generation', 1); from pyweb.cli import main; sys.exit(main())"
    )


# The default server, and the same once more: what differs between these two is noise.
PYWEB, AGAIN = "pyweb", "pyweb again"

LADDER: tuple[Rung, ...] = (
    Rung("c-close", "C: accept, close", _c("close"), silent=True, is_bare=True),
    Rung("c-fork-exit", "C: accept, fork, exit", _c("fork-exit"), silent=True, is_bare=True),
    Rung("c-serve", "C: accept, serve; no fork", _c("serve"), is_bare=True),
    Rung("c-fork-serve", "C: accept, fork, serve, exit", _c("fork-serve"), is_bare=True),
    _inside("c-loop-excluded", "the same inside CPython, its heap not forked"),
    _inside("c-loop", "the same inside CPython"),
    _inside("raw-fork", "Python accepts and reaps; raw fork, C serves"),
    _inside("os-fork", "os.fork, C serves"),
    _inside("python-child", "os.fork, Python serves"),
    _inside("finalised", "the same, and the interpreter is finalised"),
    Rung(PYWEB, "pyweb, mode fork", pyweb()),
    Rung(AGAIN, "pyweb, mode fork, again (A/A)", pyweb()),
    Rung("fork-python", "pyweb, mode fork, engine python", pyweb("--engine", "python"),
         is_pure=True),
    Rung("prefork", "pyweb, mode prefork, 1 worker", pyweb("--mode", "prefork", "--workers", "1")),
    Rung("prefork-python", "pyweb, mode prefork, engine python",
         pyweb("--mode", "prefork", "--workers", "1", "--engine", "python"), is_pure=True),
    Rung("thread", "pyweb, mode thread, 1 thread", pyweb("--mode", "thread", "--threads", "1")),
)  # fmt: skip

# The switches of the real server, each against PYWEB.
SWITCHES: tuple[Rung, ...] = (
    Rung("no-cache", "--cache 0", pyweb("--cache", "0")),
    Rung("no-bare", "--no-bare", pyweb("--no-bare")),
    Rung("no-porter", "--no-porter", pyweb("--no-porter")),
    Rung("no-kinds", "--no-kinds", pyweb("--no-kinds")),
    Rung("batch", "--batch", pyweb("--batch")),
    Rung("no-parking", "--no-parking", pyweb("--no-parking")),
    Rung("spares", "--spares 8", pyweb("--spares", "8")),
    Rung("no-log", "--access-log off", pyweb("--access-log", "off")),
    Rung("json", "--log-format json", pyweb("--log-format", "json")),
    Rung("per-client", "--per-client 100", pyweb("--per-client", "100")),
    Rung("watchdog", "--timeout-request 30", pyweb("--timeout-request", "30")),
    Rung("stamps", "--stamps 4096", pyweb("--stamps", "4096")),
)  # fmt: skip

# Not of the ladder: for whoever asks for it (race.py).
APART: tuple[Rung, ...] = (
    Rung("c-fork-keep", "C: accept, fork; one receive and one send a request", _c("fork-keep"),
         is_bare=True),
)  # fmt: skip

_SERVING = ("prepare", "parse", "open", "decide", "send", "log", "leave")
_PROCESS = ("fork", "start", "exit", "reap")

STEPS: tuple[Step, ...] = (
    Step("a process, nothing served", "c-close", "c-fork-exit", (*OF_THE_FORK, "leave")),
    Step("a process, in C", "c-serve", "c-fork-serve", (*OF_THE_FORK, *_SERVING)),
    Step("CPython's mappings", "c-fork-serve", "c-loop-excluded", (*_PROCESS, *_SERVING)),
    Step("CPython's heap", "c-loop-excluded", "c-loop", (*_PROCESS, *_SERVING)),
    Step("Python accepts and reaps", "c-loop", "raw-fork", ("accept", *OF_THE_FORK)),
    Step("CPython's fork hooks", "raw-fork", "os-fork", (*_PROCESS, "books", *_SERVING)),
    Step("Python serves", "os-fork", "python-child", (*_SERVING, "exit")),
    Step("finalisation", "python-child", "finalised", ("leave", "exit", "reap", "books")),
    Step("pyweb's own", "python-child", PYWEB, ("accept", *OF_THE_FORK, *_SERVING)),
    Step("a process, in pyweb", "prefork", PYWEB, ("accept", *OF_THE_FORK, *_SERVING)),
    Step("engine python, forked", PYWEB, "fork-python", _SERVING),
    Step("engine python, not forked", "prefork", "prefork-python", _SERVING),
    Step("thread instead of prefork", "prefork", "thread", _SERVING),
)  # fmt: skip


SWITCH_STEPS = tuple(Step(one.title, PYWEB, one.name, ()) for one in SWITCHES)


def available(rungs: tuple[Rung, ...], engines: tuple[str, ...]) -> list[Rung]:
    """Those that this installation has."""
    return [rung for rung in rungs if not rung.is_pure or len(engines) > 1]
