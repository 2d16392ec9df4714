"""No process for an idle connection: silent ones, idle ones and slow heads are parked.

In mode fork with the dispatcher; what concerns every mode is asked of every mode.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, Server, children_of, name_of, until

REQUEST = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"


@contextlib.contextmanager
def clients(server: Server, count: int = 1) -> Iterator[list[Client]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(server.connect()) for _ in range(count)]


def dispatcher(server: Server) -> int:
    """Its pid; 0: there is none at the moment."""
    found = [pid for pid in children_of(server.master) if name_of(pid) == "pyweb-dispatch"]
    return found[0] if found else 0


def the_dispatcher(server: Server) -> int:
    return until(lambda: dispatcher(server), "a dispatcher")


def sockets(pid: int) -> int:
    count = 0
    with contextlib.suppress(OSError):
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                count += str(fd.readlink()).startswith("socket:")
    return count


def until_parked(server: Server, count: int) -> None:
    """Beside its two ways to the others."""
    until(lambda: sockets(dispatcher(server)) == 2 + count, f"{count} parked")
    until(lambda: server.children() == [], "the children to leave")


def served(server: Server) -> int:
    """Connections that got a process."""
    server.stop()
    match = re.search(r"stopped: (\d+) connections served", server.stderr())
    assert match
    return int(match[1])


# What is parked, and comes back.


def test_a_silent_one(serve: ServeFixture) -> None:
    server = serve()
    with clients(server) as (one,):
        until_parked(server, 1)
        one.send(REQUEST)
        assert one.answer().status == 200


def test_between_two_requests(serve: ServeFixture, engine: str) -> None:
    server = serve("--engine", engine)
    with clients(server) as (one,):
        for _ in range(3):
            one.send(REQUEST)
            assert one.answer().body == b"hello, world\n"
            until_parked(server, 1)
    assert len(server.wait_for_log(3)) == 3
    assert served(server) == 3


def test_requests_without_a_pause_stay_with_their_process(serve: ServeFixture) -> None:
    server = serve()
    with clients(server) as (one,):
        for _ in range(200):
            one.send(REQUEST)
            assert one.answer().status == 200
    assert served(server) < 20  # one, and a few where this machine paused


@pytest.mark.parametrize("size", [1, 2, len(REQUEST) - 1])
def test_a_head_that_is_not_whole(serve: ServeFixture, engine: str, size: int) -> None:
    server = serve("--engine", engine)
    with clients(server) as (one,):
        one.send(REQUEST[:size])
        until_parked(server, 1)
        one.send(REQUEST[size:])
        assert one.answer().status == 200
        assert one.answer_to(REQUEST).status == 200


def test_a_head_in_many_pieces(serve: ServeFixture, engine: str) -> None:
    """And the second request of a connection, as much as the first."""
    server = serve("--engine", engine)
    with clients(server) as (one,):
        assert one.answer_to(REQUEST).status == 200
        for at in range(0, len(REQUEST), 8):
            one.send(REQUEST[at : at + 8])
            time.sleep(0.1)
        assert one.answer().status == 200
    assert len(server.wait_for_log(2)) == 2


def test_a_tail_that_is_not_whole(serve: ServeFixture) -> None:
    """A pipeline's last request goes back unread, the first ones are answered."""
    server = serve()
    with clients(server) as (one,):
        one.send(REQUEST * 3 + REQUEST[:9])
        assert [one.answer().status for _ in range(3)] == [200] * 3
        until_parked(server, 1)
        one.send(REQUEST[9:])
        assert one.answer().status == 200


def test_a_body_is_never_taken_for_the_next_request(serve: ServeFixture) -> None:
    """What is peeked at behind a head may be its body."""
    server = serve()
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n"
    post = b"POST /hello.txt HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    with clients(server) as (one,):
        one.send(post + smuggled + REQUEST)
        assert [one.answer().status for _ in range(2)] == [405, 200]
    assert "smuggled" not in "".join(server.wait_for_log(2))


def test_a_full_buffer_does_not_stop_it(serve: ServeFixture) -> None:
    """A few unread bytes can pin all of the kernel's buffer, and nothing more would come."""
    server = serve("--access-log", "off")
    with clients(server) as (one,):
        one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        head = REQUEST.replace(b"GET", b"HEAD")
        one.sock.setblocking(False)
        sent = 0
        with contextlib.suppress(BlockingIOError):
            while sent < 4 << 20:
                sent += one.sock.send(head * 3000)
        one.sock.settimeout(PATIENCE)
        for _ in range(sent // len(head)):
            assert one.answer("HEAD").status == 200


def test_keepalive_requests_are_counted_on(serve: ServeFixture) -> None:
    server = serve("--keepalive-requests", "3")
    with clients(server) as (one,):
        for close in (None, None, "close"):
            assert one.answer_to(REQUEST).get("connection") == close
            if close is None:
                until_parked(server, 1)
        assert one.is_closed()


def test_on_a_unix_socket(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve("-b", f"unix:{tmp_path}/sock")
    with clients(server) as (one,):
        until_parked(server, 1)
        assert one.answer_to(REQUEST).status == 200
        until_parked(server, 1)
        assert one.answer_to(REQUEST).status == 200


# What ends there.


def test_what_closes_costs_no_fork(serve: ServeFixture) -> None:
    server = serve()
    with clients(server, 20):
        until_parked(server, 20)
    until_parked(server, 0)
    assert server.log() == []
    assert served(server) == 0


def test_what_is_reset_costs_no_fork(serve: ServeFixture) -> None:
    server = serve()
    with clients(server, 5) as some:
        until_parked(server, 5)
        for one in some:
            one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until_parked(server, 0)
    assert served(server) == 0


def test_what_closes_at_once_costs_no_fork(serve: ServeFixture) -> None:
    """Before it could even be parked."""
    server = serve()
    for _ in range(50):
        server.connect().close()
    assert server.ask("/hello.txt").status == 200
    assert served(server) == 1


def test_idle_for_too_long(serve: ServeFixture) -> None:
    server = serve("--timeout-idle", "0.5")
    with clients(server, 2) as (silent, idle):
        assert idle.answer_to(REQUEST).status == 200
        until_parked(server, 2)
        assert idle.is_closed()
        assert silent.is_closed()
    assert len(server.log()) == 1


def test_a_head_that_never_becomes_whole(serve: ServeFixture) -> None:
    server = serve("--timeout-header", "0.5", "--header", "X-Y: z")
    with clients(server) as (one,):
        one.send(b"GET /")
        until_parked(server, 1)
        answer = one.answer()
        assert (answer.status, answer["connection"], answer["x-y"]) == (408, "close", "z")
        assert one.is_closed()
    assert server.wait_for_log(1)[0].endswith(' "-" 408 ' + f'{len(answer.body)} "-" "-" 3')


def test_a_trickle_does_not_prolong_it(serve: ServeFixture) -> None:
    """One deadline, however often the head changes hands."""
    server = serve("--timeout-header", "1")
    start = time.monotonic()
    with clients(server) as (one,):
        one.send(b"GET /")
        one.sock.settimeout(0.05)
        while time.monotonic() - start < PATIENCE:
            with contextlib.suppress(OSError):
                one.send(b"x")
            with contextlib.suppress(TimeoutError):
                assert one.answer().status == 408
                break
    assert 0.9 < time.monotonic() - start < PATIENCE / 2


def test_one_that_leaves_in_the_midst_of_its_head(serve: ServeFixture) -> None:
    server = serve()
    with clients(server) as (one,):
        one.send(b"GET /")
        until_parked(server, 1)
    assert server.wait_for_log(1)[0].endswith(' 000 0 "-" "-" 1')


# Limits, faults.


def test_no_parking(serve: ServeFixture) -> None:
    server = serve("--no-parking")
    with clients(server, 3) as some:
        until(lambda: len(server.children()) == 3, "a process each")
        assert some[0].answer_to(REQUEST).status == 200
        time.sleep(0.3)
        assert len(server.children()) == 3
        assert dispatcher(server) == 0


def test_the_dispatcher_is_replaced(serve: ServeFixture) -> None:
    """What it held is lost, new connections are not."""
    server = serve()
    first = the_dispatcher(server)
    with clients(server) as (one,):
        until_parked(server, 1)
        os.kill(first, signal.SIGKILL)
        assert one.is_closed()
    until(lambda: dispatcher(server) not in (0, first), "another")
    with clients(server) as (one,):
        until_parked(server, 1)
        assert one.answer_to(REQUEST).status == 200
    assert f"reason 89: dispatcher {first} was ended by SIGKILL" in server.stderr()


def test_a_stopped_dispatcher_holds_up_nobody(serve: ServeFixture) -> None:
    """More than its socket has room for: the others keep their process."""
    server = serve()
    pid = the_dispatcher(server)
    os.kill(pid, signal.SIGSTOP)
    try:
        with clients(server, 400) as some:
            assert server.ask("/hello.txt").status == 200
            for one in some[-20:]:
                until(lambda: len(server.children()) > 0, "children")
                one.send(REQUEST)
            os.kill(pid, signal.SIGCONT)
            for one in some[-20:]:
                assert one.answer().status == 200
    finally:
        os.kill(pid, signal.SIGCONT)


def test_no_descriptor_left(serve: ServeFixture) -> None:
    """Whoever has idled longest makes room."""
    server = serve(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)))
    with clients(server, 80) as some:
        assert some[0].is_closed()
        assert some[-1].answer_to(REQUEST).status == 200
    assert "no descriptor left, the oldest are closed" in server.stderr()


def test_parked_ones_count_for_their_client(serve: ServeFixture) -> None:
    server = serve("--per-client", "3")
    with clients(server, 3) as some:
        assert some[0].answer_to(REQUEST).status == 200
        until_parked(server, 3)
        with clients(server) as (fourth,):
            assert fourth.answer().status == 503
        assert some[1].answer_to(REQUEST).status == 200
    until_parked(server, 0)
    until(lambda: server.ask("/hello.txt").status == 200, "the share to be free")


# The end.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_idle_ones_end_with_the_server(serve: ServeFixture, number: int) -> None:
    server = serve()
    with clients(server, 2) as (idle, silent):
        assert idle.answer_to(REQUEST).status == 200
        until_parked(server, 2)
        pid = the_dispatcher(server)
        os.kill(server.pid, number)
        assert idle.is_closed()
        assert silent.is_closed()
    until(lambda: not Path(f"/proc/{pid}").exists() or is_gone(pid), "the dispatcher to end")


def is_gone(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_slow_head_is_finished_while_the_server_drains(serve: ServeFixture) -> None:
    server = serve()
    with clients(server) as (one,):
        one.send(REQUEST[:9])
        until_parked(server, 1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: "stopping" in server.stderr(), "the signal to be heard")
        one.send(REQUEST[9:])
        answer = one.answer()
        assert (answer.status, answer["connection"]) == (200, "close")
    assert server.process.wait(PATIENCE) == 0


def test_what_is_cut_is_logged(serve: ServeFixture) -> None:
    server = serve()
    with clients(server, 2) as (one, _):
        one.send(REQUEST[:9])
        until_parked(server, 2)
        assert server.stop(signal.SIGQUIT) == 0
    assert [line.rsplit(" ", 1)[1] for line in server.log()] == ["86"]


def test_signals_to_the_whole_group(serve: ServeFixture) -> None:
    server = serve(start_new_session=True)
    with clients(server) as (one,):
        one.send(REQUEST[:9])
        until_parked(server, 1)
        os.killpg(server.pid, signal.SIGTERM)
        until(lambda: "stopping" in server.stderr(), "the signal to be heard")
        one.send(REQUEST[9:])
        assert one.answer().status == 200
    assert server.process.wait(PATIENCE) == 0
