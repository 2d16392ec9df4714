"""Many connections that are open at once: what each costs in memory, of the whole machine.

What counts is what the machine has less (MemAvailable in proc_meminfo(5)): processes, page tables,
sockets on both ends of the loopback, and the client here. Not here: what is shown of it.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import servers, statistics
from .load import Target
from .run import Failed
from .rungs import NAME, SIZE, Place
from .servers import Command, family_command

# A C program that accepts, and does nothing.
BARE = "C: accept, hold"
# Descriptors that are not connections.
_OTHERS = 200
# Until what was done for a connection is over; and between two looks at the memory.
_SETTLES = 1.5
_LOOK = 0.1
_LOOKS = 10
_PATIENCE = 120.0


def _bare(place: Place, _: int) -> Command:
    program = place.programs.program("server")
    return Command((str(program), "hold", f"/{NAME}", str(place.file)))


def _pyweb(*options: str) -> Callable[[Place, int], Command]:
    def command(place: Place, count: int) -> Command:
        most = ("--max-connections", str(count + _OTHERS), "--timeout-idle", "600")
        log = ("--access-log", str(place.directory / "access.log"))
        words = [place.python, "-m", "pyweb", "0", "-d", str(place.file.parent)]
        return family_command([*words, *log, *most, *options])

    return command


SERVERS: dict[str, Callable[[Place, int], Command]] = {
    BARE: _bare,
    "pyweb fork, a process each": _pyweb("--no-parking"),
    "pyweb fork, parked": _pyweb(),
    "pyweb prefork": _pyweb("--mode", "prefork"),
}


@dataclass
class Held:
    """`bytes`: server -> block -> bytes that the machine has less, a connection. `processes`:
    server -> how many served at the end. `void`: a line for each run that was thrown out."""

    count: int
    bytes: dict[str, dict[int, float]] = field(default_factory=dict)
    processes: dict[str, int] = field(default_factory=dict)
    void: list[str] = field(default_factory=list)

    def as_data(self) -> dict[str, Any]:
        """For JSON: an interval is [value, low, high]; kB a connection."""
        bare = self.bytes.get(BARE, {})
        return {
            "connections": self.count,
            "void": self.void,
            "rows": {
                name: {
                    "kb": statistics.median_list([one / 1024 for one in found.values()]),
                    "more_kb": statistics.median_list(
                        [(one - bare[n]) / 1024 for n, one in found.items() if n in bare]
                    ),
                    "processes": self.processes.get(name, 0),
                }
                for name, found in self.bytes.items()
            },
        }


def measure(place: Place, count: int, blocks: int, tick: Callable[[str], None]) -> Held:
    """Failed: a server doesn't start, or the system allows no so many descriptors."""
    _allow_descriptors(count + _OTHERS)
    found = Held(count)
    names = list(SERVERS)
    for block in range(blocks):
        for number in statistics.turns(len(names), block):
            name = names[number]
            try:
                _hold(place, name, found, block)
            except OSError as error:
                found.void.append(f"{name}: {error.strerror or error}")
            tick(name)
    return found


def _allow_descriptors(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise Failed(f"{wanted} descriptors are needed, and {hard} allowed (ulimit -Hn)")
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _hold(place: Place, name: str, found: Held, block: int) -> None:
    asks = name != BARE
    with servers.running(SERVERS[name](place, found.count), cpu=None) as server:
        target = Target(server.port, f"/{NAME}", SIZE)
        with _clients(target, 50, asks):
            pass  # what is done once is done before
        before = _available()
        with _clients(target, found.count, asks) as clients:
            found.processes[name] = len(server.family())
            less = before - _available()
            if asks:
                _ask(clients, target)  # they all live
        found.bytes.setdefault(name, {})[block] = less / found.count


@contextlib.contextmanager
def _clients(target: Target, count: int, asks: bool) -> Iterator[list[socket.socket]]:
    """Each has got one answer, and keeps its connection. OSError."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", target.port), _PATIENCE)
            found.append(stack.enter_context(one))
            if asks:
                _ask(found[-1:], target)
        time.sleep(_SETTLES)
        yield found
    time.sleep(_SETTLES)


def _ask(clients: list[socket.socket], target: Target) -> None:
    request = f"GET {target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    for one in clients:
        one.sendall(request)
        head, _, body = one.recv(65536).partition(b"\r\n\r\n")
        while len(body) < target.size and (more := one.recv(65536)):
            body += more
        if not head.startswith(b"HTTP/1.1 200 ") or len(body) != target.size:
            raise OSError(f"an answer that is none: {head[:60]!r}")


def _available() -> float:
    """Bytes; the median of some looks."""
    found = []
    for _ in range(_LOOKS):
        text = Path("/proc/meminfo").read_text("ascii")
        line = next(line for line in text.splitlines() if line.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
        time.sleep(_LOOK)
    return sorted(found)[_LOOKS // 2]
