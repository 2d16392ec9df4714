"""Children that are forked before their connections come: they serve, they are replaced, and who
dies on the way costs nobody an answer. Real zygotes and real servers."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import resource
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import H, get
from conftest import PATIENCE, ServeFixture, Server, children_of, name_of, need, state_of, until
from test_cli import run
from twins import Twins, everything, pair
from unprivileged import as_nobody

from pyweb import scoreboard

_fastzygote = pytest.importorskip("pyweb._fastzygote", reason="needs the compiled engine")

CLOSING = get(fields=H + b"Connection: close\r\n")


@pytest.fixture
def twins(tmp_path: Path, site: Path) -> Iterator[Twins]:
    made = Twins(site, tmp_path)
    made.filler.fill(CLOSING)
    made.filler.fill(get())
    yield made
    made.close()


def make(twins: Twins, spares: int) -> _fastzygote.Zygote:
    shared = (0, 1, 2, twins.sink.fd, twins.root.fd, twins.lifeline, twins.wishes)
    return _fastzygote.Zygote(twins.repeater, shared, spares)


@contextlib.contextmanager
def zygote_of(twins: Twins, spares: int) -> Iterator[tuple[_fastzygote.Zygote, set[int]]]:
    """And its spares. Whatever it has forked is waited for."""
    zygote = make(twins, spares)
    known: set[int] = set()
    try:
        yield zygote, hear(zygote, known, lambda: len(known) == spares)
    finally:
        os.kill(zygote.pid, signal.SIGCONT)
        known.update(pid for _, pid in zygote.told() if pid > 0)
        zygote.close()
        assert os.waitpid(zygote.pid, 0)[1] == 0
        for pid in {*known, zygote.last}:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def hear(zygote: _fastzygote.Zygote, known: set[int], enough: object) -> set[int]:
    """Add pids of spares to `known` until `enough()`."""

    def heard() -> object:
        for ticket, pid in zygote.told():
            assert ticket == 0
            assert pid > 0
            known.add(pid)
        return enough()  # type: ignore[operator]

    until(heard, "spares")
    return known


def order(zygote: _fastzygote.Zygote, sock: object, slot: scoreboard.Slot, ticket: int) -> None:
    assert zygote.order(sock.fileno(), b"127.0.0.1", slot.at, 0, 0, 0, ticket)  # type: ignore[attr-defined]


def answer_of(zygote: _fastzygote.Zygote, ticket: int) -> int:
    """The pid that has the ticket."""
    found: list[int] = []

    def heard() -> bool:
        found.extend(pid for one, pid in zygote.told() if one == ticket)
        return bool(found)

    until(heard, "an answer of the zygote")
    return found[0]


def test_a_spare_serves_and_another_is_forked(twins: Twins) -> None:
    near, far = pair()
    with zygote_of(twins, 2) as (zygote, spares), near, far:
        assert len(spares) == 2
        until(lambda: {name_of(pid) for pid in spares} == {"pyweb-spare"}, "their names")
        near.sendall(CLOSING)
        order(zygote, far, twins.slot, 5)
        told: list[tuple[int, int]] = []
        until(lambda: told.extend(zygote.told()) or len(told) == 2, "its pid, and another's")
        mine, other = sorted(told, reverse=True)
        assert mine[0] == 5
        assert mine[1] in spares
        assert other[0] == 0
        assert other[1] not in spares
        assert os.waitpid(mine[1], 0)[1] == 0
        far.close()
        assert everything(near).endswith(b"hello, world\n")
        os.kill(other[1], signal.SIGKILL)
        os.waitpid(other[1], 0)
        assert sorted(map(state_of, spares - {mine[1]})) == ["S"]


def test_orders_wait_for_spares(twins: Twins) -> None:
    """More at once than there are."""
    pairs = [pair() for _ in range(6)]
    with zygote_of(twins, 1) as (zygote, _):
        for ticket, (near, far) in enumerate(pairs, 1):
            near.sendall(CLOSING)
            order(zygote, far, twins.slot, ticket)
            far.close()
        tickets: set[int] = set()
        pids: set[int] = set()

        def all_told() -> bool:
            for ticket, pid in zygote.told():
                tickets.add(ticket)
                pids.add(pid)
            return len(tickets) == 7

        until(all_told, "six pids")
        for near, _ in pairs:
            with near:
                assert everything(near).endswith(b"hello, world\n")
        for pid in pids:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def test_a_spare_has_nothing_of_the_zygotes(twins: Twins) -> None:
    """When it serves: neither the way of orders, nor where those that are taken are counted."""
    near, far = pair()
    with zygote_of(twins, 1) as (zygote, spares), near, far:
        near.sendall(get())
        order(zygote, far, twins.slot, 1)
        assert near.recv(1 << 16)
        [pid] = spares
        until(lambda: name_of(pid) == "pyweb-child", "its name")
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert not [one for one in links if "eventfd" in one]
        # Its client, and where it tells what it wishes to be decided.
        assert len([one for one in links if one.startswith("socket:")]) == 2
        near.close()
        os.waitpid(pid, 0)


def test_what_a_spare_has_taken_is_told_though_the_zygote_is_dead(twins: Twins) -> None:
    """And the orders before the end; then all have hung up."""
    pairs = [pair() for _ in range(2)]
    zygote = make(twins, 2)
    spares = hear(zygote, set(), lambda: zygote.last and state_of(zygote.pid) == "S")
    until(lambda: len(hear(zygote, spares, lambda: True)) == 2, "two spares")
    os.kill(zygote.pid, signal.SIGKILL)
    os.waitpid(zygote.pid, 0)
    for ticket, (near, far) in enumerate(pairs[:1], 1):
        near.sendall(CLOSING)
        order(zygote, far, twins.slot, ticket)
        far.close()
    zygote.end_orders()
    told: list[tuple[int, int]] = []
    until(lambda: told.extend(zygote.told()) or zygote.is_over, "the end")
    assert [ticket for ticket, _ in told] == [1]
    assert told[0][1] in spares
    assert everything(pairs[0][0]).endswith(b"hello, world\n")
    for pid in spares:
        assert os.waitpid(pid, 0)[1] == 0
    for near, far in pairs:
        near.close()
        far.close()
    zygote.close()


def test_where_none_can_be_forked_it_is_told(twins: Twins) -> None:
    """By a limit of processes, which spares root."""

    def work() -> tuple[int, int]:
        zygote = make(twins, 1)
        spares = hear(zygote, set(), lambda: zygote.last)
        [spare] = hear(zygote, spares, lambda: len(spares) == 1)
        resource.prlimit(zygote.pid, resource.RLIMIT_NPROC, (0, 0))
        os.kill(spare, signal.SIGKILL)
        os.waitpid(spare, 0)
        zygote.want_more()
        near, far = pair()
        order(zygote, far, twins.slot, 3)
        refused = answer_of(zygote, 3)
        near.close()
        far.close()
        resource.prlimit(zygote.pid, resource.RLIMIT_NPROC)
        zygote.close()
        return refused, os.waitpid(zygote.pid, 0)[1]

    assert as_nobody(work) == (-errno.EAGAIN, 0)


def test_spares_go_with_their_master(twins: Twins) -> None:
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        zygote = _fastzygote.Zygote(twins.repeater, (0, 1, 2, sink), 3)
        poll = select.poll()
        poll.register(zygote.fileno(), select.POLLIN)
        poll.poll(1000 * PATIENCE)
        os.write(sink, b"x")
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(sink)
    with open(source) as told:
        assert told.read() == "x"  # until all who have the other end are gone
    os.waitpid(pid, 0)


# A server.


def spares_of(server: Server) -> set[int]:
    return {pid for pid in children_of(server.master) if name_of(pid) == "pyweb-spare"}


def filled(server: Server, count: int) -> set[int]:
    """Its spares, when there are so many, and what is asked for is cached."""
    while b"hello" not in server.ask("/hello.txt").body:
        pass
    time.sleep(0.1)
    until(lambda: len(spares_of(server)) == count, "spares")
    return spares_of(server)


def served_by(server: Server) -> int:
    """The process that has just answered a connection that is kept."""
    with server.connect() as client:
        assert client.answer_to(get()).status == 200
        return next(iter(server.children()), 0)


def test_connections_are_served_by_those_that_are_there(serve: ServeFixture) -> None:
    server = serve("--spares", "3", "--no-parking")
    assert ", and 3 spares" in server.stderr()

    def one_of_them() -> bool:
        """After those that had to be decided first."""
        before = spares_of(server)
        return len(before) == 3 and served_by(server) in before

    until(one_of_them, "a connection that a spare serves")
    until(lambda: len(spares_of(server)) == 3, "another spare")


def test_a_spare_that_is_killed_is_replaced(serve: ServeFixture) -> None:
    server = serve("--spares", "2")
    first = filled(server, 2)
    for pid in first:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(spares_of(server) - first) == 2, "others")
    until(lambda: "reason 87: spare" in server.stderr(), "its obituary")
    assert server.ask("/hello.txt").status == 200


def test_spares_that_die_one_after_the_other_are_replaced_after_a_pause(
    serve: ServeFixture,
) -> None:
    """What kills one at once would else cost a CPU."""
    server = serve("--spares", "1")
    filled(server, 1)
    seen: set[int] = set()
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        for pid in spares_of(server):
            seen.add(pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert 2 <= len(seen) <= 8
    assert server.ask("/hello.txt").status == 200


def test_a_stopped_spare_of_a_dead_zygote_keeps_nobody_waiting(serve: ServeFixture) -> None:
    server = serve("--spares", "2")
    stopped, _ = filled(server, 2)
    os.kill(stopped, signal.SIGSTOP)
    [zygote] = [one for one in children_of(server.master) if name_of(one) == "pyweb-zygote"]
    os.kill(zygote, signal.SIGKILL)
    for _ in range(10):
        assert server.ask("/hello.txt").status == 200
    until(lambda: state_of(stopped) == "", "its end")
    until(lambda: len(spares_of(server)) == 2, "others")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_zygote_goes_while_there_is_much_to_do(
    serve: ServeFixture, number: signal.Signals
) -> None:
    server = serve("--spares", "2")
    filled(server, 2)
    [zygote] = [one for one in children_of(server.master) if name_of(one) == "pyweb-zygote"]
    statuses: list[int] = []

    def ask() -> None:
        for _ in range(40):
            statuses.append(server.ask("/hello.txt").status)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for one in threads:
        one.start()
    os.kill(zygote, number)
    for one in threads:
        one.join()
    assert statuses == [200] * 160
    assert f"reason 93: zygote {zygote}" in server.stderr()
    until(lambda: len(spares_of(server)) == 2, "spares of another")


def test_many_at_once(serve: ServeFixture) -> None:
    """More than there are: some take an order before the zygote has told of them."""
    need("ab")
    server = serve("--spares", "3", "--access-log", "off")
    filled(server, 3)
    url = f"http://127.0.0.1:{server.port}/hello.txt"
    done = subprocess.run(
        ["ab", "-q", "-n", "4000", "-c", "40", url], capture_output=True, text=True, check=True
    )
    assert "Failed requests:        0" in done.stdout
    until(lambda: not server.children(), "the end of all who served")
    until(lambda: len(spares_of(server)) == 3, "spares")
    assert "reason" not in server.stderr()
    assert server.stop() == 0
    assert re.search(r"stopped: 4\d\d\d connections served, 0 refused, 0 cut", server.stderr())


def test_a_log_that_is_opened_anew_is_theirs_too(serve: ServeFixture, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve("--spares", "2", "--access-log", str(log))
    before = filled(server, 2)
    log.rename(tmp_path / "old.log")
    server.process.send_signal(signal.SIGUSR1)
    until(log.exists, "another log")
    until(lambda: len(spares_of(server) - before) == 2, "other spares")
    until(lambda: not spares_of(server) & before, "the end of the old ones")
    assert server.ask("/hello.txt").status == 200
    until(lambda: log.read_text().count("\n") == 1, "its line")


def test_a_server_that_ends_leaves_none(serve: ServeFixture) -> None:
    server = serve("--spares", "4")
    spares = filled(server, 4)
    assert server.stop() == 0
    assert [pid for pid in spares if state_of(pid) not in ("", "Z")] == []


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--mode", "prefork"), "spares are of mode fork"),
        (("--no-bare",), "leave out --spares or --no-bare"),
        (("--cache", "0"), "leave out --spares or --cache 0"),
    ],
)
def test_where_there_can_be_none(options: tuple[str, ...], error: str) -> None:
    done = run("0", "--spares", "2", *options)
    assert done.returncode == 2
    assert error in done.stderr


def test_where_there_are_none_it_is_said(serve: ServeFixture) -> None:
    server = serve("--spares", "2", "--engine", "python")
    until(lambda: "no spares: needs the compiled engine" in server.stderr(), "why")
    assert server.ask("/hello.txt").status == 200
