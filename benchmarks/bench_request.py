"""A whole request on a loopback socket: connect, ask, read the answer."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from conftest import KEPT, SIZE, Start, connection_each, tell
from pairs import Work, compare

from pyweb.config import MODES
from pyweb.parse import ENGINES


@contextlib.contextmanager
def kept_alive(port: int) -> Iterator[Work]:
    """A connection for all of them."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def once() -> int:
            sock.sendall(KEPT)
            answer = sock.recv(65536)
            assert len(answer) > SIZE
            return len(answer)

        yield once


# What pyweb is by default.
BASE = "fork", ENGINES[0]
WAYS = [(mode, engine) for mode in MODES for engine in ENGINES]


def options(way: tuple[str, str]) -> list[str]:
    return ["--mode", way[0], "--engine", way[1], "--access-log", "off"]


@pytest.mark.benchmark(group="connection")
@pytest.mark.parametrize("way", [way for way in WAYS if way != BASE], ids="-".join)
def test_ways(benchmark: Any, start: Start, way: tuple[str, str]) -> None:
    """Fork x engine: each against the default."""
    sides = [connection_each(start(*options(one))) for one in (BASE, way)]
    found = benchmark.pedantic(compare, args=(*sides, 20), rounds=1)
    tell(benchmark, f"a connection: {'-'.join(way)} / {'-'.join(BASE)}", found)


@pytest.mark.benchmark(group="request, a connection each")
@pytest.mark.parametrize("engine", ENGINES)
def test_connection(benchmark: Any, start: Start, engine: str) -> None:
    benchmark(connection_each(start("--engine", engine)))


@pytest.mark.benchmark(group="request, kept alive")
@pytest.mark.parametrize("engine", ENGINES)
def test_keep_alive(benchmark: Any, start: Start, engine: str) -> None:
    with kept_alive(start("--engine", engine)) as once:
        benchmark(once)


@pytest.mark.skipif(len(ENGINES) < 2, reason="the pure build has one engine")
@pytest.mark.benchmark(group="request, kept alive, python / cython")
def test_ratio(benchmark: Any, start: Start) -> None:
    with (
        kept_alive(start("--engine", "cython")) as cython,
        kept_alive(start("--engine", "python")) as python,
    ):
        found = benchmark.pedantic(compare, args=(cython, python, 50), rounds=1)
    tell(benchmark, "request, kept alive: python / cython", found)
