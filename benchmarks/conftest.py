"""What the benchmarks share: servers that differ in one thing, an A/A, words.

They run against the pyweb that is installed, whichever that is: nothing here looks into src/. Each
session begins with comparisons of a thing with itself; where they don't give 1, the summary says so
on top, and its other figures are worth as little.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import pyweb
    from pyweb.lab import load as _  # noqa: F401
    from pyweb.lab import statistics
    from pyweb.parse import ENGINES
except ImportError as missing:
    pytest.exit(f"the benchmarks need pyweb with its laboratory, and numpy: {missing}", 4)

from pairs import Work, compare

SIZE = 1320  # of the article's page
CLOSING = b"GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
KEPT = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n"


# Servers.

# Of those that run, by port.
PIDS: dict[int, int] = {}
Start = Callable[..., int]


@contextlib.contextmanager
def servers(directory: Path) -> Iterator[Start]:
    """start(*options): a server of a file; gives its port. They end with the block."""
    (directory / "page").write_bytes(b"x" * SIZE)
    running: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> int:
        out = directory / f"out{len(running)}"
        command = [sys.executable, "-m", "pyweb", "0", str(directory), *options]
        with out.open("wb") as file:
            running.append(subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL))
        while b"\n" not in out.read_bytes():
            assert running[-1].poll() is None
            time.sleep(0.01)
        port = int(out.read_text().split("\n")[0].rsplit(":", 1)[1].strip("/"))
        PIDS[port] = running[-1].pid
        return port

    try:
        yield start
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(20)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with servers(tmp_path) as start_one:
        yield start_one


def connection_each(port: int) -> Work:
    """A connection, a request, its whole answer, the end."""

    def once() -> int:
        with socket.create_connection(("127.0.0.1", port), 20) as sock:
            sock.sendall(CLOSING)
            size = 0
            while piece := sock.recv(65536):
                size += len(piece)
        assert size > SIZE
        return size

    return once


def fork_and_wait() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


# The same against the same.

SAME: dict[str, dict[str, float]] = {}


@pytest.fixture(scope="session", autouse=True)
def same(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A/A of what the benchmarks are made of: computing, forking, and conversations."""
    option = request.config.getoption
    if option("benchmark_disable") and not option("benchmark_enable"):
        return
    from parsers import BEST

    SAME["computing"] = compare(BEST, BEST, 500)
    SAME["a fork"] = compare(fork_and_wait, fork_and_wait, 30)
    with servers(tmp_path_factory.mktemp("same")) as start_one:
        sides = [connection_each(start_one("--access-log", "off")) for _ in range(2)]
        SAME["a connection"] = compare(sides[0], sides[1], 20)


def _is_quiet(found: dict[str, float]) -> bool:
    return statistics.is_quiet(statistics.Estimate(found["b_over_a"], found["low"], found["high"]))


# What is told.

_TOLD: list[tuple[str, str, dict[str, float]]] = []
# Of the session that --benchmark-compare names: extra_info, by the benchmark's full name.
_BEFORE: dict[str, dict[str, Any]] = {}


def note(line: str) -> None:
    _TOLD.append(("", line, {}))


def tell(benchmark: Any, what: str, found: dict[str, float]) -> None:
    """Keep a ratio with the benchmark, and print it where a person looks."""
    benchmark.extra_info.update(found)
    _TOLD.append((benchmark.fullname, what, found))


def _ratio(found: dict[str, Any]) -> str:
    return "{b_over_a:7.3f}  [{low:.3f}, {high:.3f}]".format_map(found)


def _row(name: str, what: str, found: dict[str, float]) -> str:
    if not found:
        return what
    before = _BEFORE.get(name, {})
    was = f"    was {_ratio(before).strip()}" if "b_over_a" in before else ""
    return f"{what:46}{_ratio(found)}{was}"


@pytest.hookimpl(trylast=True)  # behind the tables
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The ratios last; the rows of pytest-benchmark tell how long measuring them took."""
    if not SAME:
        return
    terminalreporter.section(f"pyweb {pyweb.__version__}, in turn")
    noisy = [name for name, found in SAME.items() if not _is_quiet(found)]
    if noisy:
        terminalreporter.line(
            f"NOISY: {', '.join(noisy)} against itself is not within"
            f" {statistics.QUIET[0]} and {statistics.QUIET[1]}: don't trust the last digit",
            red=True,
        )
    terminalreporter.line("Ratios of times, medians of pairs [95 % interval]")
    for name, found in SAME.items():
        terminalreporter.line(_row("", f"the same against itself: {name}", found))
    for told in _TOLD:
        terminalreporter.line(_row(*told))


def pytest_report_header() -> str:
    return f"pyweb {pyweb.__version__} in {Path(pyweb.__file__).parent} ({', '.join(ENGINES)})"


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Not pyweb's version: --benchmark-compare would take it for another machine."""
    machine_info["usable_cpus"] = len(os.sched_getaffinity(0))
    machine_info["libc"] = " ".join(platform.libc_ver())
    # What changes from one minute to the next, as pytest-benchmark's warning would.
    for changing in ("hz_actual", "hz_actual_friendly"):
        machine_info["cpu"].pop(changing, None)


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    output_json["pyweb"] = {"version": pyweb.__version__, "engines": list(ENGINES)}
    output_json["same"] = SAME


def pytest_benchmark_compare_machine_info(compared_benchmark: dict[str, Any]) -> None:
    """The one place where the other session's figures can be had."""
    for one in compared_benchmark["benchmarks"]:
        _BEFORE[one["fullname"]] = one["extra_info"]
