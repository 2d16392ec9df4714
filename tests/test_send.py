"""push_bytes and push_file: the two twins move the same bytes, whatever the socket takes."""

from __future__ import annotations

import os
import select
import socket
import statistics
import struct
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from conftest import PATIENCE, ServeFixture, is_corked

from pyweb import _pysend
from pyweb.config import MODES
from pyweb.errors import Disconnected, Reason
from pyweb.message import FileBody
from pyweb.parse import ENGINES
from pyweb.transport import Transport, _fastsend

TWINS = [_pysend, _fastsend] if _fastsend else [_pysend]
SMALL = _pysend.SMALL


@pytest.fixture(params=TWINS, ids=lambda twin: twin.__name__)
def twin(request: pytest.FixtureRequest) -> ModuleType:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected TCP pair, the sending end non-blocking and with little room."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    near.setblocking(False)
    far.settimeout(10)
    with near, far:
        yield near, far


@pytest.fixture
def file(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 8192)
    fd = os.open(path, os.O_RDWR)
    yield fd
    os.close(fd)


def push_all(twin: ModuleType, pair: tuple[socket.socket, socket.socket], *what: object) -> bytes:
    """Everything through, reading on the other side whenever the socket is full."""
    near, far = pair
    push = twin.push_file if len(what) > 1 else twin.push_bytes
    whole = len(what[0]) + (what[3] if len(what) > 1 else 0)  # type: ignore
    done, got = 0, b""
    while done < whole:
        after = push(near, *what, done)
        assert done <= after <= whole
        if after == done:
            # What is on its way counts as sent until it is acknowledged: wait for either.
            readable, _, _ = select.select([far], [near], [], 10)
            got += far.recv(1 << 16) if readable else b""
        done = after
    near.shutdown(socket.SHUT_WR)
    while piece := far.recv(1 << 20):
        got += piece
    return got


@pytest.mark.parametrize("size", [1, 4000, 3_000_000])
def test_bytes(twin: ModuleType, pair, size: int) -> None:  # type: ignore[no-untyped-def]
    data = os.urandom(size)
    assert push_all(twin, pair, data) == data


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, 0), (0, 1), (5, 1000), (0, SMALL), (7, SMALL + 1), (1000, 2_000_000), (0, 1 << 21)],
)
@pytest.mark.parametrize("header", [b"", b"h", b"header\r\n" * 3000], ids=["none", "one", "long"])
def test_file(twin: ModuleType, pair, file: int, header: bytes, offset: int, count: int) -> None:  # type: ignore[no-untyped-def]
    expected = header + os.pread(file, count, offset)
    assert push_all(twin, pair, header, file, offset, count) == expected


def test_header_and_small_body_leave_together(twin: ModuleType, pair, file: int) -> None:  # type: ignore[no-untyped-def]
    near, far = pair
    done = twin.push_file(near, b"header", file, 0, 100, 0)
    assert done == 106
    assert len(far.recv(1 << 16)) == 106


@pytest.mark.parametrize("count", [1000, 1_000_000])
def test_a_file_that_shrank(twin: ModuleType, pair, file: int, count: int) -> None:  # type: ignore[no-untyped-def]
    near, far = pair
    os.ftruncate(file, 500)
    done = 0
    with pytest.raises(Disconnected) as caught:
        while True:
            after = twin.push_file(near, b"header", file, 0, count, done)
            if after == done:
                far.recv(1 << 16)
            done = after
    assert caught.value.reason == Reason.FILE_SHRANK
    near.close()
    got = b""
    while piece := far.recv(1 << 16):
        got += piece
    # Never a byte that isn't the file's: what left is a beginning of what was promised.
    assert (b"header" + bytes(range(256)) * 2)[: len(got)] == got
    assert len(got) <= 506


@pytest.mark.parametrize("count", [1000, 1_000_000])
def test_a_peer_that_reset(twin: ModuleType, pair, file: int, count: int) -> None:  # type: ignore[no-untyped-def]
    near, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    far.close()
    with pytest.raises(OSError, match=r"reset|Broken pipe"):
        for _ in range(10):
            twin.push_file(near, b"header", file, 0, count, 0)


def test_a_full_socket_gives_the_same_count(twin: ModuleType, pair, file: int) -> None:  # type: ignore[no-untyped-def]
    near, far = pair
    done = 0
    while (after := twin.push_file(near, b"h", file, 0, 1 << 21, done)) != done:
        done = after
    assert 0 < done < 1 << 21
    assert twin.push_bytes(near, b"more", 0) == 0
    assert far.recv(1) == b"h"


def test_what_cannot_sendfile_is_copied(twin: ModuleType, pair) -> None:  # type: ignore[no-untyped-def]
    """/proc files refuse sendfile on many kernels and accept it on others; both must work."""
    fd = os.open("/proc/self/status", os.O_RDONLY)
    try:
        first = os.pread(fd, 6, 0)
        assert push_all(twin, pair, b"", fd, 0, 6) == first
    finally:
        os.close(fd)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("count", [SMALL, SMALL + 1, 300_000])
@pytest.mark.parametrize("parts", [1, 2])
def test_whole_segments_until_all_has_left(
    pair: tuple[socket.socket, socket.socket], file: int, engine: str, count: int, parts: int
) -> None:
    near, far = pair
    transport = Transport(near, engine)
    for _ in range(2):
        transport.start(b"header", (FileBody(file, 0, count), b"between") * parts)
        size, got = 6 + (count + 7) * parts, 0
        while not transport.all_sent:
            assert is_corked(near.fileno()) == (count > SMALL)
            if not transport.push():
                readable, _, _ = select.select([far], [near], [], PATIENCE)
                got += len(far.recv(1 << 16)) if readable else 0
        assert not is_corked(near.fileno())
        while got < size:
            got += len(far.recv(1 << 16))


def segments_in(sock: socket.socket) -> tuple[int, int]:
    """Of data, so far, and how large one is (tcp_info's tcpi_data_segs_in and tcpi_rcv_mss)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
    return struct.unpack_from("I", info, 152)[0], struct.unpack_from("I", info, 20)[0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", MODES)
def test_a_large_file_leaves_in_whole_segments(
    serve: ServeFixture, site: Path, mode: str, engine: str
) -> None:
    """Which wake its client no oftener than they must."""
    (site / "large").write_bytes(bytes(size := 10_000_000))
    server = serve("--mode", mode, "--engine", engine)
    buffer = bytearray(1 << 20)
    counts = []
    with socket.create_connection(("127.0.0.1", server.port), PATIENCE) as client:
        for _ in range(9):
            before, _ = segments_in(client)
            client.sendall(b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n")
            got = 0
            while got < size:
                got += client.recv_into(buffer)
            after, largest = segments_in(client)
            counts.append(after - before)
    assert statistics.median(counts) < 1.15 * size / largest
