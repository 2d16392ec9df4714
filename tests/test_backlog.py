"""A pool that takes nobody: who waits in the backlog is told in time, and served when it can."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest
from conftest import Client, ServeFixture, Server, state_of, until
from test_master import busy_share

HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"


def workers(server: Server) -> list[int]:
    return [pid for pid in server.children() if state_of(pid) not in ("", "Z")]


def stop_all(server: Server, count: int) -> list[int]:
    until(lambda: len(workers(server)) == count, "the workers")
    assert server.ask("/hello.txt").status == 200
    pids = workers(server)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        until(lambda p=pid: state_of(p) == "T", "them to stop")
    return pids


def go_on(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def reason_of(line: str) -> int:
    return int(line.rsplit(" ", 1)[1])


@pytest.mark.parametrize("mode", ["prefork", "thread"])
def test_all_workers_hang(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode, "--workers", "2", "--timeout-queue", "1")
    pids = stop_all(server, 2 if mode == "prefork" else 1)
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(server.connect()) for _ in range(5)]
            for client in clients:
                client.send(HELLO)
            for client in clients:
                answer = client.answer()
                assert (answer.status, answer["retry-after"]) == (503, "1")
                assert client.is_closed()
        assert busy_share(server.master) < 0.3
    finally:
        go_on(pids)
    until(lambda: server.ask("/hello.txt").status == 200, "them to serve again")
    assert [reason_of(line) for line in server.wait_for_log(6)].count(80) == 5
    assert "reason 80: 503" in server.stderr()
    assert server.stop() == 0
    assert re.search(r"stopped: \d+ connections served, 5 refused, 0 cut", server.stderr())


def test_who_comes_later_has_his_time_too(serve: ServeFixture) -> None:
    """Only those are refused who have waited; the others are served when a worker goes on."""
    server = serve("--mode", "prefork", "--workers", "1", "--timeout-queue", "3")
    pids = stop_all(server, 1)
    with server.connect() as early:
        early.send(HELLO)
        time.sleep(2)
        with server.connect() as late:
            late.send(HELLO)
            assert early.answer().status == 503
            go_on(pids)
            assert late.answer().status == 200


def test_on_a_unix_socket(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(
        "--mode", "prefork", "--workers", "1", "--timeout-queue", "0.5",
        "-b", f"unix:{tmp_path}/sock",
    )  # fmt: skip
    pids = stop_all(server, 1)
    try:
        with server.connect() as one, server.connect() as other:
            for client in (one, other):
                client.send(HELLO)
            assert one.answer().status == 503
            assert other.answer().status == 503
    finally:
        go_on(pids)
    # It may be some time before it runs again, and here the master has no means to count.
    until(lambda: server.ask("/hello.txt").status == 200, "the worker to go on")


def test_workers_of_one_connection_each(serve: ServeFixture) -> None:
    """All taken, and the limit reached; when one ends, the next is served."""
    server = serve(
        "--mode", "prefork", "--workers", "2", "--max-connections", "2",
        "--max-connections-per-child", "1", "--timeout-queue", "1",
    )  # fmt: skip
    until(lambda: len(workers(server)) == 2, "the workers")
    with server.connect() as first, server.connect() as second:
        for client in (first, second):
            client.send(HELLO.replace(b"Connection: close\r\n", b""))
            assert client.answer().status == 200
        with server.connect() as third:
            third.send(HELLO)
            assert third.answer().status == 503
        with server.connect() as fourth:
            fourth.send(HELLO)
            first.close()
            assert fourth.answer().status == 200


def test_a_pool_that_can_t_be_forked(serve: ServeFixture, public: Path) -> None:
    """RLIMIT_NPROC, reached by another program: no worker at all, and it is said why."""
    user = {"user": 61020, "group": 61020, "extra_groups": [], "cwd": "/"}
    with subprocess.Popen(["sleep", "100"], **user) as other:  # type: ignore[call-overload]
        server = serve(
            "--mode", "prefork", "--workers", "1", "--timeout-queue", "1",
            directory=public / "site", **user,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (3, 3)),
        )  # fmt: skip
        with server.connect() as client:
            client.send(HELLO)
            assert client.answer().status == 503
        assert reason_of(server.wait_for_log(1)[0]) == 82
        assert busy_share(server.master) < 0.3
        other.kill()
    until(lambda: server.ask("/hello.txt").status == 200, "a worker")


def test_a_busy_pool_refuses_nobody(serve: ServeFixture) -> None:
    """Each look finds somebody who waits, and each is taken in time."""
    server = serve("--mode", "prefork", "--workers", "1", "--timeout-queue", "0.4")
    end = time.monotonic() + 3
    statuses: set[int] = set()

    def ask() -> None:
        while time.monotonic() < end:
            statuses.add(server.ask("/hello.txt").status)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == {200}


# --per-client, which all workers count together.


def from_address(server: Server, source: str) -> Client:
    return Client(socket.create_connection(("127.0.0.1", server.port), 20, (source, 0)))


@pytest.mark.parametrize("mode", ["prefork", "thread"])
def test_per_client(serve: ServeFixture, mode: str) -> None:
    server = serve(
        "--mode", mode, "--workers", "3", "--threads", "3", "--per-client", "4",
        "--timeout-queue", "7",
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(from_address(server, "127.0.0.2")) for _ in range(4)]
        for client in held:
            client.send(HELLO.replace(b"Connection: close\r\n", b""))
            assert client.answer().status == 200
        for _ in range(3):
            with from_address(server, "127.0.0.2") as client:
                client.send(HELLO)
                answer = client.answer()
                assert (answer.status, answer["retry-after"]) == (503, "7")
                assert client.is_closed()
        assert server.ask("/hello.txt").status == 200  # another address
        held[0].close()

        def again() -> bool:
            with from_address(server, "127.0.0.2") as client:
                client.send(HELLO)
                return client.answer().status == 200

        until(again, "the share to be free")
    assert [reason_of(line) for line in server.wait_for_log(8)].count(81) >= 3
    assert server.stop() == 0
    assert re.search(r"[3-9] refused, 0 cut", server.stderr())


def test_a_dead_worker_s_shares_are_those_who_adopt(serve: ServeFixture) -> None:
    """Once, and no more than the connection that was adopted."""
    server = serve("--mode", "prefork", "--workers", "1", "--per-client", "1")
    keeps = HELLO.replace(b"Connection: close\r\n", b"")
    pid = until(lambda: workers(server), "the worker")[0]
    with server.connect() as client:
        assert client.answer_to(keeps).status == 200
        assert server.ask("/hello.txt").status == 503
        os.kill(pid, signal.SIGKILL)
        until(lambda: workers(server) not in ([], [pid]), "another")
        assert client.answer_to(keeps).status == 200
        assert server.ask("/hello.txt").status == 503
    until(lambda: server.ask("/hello.txt").status == 200, "the share to be free")


def test_unix_clients_have_no_address(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(
        "--mode", "prefork", "--workers", "1", "--per-client", "1", "-b", f"unix:{tmp_path}/sock"
    )
    with server.connect() as first, server.connect() as second:
        for client in (first, second):
            client.send(HELLO)
            assert client.answer().status == 200
