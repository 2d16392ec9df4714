"""One conversation: deadlines, clients that are slow or rude, lingering, 100-continue, defects."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, until

from pyweb import render
from pyweb.accesslog import AccessLog
from pyweb.bodyreader import BodyReader
from pyweb.child import Driver
from pyweb.cli import _arguments as arguments
from pyweb.cli import configure
from pyweb.connection import Connection
from pyweb.errors import Disconnected, Reason
from pyweb.journal import Journal, Sink
from pyweb.message import Head, Response
from pyweb.scoreboard import REASON, REQUESTS, Scoreboard
from pyweb.service import Service
from pyweb.transport import Transport
from pyweb.wait import TimedOut

Way = tuple[str, ...]

HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


# Deadlines.


@pytest.mark.parametrize("option", ["--timeout-header", "--timeout-idle"])
def test_silent_connection_ends_without_a_byte(serve: ServeFixture, way: Way, option: str) -> None:
    server = serve(*way, option, "0.3")
    with server.connect() as client:
        assert client.is_closed()
    assert server.log() == []


def test_idle_connection_ends_without_a_byte(serve: ServeFixture, way: Way) -> None:
    server = serve(*way, "--timeout-idle", "0.3")
    with server.connect() as client:
        client.send(HELLO)
        assert client.answer().status == 200
        assert client.is_closed()
    assert len(server.wait_for_log(1)) == 1


def test_an_empty_line_alone_is_no_request(serve: ServeFixture, way: Way) -> None:
    server = serve(*way, "--timeout-header", "0.3")
    for data in (b"\r\n", b"\r"):
        with server.connect() as client:
            client.send(data)
            assert client.is_closed()
    assert server.log() == []


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\nHost: h\r\n", b"\r\nGET"])
def test_partial_head_gets_408(serve: ServeFixture, way: Way, data: bytes) -> None:
    server = serve(*way, "--timeout-header", "0.3")
    with server.connect() as client:
        client.send(data)
        answer = client.answer()
        assert (answer.status, answer["connection"]) == (408, "close")
        assert client.is_closed()
    assert server.wait_for_log(1)[0].endswith(" 3")


def test_a_trickle_of_head_does_not_prolong(serve: ServeFixture, way: Way) -> None:
    """One deadline for the whole head, not for each recv."""
    server = serve(*way, "--timeout-header", "0.5")
    ticks = 0
    with server.connect() as client:
        client.sock.settimeout(0.1)
        client.send(b"GET / HTTP/1.1\r\nX: ")
        while ticks < 100:
            ticks += 1
            with contextlib.suppress(TimeoutError):
                client.send(b"x")
                assert client.answer().status == 408
                break
    assert ticks < 50


def test_body_timeout(serve: ServeFixture, way: Way) -> None:
    server = serve(*way, "--timeout-body", "0.3")
    for framing in (b"Content-Length: 5\r\n\r\nhel", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"):
        with server.connect() as client:
            client.send(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing)
            assert client.answer().status == 408
            assert client.is_closed()
    assert all(line.endswith(" 4") for line in server.wait_for_log(2))


def test_a_client_that_never_reads_is_let_go(serve: ServeFixture, way: Way, site: Path) -> None:
    (site / "big").write_bytes(b"x" * (64 << 20))
    server = serve(*way, "--timeout-write", "0.5")
    with server.connect() as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        line = server.wait_for_log(1)[0]
    assert line.endswith(" 5")
    until(lambda: way[1] != "fork" or server.children() == [], "the child to leave")


# Rude clients.


def test_reset_in_the_midst_of_an_answer(serve: ServeFixture, way: Way, site: Path) -> None:
    (site / "big").write_bytes(b"x" * (64 << 20))
    server = serve(*way)
    client = server.connect()
    client.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
    client.sock.recv(1000)
    reset(client)
    line = server.wait_for_log(1)[0]
    assert line.endswith(" 2")
    assert 0 < int(line.split('" 200 ')[1].split()[0]) < 64 << 20
    assert server.ask("/hello.txt").status == 200


def test_leaving_in_the_midst_of_a_head(serve: ServeFixture, way: Way) -> None:
    server = serve(*way)
    with server.connect() as client:
        client.send(b"GET /hel")
    line = server.wait_for_log(1)[0]
    assert '"GET /hel" 000 0 ' in line
    assert line.endswith(" 1")


def test_leaving_in_the_midst_of_a_body(serve: ServeFixture, way: Way) -> None:
    server = serve(*way)
    with server.connect() as client:
        client.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhel")
    line = server.wait_for_log(1)[0]
    assert '"POST /x HTTP/1.1" 000 0 ' in line
    assert line.endswith(" 1")


def test_half_close_gets_all_answers(serve: ServeFixture, way: Way) -> None:
    server = serve(*way)
    with server.connect() as client:
        client.send(HELLO * 3)
        client.sock.shutdown(socket.SHUT_WR)
        assert [client.answer().body for _ in range(3)] == [b"hello, world\n"] * 3
        assert client.is_closed()


def test_ten_thousand_pipelined(serve: ServeFixture, way: Way) -> None:
    """They all are answered, in order, while the client sends on. (A hundred thousand:
    test_faults.py.)"""
    server = serve(*way, "--access-log", "off")
    count = 10_000
    request = b"HEAD /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"
    with server.connect() as client:
        sender = threading.Thread(target=client.send, args=(request * count,))
        sender.start()
        seen = sum(client.answer("HEAD").status == 200 for _ in range(count))
        sender.join(PATIENCE)
    assert seen == count


@pytest.mark.parametrize("megabytes", [1, 10])
def test_a_refused_flood_still_gets_its_answer(
    serve: ServeFixture, way: Way, megabytes: int
) -> None:
    """Lingering: the answer is there though megabytes were on their way."""
    server = serve(*way)
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * (megabytes << 17))
        assert client.answer().status == 431
        assert client.is_closed()


def test_unread_body_gets_its_answer(serve: ServeFixture, way: Way) -> None:
    server = serve(*way)
    with server.connect() as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5000000
        )
        answer = client.answer()
        assert (answer.status, answer["connection"]) == (405, "close")
        assert client.is_closed()


def test_keepalive_requests(serve: ServeFixture, way: Way) -> None:
    server = serve(*way, "--keepalive-requests", "2")
    with server.connect() as client:
        client.send(HELLO * 5)
        assert client.answer().get("connection") is None
        assert client.answer()["connection"] == "close"
        assert client.is_closed()


def test_max_body_zero_is_no_limit(serve: ServeFixture) -> None:
    server = serve("--max-body", "0")
    with server.connect() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n")
        assert client.answer().status == 405


# In this process, over a socket pair: what no directory makes happen.


class Bench:
    """A Connection whose answers are ours to make."""

    def __init__(self, answer, *options: str) -> None:  # type: ignore[no-untyped-def]
        self.near, far = socket.socketpair()
        self.near.settimeout(PATIENCE)
        far.setblocking(False)
        config = configure(arguments().parse_args(list(options)), {})
        self.read_end, self._write_end = os.pipe()
        journal = Journal(Sink(self._write_end))
        service = Service(config, answer, AccessLog(None, "combined"), journal)
        self.board = Scoreboard(1)
        self.slot = self.board.take(0)
        self.service = service
        self.transport = Transport(far, config.engine)
        self.connection = Connection(service, self.transport, "peer", self.slot)
        self._driver = Driver(self.connection, far, -1)
        self.journal = journal

    def drive(self, steps):  # type: ignore[no-untyped-def]
        return self._driver.run(steps)

    def close(self) -> None:
        self.near.close()
        self.transport.close()
        os.close(self.journal.sink.fd)
        for fd in (self.read_end, self._write_end):
            os.close(fd)
        self.board.close()


@pytest.fixture
def bench() -> Iterator[object]:
    made: list[Bench] = []

    def make(answer, *options: str) -> Bench:  # type: ignore[no-untyped-def]
        made.append(Bench(answer, *options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_what_failed_for_want_of_memory_is_let_go_before_the_answer(
    bench, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    """Which needs some: what had been received of a head of megabytes was still held, and the
    client got nothing."""
    held: list[int] = []

    def parse(data: bytes) -> None:
        if len(data) > 1 << 20:
            raise MemoryError

    def header_bytes(*arguments: object) -> bytes:
        held.append(tracemalloc.get_traced_memory()[0])
        return real(*arguments)  # type: ignore[arg-type]

    real = render.header_bytes
    monkeypatch.setattr(render, "header_bytes", header_bytes)
    one = bench(lambda head: Response(200), "--limit-head", "8000000")
    monkeypatch.setattr(one.service.parser, "parse", parse)

    data = b"GET / " + b"x" * (3 << 20)

    def send() -> None:
        one.near.sendall(data)
        one.near.shutdown(socket.SHUT_WR)

    sender = threading.Thread(target=send)
    tracemalloc.start()
    try:
        sender.start()
        one.drive(one.connection.serve())
    finally:
        tracemalloc.stop()
    sender.join()
    assert b" 503 " in one.near.recv(4096)
    assert held[0] < 1 << 20


def test_a_defect_is_answered_with_500(bench, engine: str) -> None:  # type: ignore[no-untyped-def]
    def broken(head: Head) -> Response:
        raise RuntimeError("planted <defect>")

    one = bench(broken, "--engine", engine)
    one.near.sendall(HELLO)
    one.near.shutdown(socket.SHUT_WR)
    assert one.drive(one.connection.serve()) == Reason.INTERNAL
    answer = Client(one.near).answer()
    assert answer.status == 500
    assert answer["connection"] == "close"
    assert b"planted" not in answer.body
    assert b"planted <defect>" in os.read(one.read_end, 65536)
    assert one.slot.get(REASON) == Reason.INTERNAL
    assert one.slot.get(REQUESTS) == 1


def test_a_control_character_never_reaches_the_wire(bench) -> None:  # type: ignore[no-untyped-def]
    def injected(head: Head) -> Response:
        return Response(200, ((b"X", b"a\r\nSet-Cookie: b"),), (b"x",))

    one = bench(injected)
    one.near.sendall(HELLO)
    one.near.shutdown(socket.SHUT_WR)  # or it lingers for a client that reads nothing
    one.drive(one.connection.serve())
    data = one.near.recv(65536)
    assert b"Set-Cookie" not in data


@pytest.mark.parametrize("minor", [0, 1])
def test_continue_is_sent_when_the_body_is_wanted(bench, minor: int) -> None:  # type: ignore[no-untyped-def]
    """Once, before the first byte is waited for, and never to HTTP/1.0."""
    one = bench(lambda head: Response(204))
    head = Head(b"POST", b"/", minor, (), path=b"/", length=5, expects_continue=bool(minor))
    reader = BodyReader(one.service, one.transport, head, b"")
    got: list[bytes] = []
    thread = threading.Thread(target=lambda: got.append(one.drive(reader.read())))
    thread.start()
    if minor:
        assert one.near.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    one.near.sendall(b"hello, and more")
    thread.join(PATIENCE)
    assert got == [b"hello"]
    assert reader.done
    assert reader.rest == b", and more"


def test_no_continue_when_the_body_has_begun(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(lambda head: Response(204))
    head = Head(b"POST", b"/", 1, (), path=b"/", length=5, expects_continue=True)
    reader = BodyReader(one.service, one.transport, head, b"he")
    one.near.sendall(b"llo")
    assert one.drive(reader.read()) + one.drive(reader.read()) == b"hello"
    one.near.setblocking(False)
    with pytest.raises(BlockingIOError):
        one.near.recv(1)


def test_a_body_that_stops_is_told(bench) -> None:  # type: ignore[no-untyped-def]
    one = bench(lambda head: Response(204), "--timeout-body", "0.1")
    head = Head(b"POST", b"/", 1, (), path=b"/", length=5)
    with pytest.raises(TimedOut):
        one.drive(BodyReader(one.service, one.transport, head, b"").read())
    one.near.shutdown(socket.SHUT_WR)
    with pytest.raises(Disconnected):
        one.drive(BodyReader(one.service, one.transport, head, b"").read())
