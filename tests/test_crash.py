"""A process that crashes: its client gets a 500, the log names the request, nobody else notices."""

from __future__ import annotations

import functools
import os
import signal
import time
from pathlib import Path

import pytest
from conftest import Client, ServeFixture, Server, until

from pyweb.parse import ENGINES

FATAL = [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGXCPU]


@pytest.fixture
def serve(serve: ServeFixture) -> ServeFixture:
    """Connections keep their process until it dies; what is parked has none that could."""
    return functools.partial(serve, "--no-parking")


def begun(server: Server, data: bytes) -> tuple[Client, int]:
    """A connection whose process has received `data`, and that process."""
    before = set(server.children())
    client = server.connect()
    client.send(data)
    until(lambda: set(server.children()) - before, "the child")
    time.sleep(0.3)  # it must have read what was sent; it says so nowhere
    return client, (set(server.children()) - before).pop()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("number", FATAL, ids=lambda n: n.name)
def test_its_client_gets_a_500(serve: ServeFixture, engine: str, number: signal.Signals) -> None:
    server = serve("--engine", engine)
    data = b"POST /heavy?x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"
    client, pid = begun(server, data)
    other, _ = begun(server, b"GET /hello.txt HTTP/1.1\r\nHost:")
    with client, other:
        os.kill(pid, number)
        answer = client.answer()
        assert (answer.status, answer["connection"]) == (500, "close")
        assert answer.get("retry-after") is None
        assert client.is_closed()
        other.send(b" h\r\n\r\n")
        assert other.answer().body == b"hello, world\n"
    (line,) = [one for one in server.wait_for_log(2) if '"POST /heavy?x" 500 ' in one]
    assert line.endswith(" 87")
    said = f"child {pid}, serving 127.0.0.1 'POST /heavy?x', was ended by {number.name}"
    assert said in server.stderr()
    if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        assert 'child.py"' in server.stderr()  # where Python was


def test_of_a_head_that_has_begun(serve: ServeFixture) -> None:
    client, pid = begun(serve(), b"GET /hello")
    with client:
        os.kill(pid, signal.SIGKILL)
        assert client.answer().status == 500


def test_an_answer_that_has_begun_is_only_cut(serve: ServeFixture, site: Path) -> None:
    """Never a second status line in the midst of a body."""
    (site / "big").write_bytes(b"x" * (64 << 20))
    server = serve()
    client, pid = begun(server, b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
    with client:
        os.kill(pid, signal.SIGSEGV)
        got = client.rest()
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.count(b"HTTP/1.1") == 1
    line = server.wait_for_log(1)[0]
    assert '"GET /big" 000 ' in line
    assert line.endswith(" 87")


def test_an_idle_connection_just_ends(serve: ServeFixture) -> None:
    server = serve()
    client, pid = begun(server, b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n")
    with client:
        assert client.answer().status == 200
        os.kill(pid, signal.SIGKILL)
        assert client.is_closed()
    until(lambda: "was ended by SIGKILL" in server.stderr(), "the death to be told")
    assert len(server.log()) == 1


def test_nothing_of_the_dead_is_kept(serve: ServeFixture) -> None:
    """Copies of sockets, slots and children are given back."""
    server = serve("--max-connections", "4")
    descriptors = Path(f"/proc/{server.master}/fd")
    server.ask("/hello.txt")
    until(lambda: not server.children(), "the child to be gone")
    before = len(list(descriptors.iterdir()))
    for _ in range(10):
        client, pid = begun(server, b"GET /")
        with client:
            os.kill(pid, signal.SIGKILL)
            assert client.answer().status == 500
    assert server.ask("/hello.txt").status == 200
    until(lambda: len(list(descriptors.iterdir())) == before, "its descriptors to be closed")


def test_all_children_at_once(serve: ServeFixture) -> None:
    server = serve()
    held = [begun(server, b"GET /") for _ in range(5)]
    for _, pid in held:
        os.kill(pid, signal.SIGKILL)
    for client, _ in held:
        with client:
            assert client.answer().status == 500
    assert server.ask("/hello.txt").status == 200
