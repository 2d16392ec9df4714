"""What processes cost where they need not: parking, the three modes, and a crowd of idle clients.

Throughput by `ab` and `wrk`, whole runs of them in turn, each with its guards (pyweb.lab.load); a
latency is that of one client that asks again and again on new connections, alone and in the crowd.
"""

from __future__ import annotations

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import KEPT, PIDS, SIZE, Start, connection_each, note, tell
from pairs import Work, compare, in_turn

from pyweb.config import MODES
from pyweb.lab import load, statistics, tools

SLOW = b"GET /page HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"x" * 4096

# Others may be at work on the machine; keep-alive that is not used opens thousands.
STRAY = 1000
LOADS: dict[str, Callable[[load.Target], load.Run]] = {
    "ab": partial(load.ab, requests=1000),
    "ab -k": partial(load.ab_kept, requests=5000, stray=STRAY),
    "wrk": partial(load.wrk, stray=STRAY),
}


def loading(name: str, port: int) -> Work:
    """One run: its seconds a request. Void thrice: an error, and no figure."""
    if lines := tools.missing([name.split(maxsplit=1)[0]]):
        pytest.skip(lines[0])
    target = load.Target(port, "/page", SIZE)

    def once() -> float:
        thrown_out: list[str] = []
        run = load.insist(lambda: LOADS[name](target), thrown_out)
        for why in thrown_out:
            note(f"{name}: a run was thrown out: {why}")
        return 1 / run.rate

    return once


@pytest.mark.benchmark(group="parking, with / without it")
@pytest.mark.parametrize("name", LOADS)
def test_parking(benchmark: Any, start: Start, name: str) -> None:
    sides = [loading(name, start(*options)) for options in (["--no-parking"], [])]
    found = benchmark.pedantic(compare, args=(*sides, 1, 8), kwargs={"told": True}, rounds=1)
    tell(benchmark, f"{name}: time parking / --no-parking", found)


@pytest.mark.benchmark(group="modes, requests/s")
@pytest.mark.parametrize("name", LOADS)
def test_modes(benchmark: Any, start: Start, name: str) -> None:
    """All three in turn."""
    sides = [loading(name, start("--mode", mode)) for mode in MODES]
    found = benchmark.pedantic(in_turn, args=(sides, 1, 6), kwargs={"told": True}, rounds=1)
    rates = {
        mode: 1 / statistics.median(times).value for mode, times in zip(MODES, found, strict=True)
    }
    benchmark.extra_info.update(rates)
    note(f"{name}: requests/s " + ", ".join(f"{mode} {rate:.0f}" for mode, rate in rates.items()))


# The crowd.


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def times(port: int, count: int) -> list[float]:
    """Seconds for a connection, a request and its whole answer, one after the other."""
    (found,) = in_turn([connection_each(port)], 1, count)
    return found


class Trickle(threading.Thread):
    """Clients that send a byte of their head each second, and come again when they are let go."""

    def __init__(self, port: int, count: int) -> None:
        super().__init__()
        self._port = port
        self._places: list[tuple[socket.socket, int] | None] = [None] * count
        self.stopped = threading.Event()

    def run(self) -> None:
        pause = 1 / len(self._places)
        while not self.stopped.is_set():
            for number in range(len(self._places)):
                if self.stopped.wait(pause):
                    break
                self._send(number)
        for place in filter(None, self._places):
            place[0].close()

    def _send(self, number: int) -> None:
        sock, sent = self._places[number] or (connect(self._port), 0)
        try:
            sock.send(SLOW[sent : sent + 1])
            self._places[number] = sock, sent + 1
        except OSError:
            sock.close()
            self._places[number] = None


@contextlib.contextmanager
def crowd(port: int, idle: int, slow: int) -> Iterator[None]:
    """Half of the idle ones are silent, half have had an answer."""
    with contextlib.ExitStack() as stack:
        for number in range(idle):
            sock = stack.enter_context(connect(port))
            if number % 2:
                sock.sendall(KEPT)
                sock.recv(65536)
        trickle = Trickle(port, slow)
        trickle.start()
        stack.callback(trickle.join)
        stack.callback(trickle.stopped.set)
        time.sleep(3)  # all of them have come
        yield


class Census(threading.Thread):
    """The most processes that the server had at once, all of them counted."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self._top = PIDS[port]
        self.most = 0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            self.most = max(self.most, len(family(self._top)))


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        with contextlib.suppress(OSError):
            queue += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
    return found


@pytest.mark.benchmark(group="a crowd")
@pytest.mark.parametrize("mode", MODES)
def test_crowd(benchmark: Any, start: Start, mode: str) -> None:
    """2,000 idle and 500 slow clients, and one that asks on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = start("--mode", mode, "--timeout-idle", "600")

    def measure() -> tuple[list[float], list[float], int]:
        alone = times(port, 300)
        with crowd(port, 2000, 500):
            census = Census(port)
            census.start()
            crowded = times(port, 800)
            census.stopped.set()
            census.join()
        alone += times(port, 300)
        return alone, crowded, census.most

    alone, crowded, processes = benchmark.pedantic(measure, rounds=1)
    words = []
    for share in (0.5, 0.99):
        before, after = np.quantile(alone, share), np.quantile(crowded, share)
        words.append(
            f"p{share * 100:.0f} {after * 1e3:.1f} ms, alone {before * 1e3:.1f}"
            f" (x {after / before:.2f})"
        )
    benchmark.extra_info["processes"] = processes
    note(f"crowd, {mode}: {'; '.join(words)}; {processes} processes; none of 800 failed")
