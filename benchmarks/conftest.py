"""What the benchmarks share: a browser's request head, and servers that differ in one thing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pairs import TOLD

# A request as Chromium sends it: 15 fields, about 700 bytes.
BROWSER = (
    b"GET /docs/library/socket.html?highlight=accept HTTP/1.1\r\n"
    b"Host: www.example.org\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    b" Chrome/140.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    b"*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-User: ?1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Referer: https://www.example.org/docs/\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"\r\n"
)


# Of the servers that run, by port.
PIDS: dict[int, int] = {}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., int]]:
    """start(*options): a server of a 1320-byte file; gives its port."""
    (tmp_path / "page").write_bytes(b"x" * 1320)
    running: list[subprocess.Popen[bytes]] = []

    def start_one(*options: str) -> int:
        out = tmp_path / f"out{len(running)}"
        command = [sys.executable, "-m", "pyweb", "0", str(tmp_path), *options]
        with out.open("wb") as file:
            running.append(subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL))
        while b"\n" not in out.read_bytes():
            assert running[-1].poll() is None
            time.sleep(0.01)
        port = int(out.read_text().split("\n")[0].rsplit(":", 1)[1].strip("/"))
        PIDS[port] = running[-1].pid
        return port

    yield start_one
    for process in running:
        process.terminate()
        process.wait(20)


@pytest.hookimpl(trylast=True)  # behind the tables
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The ratios last; the rows of pytest-benchmark tell how long measuring them took."""
    if TOLD:
        terminalreporter.section("interleaved; time ratios are medians of pairs [95 % interval]")
        for line in TOLD:
            terminalreporter.line(line)
