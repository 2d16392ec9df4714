"""The access log: one line for whatever happened, whole, unforgeable, and never in the way."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, Server, until

from pyweb.accesslog import Entry, combined_line, json_line
from pyweb.errors import Reason
from pyweb.journal import PIPE_BUF
from pyweb.message import Head

QUOTED = r'"((?:[ !#-\[\]-~]|\\["\\]|\\x[0-9a-f]{2})*)"'
COMBINED = re.compile(
    r"(?P<peer>[0-9a-f.:]+|unix:) - - "
    r"\[(?P<time>\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4})\] "
    + QUOTED.replace("(", "(?P<request>", 1)
    + r" (?P<status>\d{3}) (?P<bytes>\d+) "
    + QUOTED.replace("(", "(?P<referer>", 1)
    + " "
    + QUOTED.replace("(", "(?P<agent>", 1)
    + r" (?P<reason>\d+)"
)
FIELDS = [
    "time", "peer", "method", "target", "version", "status", "bytes", "seconds", "pid",
    "user_agent", "referer", "reason",
]  # fmt: skip


def parsed(line: str) -> dict[str, str]:
    match = COMBINED.fullmatch(line)
    assert match, f"no line of the combined format: {line!r}"
    return match.groupdict()


def as_json(line: str) -> dict[str, object]:
    event: dict[str, object] = json.loads(line)
    assert line.isascii()
    assert line.isprintable()
    assert list(event) == FIELDS
    return event


def request(target: bytes = b"/hello.txt", *fields: bytes, method: bytes = b"GET") -> bytes:
    lines = [method + b" " + target + b" HTTP/1.1", b"Host: h", *fields, b"Connection: close"]
    return b"\r\n".join([*lines, b"", b""])


def exchange(server: Server, data: bytes) -> bytes:
    with server.connect() as client:
        client.send(data)
        return client.rest()


def line_of(server: Server, data: bytes) -> str:
    """The one line that a request makes."""
    return answer_and_line(server, data)[1]


def answer_and_line(server: Server, data: bytes) -> tuple[bytes, str]:
    before = len(server.log())
    answer = exchange(server, data)
    lines = server.wait_for_log(before + 1)
    # A second line of the same connection would be there before the next connection's.
    exchange(server, request(b"/empty.txt"))
    after = server.wait_for_log(len(lines) + 1)
    assert len(after) == before + 2, after[before:]
    return answer, after[before]


# The formats.


def test_combined(serve: ServeFixture, engine: str) -> None:
    server = serve("--engine", engine)
    data = request(b"/hello.txt?a=b", b"Referer: http://x/y", b"User-Agent: test/1 (x; y)")
    found = parsed(line_of(server, data))
    stamp = time.strptime(found.pop("time"), "%d/%b/%Y:%H:%M:%S %z")
    assert abs(time.mktime(stamp) - time.mktime(time.localtime())) < 3600
    assert found == {
        "peer": "127.0.0.1", "request": "GET /hello.txt?a=b HTTP/1.1", "status": "200",
        "bytes": "13", "referer": "http://x/y", "agent": "test/1 (x; y)", "reason": "0",
    }  # fmt: skip


def test_json(serve: ServeFixture, engine: str) -> None:
    server = serve("--engine", engine, "--log-format", "json")
    data = request(b"/hello.txt?a=b", b"Referer: http://x/y", b"User-Agent: test/1")
    event = as_json(line_of(server, data))
    stamp, seconds, pid = event.pop("time"), event.pop("seconds"), event.pop("pid")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", str(stamp))
    assert isinstance(seconds, float)
    assert 0 <= seconds < PATIENCE
    assert isinstance(pid, int)
    assert pid not in (0, server.pid)
    assert event == {
        "peer": "127.0.0.1", "method": "GET", "target": "/hello.txt?a=b", "version": "HTTP/1.1",
        "status": 200, "bytes": 13, "user_agent": "test/1", "referer": "http://x/y", "reason": 0,
    }  # fmt: skip


LINES = [
    # request, status, bytes (None: of a page), reason
    (request(method=b"HEAD"), 200, 0, Reason.DONE),
    (request(b"/nothing"), 404, None, Reason.NOT_FOUND),
    (request(b"/.hidden"), 404, None, Reason.HIDDEN),
    (request(method=b"PUT"), 405, None, Reason.METHOD_NOT_ALLOWED),
    (request(method=b"BREW"), 501, None, Reason.METHOD_UNKNOWN),
    (request(b"/sub"), 301, None, Reason.DONE),
    (request(b"/empty.txt"), 200, 0, Reason.DONE),
    (request(b"/hello.txt", b"Range: bytes=0-4"), 206, 5, Reason.DONE),
    (request(b"/hello.txt", b"Range: bytes=99-"), 416, None, Reason.RANGE_UNSATISFIABLE),
    (b"GET / HTTP/1.1\r\n\r\n", 400, None, Reason.HOST_MISSING),
    (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505, None, Reason.VERSION_UNKNOWN),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, None, Reason.BAD_METHOD),
    (b"GET /" + b"a" * 9000, 414, None, Reason.LINE_TOO_LONG),
    (request(b"/", *[b"X: y"] * 101), 431, None, Reason.TOO_MANY_FIELDS),
    (request(b"/", b"Content-Length: 9999999999999"), 413, None, Reason.BODY_TOO_LARGE),
]


@pytest.mark.parametrize("log_format", ["combined", "json"])
def test_one_line_for_each_answer(serve: ServeFixture, engine: str, log_format: str) -> None:
    """The numbered reason is the last field."""
    server = serve("--engine", engine, "--log-format", log_format)
    for data, status, size, reason in LINES:
        line = line_of(server, data)
        found = as_json(line) if log_format == "json" else parsed(line)
        assert (int(str(found["status"])), int(str(found["reason"]))) == (status, reason)
        assert size is None or int(str(found["bytes"])) == size
        assert re.search(rf'(" |"reason": ){reason:d}}}?$', line)


def test_one_line_for_each_of_a_connection(serve: ServeFixture, engine: str) -> None:
    server = serve("--engine", engine)
    targets = [f"/hello.txt?{i}" for i in range(50)]
    with server.connect() as client:
        client.send(b"".join(f"GET {t} HTTP/1.1\r\nHost: h\r\n\r\n".encode() for t in targets))
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        client.rest()
    lines = [parsed(line) for line in server.wait_for_log(51)]
    assert [line["request"].split()[1] for line in lines] == [*targets, "/"]
    assert [line["status"] for line in lines] == ["200"] * 50 + ["400"]


# Connections that break.


def partial_heads() -> list[bytes]:
    return [b"G", b"GET /hello.txt", b"GET / HTTP/1.1\r\nHost: h\r\n", b"\xff", b"\r\nG"]


@pytest.mark.parametrize("data", partial_heads())
def test_partial_head_then_close(serve: ServeFixture, engine: str, data: bytes) -> None:
    server = serve("--engine", engine)
    with server.connect() as client:
        client.send(data)
        client.sock.shutdown(socket.SHUT_WR)
        answer = client.rest()
    found = parsed(server.wait_for_log(1)[0])
    if answer:  # a byte that no request begins with is refused at once
        assert (found["status"], int(found["reason"])) == ("400", Reason.BAD_METHOD)
        return
    assert (found["status"], found["bytes"], found["reason"]) == ("000", "0", "1")


def test_partial_head_in_time(serve: ServeFixture, engine: str) -> None:
    """By who has read it; where it is parked, nobody has, and there is no line to be told."""
    server = serve("--engine", engine, "--timeout-header", "0.2", "--no-parking")
    with server.connect() as client:
        client.send(b"GET /hello.txt HTTP/1.1\r\n")
        assert client.answer().status == 408
    found = parsed(server.wait_for_log(1)[0])
    assert (found["request"], found["reason"]) == ("GET /hello.txt HTTP/1.1", "3")


@pytest.mark.parametrize("data", [b"", b"\r\n"])
def test_silence_is_no_line(serve: ServeFixture, engine: str, data: bytes) -> None:
    server = serve("--engine", engine)
    with server.connect() as client:
        client.send(data)
    exchange(server, request())
    assert len(server.wait_for_log(1)) == 1
    assert server.stop() == 0
    assert len(server.log()) == 1


def large(site: Path) -> int:
    """A file that no socket buffer holds."""
    size = 64 << 20
    with (site / "large.bin").open("wb") as file:
        file.truncate(size)
    return size


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_reset_mid_answer(serve: ServeFixture, site: Path, engine: str) -> None:
    size = large(site)
    server = serve("--engine", engine)
    client = server.connect()
    client.send(request(b"/large.bin"))
    assert client.sock.recv(1000).startswith(b"HTTP/1.1 200 ")
    reset(client)
    found = parsed(server.wait_for_log(1)[0])
    assert (found["status"], found["reason"]) == ("200", "2")
    assert 0 < int(found["bytes"]) < size


def test_cut_when_grace_is_over(serve: ServeFixture, site: Path, engine: str) -> None:
    """An answer that the server itself breaks off has its line and its reason, too."""
    size = large(site)
    server = serve("--engine", engine, "--grace", "0.1")
    with server.connect() as client:
        client.send(request(b"/large.bin"))
        assert client.sock.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.stop() == 0
    found = parsed(server.wait_for_log(1)[0])
    assert (found["status"], int(found["reason"])) == ("200", Reason.ENDED)
    assert 0 < int(found["bytes"]) < size


# Forging.

FAKE = b'127.0.0.1 - - [01/Jan/2026:00:00:00 +0000] "GET /fake HTTP/1.1" 200 1 "-" "-" 0'

FORGED = [
    request(b"/%0a" + FAKE.replace(b" ", b"%20")),
    request(b"/a%0d%0aSet-Cookie:x"),
    request(b'/a"%22\\"' + b'\\\\"'),
    request(b"/hello.txt", b'User-Agent: x" 0\x80'),
    request(b"/hello.txt", b'User-Agent: a" 200 1 "-" "-" 0'),
    request(b"/hello.txt", b"User-Agent: \xff\xfe\x80 \xc3\xbc \xe2\x80\xa8"),
    request(b"/hello.txt", b"Referer: \\", b'User-Agent: \\"'),
    request(b"/hello.txt", b"Referer: \t\t", b"User-Agent: \t-\t"),
    request(b"/hello.txt", b"User-Agent: a", b"User-Agent: b"),
    request(b"/hello.txt", b"User-Agent: \x1b]0;title\x07\x1b[2J"),
    request(b"/hello.txt", b"User-Agent: a\nb"),
    request(b"/hello.txt", b"User-Agent: a\rb"),
    request(b"/hello.txt", b"User-Agent: a\0b"),
    b"GET /\x1b[31m HTTP/1.1\r\n\r\n",
    b'GET "\\" HTTP/1.1\r\n\r\n',
    FAKE + b"\n" + FAKE + b"\n\n",
    b"\n" + FAKE + b"\n\n",
    b"\x00\x01\x02\x7f\x80\xff\r\n\r\n",
    b'{"status": 200}\r\n\r\n',
    b"GET /a\xe2\x80\xa8b HTTP/1.1\r\nHost: h\r\n\r\n",
    request(b"/" + b"q" * 8000),
    request(b"/hello.txt", b"User-Agent: " + b"u" * 8192, b"Referer: " + b"\xff" * 8192),
    request(b"/hello.txt", b"User-Agent: " + b'"' * 60000),
]


@pytest.mark.parametrize("log_format", ["combined", "json"])
def test_nothing_is_forged(serve: ServeFixture, engine: str, log_format: str) -> None:
    server = serve("--engine", engine, "--log-format", log_format)
    parse = as_json if log_format == "json" else parsed
    for data in FORGED:
        answer, line = answer_and_line(server, data)
        found = parse(line)
        assert found["peer"] == "127.0.0.1"
        assert int(str(found["status"])) == int(answer[9:12])


def test_values_come_back(serve: ServeFixture) -> None:
    """What was escaped can be read again, byte for byte."""
    combined, encoded = serve(), serve("--log-format", "json")
    agent = bytes(c for c in range(0x20, 0x100) if c != 0x7F).strip()
    data = request(b"/hello.txt", b"User-Agent: " + agent)
    found = parsed(line_of(combined, data))["agent"]
    unescaped = re.sub(r"\\(?:x([0-9a-f]{2})|(.))", lambda m: m[2] or chr(int(m[1], 16)), found)
    assert unescaped.encode("latin-1") == agent
    agent = "ü ☃ \U0001f600".encode()
    event = as_json(line_of(encoded, request(b"/hello.txt", b"User-Agent: " + agent)))
    assert event["user_agent"] == agent.decode()


def entry(filler: bytes) -> Entry:
    fields = ((b"user-agent", filler), (b"referer", filler))
    head = Head(b"M" * 8000, b"/" + b'"' * 8000, 1, fields, path=b"/")
    return Entry(
        "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", head, b"", 999, 1 << 60, 1e6, Reason.DONE
    )


@pytest.mark.parametrize("filler", [b"\xff" * 9000, b'"' * 9000, "\u2028".encode() * 9000])
@pytest.mark.parametrize("head", [True, False])
def test_a_clipped_line_fits_a_pipe(filler: bytes, head: bool) -> None:
    one = entry(filler)
    if not head:
        one.head, one.line = None, b"\0" * 512
    for form in (combined_line, json_line):
        assert len(form(one, 200)) <= PIPE_BUF


# Where it goes.


def test_to_a_file(serve: ServeFixture, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    server = serve("--access-log", str(path))
    exchange(server, request())
    until(lambda: path.read_text().count("\n") == 2, "the line")
    before, line = path.read_text().splitlines()
    assert before == "before"
    assert parsed(line)["status"] == "200"
    assert server.stop() == 0
    assert server.log() == []


def test_off(serve: ServeFixture) -> None:
    server = serve("--access-log", "off")
    exchange(server, request())
    assert server.stop() == 0
    assert server.log() == []
    assert "lost" not in server.stderr()


def lost(said: str) -> int:
    counts = re.findall(r"access log: lines are lost[^\n]*?(?: \(([0-9]+) times\))?\n", said)
    return sum(int(count or 1) for count in counts)


def test_full_disk(serve: ServeFixture) -> None:
    """Served all the same; what is lost is counted and said."""
    server = serve("--access-log", "/dev/full", "--per-client", "1")
    with server.connect() as client:
        for _ in range(7):
            client.send(b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n")
            assert client.answer().status == 200
        assert exchange(server, request()).startswith(b"HTTP/1.1 503 ")
    # At once, then once a second what has come meanwhile; a refusal's by another process.
    until(lambda: lost(server.stderr()) == 8, "the loss to be said")
    assert server.stop() == 0
    assert server.stderr().endswith("; 8 log lines lost\n")


# Many writers.


def hammer(server_port: int, number: int, length: int, count: int) -> None:
    """`count` connections, each with a line of its own."""
    for i in range(count):
        with Client(socket.create_connection(("127.0.0.1", server_port), PATIENCE)) as client:
            target = f"/hello.txt?{number}-{i}-".encode() + b"z" * length
            client.send(request(target, b"User-Agent: " + b"u" * length))
            assert client.rest().startswith(b"HTTP/1.1 200 ")


def hammer_all(port: int, length: int, threads: int = 8, count: int = 25) -> Counter[str]:
    """The targets' numbers."""
    running = [
        threading.Thread(target=hammer, args=(port, number, length, count))
        for number in range(threads)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return Counter(f"{number}-{i}" for number in range(threads) for i in range(count))


def numbers(lines: list[str]) -> Counter[str]:
    return Counter(parsed(line)["request"].split("?")[1].split("-z")[0] for line in lines)


def test_no_line_is_torn_in_a_file(serve: ServeFixture) -> None:
    server = serve()
    expected = hammer_all(server.port, 3000)
    assert numbers(server.wait_for_log(expected.total())) == expected


@contextlib.contextmanager
def piped(site: Path, *options: str) -> Iterator[tuple[subprocess.Popen[bytes], int, int]]:
    """A server with its stdout on a pipe: the process, its port, the pipe's reading end."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "pyweb", "0", str(site), *options]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=writer, stderr=subprocess.PIPE
    )
    with process:
        try:
            url = b""
            while not url.endswith(b"\n"):
                url += os.read(reader, 1)
            before = fcntl.fcntl(writer, fcntl.F_GETFL)
            yield process, int(url.rsplit(b":")[-1].strip(b"/\n")), reader
            assert fcntl.fcntl(writer, fcntl.F_GETFL) == before
            assert not before & os.O_NONBLOCK
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(PATIENCE)
            os.close(writer)
            os.close(reader)


def test_no_line_is_torn_in_a_pipe(site: Path) -> None:
    """Lines longer than PIPE_BUF are clipped, and so stay whole."""
    data = bytearray()

    def read(fd: int, lines: int) -> None:
        while data.count(b"\n") < lines:
            data.extend(os.read(fd, 65536))

    with piped(site) as (_, port, fd):
        thread = threading.Thread(target=read, args=(fd, 200))
        thread.start()
        expected = hammer_all(port, 3000)
        thread.join()
    lines = data.decode().splitlines()
    assert max(map(len, lines)) < PIPE_BUF
    assert numbers(lines) == expected


def test_a_stalled_pipe_holds_up_nobody(site: Path) -> None:
    """3000 requests while nobody reads: all are answered, the lost lines counted and said."""
    with piped(site) as (process, port, reader):
        for _ in range(30):
            with Client(socket.create_connection(("127.0.0.1", port), PATIENCE)) as client:
                client.send(b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n" * 100)
                assert [client.answer().status for _ in range(100)] == [200] * 100
        process.terminate()
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        said = process.stderr.read().decode().splitlines()
        os.set_blocking(reader, False)
        lines = b"".join(iter(lambda: read_all(reader), b"")).decode().splitlines()
    for line in lines:
        assert parsed(line)["status"] == "200"
    total = re.search(r"; (\d+) log lines lost$", said[-1])
    assert total
    assert int(total[1]) + len(lines) == 3000
    told = [line for line in said if "lines are lost" in line]
    assert sum(int(c[1]) for c in (re.search(r"\((\d+) times\)", t) for t in told) if c) >= 2000
    seconds = [line[:19] for line in told[:-1]]  # the last one is said at the end, at once
    assert len(set(seconds)) == len(seconds)


def read_all(fd: int) -> bytes:
    try:
        return os.read(fd, 1 << 20)
    except BlockingIOError:
        return b""
