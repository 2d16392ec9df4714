"""The pool: workers are replaced, grow, shrink and retire, and no request is lost over it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, Server, need, state_of, until

from pyweb.accesslog import AccessLog
from pyweb.cli import _arguments as arguments
from pyweb.cli import configure
from pyweb.docroot import DocRoot
from pyweb.gate import Gate
from pyweb.journal import Journal, Sink
from pyweb.ledger import Ledger
from pyweb.parse import ENGINES
from pyweb.route import Router
from pyweb.scoreboard import Slot
from pyweb.service import Service
from pyweb.static import StaticSite
from pyweb.worker import Leave, Quota, Worker

HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"


def living(server: Server) -> list[int]:
    return [pid for pid in server.children() if state_of(pid) not in ("", "Z")]


def until_workers(server: Server, count: int) -> None:
    until(lambda: len(living(server)) == count, f"{count} workers, not {living(server)}")


def a_worker_of(server: Server) -> int:
    """One that has its name: for a moment it is called as its keeper."""
    found: list[int] = []
    until(lambda: found.extend(living(server)) or found, "a worker")
    return found[0]


def ab(server: Server, *options: str) -> dict[str, str]:
    command = [need("ab"), "-q", *options, f"{server.url}hello.txt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return dict(re.findall(r"^([A-Z][^:]*):\s+(\S+)", done.stdout, re.MULTILINE))


def test_as_many_workers_as_asked_for(serve: ServeFixture) -> None:
    until_workers(serve("--mode", "prefork", "--workers", "3"), 3)


def test_default_is_the_usable_cpus(serve: ServeFixture) -> None:
    until_workers(serve("--mode", "prefork"), len(os.sched_getaffinity(0)))


def test_threads_are_in_one_process(serve: ServeFixture) -> None:
    server = serve("--mode", "thread", "--threads", "5")
    until_workers(server, 1)
    tasks = Path(f"/proc/{living(server)[0]}/task")
    until(lambda: len(list(tasks.iterdir())) == 6, "five threads and the one that has the signals")
    assert len(list(Path(f"/proc/{server.master}/task").iterdir())) == 1


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
@pytest.mark.parametrize("mode", ["prefork", "thread"])
def test_a_killed_worker_is_replaced_and_named(
    serve: ServeFixture, mode: str, number: signal.Signals
) -> None:
    server = serve("--mode", mode, "--workers", "2")
    victim = a_worker_of(server)
    os.kill(victim, number)
    until(lambda: victim not in living(server) and living(server), "another worker")
    assert server.ask("/hello.txt").status == 200
    until(lambda: f"worker {victim} was ended by {number.name}" in server.stderr(), "its name")


def test_all_workers_killed_at_once(serve: ServeFixture) -> None:
    server = serve("--mode", "prefork", "--workers", "4")
    until_workers(server, 4)
    for pid in living(server):
        os.kill(pid, signal.SIGKILL)
    assert server.ask("/hello.txt").status == 200
    until_workers(server, 4)


@pytest.mark.parametrize("keep_alive", [(), ("-k",)], ids=["connection each", "keep-alive"])
@pytest.mark.parametrize("engine", ENGINES)
def test_workers_that_retire_lose_no_request(
    serve: ServeFixture, engine: str, keep_alive: tuple[str, ...]
) -> None:
    server = serve(
        "--mode", "prefork", "--workers", "2", "--engine", engine,
        "--max-requests", "100", "--max-requests-jitter", "50",
    )  # fmt: skip
    first = set(living(server))
    report = ab(server, "-n", "3000", "-c", "20", *keep_alive)
    assert report["Failed requests"] == "0"
    assert report["Complete requests"] == "3000"
    assert not first & set(living(server))
    assert len(server.wait_for_log(3000)) == 3000


def test_spare_children_that_serve_one_connection(serve: ServeFixture) -> None:
    server = serve("--mode", "prefork", "--workers", "4", "--max-connections-per-child", "1")
    report = ab(server, "-n", "500", "-c", "8")
    assert report["Failed requests"] == "0"
    server.wait_for_log(500)
    until_workers(server, 4)
    server.stop()
    served = re.search(r"stopped: (\d+) connections served", server.stderr())
    assert served
    assert 500 <= int(served[1]) <= 508  # ab may open a few that it doesn't use


def test_it_grows_when_too_few_are_idle_and_shrinks_again(serve: ServeFixture, site: Path) -> None:
    """Workers of one connection each, held by clients that read nothing."""
    (site / "big").write_bytes(b"x" * (32 << 20))
    server = serve(
        "--mode", "prefork", "--workers", "2", "--min-spare", "2", "--max-spare", "3",
        "--max-connections-per-child", "1",
    )  # fmt: skip
    until(lambda: len(living(server)) >= 2, "workers")
    with contextlib.ExitStack() as held:
        for _ in range(6):
            client = held.enter_context(server.connect())
            client.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        until(lambda: len(living(server)) >= 6 + 2, "workers beside those that are held")
    until(lambda: 2 <= len(living(server)) <= 3, "the pool to shrink")


def test_a_slow_client_keeps_nobody_waiting(serve: ServeFixture, site: Path) -> None:
    """One worker: clients that are idle, slow or don't read cost the others nothing."""
    (site / "big").write_bytes(b"x" * (32 << 20))
    server = serve("--mode", "prefork", "--workers", "1")
    with contextlib.ExitStack() as held:
        for data in (b"", b"GET /hel", HELLO, b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n") * 5:
            held.enter_context(server.connect()).send(data)
        for _ in range(20):
            assert server.ask("/hello.txt").body == b"hello, world\n"


def test_a_pipelining_client_keeps_nobody_waiting(serve: ServeFixture) -> None:
    server = serve("--mode", "prefork", "--workers", "1", "--access-log", "off")
    count = 20_000
    with server.connect() as greedy:
        sender = threading.Thread(target=greedy.send, args=(HELLO * count,))
        sender.start()
        assert greedy.answer().status == 200
        answered = 0

        def ask() -> None:
            nonlocal answered
            while sender.is_alive() or answered < 3:
                answered += server.ask("/hello.txt").status == 200
                if answered >= 3:
                    return

        asker = threading.Thread(target=ask)
        asker.start()
        left = count - 1
        while asker.is_alive() and left:
            greedy.answer()
            left -= 1
        asker.join(PATIENCE)
        assert answered >= 3
        assert left > 0, "the others had to wait for all of it"
        for _ in range(left):
            greedy.answer()
        sender.join(PATIENCE)


@pytest.mark.parametrize("mode", ["prefork", "thread"])
def test_term_lets_an_answer_end_and_idle_ones_go(
    serve: ServeFixture, site: Path, mode: str
) -> None:
    size = 32 << 20
    (site / "big").write_bytes(b"x" * size)
    server = serve("--mode", mode)
    with server.connect() as idle, server.connect() as busy:
        idle.send(HELLO)
        assert idle.answer().status == 200
        busy.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        busy.sock.recv(1, socket.MSG_PEEK)
        server.process.send_signal(signal.SIGTERM)
        assert idle.is_closed()
        assert len(busy.answer().body) == size
        assert busy.is_closed()
    assert server.stop() == 0


def states_of_threads(pid: int) -> set[str]:
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


def refuses(server: Server) -> bool:
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.parametrize("mode", ["prefork", "thread"])
def test_the_port_is_free_while_an_answer_leaves(
    serve: ServeFixture, site: Path, mode: str
) -> None:
    size = 32 << 20
    (site / "big").write_bytes(b"x" * size)
    server = serve("--mode", mode)
    with server.connect() as busy:
        busy.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        busy.sock.recv(1, socket.MSG_PEEK)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: refuses(server), "the port to be free")
        assert server.process.poll() is None
        assert len(busy.answer().body) == size
    assert server.stop() == 0


@pytest.mark.parametrize("mode", ["prefork", "thread"])
def test_who_waits_in_the_backlog_when_it_stops_is_served(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode, "--workers", "1")
    assert server.ask("/hello.txt").status == 200
    (pid,) = living(server)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: states_of_threads(pid) == {"T"}, "all of it to stand still")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        for client in clients[:10]:
            client.send(HELLO)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.stderr(), "the signal to be heard")
        os.kill(pid, signal.SIGCONT)
        for client in clients[:10]:
            answer = client.answer()
            assert (answer.status, answer["connection"]) == (200, "close")
            assert client.is_closed()
        for client in clients[10:]:  # they have a moment to speak
            assert client.is_closed()
    assert server.stop() == 0


@contextlib.contextmanager
def a_worker(listener: socket.socket, site: Path, slot: Slot, **more: object) -> Iterator[None]:
    """In a thread of ours, with a configuration that has `more`."""
    given = configure(arguments().parse_args(["-d", str(site)]), {})
    config = types.SimpleNamespace(**{**given._asdict(), **more})
    root = DocRoot(str(site))
    journal = Journal(Sink(2))
    router = Router(StaticSite(root, (), False))
    service = Service(config, router.answer, AccessLog(None, "combined"), journal)  # type: ignore[arg-type]
    leave, (lifeline, master) = Leave(), os.pipe()
    quota, ledger = Quota(), Ledger(0)
    worker = Worker(service, Gate([listener]), lifeline, leave, slot, quota, ledger)
    thread = threading.Thread(target=worker.run)
    thread.start()
    yield
    leave.say()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    for fd in (leave.fd, leave.write_fd, lifeline, master):
        os.close(fd)
    root.close()


def test_without_parking_one_at_a_time(site: Path, slot: Slot) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    with a_worker(listener, site, slot, no_parking=True), contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(Client(socket.create_connection(listener.getsockname())))
            for _ in range(2)
        )
        second.send(HELLO)
        for _ in range(50):
            first.send(HELLO)
            assert first.answer().status == 200
        second.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            second.sock.recv(1)
        second.sock.settimeout(PATIENCE)
        first.close()
        assert second.answer().status == 200


@pytest.mark.parametrize("mode", ["prefork", "thread"])
@pytest.mark.parametrize("how", ["second TERM", "QUIT", "grace"])
def test_what_is_cut_is_logged(serve: ServeFixture, site: Path, mode: str, how: str) -> None:
    (site / "big").write_bytes(b"x" * (32 << 20))
    server = serve("--mode", mode, "--grace", "0.3" if how == "grace" else "60")
    with server.connect() as busy:
        busy.send(b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n")
        busy.sock.recv(1, socket.MSG_PEEK)
        server.process.send_signal(signal.SIGQUIT if how == "QUIT" else signal.SIGTERM)
        if how == "second TERM":
            until(lambda: "stopping" in server.stderr(), "the first one to be heard")
            server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert server.wait_for_log(1)[-1].endswith(" 86")


def test_a_worker_that_can_t_be_forked_is_waited_for(serve: ServeFixture, public: Path) -> None:
    """More workers than the process limit allows: those that there are serve."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (5, 5))

    server = serve(
        "--mode", "prefork", "--workers", "8",
        directory=public / "site", user=61013, group=61013, extra_groups=[], cwd="/",
        preexec_fn=limit,
    )  # fmt: skip
    until(lambda: "Resource temporarily unavailable" in server.stderr(), "the message")
    assert server.ask("/hello.txt").status == 200
    assert server.process.poll() is None
