"""Servers that are measured: each a fresh process, told where to run, ended by its pid.

A rung's server says its port on the first line of its standard output. Its stamps are in memory
that the laboratory gives it, or (pyweb itself) that is found in /proc. Not here: which servers
there are (rungs.py), and what is done to them.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .. import stamps
from ..procfs import descriptors
from ..scoreboard import MEMFD_NAME
from .machine import pinned
from .run import Failed

# For a server to say its port, or to end.
_PATIENCE = 30.0
_BREAKS_OFF = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# Records; more connections than that are not made to one server.
RECORDS = 4096


@dataclass(frozen=True)
class Command:
    """How a server is started. `stamped`: what is added when it is to keep stamps; "{fd}" stands
    for the descriptor of memory that it is given; without it it makes its own (pyweb)."""

    words: tuple[str, ...]
    stamped: tuple[str, ...] = ("{fd}",)
    environ: Mapping[str, str] = field(default_factory=dict)

    @property
    def takes_memory(self) -> bool:
        return any("{fd}" in word for word in self.stamped)


class Server:
    """A running one. `port`: on 127.0.0.1; 0: it has not said so yet."""

    def __init__(self, process: subprocess.Popen[str], memory: int | None) -> None:
        self._process = process
        self._memory = memory
        self.port = 0

    def wait_until_it_serves(self) -> None:
        """Until its first line, which ends with its port, or with a URL that has it. Failed: there
        is no such line in time; its last words."""
        assert self._process.stdout
        fd, said, end = self._process.stdout.fileno(), b"", time.monotonic() + _PATIENCE
        while b"\n" not in said:
            if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
                break
            piece = os.read(fd, 4096)
            if not piece:
                break
            said += piece
        match = re.search(rb"(\d+)/?$", said.split(b"\n")[0].strip())
        if match is None:
            raise Failed(f"did not start: {self._said()}: {self._last_words()}")
        self.port = int(match[1])

    def _last_words(self) -> str:
        """Of one that is ended now: also what it has started may hold its stderr open."""
        assert self._process.stderr
        self._end_all()
        os.set_blocking(self._process.stderr.fileno(), False)
        try:
            error = os.read(self._process.stderr.fileno(), 65536).decode("utf-8", "replace")
        except BlockingIOError:
            error = ""
        return (error.strip().splitlines() or ["without a word"])[-1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def family(self) -> list[int]:
        """It and all below it that live."""
        found, queue = [], [self.pid]
        while queue:
            one = queue.pop()
            found.append(one)
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{one}/task/{one}/children").read_text("ascii")
                queue += map(int, text.split())
        return found

    def master(self) -> int:
        """Who forks: pyweb's master under its supervisor; else itself."""
        for pid in self.family():
            if any(MEMFD_NAME in name for name in _open(pid).values()):
                return pid
        return self.pid

    def records(self) -> list[tuple[int, ...]]:
        """Its stamps, when the last that was served has been reaped. Failed: it has none."""
        end = time.monotonic() + _PATIENCE
        while True:
            found = self._read()
            busy = [one for one in found if one[stamps.CHILD] and not one[stamps.REAPED]]
            if not busy:
                return found
            if time.monotonic() > end:
                raise Failed(f"a child of the server was not reaped: {self._said()}")
            time.sleep(0.01)

    def _read(self) -> list[tuple[int, ...]]:
        if self._memory is not None:
            return list(stamps.read(self._memory))
        for pid in self.family():
            for fd, name in _open(pid).items():
                if name.startswith(f"/memfd:{stamps.MEMFD_NAME}"):
                    with open(f"/proc/{pid}/fd/{fd}", "rb") as file:
                        return list(stamps.read(file.fileno()))
        raise Failed(f"the server keeps no stamps: {self._said()}")

    def _said(self) -> str:
        return _short(self._process.args)  # type: ignore[arg-type]

    def stop(self) -> None:
        """Failed: it had ended by itself, or had to be killed."""
        early = self._process.poll()
        late = False
        if early is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                late = True
        self.kill()
        if early is not None:
            raise Failed(f"the server ended by itself with code {early}: {self._said()}")
        if late:
            raise Failed(f"the server had to be killed: {self._said()}")

    def kill(self) -> None:
        """Whatever of it still lives; and what we hold of it is given back."""
        with undisturbed():
            self._kill()

    def _kill(self) -> None:
        self._end_all()
        for stream in (self._process.stdout, self._process.stderr):
            if stream:
                stream.close()
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None

    def _end_all(self) -> None:
        if self._process.poll() is None:
            for pid in self.family():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """^C and the like wait until the end of the block: no process may be left that nobody knows."""
    heard: list[int] = []

    def note(number: int, _frame: object) -> None:
        heard.append(number)

    before = {one: signal.signal(one, note) for one in _BREAKS_OFF}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
    if heard:
        raise KeyboardInterrupt


def _open(pid: int) -> dict[int, str]:
    try:
        return descriptors(pid)
    except OSError:
        return {}


@contextlib.contextmanager
def running(command: Command, *, cpu: int | None, with_stamps: bool = False) -> Iterator[Server]:
    """Until the end of the block. Failed: it does not start, or does not live so long."""
    server = _start(command, cpu, with_stamps)
    try:
        yield server
    except Failed:
        with contextlib.suppress(Failed):
            server.stop()
        raise
    except BaseException:
        server.kill()
        raise
    server.stop()


def _start(command: Command, cpu: int | None, with_stamps: bool) -> Server:
    memory = _memory() if with_stamps and command.takes_memory else None
    words = list(command.words)
    if with_stamps:
        words += [word.replace("{fd}", str(memory)) for word in command.stamped]
    server = None
    try:
        with undisturbed():
            server = Server(_spawn(words, command.environ, memory, cpu), memory)
        server.wait_until_it_serves()
    except BaseException as error:
        if server:
            server.kill()
        elif memory is not None:
            os.close(memory)
        if isinstance(error, OSError):
            raise Failed(f"did not start: {_short(words)}: {error.strerror}") from None
        raise
    return server


def _spawn(
    words: list[str], environ: Mapping[str, str], memory: int | None, cpu: int | None
) -> subprocess.Popen[str]:
    with pinned(cpu):
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | dict(environ),
            pass_fds=() if memory is None else (memory,),
        )


def _memory() -> int:
    fd = os.memfd_create("pyweb-lab-stamps")
    os.ftruncate(fd, stamps.SIZE * (1 + RECORDS))
    os.pwrite(fd, stamps.head(RECORDS), 0)
    return fd


def _short(words: Sequence[str]) -> str:
    return " ".join(words)[:200]


def family_command(words: Sequence[str]) -> Command:
    """pyweb itself: it makes its own memory for its stamps."""
    return Command(tuple(words), ("--stamps", str(RECORDS)))
