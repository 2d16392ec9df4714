"""Every case of cases.py against a real server: whole, in pieces, byte by byte, with a tail."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from cases import CASES, Case
from conftest import Answer, Client, ServeFixture, Server

from pyweb.config import MODES
from pyweb.parse import ENGINES

Sender = Callable[[Client, bytes], None]


def whole(client: Client, data: bytes) -> None:
    client.send(data)


def in_pieces(client: Client, data: bytes) -> None:
    """Cut where it hurts: in the midst of line ends, names and numbers."""
    step = max(1, len(data) // 7)
    for start in range(0, len(data), step):
        client.send(data[start : start + step])


def byte_by_byte(client: Client, data: bytes) -> None:
    for start in range(min(len(data), 400)):
        client.send(data[start : start + 1])
    client.send(data[400:])


def answers(client: Client, case: Case) -> list[Answer]:
    method = "HEAD" if case.head else "GET"
    return [client.answer(method) for _ in case.statuses]


WAYS = [(mode, engine) for mode in MODES for engine in ENGINES]


@pytest.fixture(scope="module", params=WAYS, ids="-".join)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """One server for all cases of a mode and an engine."""
    mode, engine = request.param
    from conftest import make_site

    root = tmp_path_factory.mktemp(f"protocol-{mode}-{engine}")
    made = Server(make_site(root), root / "server", "--mode", mode, "--engine", engine)
    yield made
    made.stop()


@pytest.mark.parametrize("send", [whole, in_pieces, byte_by_byte])
@pytest.mark.parametrize("case", CASES, ids=repr)
def test_case(server: Server, case: Case, send: Sender) -> None:
    before = len(server.log())
    with server.connect() as client:
        try:
            send(client, case.data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent; the answer must be there all the same
        found = answers(client, case)
        assert tuple(a.status for a in found) == case.statuses
        if case.closes:
            assert found[-1]["connection"] == "close"
            assert client.is_closed()
        else:
            assert found[-1].get("connection") in (None, "keep-alive")
            client.send(b"GET /hello.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
            assert client.answer().body == b"hello, world\n"
    lines = server.wait_for_log(before + len(found) + (not case.closes))
    last = lines[before + len(found) - 1]
    assert int(last.rsplit(" ", 1)[1]) == case.reason


@pytest.mark.parametrize("case", [c for c in CASES if not c.closes], ids=repr)
def test_with_a_tail(server: Server, case: Case) -> None:
    """What follows a request is the next request, and nothing of it is lost."""
    tail = b"GET /sub/one.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
    with server.connect() as client:
        client.send(case.data + tail)
        assert tuple(a.status for a in answers(client, case)) == case.statuses
        assert client.answer().body == b"one\n"
        assert client.is_closed()


@pytest.mark.parametrize("case", [c for c in CASES if c.closes], ids=repr)
def test_nothing_after_the_last(server: Server, case: Case) -> None:
    """A refused request ends the connection: bytes that follow are never a request."""
    tail = b"GET /sub/one.txt HTTP/1.1\r\nHost: h\r\n\r\n" * 3
    with server.connect() as client:
        try:
            client.send(case.data + tail)
        except (BrokenPipeError, ConnectionResetError):
            pass
        assert tuple(a.status for a in answers(client, case)) == case.statuses
        assert client.is_closed()


def test_bodies_are_right(serve: ServeFixture, engine: str) -> None:
    """Pipelined answers come in order, each with its own body."""
    server = serve("--engine", engine)
    with server.connect() as client:
        client.send(b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n" * 200)
        client.send(b"GET /sub/one.txt HTTP/1.1\r\nHost: h\r\n\r\n")
        bodies = [client.answer().body for _ in range(201)]
    assert bodies == [b"hello, world\n"] * 200 + [b"one\n"]
