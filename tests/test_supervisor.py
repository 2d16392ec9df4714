"""The supervisor outlives its masters, starts another, and takes the port along when it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
from pathlib import Path

import pytest
from conftest import PATIENCE, ServeFixture, Server, children_of, state_of, until
from hypothesis import given
from hypothesis import strategies as st

from pyweb.config import MODES, Source, build
from pyweb.handover import Handover
from pyweb.parse import ENGINES

HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"
SIZE = 24 << 20

pytestmark = pytest.mark.parametrize("mode", MODES)


def large(site: Path) -> bytes:
    """A request for a file that no socket buffer holds."""
    (site / "large").write_bytes(b"x" * SIZE)
    return b"GET /large HTTP/1.1\r\nHost: h\r\n\r\n"


def another_master(server: Server, before: int) -> int:
    def another() -> int:
        return 0 if (now := server.master) == before else now

    return until(another, "another master")


def is_stopped(pid: int) -> bool:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return all(") T " in (task / "stat").read_text() for task in tasks)


def cannot_connect(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_another_master_is_started(
    serve: ServeFixture, mode: str, site: Path, number: signal.Signals
) -> None:
    """New connections wait in the listener; what is being answered is finished."""
    server = serve("--mode", mode)
    first = server.master
    with server.connect() as busy:
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        os.kill(first, number)
        for _ in range(5):
            assert server.ask("/hello.txt").body == b"hello, world\n"
        assert len(busy.answer().body) == SIZE
    assert another_master(server, first) != first
    if number != signal.SIGTERM:
        said = rf"reason 88: master {first} was ended by {number.name}, .* another is started"
        until(lambda: re.search(said, server.stderr()), "its death to be told")
    until(lambda: state_of(first) == "", "the old one to be reaped")
    assert server.stop() == 0


def test_orphans_of_a_dead_master_end(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode, "--timeout-idle", "3600")
    with server.connect() as idle:
        idle.send(HELLO)
        assert idle.answer().status == 200
        orphans = server.children()
        os.kill(server.master, signal.SIGKILL)
        assert idle.is_closed()
    until(lambda: all(state_of(pid) in ("", "Z") for pid in orphans), "the orphans to end")


def test_no_connection_is_lost_over_it(serve: ServeFixture, mode: str) -> None:
    """A connection each. Those whose process dies with its master are lost, the others not; here
    none is served at that moment, so none is."""
    server = serve("--mode", mode, "--workers", "2")
    there = {"fork": 0, "prefork": 2, "thread": 1}[mode]
    for _ in range(5):
        before = server.master
        until(lambda: len(server.children()) == there, "those who serve")
        victims = server.children()
        for pid in (before, *victims):
            os.kill(pid, signal.SIGSTOP)
            until(lambda p=pid: is_stopped(p), "its threads to stop")
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(50)]
            for client in clients:
                client.send(HELLO)
            for pid in victims:
                os.kill(pid, signal.SIGKILL)
            os.kill(before, signal.SIGKILL)
            for client in clients:
                assert client.answer().status == 200
        another_master(server, before)


def test_one_that_keeps_dying_is_not_started_without_a_pause(
    serve: ServeFixture, mode: str
) -> None:
    server = serve("--mode", mode)
    master = 0
    for _ in range(4):
        master = another_master(server, master)
        os.kill(master, signal.SIGKILL)
    until(lambda: server.stderr().count("another is started") == 4, "four deaths")
    stamps = re.findall(r":(\d\d\.\d{3}) pyweb\[\d+\] reason 88", server.stderr())
    first, last = float(stamps[0]), float(stamps[-1])
    assert (last - first) % 60 >= 0.1 + 0.2
    assert server.ask("/hello.txt").status == 200


def test_the_supervisors_death(serve: ServeFixture, mode: str, site: Path) -> None:
    """The port is free at once; answers are finished; then nobody is left."""
    server = serve("--mode", mode, "--timeout-idle", "3600")
    master = server.master
    with server.connect() as busy, server.connect() as idle:
        idle.send(HELLO)
        assert idle.answer().status == 200
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        everybody = [master, *server.children()]
        server.process.kill()
        server.process.wait(PATIENCE)
        assert idle.is_closed()
        until(lambda: cannot_connect(server.port), "the port to be free")
        again = serve("--mode", mode, "--bind", f"127.0.0.1:{server.port}")
        assert again.ask("/hello.txt").status == 200
        assert len(busy.answer().body) == SIZE
    until(lambda: all(state_of(pid) in ("", "Z") for pid in everybody), "all to be gone")


def test_both_die(serve: ServeFixture, mode: str, site: Path) -> None:
    server = serve("--mode", mode)
    master = server.master
    with server.connect() as busy:
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        workers = server.children()
        os.kill(server.pid, signal.SIGKILL)
        os.kill(master, signal.SIGKILL)
        assert len(busy.answer().body) == SIZE
    until(lambda: cannot_connect(server.port), "the port to be free")
    until(lambda: all(state_of(pid) in ("", "Z") for pid in workers), "all to be gone")


def test_a_stopped_master_does_not_keep_the_supervisor(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode, "--grace", "0")
    os.kill(server.master, signal.SIGSTOP)
    assert server.stop() == 0
    assert "does not end: it is killed" in server.stderr()


def test_a_directory_that_vanishes(serve: ServeFixture, mode: str, site: Path) -> None:
    """The next master can't start; it is tried again, and serves when the directory is back."""
    server = serve("--mode", mode)
    site.rename(site.with_name("away"))
    os.kill(server.master, signal.SIGKILL)
    until(lambda: server.stderr().count("name an existing directory") > 1, "two tries")
    with server.connect() as client:
        client.send(HELLO)
        site.with_name("away").rename(site)
        assert client.answer().status == 200


def test_what_is_open_in_the_supervisor(serve: ServeFixture, mode: str) -> None:
    """After ten masters no descriptor more than after one."""
    server = serve("--mode", mode)
    descriptors = Path(f"/proc/{server.pid}/fd")
    before = len(list(descriptors.iterdir()))
    for _ in range(3):
        master = server.master
        os.kill(master, signal.SIGTERM)
        another_master(server, master)
        assert server.ask("/hello.txt").status == 200
    until(lambda: len(list(descriptors.iterdir())) == before, "as many as before")


TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1)


@given(TEXT, st.lists(st.sampled_from(["a: b", "C: ", "x: =y"])), st.floats(0.001, 1e5))
def test_what_is_handed_over_arrives(
    mode: str, directory: str, header: list[str], grace: float
) -> None:
    given = {"directory": directory, "header": header, "mode": mode, "grace": f"{grace:.6f}"}
    config = build([Source("test", given)], ENGINES)
    before = Handover(config, (5, 6), -1, 7, 2, 99)
    after = Handover.from_bytes(before.to_bytes(), ENGINES)
    assert all(getattr(after, name) == getattr(before, name) for name in Handover.__slots__)


def policies(pid: int) -> set[int]:
    """Of a process and all that it has started (sched(7))."""
    found = set()
    with contextlib.suppress(ProcessLookupError):
        found.add(os.sched_getscheduler(pid))
    return found.union(*map(policies, children_of(pid)))


HAS_BATCH = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="no SCHED_BATCH here")


@HAS_BATCH
def test_who_is_woken_waits_for_the_cpu(serve: ServeFixture, mode: str) -> None:
    """Each process but the supervisor, which is seldom woken, and of each generation."""
    server = serve("--mode", mode, "--batch")
    with server.connect() as kept:
        kept.send(HELLO[:-1])
        assert server.ask("/hello.txt").status == 200
        assert policies(server.master) == {os.SCHED_BATCH}
        assert kept.answer_to(HELLO[-1:]).status == 200
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.stderr().count("serving ") == 2, "another master")
    assert policies(server.master) == {os.SCHED_BATCH}
    assert os.sched_getscheduler(server.process.pid) == os.sched_getscheduler(0)


@HAS_BATCH
def test_who_is_woken_has_its_turn(serve: ServeFixture, mode: str) -> None:
    assert policies(serve("--mode", mode).process.pid) == {os.sched_getscheduler(0)}
