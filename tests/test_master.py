"""The accept/fork loop: limits, faults, signals; what a child inherits and what it leaves behind.

With --no-parking and --cache 0, so that a connection that says nothing holds a process, and there
are no other processes; parking is in test_parking.py, the cache in test_cache.py. Real processes
and the kernel's limits: RLIMIT_NPROC, RLIMIT_NOFILE, SIGKILL.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import re
import resource
import signal
import socket
import stat
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, Server, state_of, until

from pyweb.child import END
from pyweb.scoreboard import Scoreboard

HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
# Nobody else's processes may count against its RLIMIT_NPROC.
LONER = 61010
LARGE = 24 << 20


class Held(Client):
    """A connection that has a process of its own."""

    pid: int


@pytest.fixture
def serve(serve: ServeFixture) -> ServeFixture:
    return functools.partial(serve, "--no-parking", "--cache", "0")


def connect(server: Server, source: str = "127.0.0.1") -> Held:
    sock = socket.create_connection(("127.0.0.1", server.port), PATIENCE, (source, 0))
    return Held(sock)


@contextlib.contextmanager
def holding(server: Server, count: int = 1, source: str = "127.0.0.1") -> Iterator[list[Held]]:
    """Connections that have a process each, which waits for the rest of a head."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server, source)) for _ in range(count)]
        for client in clients:
            client.send(b"G")
            find_child(server, client)
        yield clients


def find_child(server: Server, client: Held) -> None:
    """Wait for the client's process, and until that process is nobody else's."""
    until(lambda: serving(server, client), "a child")
    client.pid = serving(server, client)[0]


def serving(server: Server, client: Client) -> list[int]:
    """The children, fully born, that have the other end of the client's connection."""
    host, port = client.sock.getsockname()
    remote = "".join(f"{int(part):02X}" for part in reversed(host.split("."))) + f":{port:04X}"
    table = Path("/proc/net/tcp").read_text().splitlines()
    wanted = [f"socket:[{line.split()[9]}]" for line in table if f" {remote} " in line]
    return [
        pid for pid in server.children()
        if is_ready(pid) and not set(wanted).isdisjoint(descriptors(pid).values())
    ]  # fmt: skip


def is_ready(pid: int) -> bool:
    """A child opens its signals after it has closed what isn't its own."""
    with contextlib.suppress(OSError):
        return mask(pid, "SigBlk") == "0" * 16
    return False


def mask(pid: int, name: str) -> str:
    match = re.search(rf"{name}:\t(\w+)", Path(f"/proc/{pid}/status").read_text())
    assert match
    return match[1]


def descriptors(pid: int) -> dict[int, str]:
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
    return found


def sockets(server: Server) -> int:
    """How many the master holds: its listeners, and who waits or lingers. Not counted: the channel
    to the supervisor, and copies of those that are served, one a child."""
    held = sum(target.startswith("socket:") for target in descriptors(server.master).values())
    return held - 1 - len(server.children())


def settled(server: Server) -> None:
    until(lambda: server.children() == [], "the children to end")


def finish(client: Client) -> int:
    """The rest of what `holding` began: the status."""
    client.send(HELLO[1:])
    status = client.answer().status
    client.close()
    return status


def reason_of(line: str) -> int:
    return int(line.rsplit(" ", 1)[1])


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def busy_share(pid: int) -> float:
    """Of one second, how much the process computed. Spinning would be near 1."""
    before, start = cpu_seconds(pid), time.monotonic()
    time.sleep(1)
    return (cpu_seconds(pid) - before) / (time.monotonic() - start)


def large(site: Path) -> bytes:
    """A request for a file that no socket buffer holds."""
    with (site / "large.bin").open("wb") as file:
        file.truncate(LARGE)
    return HELLO.replace(b"hello.txt", b"large.bin")


# --max-connections.


def test_one_too_many_waits_for_a_process(serve: ServeFixture) -> None:
    server = serve("--max-connections", "2")
    held = sockets(server)
    with holding(server, 2) as clients, connect(server) as third:
        third.send(HELLO)
        until(lambda: sockets(server) == held + 1, "the third to wait")
        assert len(server.children()) == 2
        assert finish(clients[0]) == 200
        assert third.answer().status == 200
        assert finish(clients[1]) == 200
    assert [reason_of(line) for line in server.wait_for_log(3)] == [0, 0, 0]


def test_served_in_the_order_they_came(serve: ServeFixture) -> None:
    server = serve("--max-connections", "1")
    base = sockets(server)
    waiting = []
    with holding(server) as clients:
        for number in range(10):
            client = connect(server)
            client.send(HELLO.replace(b".txt", b".txt?%d" % number))
            waiting.append(client)
            until(lambda n=number: sockets(server) == base + n + 1, "it to wait")
        assert finish(clients[0]) == 200
        for client in waiting:
            assert client.answer().status == 200
            client.close()
    targets = [re.search(r"\?(\d)", line) for line in server.wait_for_log(11)[1:]]
    assert [int(match[1]) for match in targets if match] == list(range(10))


def test_more_than_may_wait_wait_in_the_backlog(serve: ServeFixture) -> None:
    """300 connections, one process: all are served, and the master holds a bounded number."""
    server = serve("--max-connections", "1")
    with holding(server) as held, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(300)]
        for client in clients:
            client.send(HELLO)
        until(lambda: sockets(server) == 1 + 128, "those that may wait")
        assert busy_share(server.master) < 0.3
        assert finish(held[0]) == 200
        for client in clients:
            assert client.answer().status == 200
            # One more: a child that has just been reaped, and whose copy is about to be closed.
            assert sockets(server) <= 1 + 128 + 1
    settled(server)
    assert len(server.wait_for_log(301)) == 301


@pytest.mark.parametrize("size", [0, 300_000, 8_000_000])
def test_refused_after_timeout_queue(serve: ServeFixture, size: int) -> None:
    """503 in whole, even to one that has sent, or still sends, a large request."""
    server = serve("--max-connections", "1", "--timeout-queue", "0.3", "--header", "X-Y: z")
    with holding(server), connect(server) as client:
        body = b"x" * size
        sender = threading.Thread(
            target=client.send,
            args=(b"PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size + body,),
        )
        sender.start()
        sender.join()
        answer = client.answer()
        assert answer.status == 503
        assert answer["retry-after"] == "1"
        assert answer["connection"] == "close"
        assert answer["x-y"] == "z"
        assert len(answer.body) > 100
        assert client.is_closed()
    line = server.wait_for_log(1)[0]
    assert re.search(rf'"-" 503 {len(answer.body)} "-" "-" 80$', line)
    assert "reason 80: 503" in server.stderr()


def test_refused_on_a_unix_socket(serve: ServeFixture, tmp_path: Path) -> None:
    options = ("--max-connections", "1", "--timeout-queue", "0.1")
    server = serve("-b", f"unix:{tmp_path}/s", *options)
    with server.connect() as held, server.connect() as client:
        held.send(b"G")
        until(server.children, "the child")
        client.send(HELLO + b"x" * 50_000)
        answer = client.answer()
        assert answer.status == 503
        assert client.is_closed()
        client.close()
        with server.connect() as another:
            assert another.answer().status == 503
        assert busy_share(server.master) < 0.3
        held.send(HELLO[1:])
        assert held.answer().status == 200


def test_refused_clients_that_stay(serve: ServeFixture) -> None:
    """More than the master lingers for: each has its whole answer, none holds a descriptor long."""
    server = serve("--per-client", "1")
    base = sockets(server)
    with holding(server), contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(400)]
        for client in clients:
            assert client.answer().status == 503
        until(lambda: sockets(server) == base, "the descriptors to be closed")
    assert server.stop() == 0
    assert "1 connections served, 400 refused, 0 cut" in server.stderr()


def test_refused_client_that_never_stops_sending(serve: ServeFixture) -> None:
    """Lingering has an end, in bytes and in time."""
    server = serve("--per-client", "1")
    base = sockets(server)
    with holding(server), connect(server) as client:
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            client.send(bytes(2_000_000_000))
        until(lambda: sockets(server) == base, "the descriptor to be closed")


# --per-client.


def test_per_client(serve: ServeFixture) -> None:
    server = serve("--per-client", "2")
    with holding(server, 2) as clients:
        with connect(server) as third:
            third.send(HELLO)
            answer = third.answer()
            assert (answer.status, answer["retry-after"]) == (503, "10")
            assert third.is_closed()
        with connect(server, "127.0.0.2") as other:
            other.send(HELLO)
            assert other.answer().status == 200
        assert finish(clients[0]) == 200
        until(lambda: len(server.children()) == 1, "the first to end")
        assert server.ask("/hello.txt").status == 200
        assert finish(clients[1]) == 200
    lines = server.wait_for_log(5)
    assert sorted(reason_of(line) for line in lines) == [0, 0, 0, 0, 81]
    assert [line.split()[0] for line in lines if reason_of(line) == 81] == ["127.0.0.1"]


def test_those_that_wait_count_too(serve: ServeFixture) -> None:
    server = serve("--per-client", "2", "--max-connections", "1", "--timeout-queue", "3600")
    base = sockets(server)
    with holding(server, source="127.0.0.2"), contextlib.ExitStack() as stack:
        for number in range(2):
            stack.enter_context(connect(server))
            until(lambda n=number: sockets(server) == base + n + 1, "it to wait")
        with connect(server) as third:
            assert third.answer().status == 503
        assert reason_of(server.wait_for_log(1)[0]) == 81


def test_unix_clients_have_no_address(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve("-b", f"unix:{tmp_path}/s", "--per-client", "1")
    with server.connect() as first:
        first.send(b"G")
        until(server.children, "the child")
        assert server.ask("/hello.txt").status == 200


# What the system refuses.


def test_fork_fails(serve: ServeFixture, public: Path) -> None:
    """RLIMIT_NPROC: four processes. Connections wait, are refused in order, served again."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (4, 4))

    loner = {"user": LONER, "group": LONER, "extra_groups": [], "cwd": "/", "preexec_fn": limit}
    options = ("--timeout-queue", "1", "--max-connections", "5")
    server = serve(*options, directory=public / "site", **loner)
    with holding(server, 2) as clients:
        with connect(server) as third, connect(server) as fourth:
            for client in (third, fourth):
                client.send(HELLO)
            until(lambda: "fork: " in server.stderr(), "fork to fail")
            assert busy_share(server.master) < 0.3
            assert third.answer().status == 503
            assert fourth.answer().status == 503
        with connect(server) as fifth:
            fifth.send(HELLO)
            assert finish(clients[0]) == 200
            assert fifth.answer().status == 200
        assert finish(clients[1]) == 200
    settled(server)
    assert server.ask("/hello.txt").status == 200
    assert sorted(reason_of(line) for line in server.wait_for_log(6)) == [0, 0, 0, 0, 82, 82]
    assert "fork: Resource temporarily unavailable" in server.stderr()
    assert server.stop() == 0


def limit_descriptors(server: Server, more: int) -> None:
    """From now on the master can open `more` descriptors beyond those that it has."""
    assert server.ask("/hello.txt").status == 200  # by now it has opened what it needs
    settled(server)
    held = descriptors(server.master)
    free = (fd for fd in itertools.count() if fd not in held)
    limit = next(itertools.islice(free, more, None))
    resource.prlimit(server.master, resource.RLIMIT_NOFILE, (limit, 20_000))


def test_accept_fails(serve: ServeFixture) -> None:
    """Room for two that wait; the others wait in the backlog; nobody spins; all are served."""
    server = serve("--max-connections", "1", "--timeout-queue", "30")
    limit_descriptors(server, 2)
    with holding(server) as held, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(6)]
        for client in clients:
            client.send(HELLO)
        until(lambda: "accept: Too many open files" in server.stderr(), "accept to fail")
        assert busy_share(server.master) < 0.3
        assert finish(held[0]) == 200
        for client in clients:
            assert client.answer().status == 200
    assert server.stop() == 0
    assert "8 connections served, 0 refused, 0 cut" in server.stderr()


def test_accept_fails_for_long(serve: ServeFixture) -> None:
    """No descriptor at all: the reserve is used to say so, in whole, to one after the other."""
    server = serve("--timeout-queue", "0.2")
    limit_descriptors(server, 0)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(4)]
        for client in clients:
            client.send(HELLO)
        for client in clients:
            assert client.answer().status == 503
            assert client.is_closed()
            client.close()
        assert [reason_of(line) for line in server.wait_for_log(5)] == [0, 83, 83, 83, 83]
    with connect(server) as stubborn, connect(server) as patient:
        assert stubborn.answer().status == 503  # and stays
        assert patient.answer().status == 503
    resource.prlimit(server.master, resource.RLIMIT_NOFILE, (1000, 20_000))
    until(lambda: server.ask("/hello.txt").status == 200, "the server to recover")
    assert server.stop() == 0


# Children that die.


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, 40])
def test_killed_child_harms_no_other(serve: ServeFixture, number: int) -> None:
    server = serve("--max-connections", "2")
    for _ in range(3):  # more children than there are slots
        settled(server)
        with holding(server, 2) as (victim, other):
            os.kill(victim.pid, number)
            victim.rest()
            assert finish(other) == 200
            name = "signal 40" if number == 40 else signal.Signals(number).name
            text = f"reason 87: child {victim.pid}, serving 127.0.0.1, was ended by {name}"
            until(lambda t=text: t in server.stderr(), "the death to be told")
    assert server.stop() == 0
    assert "6 connections served, 0 refused, 3 cut" in server.stderr()


def test_one_connection_can_be_ended(serve: ServeFixture, site: Path) -> None:
    """SIGTERM to a child: after the answer that it sends. END: now, with a line."""
    server = serve("--timeout-idle", "3600")
    with connect(server) as idle:
        idle.send(HELLO.replace(b"Connection: close\r\n", b""))
        assert idle.answer().status == 200
        find_child(server, idle)
        os.kill(idle.pid, signal.SIGTERM)
        assert idle.is_closed()
    settled(server)
    with connect(server) as busy:
        busy.send(large(site))
        find_child(server, busy)
        assert busy.sock.recv(1)
        os.kill(busy.pid, signal.SIGTERM)
        assert len(busy.rest()) > LARGE
    settled(server)
    with connect(server) as busy:
        busy.send(large(site))
        find_child(server, busy)
        assert busy.sock.recv(1)
        os.kill(busy.pid, END)
        busy.rest()
    assert [reason_of(line) for line in server.wait_for_log(3)] == [0, 0, 86]


def test_no_zombie_is_older_than_a_second(serve: ServeFixture) -> None:
    server = serve()
    load = threading.Thread(target=lambda: [server.ask("/hello.txt") for _ in range(300)])
    load.start()
    since: dict[int, float] = {}
    oldest = 0.0
    while load.is_alive():
        now = time.monotonic()
        zombies = {pid for pid in server.children() if state_of(pid) == "Z"}
        since = {pid: since.get(pid, now) for pid in zombies}
        oldest = max([oldest, *(now - first for first in since.values())])
        time.sleep(0.01)
    load.join()
    assert oldest < 1
    settled(server)


def test_the_last_zombie_is_reaped_without_another_connection(serve: ServeFixture) -> None:
    server = serve()
    for _ in range(20):
        assert server.ask("/hello.txt").status == 200
        settled(server)


# What a child has and what the master keeps.


def test_descriptors_of_a_child(serve: ServeFixture, site: Path, tmp_path: Path) -> None:
    """Its own: the connection, the root, the log, stdin to stderr, the lifeline. No listener, no
    other connection, neither served nor waiting nor refused."""
    log = tmp_path / "access.log"
    server = serve(
        "--max-connections", "3", "-b", "127.0.0.1:0", "-b", "[::1]:0", "--access-log", str(log),
        "--per-client", "3",
    )  # fmt: skip
    expected = ["/dev/null", str(log), "pipe", "root", "socket", "stderr", "stdout"]
    with holding(server, 2, "127.0.0.2") as held, contextlib.ExitStack() as stack:
        with holding(server, 1):
            silent = [stack.enter_context(connect(server, "127.0.0.3")) for _ in range(4)]
            until(lambda: "-" in log.read_text(), "the refusal of the fourth; three wait")
        find_child(server, silent[0])
        for client in (*held, silent[0]):
            targets = sorted(name_of(target, site) for target in descriptors(client.pid).values())
            assert targets == sorted(expected)


def name_of(target: str, site: Path) -> str:
    if target == str(site):
        return "root"
    if target.startswith(("socket:", "pipe:")):
        return target.partition(":")[0]
    return target.rpartition("/")[2] if "/server" in target else target


def test_signals_of_a_child(serve: ServeFixture) -> None:
    server = serve()
    with holding(server) as clients:
        pid = clients[0].pid
        ignored = int(mask(pid, "SigIgn"), 16)
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGPIPE):
            assert ignored & 1 << (number - 1)
        caught = int(mask(pid, "SigCgt"), 16)
        assert not caught & 1 << (signal.SIGCHLD - 1)
        assert not ignored & 1 << (signal.SIGTERM - 1)


def test_the_master_keeps_nothing(serve: ServeFixture) -> None:
    """500 connections, some refused, some reset: not a descriptor more."""
    server = serve("--per-client", "1")
    assert server.ask("/hello.txt").status == 200
    settled(server)
    before = descriptors(server.master)
    for number in range(500):
        client = connect(server)
        client.send(HELLO)
        if number % 10 == 0:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif number % 5:
            client.answer()
        client.close()
    settled(server)
    until(lambda: descriptors(server.master).keys() == before.keys(), "the descriptors of before")
    assert server.ask("/hello.txt").status == 200


def test_slots_are_given_back(serve: ServeFixture) -> None:
    """Far more connections than slots."""
    server = serve("--max-connections", "2")
    for _ in range(30):
        assert server.ask("/hello.txt").status == 200


def test_scoreboard() -> None:
    board = Scoreboard(3)
    slots = [board.take(7) for _ in range(3)]
    assert sorted(slot.number for slot in slots) == [0, 1, 2]
    with pytest.raises(IndexError):
        board.take(7)
    slots[1].add(2, 5)
    board.give_back(slots[1])
    assert board.taken() == 2
    again = board.take(8)
    assert again.number == 1
    assert [again.get(word) for word in range(8)] == [0, 1, 0, 0, 8, 0, 0, 0]
    for slot in (slots[0], again, slots[2]):
        board.give_back(slot)
    assert board.taken() == 0
    board.close()


def test_an_idle_server_sleeps(serve: ServeFixture) -> None:
    server = serve()
    with connect(server) as client:
        client.send(HELLO.replace(b"Connection: close\r\n", b""))
        assert client.answer().status == 200
        find_child(server, client)
        assert busy_share(server.master) < 0.05
        assert cpu_seconds(client.pid) < 0.5


# The end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_end_it(serve: ServeFixture, number: int) -> None:
    server = serve()
    assert server.ask("/hello.txt").status == 200
    settled(server)
    assert server.stop(number) == 0
    assert cannot_connect(server.port)
    assert "stopped: 1 connections served, 0 refused, 0 cut" in server.stderr()


def cannot_connect(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_signals_right_after_the_start(serve: ServeFixture, number: int) -> None:
    """Whoever has read the URL line may signal, whatever the server is doing."""
    for _ in range(5):
        assert serve().stop(number) == 0


def test_signals_that_were_blocked(serve: ServeFixture) -> None:
    """A mask that was inherited doesn't make the server deaf."""
    blocked = (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT)
    server = serve(preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked) and None)
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_drain(serve: ServeFixture, site: Path, number: int) -> None:
    """An answer that is being sent is sent to its end; who is idle goes at once."""
    request = large(site).replace(b"Connection: close\r\n", b"")
    server = serve("--timeout-idle", "3600", "--timeout-header", "3600")
    with connect(server) as busy, connect(server) as idle, connect(server) as fresh:
        busy.send(request)
        assert busy.sock.recv(10) == b"HTTP/1.1 2"
        idle.send(HELLO.replace(b"Connection: close\r\n", b""))
        assert idle.answer().status == 200
        find_child(server, fresh)
        server.process.send_signal(number)
        assert idle.is_closed()
        assert fresh.is_closed()
        until(lambda: cannot_connect(server.port), "the port to be closed")
        assert server.process.poll() is None
        data = busy.rest()
    assert data.count(b"\0") == LARGE
    assert server.process.wait(PATIENCE) == 0
    assert " 3 connections have 30 s" in server.stderr()
    assert " served, 0 refused, 0 cut" in server.stderr()


def test_half_a_request_is_finished(serve: ServeFixture) -> None:
    server = serve()
    with holding(server, 2) as clients:
        server.process.send_signal(signal.SIGTERM)
        until(lambda: cannot_connect(server.port), "the port to be closed")
        clients[0].send(HELLO[1:].replace(b"Connection: close\r\n", b""))
        answer = clients[0].answer()
        assert (answer.status, answer["connection"]) == (200, "close")
        assert clients[0].is_closed()
        assert finish(clients[1]) == 200
    assert server.process.wait(PATIENCE) == 0


def test_what_the_kernel_has_accepted_is_served(serve: ServeFixture) -> None:
    """Connections in the backlog at SIGTERM: their clients have been told that we are there."""
    server = serve()
    master = server.master
    os.kill(master, signal.SIGSTOP)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(connect(server)) for _ in range(200)]
        for client in clients:
            client.send(HELLO)
        os.kill(server.pid, signal.SIGTERM)
        os.kill(master, signal.SIGCONT)
        for client in clients:
            assert client.answer().status == 200
    assert server.process.wait(PATIENCE) == 0


def test_those_that_wait_are_served(serve: ServeFixture) -> None:
    server = serve("--max-connections", "1")
    base = sockets(server)
    with holding(server) as held, connect(server) as waiting:
        waiting.send(HELLO)
        until(lambda: sockets(server) == base + 1, "it to wait")
        server.process.send_signal(signal.SIGTERM)
        until(lambda: cannot_connect(server.port), "the port to be closed")
        assert finish(held[0]) == 200
        assert waiting.answer().status == 200
    assert server.process.wait(PATIENCE) == 0


def test_grace_is_over(serve: ServeFixture, site: Path) -> None:
    server = serve("--grace", "0.2")
    with connect(server) as busy:
        busy.send(large(site))
        assert busy.sock.recv(1)
        children = server.children()
        assert server.stop() == 0
        assert [state_of(pid) for pid in children] == [""]
        assert len(busy.rest()) < LARGE
    assert "reason 86: 1 connections are cut" in server.stderr()
    assert "reason 87" not in server.stderr()
    assert "1 connections served, 0 refused, 1 cut" in server.stderr()


def test_grace_is_over_for_a_child_that_does_not_listen(serve: ServeFixture) -> None:
    """SIGKILL follows for one that can't run."""
    server = serve("--grace", "0.1")
    with holding(server) as clients:
        child = clients[0].pid
        os.kill(child, signal.SIGSTOP)
        assert server.stop() == 0
        assert state_of(child) == ""


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_second_signal_ends_at_once(serve: ServeFixture, site: Path, second: int) -> None:
    server = serve("--grace", "3600")
    with connect(server) as busy:
        busy.send(large(site))
        assert busy.sock.recv(1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: cannot_connect(server.port), "the port to be closed")
        assert server.stop(second) == 0
    assert reason_of(server.wait_for_log(1)[0]) == 86


def test_sigquit_waits_for_nobody(serve: ServeFixture, site: Path) -> None:
    server = serve("--grace", "3600", "--max-connections", "1")
    with connect(server) as busy, connect(server) as waiting:
        busy.send(large(site))
        assert busy.sock.recv(1)
        waiting.send(HELLO)
        assert server.stop(signal.SIGQUIT) == 0
        assert len(busy.rest()) < LARGE


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_to_all_of_the_group(serve: ServeFixture, site: Path, number: int) -> None:
    """The terminal's ^C, timeout(1), systemd: the children hear it too, and still finish."""
    server = serve(start_new_session=True)
    with connect(server) as busy, holding(server, 1) as half:
        busy.send(large(site))
        assert busy.sock.recv(1)
        os.killpg(server.pid, number)
        until(lambda: cannot_connect(server.port), "the port to be closed")
        assert finish(half[0]) == 200
        assert len(busy.rest()) > LARGE
    assert server.process.wait(PATIENCE) == 0
    assert " served, 0 refused, 0 cut" in server.stderr()


def test_the_masters_death(serve: ServeFixture, site: Path) -> None:
    """SIGKILL: nobody is left who could end the children, so they end by themselves."""
    server = serve("--timeout-idle", "3600")
    with connect(server) as busy, connect(server) as idle:
        idle.send(HELLO.replace(b"Connection: close\r\n", b""))
        assert idle.answer().status == 200
        busy.send(large(site).replace(b"Connection: close\r\n", b""))
        assert busy.sock.recv(1)
        for client in (busy, idle):
            find_child(server, client)
        server.process.kill()
        server.process.wait(PATIENCE)
        assert idle.is_closed()
        assert len(busy.rest()) > LARGE
    for client in (busy, idle):
        until(lambda c=client: state_of(c.pid) in ("", "Z"), "the orphan to end")


def has_ended(client: Client) -> bool:
    try:
        assert client.answer().status == 200
    except (EOFError, ConnectionResetError):
        return True
    return False


def test_a_busy_client_does_not_keep_an_orphan(serve: ServeFixture) -> None:
    """Requests without a pause: the connection ends all the same, after a whole answer."""
    server = serve()
    with connect(server) as client:
        request = HELLO.replace(b"Connection: close\r\n", b"")
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        stopped = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                while not stopped.is_set():
                    client.send(request * 20)

        sender = threading.Thread(target=send)
        sender.start()
        try:
            assert client.answer().status == 200
            server.process.kill()
            server.process.wait(PATIENCE)
            until(lambda: has_ended(client), "the connection to end")
        finally:
            stopped.set()
            with contextlib.suppress(OSError):
                client.sock.shutdown(socket.SHUT_RDWR)
            sender.join()


def test_nothing_of_it_is_in_the_file_system(serve: ServeFixture, tmp_path: Path) -> None:
    """Only what it was told to make."""
    before = set(tmp_path.rglob("*"))
    server = serve(cwd=str(tmp_path))
    assert server.ask("/hello.txt").status == 200
    assert server.stop() == 0
    made = {path.name for path in tmp_path.rglob("*")} - {path.name for path in before}
    assert made == {"server0", "stdout", "stderr"}
    assert not [path for path in tmp_path.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]
