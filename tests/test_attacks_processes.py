"""What an attacker found between the processes, so that it stays found. Each was a defect once.

Supervisor, master, dispatcher and children are real; some are stopped for a moment, so that what
is a race otherwise happens each time.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, Server, children_of, state_of, until
from test_parking import clients, dispatcher, sockets, the_dispatcher, until_parked

from pyweb.accesslog import AccessLog
from pyweb.child import END
from pyweb.config import Source, build
from pyweb.dispatcher import Dispatcher
from pyweb.journal import Journal, Sink
from pyweb.parking import Arrival, pair, pass_on, receive
from pyweb.parse import ENGINES
from pyweb.past import Past
from pyweb.refuse import Refusals
from pyweb.scoreboard import Scoreboard

HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"
RESET = struct.pack("ii", 1, 0)


def cpu_seconds(pid: int) -> float:
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def slow_reader(server: Server) -> Client:
    """Its window is small from the start."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", server.port))
    return Client(sock)


def large(site: Path, size: int = 24 << 20) -> bytes:
    (site / "large").write_bytes(b"x" * size)
    return HELLO.replace(b"hello.txt", b"large")


def borrowed(pid: int, fd: int) -> int:
    """A descriptor of another process."""
    pidfd = os.pidfd_open(pid)
    try:
        got = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd, fd, 0)
    finally:
        os.close(pidfd)
    if got < 0:
        pytest.skip("may not look into our own processes")
    return int(got)


# Supervisor and master, before they serve.


def start(site: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-m", "pyweb", "0", str(site)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    until(lambda: children_of(process.pid), "a master")
    return process


def cmdline(pid: int) -> list[bytes]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def has_a_handler(pid: int, number: int) -> bool:
    """Of the interpreter, or it is ignored already."""
    status = Path(f"/proc/{pid}/status").read_text()
    masks = re.findall(r"Sig(?:Ign|Cgt):\s*(\w+)", status)
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks)


def test_a_signal_before_the_master_serves(site: Path) -> None:
    """The URL was to be told, of listeners that were closed: code 1 instead of 0."""
    process = start(site)
    (master,) = children_of(process.pid)
    until(lambda: b"-P" in cmdline(master), "it to be another program")  # its parent waits for that
    os.kill(master, signal.SIGSTOP)
    process.send_signal(signal.SIGTERM)
    until(lambda: sockets(process.pid) == 1, "the signal to be heard, and the port closed")
    os.kill(master, signal.SIGCONT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, ""), err


def test_ctrl_c_before_the_master_can_ignore_it(site: Path) -> None:
    """A traceback for the operator."""
    process = start(site)
    (master,) = children_of(process.pid)
    until(lambda: b"-P" in cmdline(master), "it to be another program")
    until(lambda: has_a_handler(master, signal.SIGINT), "the interpreter to start")
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Traceback" in err) == (0, False), err


def test_asking_again_and_again_puts_nothing_off(serve: ServeFixture) -> None:
    server = serve()
    os.kill(server.master, signal.SIGSTOP)
    end = time.monotonic() + PATIENCE
    while server.process.poll() is None:
        assert time.monotonic() < end, "it is not killed"
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert server.process.returncode == 0


def test_a_master_that_dies_whenever_it_serves(serve: ServeFixture) -> None:
    """The pause never grew: that it could serve for a moment was taken for good health."""
    server = serve()
    for count in range(1, 7):
        assert server.ask("/hello.txt").status == 200
        os.kill(server.master, signal.SIGKILL)
        until(lambda n=count: server.stderr().count("another is started") == n, "its death")
    assert server.ask("/hello.txt").status == 200
    stamps = re.findall(r":(\d\d\.\d{3}) pyweb\[\d+\] reason 88", server.stderr())
    assert (float(stamps[-1]) - float(stamps[0])) % 60 > 2


# Counting.


def test_the_share_of_a_client_comes_back(serve: ServeFixture) -> None:
    """The dispatcher slept over the news that its last one had left: 503 for ever."""
    server = serve("--per-client", "1")
    for _ in range(3):
        with clients(server) as (one,):
            until_parked(server, 1)
            one.send(HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert one.answer().status == 200
            assert one.is_closed()
        until(lambda: server.children() == [], "the child to leave")


def test_a_dead_dispatcher_s_counts_die_with_it(serve: ServeFixture) -> None:
    """What it had told, and the master not yet heard, was counted after its death."""
    server = serve("--per-client", "2")
    first, master = the_dispatcher(server), server.master
    with clients(server, 2) as two:
        assert [one.answer_to(HELLO).status for one in two] == [200, 200]
        os.kill(master, signal.SIGSTOP)
        try:
            until(lambda: sockets(first) == 2 + 2, "them to be parked")
            time.sleep(0.3)  # and told
            os.kill(first, signal.SIGKILL)
        finally:
            os.kill(master, signal.SIGCONT)
        until(lambda: dispatcher(server) not in (0, first), "another")
    time.sleep(0.3)  # and the master to hear of that
    assert server.ask("/hello.txt").status == 200


# The end.


def test_a_master_that_drains_does_not_spin(serve: ServeFixture, site: Path) -> None:
    """The dispatcher's end woke it for as long as somebody was served."""
    server = serve()
    with server.connect() as busy:
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        master = server.master
        server.process.send_signal(signal.SIGTERM)
        until(lambda: dispatcher(server) == 0, "the dispatcher to leave")
        before = cpu_seconds(master)
        time.sleep(1)
        assert cpu_seconds(master) - before < 0.5


def test_the_end_of_a_young_dispatcher(serve: ServeFixture) -> None:
    """END found it before it was ready, and it told of a defect. (serve looks for tracebacks.)"""
    server = serve()
    for _ in range(3):
        before = the_dispatcher(server)
        others = set(children_of(server.master))
        with contextlib.suppress(ProcessLookupError):  # it has ended as it was told
            os.kill(before, signal.SIGKILL)
        end = time.monotonic() + PATIENCE
        while not (young := set(children_of(server.master)) - others):
            assert time.monotonic() < end, "no other is started"
        os.kill(young.pop(), END)


def test_what_arrives_when_the_dispatcher_has_nothing_left() -> None:
    """It went, and took along what had been on its way to it."""

    class Late(Dispatcher):
        def _drain(self) -> None:
            super()._drain()
            assert pass_on(parker, theirs, Past(1), "127.0.0.1")

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    board, journal = Scoreboard(1), Journal(Sink(2))
    (inbox, parker), (to_master, master) = pair(), pair()
    (lifeline, end), (ours, theirs) = os.pipe(), socket.socketpair()
    os.close(end)
    with inbox, parker, to_master, master, ours, theirs:
        ours.sendall(HELLO)
        Late(
            build([Source("test", {})], ENGINES),
            inbox=inbox,
            master=to_master,
            lifeline=lifeline,
            refusals=Refusals(AccessLog(None, "combined"), journal, (), 1),
            journal=journal,
            slot=board.take(0),
        ).run()
        arrival = receive(master)
        assert isinstance(arrival, Arrival)
        arrival.sock.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    os.close(lifeline)
    board.close()


# A connection and its bytes.


@pytest.mark.parametrize("tail", [b"\r\n", b"GET /"])
@pytest.mark.parametrize("says_so", [True, False])
def test_a_tail_takes_nothing_from_the_answer(
    serve: ServeFixture, site: Path, engine: str, tail: bytes, says_so: bool
) -> None:
    """It was left unread in the kernel; closing then is a reset, and all that the client had not
    yet received was lost."""
    size = 100_000
    server = serve("--engine", engine, "--timeout-header", "0.5")
    with slow_reader(server) as client:
        client.send(large(site, size) + tail)
        if says_so:
            client.sock.shutdown(socket.SHUT_WR)
        server.wait_for_log(1)
        time.sleep(1.5)  # it is let go meanwhile
        assert len(client.answer().body) == size


def test_a_head_that_became_whole_in_time(serve: ServeFixture, engine: str) -> None:
    """It had grown before, so the next look was to be later than its deadline: 408."""
    server = serve("--engine", engine, "--timeout-header", "3")
    with clients(server) as (one,):
        for byte in b"GET /hello.txt HTTP/1.1":
            one.send(bytes([byte]))
            time.sleep(0.1)
        one.send(b"\r\nHost: h\r\n\r\n")
        assert one.answer().status == 200


def test_an_older_connection_s_end_is_not_the_new_one_s(serve: ServeFixture, site: Path) -> None:
    """The master still had a copy of the older one, so the dispatcher heard of it after its close,
    by the number that the new one had got."""
    server = serve()
    with clients(server, 2) as (older, new):
        new.send(large(site))
        assert new.sock.recv(1, socket.MSG_PEEK)
        assert older.answer_to(HELLO).status == 200
        os.kill(server.master, signal.SIGSTOP)
        pid = the_dispatcher(server)
        try:
            until(lambda: sockets(pid) == 3, "the older to be parked")
            older.sock.shutdown(socket.SHUT_WR)
            until(lambda: sockets(pid) == 2, "it to be closed")
            assert new.answer().status == 200
            until(lambda: sockets(pid) == 3, "the new one to be parked")
            older.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            older.close()
            time.sleep(0.3)
        finally:
            os.kill(server.master, signal.SIGCONT)
        assert new.answer_to(HELLO).status == 200


def test_a_new_connection_in_an_old_one_s_place(serve: ServeFixture) -> None:
    """The oldest young one made room, and its event was taken for that of whoever got its number:
    silent so far, so it was closed."""
    server = serve()
    with clients(server, 63) as young:
        os.kill(server.master, signal.SIGSTOP)
        until(lambda: state_of(server.master) == "T", "it to stop")
        for one in young:
            one.send(HELLO)
        with clients(server, 80) as new:
            os.kill(server.master, signal.SIGCONT)
            for one in young:
                assert one.answer().status == 200
            for one in new:
                assert one.answer_to(HELLO).status == 200


# Too much of something.


def test_those_who_find_no_process_are_told(serve: ServeFixture, site: Path) -> None:
    """More than the master holds: the rest idled too long at the dispatcher, and was reset."""
    server = serve("--max-connections", "1", "--timeout-queue", "2", "--timeout-idle", "4")
    with contextlib.ExitStack() as stack:
        some: list[Client] = []
        for count in range(40, 640, 40):
            some += stack.enter_context(clients(server, 40))
            until_parked(server, count)
        busy = stack.enter_context(server.connect())
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        for one in some:
            one.send(HELLO)
        assert {one.answer().status for one in some} == {503}


def test_what_comes_back_finds_a_descriptor(serve: ServeFixture, site: Path) -> None:
    """The kernel closed what the master had no room for."""
    server = serve(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (32, 128)))
    with clients(server, 50) as some:
        until_parked(server, 50)
        request = large(site, 1 << 20)
        for one in some:
            one.send(request)
        for one in some:
            assert len(one.answer().body) == 1 << 20


# A child that has been taken over.


def test_the_dispatcher_understands_no_nonsense(serve: ServeFixture, site: Path) -> None:
    server = serve("--per-client", "9")
    pid = the_dispatcher(server)
    past = struct.Struct("=QdQ?I")
    with server.connect() as busy, clients(server) as (other,):
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        until_parked_beside(server, 1)
        (child,) = server.children()
        ours, theirs = socket.socketpair()
        pipe = os.pipe()
        with parker_of(child) as way, ours, theirs:
            good = past.pack(1, 0.0, 0, False, 0)
            for data, fds in (
                (b"", []),
                (b"", [theirs.fileno()]),
                (b"c", [theirs.fileno()]),
                (b"c" + good + b"\xff\xfe", [theirs.fileno()]),
                (b"c" + good + b"10.0.0.1", [pipe[0]]),
                (b"+\xff", []),
                (b"+127.0.0.1", []),
                (b"?", [theirs.fileno()]),
                (b"c" + past.pack(1, math.nan, 0, True, 1 << 31) + b"x" * 150, [theirs.fileno()]),
                (b"c" + past.pack(1, -1e308, 9, True, 3000) + b"10.0.0.1", [theirs.fileno()]),
                (b"c" + past.pack(1, 1e308, 9, False, 3000) + b"10.0.0.1", [theirs.fileno()]),
            ):  # fmt: skip
                socket.send_fds(way, [data], fds)
        for fd in pipe:
            os.close(fd)
        assert other.answer_to(HELLO).status == 200
        busy.close()
        until(lambda: sockets(pid) == 2 + 1, "the nonsense to be gone, and the other parked")
        assert other.answer_to(HELLO).status == 200
    assert dispatcher(server) == pid


def until_parked_beside(server: Server, count: int) -> None:
    until(lambda: sockets(dispatcher(server)) == 2 + count, f"{count} parked")


def parker_of(child: int) -> socket.socket:
    """The child's way to the dispatcher: its one socket that keeps messages apart."""
    for name in os.listdir(f"/proc/{child}/fd"):
        if os.readlink(f"/proc/{child}/fd/{name}").startswith("socket:"):
            sock = socket.socket(fileno=borrowed(child, int(name)))
            if sock.type == socket.SOCK_SEQPACKET:
                return sock
            sock.close()
    raise AssertionError("no way to the dispatcher")
