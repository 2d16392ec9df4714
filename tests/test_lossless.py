"""Load, while everything is replaced: no request fails, no connection is reset.

In each mode `wrk` and `ab`, with and without keep-alive, and beside them a download of 100 MB that
began before; meanwhile reloads, an upgrade, logs opened anew, pools that grow and shrink, workers
that are recycled. The short form replaces a few times; with PYWEB_LIFE=long (`make life`) it is
20 reloads and 3 upgrades for each.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, ServeFixture, Server, need, state_of
from test_life import LONG, said, tell, took_over, upgrade

from pyweb.config import MODES

RELOADS, UPGRADES = (20, 3) if LONG else (2, 1)
SIZE = 100 << 20
# Behind a hole that is nearly as large.
LAST_WORDS = b"the end"


# Who asks.


class Load:
    """A program that asks until it is told to stop, and reports then."""

    def __init__(self, server: Server, *command: str) -> None:
        program = [need(command[0]), *command[1:], f"{server.url}hello.txt"]
        self._process = subprocess.Popen(
            program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def check(self) -> str:
        """Nothing failed, and there was something that could have: so many requests."""
        self._process.send_signal(signal.SIGINT)
        report = self._process.communicate(timeout=PATIENCE)[0]
        asked = re.search(r"([1-9]\d*) requests in|Complete requests: +([1-9]\d*)\n", report)
        assert asked, report
        assert "Failed requests" not in report or re.search(r"Failed requests: +0\n", report), (
            report
        )
        for words in ("Socket errors", "Non-2xx", "Write errors", "Length:", "Receive:"):
            assert words not in report.replace("Document Length:", ""), report
        return str(asked[1] or asked[2])

    def kill(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


def wrk(server: Server, *options: str) -> Load:
    """Each of its connections asks again as soon as it has its answer."""
    return Load(server, "wrk", "-t1", "-c16", "-d1h", *options)


def ab(server: Server, *options: str) -> Load:
    """-r: what is reset is counted, and does not end it."""
    return Load(server, "ab", "-r", "-q", "-c", "16", "-t", "3600", "-n", "5000000", *options)


LOADS: dict[str, Callable[[Server], Load]] = {
    "wrk": wrk,
    "wrk, close": lambda server: wrk(server, "-H", "Connection: close"),
    "ab": ab,
    "ab -k": lambda server: ab(server, "-k"),
}


@pytest.fixture
def loaded() -> Iterator[Callable[[Server, str], Load]]:
    """loaded(server, which); ended also when a test fails."""
    started: list[Load] = []

    def begin(server: Server, which: str) -> Load:
        started.append(LOADS[which](server))
        return started[-1]

    yield begin
    for load in started:
        load.kill()


# The download.


class Download:
    """A slow one: some of it now and then, the rest when it is asked for."""

    def __init__(self, server: Server, site: Path) -> None:
        with (site / "film").open("wb") as film:
            film.truncate(SIZE)
            film.seek(SIZE - len(LAST_WORDS))
            film.write(LAST_WORDS)
        self._client = server.connect()
        self._client.send(b"GET /film HTTP/1.1\r\nHost: h\r\n\r\n")
        self._head = b""
        while b"\r\n\r\n" not in self._head:
            self._head += self._client.sock.recv(1)
        self._size, self._end = 0, b""

    def read(self, most: int = 1 << 16) -> bool:
        """Some of it. False: nothing is left."""
        data = self._client.sock.recv(min(most, SIZE - self._size))
        self._size += len(data)
        self._end = (self._end + data)[-len(LAST_WORDS) :]
        return bool(data) and self._size < SIZE

    def finish(self) -> None:
        assert self._size < SIZE / 2, "it was to be a slow one"
        while self.read(1 << 20):
            pass
        assert self._head.startswith(b"HTTP/1.1 200 ")
        assert (self._size, self._end) == (SIZE, LAST_WORDS)

    def close(self) -> None:
        self._client.close()


# What happens meanwhile.


def order(server: Server, number: signal.Signals, line: str) -> None:
    """To the supervisor that serves; until it has said that it has done it."""
    count = len(re.findall(line, server.stderr()))
    tell(server, number, (took_over(server) or [0])[-1])
    said(server, line, count + 1)


def replace_everything(server: Server, mode: str, download: Download) -> None:
    """One after the other, each when the one before is done; the pool's are heard beside it."""
    upgrades = {RELOADS * (n + 1) // UPGRADES for n in range(UPGRADES)}
    for done in range(1, RELOADS + 1):
        order(server, signal.SIGHUP, "reloaded: generation")
        order(server, signal.SIGUSR1, "the log has been opened anew")
        if mode == "prefork":
            for number in (signal.SIGTTIN, signal.SIGTTIN, signal.SIGTTOU):
                order(server, number, "the pool is to have")
        download.read()
        if done in upgrades:
            upgrade(server)
            download.read()


OPTIONS = {
    "fork": (),
    "prefork": ("--workers", "2", "--max-requests", "200", "--max-requests-jitter", "50"),
    "thread": (),
}


@pytest.mark.parametrize("which", LOADS)
@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_lost(
    lively: ServeFixture,
    loaded: Callable[[Server, str], Load],
    site: Path,
    tmp_path: Path,
    mode: str,
    which: str,
) -> None:
    server = lively("--mode", mode, *OPTIONS[mode], "--access-log", str(tmp_path / "log"))
    first = server.master
    with contextlib.closing(Download(server, site)) as download:
        download.read()
        load = loaded(server, which)
        replace_everything(server, mode, download)
        count = load.check()
        print(f"{mode}, {which}: {count} requests, {RELOADS} reloads, {UPGRADES} upgrades, 0 lost")
        assert state_of(first) not in ("", "Z"), "the first master has a download to finish"
        download.finish()
    assert server.process.wait(PATIENCE) == 0
    for refused, cut in re.findall(r"stopped: .* (\d+) refused, (\d+) cut", server.stderr()):
        assert (refused, cut) == ("0", "0")
    assert "reason " not in server.stderr()
