"""Stamps: what a record says is in the order in which it happens, in each mode, and is found from
outside; nobody measures who doesn't want to.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator

import pytest
from conftest import ServeFixture, Server, children_of, until

from pyweb import stamps
from pyweb.config import MODES
from pyweb.stamps import NO_STAMPS, NOTHING, Stamps

PAGE = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
CHILD = ("FORK_BEGIN", "CHILD")
CONVERSATION = (
    "FIRST_BYTE", "PARSED", "OPENED", "DECIDED", "HEADER_SENT", "BODY_SENT", "LOGGED", "EXIT",
)  # fmt: skip
PARENT = ("AWAKE", "ACCEPTED", "FORK_BEGIN", "FORK_END", "WAITS", "NOTICED", "REAPED")
USAGE = ("MINOR_FAULTS", "VOLUNTARY", "INVOLUNTARY", "USER_US", "SYSTEM_US")


def word(record: tuple[int, ...], name: str) -> int:
    return record[stamps.WORDS.index(name)]


def memory_of(server: Server) -> Iterator[int]:
    """Descriptors of the stamps of its masters."""
    for pid in children_of(server.pid):
        for name in os.listdir(f"/proc/{pid}/fd"):
            path = f"/proc/{pid}/fd/{name}"
            if os.readlink(path).startswith(f"/memfd:{stamps.MEMFD_NAME}"):
                yield os.open(path, os.O_RDONLY)


def records(server: Server) -> list[tuple[int, ...]]:
    (fd,) = memory_of(server)
    try:
        return list(stamps.read(fd))
    finally:
        os.close(fd)


@contextlib.contextmanager
def memory(count: int) -> Iterator[tuple[Stamps, int]]:
    fd = os.memfd_create("stamps")
    os.truncate(fd, stamps.SIZE * (1 + count))
    made = Stamps.inherited(fd)
    try:
        yield made, fd
    finally:
        made.close()
        os.close(fd)


def ask(server: Server, request: bytes = PAGE) -> bytes:
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        sock.sendall(request)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
        return answer


@pytest.mark.parametrize("mode", MODES)
def test_in_the_order_in_which_it_happens(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode, "--workers", "1", "--threads", "1", "--stamps", "64")
    for _ in range(5):
        assert ask(server).startswith(b"HTTP/1.1 200 ")
    last = "REAPED" if mode == "fork" else "EXIT"
    until(lambda: sum(bool(word(r, last)) for r in records(server)) >= 5, "the last stamp")
    found = [record for record in records(server) if word(record, "BODY_SENT")]
    assert [word(one, "NUMBER") for one in found][-5:] == sorted(
        word(one, "NUMBER") for one in found
    )[-5:]
    for one in found[-5:]:
        whole = ("AWAKE", "ACCEPTED", *(CHILD if mode == "fork" else ()), *CONVERSATION)
        times = [word(one, name) for name in whole]
        assert all(times)
        assert times == sorted(times)
        forked = [word(one, name) for name in (*PARENT[2:], "CHILD", "MINOR_FAULTS")]
        assert all(forked) if mode == "fork" else not any(forked)
        if mode == "fork":
            # Its child may have ended before the zygote's master goes on, and waits.
            for way in (PARENT[:5], (*PARENT[:3], *PARENT[5:])):
                parent = [word(one, name) for name in way]
                assert parent == sorted(parent)
            assert word(one, "REAPED") > word(one, "EXIT")
            assert word(one, "USER_US") + word(one, "SYSTEM_US") > 0
        assert word(one, "PID") not in (0, os.getpid(), server.pid)
    if mode != "fork":
        assert len({word(one, "PID") for one in found}) == 1


def test_a_record_is_of_the_first_exchange(serve: ServeFixture) -> None:
    """The second opens a file, the first does not."""
    server = serve("--stamps", "64")
    answer = ask(server, b"GET /.hidden HTTP/1.1\r\nHost: h\r\n\r\n" + PAGE)
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"HTTP/1.1 200 " in answer
    until(lambda: any(word(r, "REAPED") for r in records(server)), "the child to be reaped")
    (one,) = [record for record in records(server) if word(record, "PARSED")]
    assert not word(one, "OPENED")
    assert word(one, "DECIDED")


def test_the_oldest_are_overwritten() -> None:
    with memory(3) as (made, fd):
        for _ in range(5):
            made.accepted()
        assert [record[stamps.NUMBER] for record in stamps.read(fd)] == [3, 4, 5]


def test_who_is_overtaken_writes_no_more() -> None:
    """The ring has come round while a child lives: its record is another's."""
    with memory(2) as (made, fd):
        old, _, new = (made.accepted() for _ in range(3))
        new.set(stamps.EXIT, 7)
        old.mark(stamps.EXIT)
        old.set(stamps.LOGGED, 9)
        [one] = [record for record in stamps.read(fd) if record[stamps.NUMBER] == 3]
        assert (one[stamps.EXIT], one[stamps.LOGGED]) == (7, 0)


def test_shares_are_apart() -> None:
    with memory(8) as (made, fd):
        shares = [made.share(number, 4) for number in range(5)]
        assert shares[4] is NO_STAMPS
        for share in shares:
            for _ in range(3):
                share.accepted()
        assert [record[stamps.NUMBER] for record in stamps.read(fd)] == [2, 2, 2, 2, 3, 3, 3, 3]
        assert made.share(0, 9) is NO_STAMPS


def test_off_is_off(serve: ServeFixture) -> None:
    server = serve()
    assert not list(memory_of(server))
    assert NO_STAMPS.accepted() is NOTHING


def test_other_memory_is_none() -> None:
    fd = os.memfd_create("other")
    try:
        os.truncate(fd, 4096)
        with pytest.raises(ValueError, match="no stamps"):
            stamps.read(fd)
    finally:
        os.close(fd)
