"""A request that is understood, to an answer, to the bytes of its header; and onto a socket.

In one process, without a server: what is decided is the same whichever engine parses and sends.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SIZE, tell
from pairs import Work, compare

from pyweb.docroot import DocRoot
from pyweb.message import FileBody, Head, Response
from pyweb.parse import ENGINES
from pyweb.render import header_bytes
from pyweb.route import Router
from pyweb.static import StaticSite
from pyweb.transport import Transport

ENTRIES = 100
LARGE = 1 << 20


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    (tmp_path / "page").write_bytes(b"x" * SIZE)
    (tmp_path / "many").mkdir()
    for number in range(ENTRIES):
        (tmp_path / "many" / f"entry-{number}.txt").write_bytes(b"x")
    root = DocRoot(tmp_path)
    yield Router(StaticSite(root, (b"index.html",), False))
    root.close()


def get(path: bytes, *fields: tuple[bytes, bytes]) -> Head:
    return Head(b"GET", path, 1, ((b"host", b"h"), *fields), path=path, keep_alive=True)


# Status, and the request that leads to it.
KINDS = {
    "file": (200, get(b"/page")),
    "not modified": (304, get(b"/page", (b"if-none-match", b"*"))),
    "range": (206, get(b"/page", (b"range", b"bytes=100-199"))),
    "listing": (200, get(b"/many/")),
    "not found": (404, get(b"/none")),
}


def answer(router: Router, head: Head) -> Response:
    """Its files are closed; the header is made."""
    response = router.answer(head)
    for fd in response.files:
        os.close(fd)
    assert header_bytes(response, head.minor, head.keep_alive, ())
    return response


@pytest.mark.benchmark(group="respond")
@pytest.mark.parametrize("kind", KINDS)
def test_respond(benchmark: Any, router: Router, kind: str) -> None:
    status, head = KINDS[kind]
    assert benchmark(answer, router, head).status == status


class Pipe:
    """A message through a pair of sockets: sent by an engine, and read by us."""

    def __init__(self, file: Path, size: int) -> None:
        file.write_bytes(b"x" * size)
        self._fd = os.open(file, os.O_RDONLY)
        self._size = size
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)

    def close(self) -> None:
        os.close(self._fd)
        self._here.close()
        self._there.close()

    def push(self, engine: str) -> Work:
        transport = Transport(self._here, engine)
        body = FileBody(self._fd, 0, self._size)
        header = header_bytes(Response(200, (), (body,)), 1, True, ())

        def once() -> int:
            transport.start(header, (body,))
            came = 0
            while came < len(header) + self._size:
                if not transport.all_sent:
                    transport.push()
                came += len(self._there.recv(1 << 20))
            return came

        return once


@pytest.fixture(params=[SIZE, LARGE], ids=["small", "large"])
def pipe(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pipe]:
    one = Pipe(tmp_path / "file", request.param)
    yield one
    one.close()


@pytest.mark.benchmark(group="respond, push")
@pytest.mark.parametrize("engine", ENGINES)
def test_push(benchmark: Any, pipe: Pipe, engine: str) -> None:
    assert benchmark(pipe.push(engine))


@pytest.mark.skipif(len(ENGINES) < 2, reason="the pure build has one engine")
@pytest.mark.benchmark(group="respond, push, python / cython")
def test_push_ratio(benchmark: Any, pipe: Pipe) -> None:
    sides = pipe.push("cython"), pipe.push("python")
    found = benchmark.pedantic(compare, args=(*sides, 200), rounds=1)
    tell(benchmark, f"push, {pipe._size} bytes: python / cython", found)
