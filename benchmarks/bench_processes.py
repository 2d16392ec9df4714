"""What processes cost where they need not: parking, the three modes, and a crowd of idle clients.

Throughput by `ab` and `wrk`, whole runs of them in turn (pairs.py); a latency is that of one
client that asks again and again on new connections, alone and in the crowd.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PIDS
from pairs import Work, compare, note, tell

CLOSING = b"GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
KEPT = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n"
SLOW = b"GET /page HTTP/1.1\r\nHost: h\r\nX-Slow: " + b"x" * 4096

MODES = ("fork", "prefork", "thread")
# (name, command before the URL); each ends by itself.
LOADS = {
    "ab": ["ab", "-q", "-n", "1000", "-c", "50"],
    "ab -k": ["ab", "-q", "-k", "-n", "5000", "-c", "50"],
    "wrk": ["wrk", "-t", "1", "-c", "50", "-d", "1"],
}


def load(name: str, port: int) -> Callable[[], float]:
    """One run: its requests/s. A failed request makes it void."""
    command = [*LOADS[name], f"http://127.0.0.1:{port}/page"]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed (apt install apache2-utils wrk)")

    def once() -> float:
        out = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        failed = re.search(r"Failed requests: +(\d+)|Non-2xx.*?(\d+)|Socket errors", out.stdout)
        assert failed is None or failed[1] == "0", out.stdout
        rate = re.search(r"Requests(?: per second|/sec): +([\d.]+)", out.stdout)
        assert rate
        return float(rate[1])

    return once


def timed(once: Callable[[], float]) -> Work:
    """`compare` wants durations; wrk's last as long as they are told to, so: seconds a request."""
    return lambda: 1 / once()


@pytest.mark.benchmark(group="parking, requests/s without / with it")
@pytest.mark.parametrize("name", LOADS)
def test_parking(benchmark: Any, start: Callable[..., int], name: str) -> None:
    sides = [timed(load(name, start(*options))) for options in (["--no-parking"], [])]
    found = benchmark.pedantic(compare, args=(*sides, 1, 11), kwargs={"told": True}, rounds=1)
    benchmark.extra_info.update(found)
    tell(f"{name}: time parking / --no-parking", found)


@pytest.mark.benchmark(group="modes, requests/s")
@pytest.mark.parametrize("name", LOADS)
def test_modes(benchmark: Any, start: Callable[..., int], name: str) -> None:
    """All three in turn, seven times."""
    sides = {mode: load(name, start("--mode", mode)) for mode in MODES}

    def measure() -> dict[str, list[float]]:
        rates: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(7):
            for mode in MODES if number % 2 else reversed(MODES):
                rates[mode].append(sides[mode]())
        return rates

    rates = benchmark.pedantic(measure, rounds=1)
    found = {mode: statistics.median(values) for mode, values in rates.items()}
    benchmark.extra_info.update(found)
    note(f"{name}: requests/s " + ", ".join(f"{mode} {rate:.0f}" for mode, rate in found.items()))


# Descriptors.


def forks(descriptors: int, count: int = 30) -> Work:
    """Seconds for `count` times fork, exit, wait in a process that holds so many sockets more."""

    def measure() -> float:
        with socket.socket() as sock:
            held = [os.dup(sock.fileno()) for _ in range(descriptors)]
            start = time.perf_counter()
            for _ in range(count):
                pid = os.fork()
                if pid == 0:
                    os._exit(0)
                os.waitpid(pid, 0)
            seconds = time.perf_counter() - start
            for fd in held:
                os.close(fd)
        return seconds / count

    return measure


@pytest.mark.benchmark(group="fork + exit + wait by descriptors")
@pytest.mark.parametrize("descriptors", [256, 2000])
def test_descriptors(benchmark: Any, descriptors: int) -> None:
    """What a master that parked for itself, or kept copies, would pay for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sides = forks(0), forks(descriptors)
    found = benchmark.pedantic(compare, args=(*sides, 1, 41), kwargs={"told": True}, rounds=1)
    benchmark.extra_info.update(found)
    tell(f"fork with {descriptors} sockets more / without", found)
    more = (found["b_us"] - found["a_us"]) / descriptors
    note(f"   {found['a_us']:.0f} us, {found['b_us']:.0f} with them: {more:.3f} us each")


# The crowd.


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), 20)


def ask(port: int) -> float:
    """Seconds for a connection, a request and its whole answer."""
    start = time.perf_counter()
    with connect(port) as sock:
        sock.sendall(CLOSING)
        size = 0
        while piece := sock.recv(65536):
            size += len(piece)
    assert size > 1320
    return time.perf_counter() - start


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


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
def test_crowd(benchmark: Any, start: Callable[..., int], mode: str) -> None:
    """2,000 idle and 500 slow clients, and one that asks on."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    port = start("--mode", mode, "--timeout-idle", "600")

    def measure() -> tuple[list[float], list[float], int]:
        alone = [ask(port) for _ in range(400)]
        with crowd(port, 2000, 500):
            census = Census(port)
            census.start()
            crowded = [ask(port) for _ in range(1200)]
            census.stopped.set()
            census.join()
        alone += [ask(port) for _ in range(400)]
        return alone, crowded, census.most

    alone, crowded, processes = benchmark.pedantic(measure, rounds=1)
    words = []
    for share in (0.5, 0.99):
        before, after = percentile(alone, share), percentile(crowded, share)
        words.append(
            f"p{share * 100:.0f} {after * 1e3:.1f} ms, alone {before * 1e3:.1f}"
            f" (x {after / before:.2f})"
        )
    benchmark.extra_info["processes"] = processes
    note(f"crowd, {mode}: {'; '.join(words)}; {processes} processes; none of 1200 failed")
