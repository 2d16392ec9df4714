"""A whole request on a loopback socket: connect, ask, read the answer; both engines in turn."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest
from pairs import compare, tell

from pyweb.parse import ENGINES

REQUEST = b"GET /page HTTP/1.1\r\nHost: h\r\n\r\n"
CLOSING = b"GET /page HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def connection_each(port: int) -> Callable[[], object]:
    """A process for each request."""

    def once() -> int:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.sendall(CLOSING)
            size = 0
            while piece := sock.recv(65536):
                size += len(piece)
        assert size > 1320
        return size

    return once


def kept_alive(port: int) -> tuple[Callable[[], object], socket.socket]:
    """A process for all of them."""
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def once() -> int:
        sock.sendall(REQUEST)
        answer = sock.recv(65536)
        assert len(answer) > 1320
        return len(answer)

    return once, sock


@pytest.mark.benchmark(group="request, a connection each")
@pytest.mark.parametrize("engine", ENGINES)
def test_connection(benchmark: Any, start: Callable[..., int], engine: str) -> None:
    benchmark(connection_each(start("--engine", engine)))


@pytest.mark.benchmark(group="request, kept alive")
@pytest.mark.parametrize("engine", ENGINES)
def test_keep_alive(benchmark: Any, start: Callable[..., int], engine: str) -> None:
    once, sock = kept_alive(start("--engine", engine))
    with sock:
        benchmark(once)


@pytest.mark.skipif(len(ENGINES) < 2, reason="the pure build has one engine")
@pytest.mark.benchmark(group="request, python / cython")
@pytest.mark.parametrize("kind", ["connection each", "kept alive"])
def test_ratio(benchmark: Any, start: Callable[..., int], kind: str) -> None:
    ports = start("--engine", "cython"), start("--engine", "python")
    held = []
    if kind == "kept alive":
        held = [kept_alive(port) for port in ports]
        sides = [once for once, _ in held]
    else:
        sides = [connection_each(port) for port in ports]
    found = benchmark.pedantic(compare, args=(*sides, 50), rounds=1)
    for _, sock in held:
        sock.close()
    benchmark.extra_info.update(found)
    tell(f"request, {kind}: python / cython", found)
