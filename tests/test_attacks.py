"""What an attacker found, so that it stays found. Each of these was a defect once."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from conftest import PATIENCE, ServeFixture, state_of, until

Way = tuple[str, ...]
HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"


@pytest.mark.parametrize("piece", [b"./", b"sub/../"])
def test_a_long_path_makes_no_large_page(serve: ServeFixture, piece: bytes) -> None:
    """Crumbs were quadratic: 4 KB of path made a page of 6 MB."""
    server = serve("--index", "none")
    with server.connect() as client:
        target = b"/" + piece * (4000 // len(piece))
        client.send(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = client.answer()
    assert answer.status == 200
    assert len(answer.body) < 60_000


def test_a_slow_steady_reader_is_no_stalled_one(serve: ServeFixture, way: Way, site: Path) -> None:
    """The kernel called the socket full until a megabyte had left; the reader was cut."""
    (site / "big").write_bytes(b"x" * (16 << 20))
    server = serve(*way, "--timeout-write", "1")
    with server.connect() as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        for _ in range(30):  # three times the timeout, at 400 KB/s
            assert client.sock.recv(40_000)
            time.sleep(0.1)
        assert server.log() == []


@pytest.mark.parametrize(
    "data", [b"GET / HT", b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"]
)
def test_what_the_master_ends_is_not_the_client_s_doing(
    serve: ServeFixture, way: Way, data: bytes
) -> None:
    server = serve(*way)
    with server.connect() as client:
        client.send(data)
        with server.connect() as other:  # when this is answered, the first one has been accepted
            other.send(HELLO)
            other.answer()
            time.sleep(0.2)
            server.process.send_signal(signal.SIGQUIT)
            assert server.process.wait(PATIENCE) == 0
    assert server.wait_for_log(2)[-1].endswith(" 86")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_busy_client_hears_the_drain(serve: ServeFixture, way: Way, how: int) -> None:
    """One that always has sent more kept an orphan alive for ever."""
    server = serve(*way, "--access-log", "off")
    until(lambda: way[1] == "fork" or server.children(), "a worker")
    stop = threading.Event()

    def pour(sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                sock.sendall(HELLO * 40)

    with server.connect() as client:
        sender = threading.Thread(target=pour, args=(client.sock,))
        sender.start()
        client.answer()
        children = server.children()
        os.kill(server.pid, how)
        answer = client.answer()
        end = time.monotonic() + PATIENCE
        while answer.get("connection") != "close":
            assert time.monotonic() < end, "it goes on and on"
            answer = client.answer()
        stop.set()
        client.sock.shutdown(socket.SHUT_RDWR)
        sender.join(PATIENCE)
    until(lambda: all(state_of(pid) in ("", "Z") for pid in children), "the child to leave")


def test_late_bytes_take_nothing_from_the_answer(serve: ServeFixture, way: Way, site: Path) -> None:
    """The server chose to close; the client, not knowing, sent its next request meanwhile."""
    size = 4 << 20
    (site / "big").write_bytes(b"x" * size)
    server = serve(*way, "--keepalive-requests", "1")
    with server.connect() as client:
        client.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        got = len(client.sock.recv(100_000))
        server_log_is_there = False
        while not server_log_is_there:
            got += len(client.sock.recv(65536))
            server_log_is_there = bool(server.log())
        client.send(HELLO)
        while piece := client.sock.recv(1 << 20):
            got += len(piece)
            time.sleep(0.01)
    assert got > size


@pytest.mark.parametrize("fields", [b"", b"Host: a\r\nHost: b\r\n", b"Host: a\r\nExpect: x\r\n"])
def test_head_never_gets_content(serve: ServeFixture, way: Way, fields: bytes) -> None:
    server = serve(*way)
    with server.connect() as client:
        client.send(b"HEAD / HTTP/1.1\r\n" + fields + b"\r\n")
        answer = client.answer("HEAD")
        assert answer.status in (400, 417)
        assert int(answer["content-length"]) > 0
        assert client.is_closed()


@pytest.mark.parametrize("log_format", ["combined", "json"])
def test_a_log_line_is_bounded(serve: ServeFixture, log_format: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    server = serve("--access-log", str(log), "--log-format", log_format)
    with server.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: h\r\nUser-Agent: " + b"\xff" * 60000 + b"\r\n\r\n")
        assert client.answer().status == 200
    until(lambda: log.read_bytes().endswith(b"\n"), "the line")
    assert len(log.read_bytes()) < 60_000


def test_a_new_connection_has_a_moment_when_the_server_stops(serve: ServeFixture, way: Way) -> None:
    server = serve(*way)
    with server.connect() as client, server.connect() as other:
        other.send(HELLO)
        other.answer()  # so the first one has been accepted
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.stderr(), "the signal to be heard")
        client.send(HELLO)
        answer = client.answer()
        assert (answer.status, answer["connection"]) == (200, "close")
    assert server.stop() == 0


def test_a_flood_of_tiny_chunks_ends_the_connection(serve: ServeFixture, way: Way) -> None:
    """What is read for nobody is bounded in bytes on the wire, not only in content."""
    server = serve(*way)
    chunk = b"0000000000000001\r\nx\r\n"
    with server.connect() as client:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            client.send(
                b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 60_000
            )
        answer = client.answer()
        assert (answer.status, answer["connection"]) == (405, "close")
