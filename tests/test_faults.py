"""No fault ends the server: limits, deaths, disks, clocks and rude clients, in every mode.

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
import socket
import struct
import subprocess
import threading
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


def the_master(server: Server) -> int:
    return until(lambda: server.master, "a master")


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


def ask_in_vain_or_not(server: Server) -> Answer | None:
    """None: the connection ended without an answer."""
    with contextlib.suppress(OSError, EOFError):
        return server.ask("/hello.txt")
    return None


def is_in_order(answer: Answer) -> bool:
    """Served, or refused with a word when to come again."""
    return answer.status == 200 or (answer.status == 503 and answer.get("retry-after") is not None)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def assert_nothing_spins(server: Server) -> None:
    """Of three seconds one is quiet: who starts, or is late on a loaded machine, computes too;
    but what spins does so in each of them."""
    for _ in range(3):
        busy = those_that_compute(server)
        if not busy:
            return
    raise AssertionError(f"compute all the time: {busy}")


def those_that_compute(server: Server) -> list[int]:
    """For more than half of a second."""
    before, began = {}, time.monotonic()
    for pid in everybody(server):
        with contextlib.suppress(OSError):  # it has just left
            before[pid] = cpu_seconds(pid)
    time.sleep(1)
    found = []
    for pid, seconds in before.items():
        with contextlib.suppress(OSError):
            if cpu_seconds(pid) - seconds > 0.5 * (time.monotonic() - began):
                found.append(pid)
    return found


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


def who_serve_this_one(server: Server, mode: str) -> list[int]:
    """In mode fork one alone, when those before it have left."""
    found = workers(server)
    return found if mode != "fork" or len(found) == 1 else []


def test_no_descriptor_for_a_file(start: ServeFixture, mode: str) -> None:
    """The connection is there, and the file can't be opened: 503, and later 200. (Where its content
    is known it needn't be.)"""
    server = start("--no-parking", "--timeout-idle", "60", "--cache", "0")
    with connect(server, HELLO) as client:
        assert client.answer().status == 200
        pids = until(lambda: who_serve_this_one(server, mode), "who serves it")
        for pid in pids:
            set_limit(pid, resource.RLIMIT_NOFILE, 3)
        for _ in range(3):
            answer = client.answer_to(HELLO)
            assert answer.status == 503
            assert is_in_order(answer)
        assert_nothing_spins(server)
        for pid in pids:
            set_limit(pid, resource.RLIMIT_NOFILE, 1024)
        assert client.answer_to(HELLO).status == 200


# Memory.


def test_no_memory(start: ServeFixture, mode: str) -> None:
    """RLIMIT_AS of who serves: what needs more is refused, and what doesn't is served."""
    # An arena for each thread would be 64 MB that it has already.
    server = start("--limit-head", "4000000", env=os.environ | {"MALLOC_ARENA_MAX": "1"})
    until(lambda: mode == "fork" or workers(server), "who serves")
    serving = [server.master] if mode == "fork" else workers(server)
    field = b"X: " + b"y" * 30_000 + b"\r\n"
    large = HELLO[:-2] + field * 90 + b"\r\n"  # --limit-fields is 100
    with told(server, "reason 90: 503"):
        for pid in serving:
            set_limit(pid, resource.RLIMIT_AS, 4 << 20)
        for _ in range(10):
            assert is_in_order(server.ask("/hello.txt"))
            with connect(server) as client:
                pour(client, large * 3)
                answer = client.answer()
                # 200: an allocator may have kept so much
                assert is_in_order(answer), (answer.status, server.stderr())
        assert_nothing_spins(server)
    for pid in [server.master, *workers(server)]:
        set_limit(pid, resource.RLIMIT_AS, resource.RLIM_INFINITY)
    with connect(server, large) as client:
        assert client.answer().status == 200


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

HARMLESS = {
    signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGCONT, signal.SIGCHLD, signal.SIGURG, signal.SIGWINCH,
}  # fmt: skip
DEADLY = [number for number in range(1, 65) if number not in HARMLESS and number not in (32, 33)]


def test_any_signal(start: ServeFixture, mode: str) -> None:
    """To who serves: another each time, but with threads, where there is one."""
    numbers = DEADLY[::8] if mode == "thread" else DEADLY
    server = start("--no-parking", "--workers", str(len(numbers)), "--timeout-idle", "60")
    with contextlib.ExitStack() as stack:
        if mode == "fork":
            for _ in numbers:
                stack.enter_context(connect(server, b"G"))
        if mode != "thread":
            until(lambda: len(workers(server)) == len(numbers), "who is to be killed")
        time.sleep(0.5)  # a child says nowhere that its signals are its own
        victims = workers(server)
        for at, number in enumerate(numbers):
            kill(victims[at] if mode != "thread" else until_worker(server), number=number)
            assert is_in_order(served_at_last(server))
        if mode == "prefork":
            until(lambda: len(workers(server)) >= len(numbers), "as many as before")
        assert_nothing_spins(server)
    assert server.process.poll() is None
    assert server.stderr().count("reason 88") == 0
    assert server.ask("/hello.txt").status == 200


def until_worker(server: Server) -> int:
    found: list[int] = []
    until(lambda: found or found.extend(workers(server)), "a worker")
    return found[0]


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


def test_one_who_serves_is_stopped(start: ServeFixture, mode: str) -> None:
    """SIGSTOP: the others serve. Where there is no other, connections wait for it."""
    server = start(*["--no-parking"] * (mode == "fork"))
    with connect(server, b"GET /") as client:
        until(lambda: workers(server), "who serves it")
        for stopped in workers(server):
            kill(stopped, number=signal.SIGSTOP)
            try:
                if mode == "thread":
                    with connect(server, HELLO) as other:
                        kill(stopped, number=signal.SIGCONT)
                        assert other.answer().status == 200
                else:
                    for _ in range(50):
                        assert server.ask("/hello.txt").status == 200
                assert_nothing_spins(server)
            finally:
                kill(stopped, number=signal.SIGCONT)
        client.send(HELLO[5:])
        assert client.answer().status == 200


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


# Clocks.


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the wall clock of servers that are started from now on, and of them alone."""
    need("faketime")
    library = next((str(p) for p in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
    if library is None:
        need("libfaketime.so.1")  # no program: skipped here, failed under CI
    file = tmp_path / "clock"

    def jump(offset: str) -> None:
        file.with_suffix(".new").write_text(offset)
        file.with_suffix(".new").rename(file)

    jump("+0")
    monkeypatch.setenv("LD_PRELOAD", library)
    monkeypatch.setenv("FAKETIME_TIMESTAMP_FILE", str(file))
    monkeypatch.setenv("FAKETIME_NO_CACHE", "1")
    monkeypatch.setenv("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    return jump


def date_of(server: Server) -> str:
    return server.ask("/hello.txt")["date"]


@pytest.mark.parametrize("offset", ["+100d", "-100d"], ids=["forward", "back"])
def test_the_clock_jumps(start: ServeFixture, clock: Callable[[str], None], offset: str) -> None:
    """No connection ends over it, and no deadline is late for it."""
    server = start("--timeout-idle", "6", "--timeout-header", "6")
    with connect(server, HELLO) as idle, connect(server, HELLO[:9]) as slow:
        assert idle.answer().status == 200
        today = date_of(server)
        clock(offset)
        assert date_of(server)[:16] != today[:16]
        assert idle.answer_to(HELLO).status == 200
        slow.send(HELLO[9:])
        assert slow.answer().status == 200
    with connect(server, HELLO) as idle, connect(server, HELLO[:9]) as slow:
        assert idle.answer().status == 200
        clock("+0")
        assert idle.answer_to(HELLO).status == 200
        clock(offset)
        assert slow.answer().status == 408
        assert idle.is_closed()
    kill(server.master, *workers(server))
    assert server.ask("/hello.txt").status == 200
    assert_nothing_spins(server)


def monotonic_from(offset: int) -> None:
    """In a process that is about to become the server: its monotonic clock is so much later."""
    check(libc().unshare(NEW_TIME))
    Path("/proc/self/timens_offsets").write_text(f"monotonic {offset} 0\n")
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY)
    check(libc().setns(fd, NEW_TIME))
    os.close(fd)


@pytest.mark.parametrize("since", [0, 10**9], ids=["just booted", "for 30 years"])
def test_any_monotonic_time(start: ServeFixture, since: int) -> None:
    """0 and less is no special moment, and no number is too large."""
    own = functools.partial(monotonic_from, since - int(time.monotonic()))
    try_in_a_child(own)
    server = start("--timeout-idle", "1", "--timeout-header", "1", preexec_fn=own)
    with connect(server, HELLO) as idle, connect(server, HELLO[:9]) as slow:
        assert idle.answer().status == 200
        assert slow.answer().status == 408
        assert idle.is_closed()
    kill(*workers(server))
    assert server.ask("/hello.txt").status == 200
    assert_nothing_spins(server)


# Clients.


def pour(client: Client, data: bytes) -> None:
    with contextlib.suppress(OSError):
        client.send(data)


def test_rude_clients_all_at_once(start: ServeFixture, site: Path) -> None:
    """That reset, half-close, never read, pipeline without end, send 10 MB of head, or byte by
    byte: honest ones are served meanwhile."""
    make_large(site)
    server = start("--access-log", "off", "--timeout-header", "3", "--timeout-write", "3")
    head = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X: y\r\n" * (10 << 17)
    with contextlib.ExitStack() as stack:
        senders = []
        for data in (HELLO * 100_000, LARGE * 1000, head, head):
            client = stack.enter_context(server.connect())
            senders.append(threading.Thread(target=pour, args=(client, data)))
            stack.callback(senders[-1].join, PATIENCE)
            stack.callback(hang_up, client)
            senders[-1].start()
        slow = [stack.enter_context(connect(server, b"G")) for _ in range(10)]
        halves = [stack.enter_context(connect(server, HELLO * 3)) for _ in range(5)]
        for client in halves:
            client.sock.shutdown(socket.SHUT_WR)
        for number in range(100):
            reset(connect(server, (HELLO, LARGE, b"GET", b"")[number % 4]))
            for client in slow:
                pour(client, b"E")
            if number % 10 == 0:
                assert server.ask("/hello.txt").status == 200
        for client in halves:
            assert [client.answer().status for _ in range(3)] == [200] * 3
    assert server.ask("/hello.txt").status == 200
    assert_nothing_spins(server)
    assert server.process.poll() is None
    assert "reason 8" not in server.stderr()


def hang_up(client: Client) -> None:
    with contextlib.suppress(OSError):
        client.sock.shutdown(socket.SHUT_RDWR)


def reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def test_thirty_thousand_pipelined(start: ServeFixture) -> None:
    """All are answered; those who come meanwhile don't wait for them."""
    server = start("--access-log", "off")
    request, count = HELLO.replace(b"GET", b"HEAD"), 30_000
    with server.connect() as client:
        sender = threading.Thread(target=pour, args=(client, request * count))
        sender.start()
        answered, due, rest = 0, 3_000, b""
        while answered < count:
            piece = rest + client.sock.recv(1 << 20)
            whole = piece.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in piece else 0
            heads, rest = piece[:whole], piece[whole:]
            answered += heads.count(b"\r\n\r\n")
            assert heads.count(b"HTTP/1.1 200 OK\r\n") == heads.count(b"\r\n\r\n")
            if answered >= due:
                assert server.ask("/hello.txt").status == 200
                due += 6_000
        assert (answered, rest) == (count, b"")
        sender.join(PATIENCE)
    assert_nothing_spins(server)


# All of it.


def test_all_faults_under_load(start: ServeFixture, site: Path, mode: str) -> None:
    """While `ab -r` asks: who serves, the dispatcher and the master are killed or stopped, and
    clients are rude. Then it is as before."""
    make_large(site)
    server = start("--timeout-header", "2")
    command = [need("ab"), "-q", "-r", "-s", "10", "-t", "12", "-n", "1000000", "-c", "40"]
    with (
        subprocess.Popen(
            [*command, f"{server.url}hello.txt"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        ) as load,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(load.kill)
        for number in range(4):
            rude = [connect(server, data) for data in (LARGE, b"GET /", b"", HELLO * 50)]
            kill(*workers(server)[:1])
            stopped = workers(server)[1:2]
            kill(*stopped, number=signal.SIGSTOP)
            kill(dispatcher(server) or the_master(server))
            for client in rude:
                reset(client)
            assert is_in_order(served_at_last(server))
            kill(*stopped, number=signal.SIGCONT)
            if number % 2:
                kill(*children_of(the_master(server)), the_master(server))
            assert is_in_order(served_at_last(server))
            limit(server, resource.RLIMIT_NOFILE, (64, 20_000))
            assert is_in_order(served_at_last(server))
            limit(server, resource.RLIMIT_NOFILE, (1024, 20_000))
        assert server.process.poll() is None
        load.communicate(timeout=120)
    for _ in range(20):
        assert server.ask("/hello.txt").status == 200
    if mode == "fork":
        until(lambda: not server.children() and dispatcher(server), "it to be as before")
    else:
        until(lambda: len(workers(server)) == (2 if mode == "prefork" else 1), "as many as before")
    assert_nothing_spins(server)


def served_at_last(server: Server) -> Answer:
    """A connection is lost with whom it was with; the next one is answered."""
    for _ in range(20):
        if answer := ask_in_vain_or_not(server):
            return answer
    raise AssertionError("nobody answers")
