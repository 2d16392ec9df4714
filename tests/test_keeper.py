"""A worker that crashes: those that it owed an answer get a 500, the log names what it did, and
nobody else notices. Its keeper is never there without it.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, Server, children_of, state_of, until

from pyweb.config import MODES
from pyweb.keeper import POSSIBLE
from pyweb.parse import ENGINES

pytestmark = pytest.mark.skipif(not POSSIBLE, reason="no compiled extension, or no pidfd")

POOLS = [mode for mode in MODES if mode != "fork"]
FATAL = [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGKILL, signal.SIGXCPU]
HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"
BEGUN = b"POST /heavy?x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"
BIG = 64 << 20


def worker_of(server: Server) -> int:
    """The only one, ready to serve."""
    until(lambda: len(server.children()) == 1 and server.keepers(), "the worker and its keeper")
    assert server.ask("/hello.txt").status == 200
    return server.children()[0]


def is_at_rest(pid: int) -> bool:
    """All its threads wait."""
    states = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(state.rpartition(")")[2].split()[0] == "S" for state in states)


def unread(*clients: Client) -> int:
    """Bytes that the server's side of these connections has in its queues."""
    ours = set()
    for client in clients:
        host, port = client.sock.getsockname()
        address = "".join(f"{int(part):02X}" for part in reversed(host.split(".")))
        ours.add(f"{address}:{port:04X}")
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(int(line[4].split(":")[1], 16) for line in lines if line[2] in ours)


def send(server: Server, pid: int, data: bytes) -> Client:
    """A connection whose worker has read `data` and done with it what it can."""
    client = server.connect()
    client.send(data)
    until(lambda: not unread(client) and is_at_rest(pid), "the worker to have read it")
    return client


def living(server: Server) -> list[int]:
    return [pid for pid in server.children() if state_of(pid) not in ("", "Z")]


def gone(pids: list[int]) -> bool:
    return all(state_of(pid) in ("", "Z") for pid in pids)


@pytest.fixture
def pool(serve: ServeFixture, site: Path) -> Server:
    with (site / "big").open("wb") as file:
        file.truncate(BIG)
    return serve("--mode", "prefork", "--workers", "1")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mode", POOLS)
@pytest.mark.parametrize("number", FATAL, ids=lambda n: n.name)
def test_each_client_gets_what_it_is_owed(
    serve: ServeFixture, site: Path, mode: str, engine: str, number: signal.Signals
) -> None:
    with (site / "big").open("wb") as file:
        file.truncate(BIG)
    server = serve("--mode", mode, "--engine", engine, "--workers", "1", "--threads", "2")
    pid = worker_of(server)
    keepers = server.keepers()
    with (
        send(server, pid, HELLO) as idle,
        send(server, pid, b"GET /big HTTP/1.1\r\nHost: h\r\n\r\n") as sending,
        send(server, pid, b"GET /half") as half,
        send(server, pid, BEGUN) as begun,
    ):
        assert idle.answer().status == 200
        os.kill(pid, number)
        for client in (begun, half):
            answer = client.answer()
            assert (answer.status, answer["connection"]) == (500, "close")
            assert answer.get("retry-after") is None
            assert client.is_closed()
        got = sending.rest()
        assert got.startswith(b"HTTP/1.1 200 ")
        assert got.count(b"HTTP/1.1") == 1  # never a second status line in the midst of a body
        assert len(got) < BIG
        idle.send(HELLO)  # it doesn't notice: another worker has it now
        assert idle.answer().status == 200
    until(lambda: gone(keepers), "the keeper to leave")
    lines = [line for line in server.wait_for_log(6) if not line.endswith(" 0")]
    assert sorted(line.split('" ')[1].split()[0] for line in lines) == ["000", "500", "500"]
    assert all(line.startswith("127.0.0.1 ") and line.endswith(" 87") for line in lines)
    assert any('"POST /heavy?x" 500 ' in line for line in lines), (lines, server.stderr())
    said = rf"worker {pid},.* serving 127\.0\.0\.1 'POST /heavy\?x',.* was ended by {number.name}, "
    until(lambda: re.search(said, server.stderr()), "the death to be told")
    if number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        assert 'worker.py"' in server.stderr()  # where Python was
    assert server.ask("/hello.txt").status == 200


def test_who_ended_it_and_what_it_used(pool: Server) -> None:
    pid = worker_of(pool)
    with contextlib.ExitStack() as stack:
        begun = stack.enter_context(send(pool, pid, BEGUN))
        resource.prlimit(pid, resource.RLIMIT_CPU, (1, 60))
        other = stack.enter_context(pool.connect())
        with contextlib.suppress(OSError, EOFError):  # until it has used up its second
            while True:
                other.send(HELLO * 100)
                for _ in range(100):
                    other.answer()
        assert begun.answer().status == 500
    said = rf"worker {pid}, .*was ended by SIGXCPU, by a limit; it used (\S+) s of CPU, (\d+) MB"
    until(lambda: re.search(said, pool.stderr()), "the death to be told")
    match = re.search(said, pool.stderr())
    assert match
    assert 0.5 <= float(match[1]) < 5  # the kernel counts in ticks
    assert 5 <= int(match[2]) < 500


def test_the_hard_limit_is_named(serve: ServeFixture) -> None:
    """`ulimit -t` sets both limits; the kernel sends SIGKILL then, and nothing before."""
    server = serve(
        "--mode", "prefork", "--workers", "1",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (3, 3)),
    )  # fmt: skip
    pid = worker_of(server)
    with server.connect() as client, contextlib.suppress(OSError, EOFError):
        while True:
            client.send(HELLO * 100)
            for _ in range(100):
                client.answer()
    said = rf"worker {pid}.* was ended by SIGKILL, by a limit; it used "
    until(lambda: re.search(said, server.stderr()), "the death to be told")


@pytest.fixture
def control_group() -> Iterator[Path]:
    """The cgroup.procs of one with 64 MB; for a server that is stopped before it goes."""
    version1, version2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    is_first = version1.is_dir()
    group = (version1 if is_first else version2) / f"pyweb-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group can be made")
    try:
        (group / ("memory.limit_in_bytes" if is_first else "memory.max")).write_text("64M")
        with contextlib.suppress(OSError):
            (group / "memory.swap.max").write_text("0")
        yield group / "cgroup.procs"
        until(lambda: not (group / "cgroup.procs").read_text(), "the group to be empty")
    except OSError:
        pytest.skip("no limit can be set")
    finally:
        group.rmdir()


@pytest.mark.parametrize("mode", POOLS)
def test_all_that_idle_are_adopted(serve: ServeFixture, mode: str) -> None:
    """More than a socket holds, new ones too; what they have had is known to the next worker."""
    server = serve(
        "--mode", mode, "--workers", "1", "--keepalive-requests", "2", "--per-client", "600"
    )
    pid = worker_of(server)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(599)]
        for client in clients[:300]:
            client.send(HELLO)
            assert client.answer().get("connection") is None
        # The last of them has been accepted, too.
        last = stack.enter_context(send(server, pid, HELLO))
        assert last.answer().status == 200
        os.kill(pid, signal.SIGKILL)
        for client in clients:
            client.send(HELLO)
        for number, client in enumerate(clients):
            answer = client.answer()
            is_last = "close" if number < 300 else None
            assert (answer.status, answer.get("connection")) == (200, is_last)
            if is_last:
                client.close()
        # 300 are left, and counted where they are now.
        for _ in range(300):
            client = stack.enter_context(server.connect())
            client.send(HELLO)
            assert client.answer().status == 200
        assert server.ask("/hello.txt").status == 503
    assert not [line for line in server.log() if line.endswith(" 87")]
    said = rf"worker {pid} was ended by SIGKILL, by a signal from elsewhere; it used "
    until(lambda: re.search(said, server.stderr()), "the death to be told")


def test_adopted_by_those_that_live(serve: ServeFixture) -> None:
    """No new worker is needed for it."""
    server = serve("--mode", "prefork", "--workers", "2")
    until(lambda: len(living(server)) == 2, "two workers")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(20)]
        for client in clients:
            client.send(HELLO)
            assert client.answer().status == 200
        for _ in range(5):
            until(lambda: len(living(server)) == 2, "two workers")
            victim = living(server)[0]
            until(lambda p=victim: is_at_rest(p), "it to have done with its last answer")
            os.kill(victim, signal.SIGKILL)
            for client in clients:
                client.send(HELLO)
                assert client.answer().status == 200


def test_nobody_is_adopted_when_the_server_stops(pool: Server) -> None:
    """A worker that crashes while it drains: what idles ends."""
    pid, keepers = worker_of(pool), pool.keepers()
    with send(pool, pid, HELLO) as idle, send(pool, pid, BEGUN) as begun:
        assert idle.answer().status == 200
        os.kill(pid, signal.SIGSTOP)
        pool.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in pool.stderr(), "the signal to be heard")
        os.kill(pid, signal.SIGKILL)
        assert begun.answer().status == 500
        assert idle.is_closed()
        assert not gone(keepers)  # it lingers; nobody had to wait for the end of all
    assert pool.process.wait(PATIENCE) == 0


def test_the_memory_killer_is_named(control_group: Path, serve: ServeFixture) -> None:
    server = serve(
        "--mode", "prefork", "--workers", "1", "--limit-head", "4M", "--limit-line", "4000000",
        preexec_fn=lambda: control_group.write_text(str(os.getpid())),
    )  # fmt: skip
    pid = worker_of(server)
    with contextlib.ExitStack() as stack:
        clients: list[Client] = []
        while not gone([pid]):  # each head costs it 3 MB
            assert len(clients) < 100
            client = stack.enter_context(server.connect())
            clients.append(client)
            with contextlib.suppress(OSError):
                client.send(b"GET /" + b"a" * 3_000_000)
            until(lambda c=client: gone([pid]) or not unread(c), "it to be read")
        assert clients[0].answer().status == 500
    said = f"worker {pid}, .*was ended by SIGKILL, by the kernel's memory killer; it used "
    until(lambda: re.search(said, server.stderr()), "the death to be told")
    other = worker_of(server)
    os.kill(other, signal.SIGKILL)
    said = rf"worker {other}.* was ended by SIGKILL, by a signal from elsewhere"
    until(lambda: re.search(said, server.stderr()), "the other death to be told")


def sockets_of(pid: int) -> int:
    found = 0
    with contextlib.suppress(OSError):
        for path in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found += os.readlink(path).startswith("socket:")
    return found


def test_a_lingering_client_gets_the_whole_answer(pool: Server) -> None:
    """A refused one that goes on sending: no reset may overtake what it is told."""
    pid, keepers = worker_of(pool), pool.keepers()
    with send(pool, pid, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n") as client:
        os.kill(pid, signal.SIGKILL)
        until(lambda: sockets_of(keepers[0]) < 3, "the keeper to be alone")
        assert sockets_of(keepers[0]) == 2  # the way to the living, and a client that stays
        client.send(b"x")
        assert client.answer().status == 400
    assert [line.rsplit(" ", 1)[1] for line in pool.wait_for_log(2)] == ["0", "42"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("mode", POOLS)
def test_no_keeper_stays_when_the_server_stops(
    serve: ServeFixture, mode: str, number: signal.Signals
) -> None:
    server = serve("--mode", mode)
    worker_ready = server.ask("/hello.txt").status
    assert worker_ready == 200
    until(lambda: len(server.keepers()) == len(server.children()), "a keeper for each")
    keepers = server.keepers()
    with server.connect() as idle:
        idle.send(HELLO)
        assert idle.answer().status == 200
        assert server.stop(number) == 0
        assert gone(keepers)
        assert idle.is_closed()
    assert not re.search(r"keeper \d", server.stderr())


def test_the_server_stays_for_its_keepers(pool: Server) -> None:
    """One that is still at work is not left behind."""
    pid = worker_of(pool)
    keepers = pool.keepers()
    os.kill(keepers[0], signal.SIGSTOP)
    pool.process.send_signal(signal.SIGTERM)
    until(lambda: gone([pid]) and not pool.children(), "the worker to leave")
    time.sleep(0.3)
    assert pool.process.poll() is None
    os.kill(keepers[0], signal.SIGCONT)
    assert pool.process.wait(PATIENCE) == 0
    assert gone(keepers)


@pytest.mark.parametrize("mode", POOLS)
def test_no_keeper_stays_when_the_master_dies(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode)
    assert server.ask("/hello.txt").status == 200
    until(lambda: len(server.keepers()) == len(server.children()), "a keeper for each")
    pids = server.children() + server.keepers()
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: gone(pids), "workers and keepers to leave")


def test_no_keeper_stays_when_its_worker_leaves(serve: ServeFixture) -> None:
    server = serve("--mode", "prefork", "--workers", "1", "--max-requests", "1")
    for _ in range(5):
        keepers = server.keepers()
        assert server.ask("/hello.txt").status == 200
        until(lambda k=keepers: gone(k), "the keeper to leave")
    until(lambda: len(server.keepers()) == len(server.children()) == 1, "one of each")
    assert not re.search(r"keeper \d", server.stderr())


def test_the_signals_of_a_service_manager_reach_it_too(pool: Server) -> None:
    """Sent to each process of the group: the keeper is the last to leave all the same."""
    pid = worker_of(pool)
    keeper = pool.keepers()[0]
    with send(pool, pid, BEGUN) as begun:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            os.kill(keeper, number)
        begun.send(b"cdefghi")
        assert begun.answer().status == 405
    assert state_of(keeper) == "S"
    assert pool.stop() == 0


def test_a_keeper_that_is_killed_harms_nobody(pool: Server) -> None:
    pid = worker_of(pool)
    keeper = pool.keepers()[0]
    with send(pool, pid, BEGUN) as begun:
        os.kill(keeper, signal.SIGKILL)
        until(lambda: f"keeper {keeper} was ended by SIGKILL" in pool.stderr(), "its name")
        begun.send(b"cdefghi")
        assert begun.answer().status == 405
    assert pool.children() == [pid]
    with send(pool, pid, BEGUN) as begun:  # nobody is there to answer for it
        os.kill(pid, signal.SIGKILL)
        assert begun.is_closed()
    assert pool.ask("/hello.txt").status == 200


def test_worker_and_keeper_killed_together(pool: Server) -> None:
    pid = worker_of(pool)
    keeper = pool.keepers()[0]
    with send(pool, pid, BEGUN) as begun:
        os.kill(keeper, signal.SIGSTOP)
        os.kill(pid, signal.SIGKILL)
        os.kill(keeper, signal.SIGKILL)
        assert begun.is_closed()
    until(lambda: gone([pid, keeper]), "both to be gone")
    assert worker_of(pool) != pid


def test_a_keeper_that_lingers_holds_no_listener(pool: Server) -> None:
    pid, keepers = worker_of(pool), pool.keepers()
    with send(pool, pid, BEGUN) as begun:
        os.kill(pid, signal.SIGKILL)
        assert begun.answer().status == 500
        assert state_of(keepers[0]) not in ("", "Z")
        assert sockets_of(keepers[0]) == 2  # the client's, and the way to the living


def test_more_connections_than_it_lingers_for(serve: ServeFixture) -> None:
    server = serve("--mode", "prefork", "--workers", "1", "--timeout-header", "60")
    pid = worker_of(server)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(399)]
        for client in clients:
            client.send(b"GET /")
        clients.append(stack.enter_context(send(server, pid, b"GET /")))
        until(lambda: not unread(*clients), "all to be read")
        os.kill(pid, signal.SIGKILL)
        for client in clients:
            assert client.answer().status == 500
    assert len(server.wait_for_log(401)) == 401


def test_without_room_for_a_keeper_a_worker_serves(serve: ServeFixture, public: Path) -> None:
    """RLIMIT_NPROC: supervisor, master and a worker."""
    server = serve(
        "--mode", "prefork", "--workers", "1",
        directory=public / "site", user=61014, group=61014, extra_groups=[], cwd="/",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (3, 3)),
    )  # fmt: skip
    assert server.ask("/hello.txt").status == 200
    assert "keeper: Resource temporarily unavailable" in server.stderr()
    assert len(children_of(server.master)) == 1
