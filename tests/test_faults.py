"""No fault ends the server: limits, deaths and disks, in every mode.

Each test: honest clients before, during (served, or 503 where that is the promise) and after; the
server says what is wrong, not more than once a second a process; nothing spins; it recovers
alone, and ends with code 0. What one mode alone can suffer stands with that mode's tests.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import itertools
import os
import re
import resource
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import (
    PATIENCE,
    Answer,
    Client,
    ServeFixture,
    Server,
    children_of,
    name_of,
    need,
    state_of,
    until,
)

from pyweb.config import MODES

HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"
LARGE = b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n"
UNLIMITED = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
NO_PROCESS = "Resource temporarily unavailable"
# RLIMIT_NPROC counts all processes of a user, so each server here is another user's.
_users = itertools.count(1_000_000 + os.getpid() * 64)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def start(serve: ServeFixture, mode: str) -> Iterator[ServeFixture]:
    """A server of this mode that has served somebody. At the end it must leave with code 0."""
    started: list[Server] = []

    def begin(*options: str, **rest: object) -> Server:
        ours = ("--mode", mode, "--workers", "2", "--threads", "4")
        started.append(serve(*ours, *options, **rest))
        assert started[-1].ask("/hello.txt").status == 200
        return started[-1]

    yield begin
    for server in started:
        assert server.stop() == 0, server.stderr()


def somebody() -> dict[str, object]:
    """How to start a process as a user who has no other."""
    user = next(_users)
    return {"user": user, "group": user, "extra_groups": [], "cwd": "/"}


def everybody(server: Server) -> list[int]:
    """All processes of the server."""
    found = [server.pid, *children_of(server.pid)]
    for pid in children_of(server.pid):
        found += children_of(pid)
    return [pid for pid in found if state_of(pid) not in ("", "Z")]


def workers(server: Server) -> list[int]:
    return [pid for pid in server.children() if state_of(pid) not in ("", "Z")]


def dispatcher(server: Server) -> int:
    found = [pid for pid in children_of(server.master) if name_of(pid) == "pyweb-dispatch"]
    return found[0] if found else 0


def limit(server: Server, what: int, values: tuple[int, int]) -> None:
    """The soft one, for all of its processes and those that they will start."""
    for pid in everybody(server):
        set_limit(pid, what, values[0])


def set_limit(pid: int, what: int, soft: int) -> None:
    """As the user whose process it is: not every root may do it for others."""
    name = {
        resource.RLIMIT_NPROC: "nproc", resource.RLIMIT_NOFILE: "nofile", resource.RLIMIT_AS: "as"
    }[what]  # fmt: skip
    with contextlib.suppress(FileNotFoundError):
        owner = os.stat(f"/proc/{pid}")
        value = "unlimited" if soft == resource.RLIM_INFINITY else str(soft)
        if what == resource.RLIMIT_NPROC and value == "unlimited":
            value = "1000"
        command = [need("prlimit"), "--pid", str(pid), f"--{name}={value}:"]
        subprocess.run(
            command, user=owner.st_uid, group=owner.st_gid, extra_groups=[], cwd="/",
            capture_output=True, timeout=PATIENCE, check=state_of(pid) not in ("", "Z"),
        )  # fmt: skip


def allow_no_more_processes(server: Server) -> None:
    limit(server, resource.RLIMIT_NPROC, (1, 1))


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def connect(server: Server, data: bytes = b"") -> Client:
    client = server.connect()
    client.send(data)
    return client


def is_in_order(answer: Answer) -> bool:
    """Served, or refused with a word when to come again."""
    return answer.status == 200 or (answer.status == 503 and answer.get("retry-after") is not None)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_nothing_spins(server: Server) -> None:
    """Of one second; spinning would be near 1."""
    before, began = {pid: cpu_seconds(pid) for pid in everybody(server)}, time.monotonic()
    time.sleep(1)
    for pid, seconds in before.items():
        with contextlib.suppress(OSError):
            share = (cpu_seconds(pid) - seconds) / (time.monotonic() - began)
            assert share < 0.5, f"{pid} computes {share:.0%} of the time"


@contextlib.contextmanager
def told(server: Server, text: str) -> Iterator[None]:
    """Within, the server says `text`, and no process says it more than once a second."""
    before, began = len(server.stderr()), time.monotonic()
    yield
    until(lambda: text in server.stderr()[before:], f"word of {text!r}")
    lines = [line for line in server.stderr()[before:].splitlines() if text in line]
    seconds = time.monotonic() - began
    said = Counter(match[1] for line in lines if (match := re.search(r"pyweb\[(\d+)\]", line)))
    assert said.total() == len(lines)
    assert max(said.values()) <= seconds + 2, lines


def make_large(site: Path) -> None:
    """No socket buffer holds it."""
    with (site / "large").open("wb") as file:
        file.truncate(64 << 20)


# The process limit.


def test_no_process_can_be_started(start: ServeFixture, public: Path, mode: str) -> None:
    """What killed the article's server. Whoever serves is dead and can't be replaced."""
    server = start("--timeout-queue", "0.5", directory=public / "site", **somebody())
    allow_no_more_processes(server)
    with told(server, NO_PROCESS), contextlib.ExitStack() as stack:
        kill(*workers(server))
        waiting = [stack.enter_context(connect(server, HELLO)) for _ in range(5)]
        if mode == "fork":
            assert [client.answer().status for client in waiting] == [503] * 5
        assert_nothing_spins(server)
        limit(server, resource.RLIMIT_NPROC, UNLIMITED)
        if mode != "fork":
            assert all(is_in_order(client.answer()) for client in waiting)
    until(lambda: server.ask("/hello.txt").status == 200, "it to serve again")


def test_the_process_limit_is_reached_while_it_grows(
    start: ServeFixture, public: Path, mode: str
) -> None:
    """Clients that hold what serves them, more than the limit lets there be. (A pool that grows
    into the limit ends other servers.)"""
    make_large(public / "site")
    server = start(
        "--timeout-queue", "1", "--no-parking", "--min-spare", "2", "--max-spare", "4",
        *(("--max-connections-per-child", "1") if mode == "prefork" else ()),
        directory=public / "site", **somebody(),
    )  # fmt: skip
    limit(server, resource.RLIMIT_NPROC, (7, 7))
    with contextlib.ExitStack() as stack:
        expected = told(server, NO_PROCESS) if mode != "thread" else contextlib.nullcontext()
        with expected:
            for _ in range(8):
                stack.enter_context(connect(server, LARGE))
            assert_nothing_spins(server)
        assert server.process.poll() is None
    until(lambda: server.ask("/hello.txt").status == 200, "it to serve again")


def test_fewer_threads_than_wanted(serve: ServeFixture, public: Path) -> None:
    """The limit counts threads too. Those that can be started serve."""
    server = serve(
        "--mode", "thread", "--threads", "8", directory=public / "site", **somebody(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (6, 6)),
    )  # fmt: skip
    for _ in range(20):
        assert server.ask("/hello.txt").status == 200
    assert_nothing_spins(server)
    assert server.stop() == 0


def test_the_master_dies_and_no_process_can_be_started(start: ServeFixture, public: Path) -> None:
    """Connections wait in the listener until a master can be started."""
    server = start(directory=public / "site", **somebody())
    descriptors = Path(f"/proc/{server.pid}/fd")
    before = len(list(descriptors.iterdir()))
    allow_no_more_processes(server)
    with told(server, f"can't start a process: {NO_PROCESS}"), contextlib.ExitStack() as stack:
        kill(server.master, *workers(server))
        until(lambda: server.master == 0, "the master to end")
        waiting = [stack.enter_context(connect(server, HELLO)) for _ in range(5)]
        assert_nothing_spins(server)
        limit(server, resource.RLIMIT_NPROC, UNLIMITED)
        assert [client.answer().status for client in waiting] == [200] * 5
    until(lambda: len(list(descriptors.iterdir())) == before, "as many descriptors as before")


# The descriptor limit.


def test_the_descriptor_limit(start: ServeFixture, mode: str) -> None:
    """More clients than descriptors: those that can't be held wait, or make room."""
    server = start(
        "--timeout-idle", "1", "--timeout-header", "1", "--timeout-queue", "1",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48)),
    )  # fmt: skip
    text = "no descriptor left" if mode == "fork" else "Too many open files"
    with contextlib.ExitStack() as stack:
        with told(server, text):
            for _ in range(150):
                stack.enter_context(server.connect())
            for _ in range(5):
                assert is_in_order(server.ask("/hello.txt"))
        for _ in range(150):
            stack.enter_context(server.connect())
        assert_nothing_spins(server)
    until(lambda: server.ask("/hello.txt").status == 200, "it to serve again")


# Memory.


def test_no_memory_for_another_master(start: ServeFixture) -> None:
    """It is tried again, with pauses, until there is."""
    server = start()
    set_limit(server.pid, resource.RLIMIT_AS, 4 << 20)
    kill(server.master, *workers(server))
    with connect(server, HELLO) as client:
        until(lambda: len(re.findall("reason 88|can't start", server.stderr())) > 2, "two tries")
        assert_nothing_spins(server)
        set_limit(server.pid, resource.RLIMIT_AS, resource.RLIM_INFINITY)
        assert client.answer().status == 200


# Deaths.


def test_all_who_serve_are_killed_at_once(start: ServeFixture, site: Path, mode: str) -> None:
    make_large(site)
    server = start()
    with contextlib.ExitStack() as stack:
        for request in (LARGE, b"GET /", b"") * 5:
            stack.enter_context(connect(server, request))
        until(lambda: workers(server), "who serves them")
        kill(*children_of(server.master))
        for _ in range(5):
            assert server.ask("/hello.txt").status == 200
    master = server.master
    if mode == "prefork":
        until(lambda: len(workers(server)) == 2, "as many as before")
    if mode == "fork":
        until(lambda: dispatcher(server), "another dispatcher")
    assert_nothing_spins(server)
    assert server.master == master


def test_a_dispatcher_with_many_is_killed(serve: ServeFixture) -> None:
    """What it held is lost; nothing of it stays in the master, and the next one holds as many."""
    server = serve()
    descriptors = Path(f"/proc/{server.master}/fd")
    assert server.ask("/hello.txt").status == 200
    until(lambda: dispatcher(server), "the dispatcher")
    until(lambda: not server.children(), "the child to leave")
    before = len(list(descriptors.iterdir()))
    for _ in range(2):
        with contextlib.ExitStack() as stack:
            parked = [stack.enter_context(server.connect()) for _ in range(200)]
            first = dispatcher(server)
            held = Path(f"/proc/{first}/fd")
            until(lambda held=held: len(list(held.iterdir())) > 200, "200 parked")
            assert parked[0].answer_to(HELLO).status == 200
            kill(first)
            assert all(client.is_closed() for client in parked[1:])
            until(lambda old=first: dispatcher(server) not in (0, old), "another")
        assert server.ask("/hello.txt").status == 200
    until(lambda: len(list(descriptors.iterdir())) == before, "as many descriptors as before")
    assert_nothing_spins(server)
    assert server.stop() == 0


# Logs.


@functools.cache
def libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


NEW_MOUNTS, NEW_TIME = 0x20000, 0x80
PRIVATE = 0x44000  # MS_REC | MS_PRIVATE


def small_disk(path: Path) -> None:
    """In a process that is about to become the server: a tmpfs of 64 KiB that it alone sees."""
    check(libc().unshare(NEW_MOUNTS))
    check(libc().mount(b"none", b"/", None, PRIVATE, None))
    check(libc().mount(b"none", os.fsencode(path), b"tmpfs", 0, b"size=64k"))


def try_in_a_child(work: Callable[[], None]) -> None:
    """Skip where the system doesn't allow it."""
    libc()  # before the fork
    try:
        subprocess.run(["/bin/true"], preexec_fn=work, check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"not allowed here: {error}")


def test_the_log_s_disk_is_full(start: ServeFixture, tmp_path: Path) -> None:
    """Requests are served, lost lines are said; when there is room, lines are whole again."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = functools.partial(small_disk, disk)
    try_in_a_child(mount)
    server = start("--access-log", str(disk / "log"), preexec_fn=mount)
    inside = Path(f"/proc/{server.pid}/root{disk}")
    with told(server, "lines are lost"):
        (inside / "else").write_bytes(bytes(64 << 10)[: room_in(inside)])
        with server.connect() as client:
            end = time.monotonic() + PATIENCE
            while room_in(inside) or "lost" not in server.stderr():
                assert time.monotonic() < end
                client.send(HELLO * 100)
                assert [client.answer().status for _ in range(100)] == [200] * 100
        assert_nothing_spins(server)
    (inside / "else").unlink()
    assert server.ask("/hello.txt?again").status == 200
    until(lambda: "again" in (inside / "log").read_text(), "a line that is not lost")
    lines = (inside / "log").read_text().splitlines()
    torn = [line for line in lines if not re.fullmatch(r'127.* "GET .*" 200 13 "-" "-" 0', line)]
    assert len(torn) <= len(workers(server)) + 1, torn


def room_in(path: Path) -> int:
    info = os.statvfs(path)
    return info.f_bavail * info.f_frsize


def test_the_log_vanishes(start: ServeFixture, tmp_path: Path) -> None:
    """File and directory: what is open stays open, for the next master too."""
    directory = tmp_path / "logs"
    directory.mkdir()
    server = start("--access-log", str(directory / "log"))
    (directory / "log").unlink()
    directory.rmdir()
    for _ in range(10):
        assert server.ask("/hello.txt").status == 200
    before = server.master
    kill(before)
    assert server.ask("/hello.txt").status == 200
    until(lambda: server.master not in (0, before), "another master")
    kill(*workers(server))
    assert server.ask("/hello.txt").status == 200
    assert server.stop() == 0
    assert "lost" not in server.stderr()


def test_the_log_s_reader_is_stopped(start: ServeFixture, tmp_path: Path) -> None:
    """A FIFO that nobody empties is the slow disk: lines are lost, no request waits."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        server = start("--access-log", str(fifo))
        with told(server, "lines are lost"), server.connect() as client:
            for _ in range(20):
                client.send(HELLO * 100)
                assert [client.answer().status for _ in range(100)] == [200] * 100
            assert_nothing_spins(server)
        with contextlib.suppress(BlockingIOError):
            while os.read(reader, 1 << 20):
                pass
        assert server.ask("/hello.txt?again").status == 200
        until(lambda: b"again" in what_is_there(reader), "a line that is not lost")
    finally:
        os.close(reader)
    assert server.ask("/hello.txt").status == 200  # now there is no reader at all


def what_is_there(fd: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(fd, 1 << 20)
    return b""


def test_nobody_takes_what_it_says(start: ServeFixture, mode: str) -> None:
    """Standard error is full: nothing can be said, and that is no reason to end."""

    def full() -> None:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 2)

    server = start("--access-log", "/dev/full", preexec_fn=full)
    for _ in range(3):
        until(lambda: mode == "fork" or workers(server), "a worker")
        kill(*workers(server))
        assert server.ask("/hello.txt").status == 200
    before = server.master
    kill(before)
    assert server.ask("/hello.txt").status == 200
    assert_nothing_spins(server)
