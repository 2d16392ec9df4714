"""A child that has needed Python answers in C again, on the same connection."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import get, post
from conftest import PATIENCE, Client, ServeFixture, Server, name_of, until
from test_cache import totals
from twins import Twins, pair

from pyweb.child import END, Child
from pyweb.past import NEW, Progress
from pyweb.scoreboard import Slot
from pyweb.stamps import NOTHING

NEEDS_PYTHON = post(b"Content-Length: 0\r\n")
# Of those that begin bare, only who comes back to a whole process is meant.
WAYS = [(), ("--no-bare",), ("--no-parking",), ("--no-bare", "--no-parking")]


@pytest.fixture
def twins(tmp_path: Path, site: Path) -> Iterator[Twins]:
    made = Twins(site, tmp_path)
    yield made
    made.close()


def repeats(server: Server, target: bytes = b"/hello.txt") -> None:
    """Until this is answered from the cache, where the connection is kept."""
    before = totals(server)["repeated"]

    def asked() -> bool:
        with server.connect() as client:
            assert client.answer_to(get(target)).status == 200
        return totals(server)["repeated"] > before

    until(asked, "an answer that is repeated")


def ask_python(client: Client) -> None:
    assert client.answer_to(NEEDS_PYTHON).status == 405


def ten_are_in_c(server: Server, client: Client) -> bool:
    """A decision that is just being made anew is missed."""
    before = totals(server)["repeated"]
    for _ in range(10):
        assert client.answer_to(get()).body == b"hello, world\n"
    time.sleep(0.01)  # the last is counted when it has left
    return totals(server)["repeated"] == before + 10


@pytest.mark.parametrize("options", WAYS)
def test_who_has_needed_python_needs_it_no_longer(
    serve: ServeFixture, options: tuple[str, ...]
) -> None:
    server = serve(*options)
    repeats(server)
    with server.connect() as client:
        for _ in range(3):
            ask_python(client)
            assert client.answer_to(get()).status == 200  # by whoever is there
            until(lambda c=client: ten_are_in_c(server, c), "ten in C")
    until(lambda: len(server.log()) == totals(server)["requests"], "a line for each")


@pytest.mark.parametrize("options", WAYS)
def test_answers_keep_their_order(serve: ServeFixture, options: tuple[str, ...]) -> None:
    """One at a time, and some in a row, here and there."""
    server = serve(*options)
    repeats(server)
    choice = random.Random(1)
    kinds = {get(): (200, b"hello, world\n"), NEEDS_PYTHON: (405, None), get(b"/no"): (404, None)}
    with server.connect() as client:
        for _ in range(60):
            some = choice.choices(list(kinds), [8, 2, 1], k=choice.choice([1, 1, 1, 5]))
            client.send(b"".join(some))
            for one in some:
                answer, (status, body) = client.answer(), kinds[one]
                assert answer.status == status
                assert body is None or answer.body == body


def come_back(server: Server) -> Client:
    """A connection that Python has served, and that is in C."""
    client = server.connect()
    ask_python(client)
    until(lambda: ten_are_in_c(server, client), "ten in C")
    return client


def test_whoever_can_not_answer_is_asked_seldom(twins: Twins) -> None:
    """Twice as many answers are given here each time, before."""
    asked: list[int] = []

    def again(_sock: socket.socket, _peer: str, _slot: Slot, requests: int) -> Progress:
        asked.append(requests)
        return requests, None

    def serve() -> None:
        Child(twins.service, (), -1, None, again).serve(
            far, "p", twins.slot, NEW, NOTHING, None, None
        )

    twins.service.wishes = twins.wishes_way
    near, far = pair()
    thread = threading.Thread(target=serve)
    thread.start()
    with Client(near) as client:
        for _ in range(40):
            assert client.answer_to(get()).status == 200
    thread.join()
    assert asked == [1, 3, 7, 15, 31]


@pytest.mark.parametrize("number", [signal.SIGTERM, END])
def test_it_hears_signals(serve: ServeFixture, number: int) -> None:
    server = serve("--no-parking")
    repeats(server)
    with come_back(server) as client:
        [child] = server.children()
        os.kill(child, number)
        assert client.is_closed()
    assert "reason 87" not in server.stderr()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_it_ends_with_the_server(serve: ServeFixture, number: int) -> None:
    server = serve("--no-parking")
    repeats(server)
    with come_back(server) as client:
        server.process.send_signal(number)
        assert client.is_closed()
    assert server.process.wait(PATIENCE) == 0


def test_it_says_close_when_another_serves(serve: ServeFixture) -> None:
    server = serve("--no-parking")
    repeats(server)
    with come_back(server) as client:
        server.process.send_signal(signal.SIGHUP)
        until(lambda: client.answer_to(get()).get("connection") == "close", "its last answer")
        assert client.is_closed()


def test_it_is_parked_when_it_idles(serve: ServeFixture) -> None:
    server = serve()
    repeats(server)
    with come_back(server) as client:
        until(lambda: server.children() == [], "it to leave")
        assert client.answer_to(get()).status == 200


def test_what_it_can_not_finish_python_does(serve: ServeFixture, site: Path) -> None:
    """A client that does not read; and then it is in C again."""
    (site / "large").write_bytes(body := os.urandom(24 << 20))
    server = serve("--no-parking")
    repeats(server, b"/large")
    repeats(server)
    with come_back(server) as client:
        client.send(get(b"/large"))
        time.sleep(0.7)
        assert client.answer().body == body
        until(lambda: ten_are_in_c(server, client), "ten in C")
    of_large = [line for line in server.wait_for_log(16) if f" 200 {len(body)} " in line]
    assert len(of_large) >= 3


def stands_still(server: Server) -> bool:
    before = server.log()
    time.sleep(0.3)
    return server.log() == before


def test_a_small_answer_that_is_cut_is_logged(serve: ServeFixture, site: Path) -> None:
    """C waits for its room; nobody waits for C."""
    (site / "small").write_bytes(os.urandom(20_000))
    server = serve("--no-parking", "--no-bare")
    repeats(server, b"/small")
    repeats(server)
    with come_back(server) as client:
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.send(get(b"/small") * 600)
        until(lambda: stands_still(server), "an answer that does not leave")
        before = len(server.log())
        assert server.stop(signal.SIGQUIT) == 0
    assert [line.rsplit(" ", 1)[1] for line in server.log()[before:]].count("86") == 1


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_is_cut_is_logged(serve: ServeFixture, site: Path, comes_back: bool) -> None:
    """Of an answer that was begun in C, and is left to Python as the end comes."""
    (site / "large").write_bytes(os.urandom(24 << 20))
    server = serve("--no-parking", "--no-bare")
    repeats(server, b"/large")
    repeats(server)
    with come_back(server) if comes_back else server.connect() as client:
        client.send(get(b"/large"))
        assert client.sock.recv(1, socket.MSG_PEEK)
        assert server.stop(signal.SIGQUIT) == 0
    assert [line.rsplit(" ", 1)[1] for line in server.log()].count("86") == 1


# Who is forked bare.


def name_of_next(server: Server, stack: contextlib.ExitStack) -> str:
    """Of the child that a new connection gets, which stays."""
    before = server.children()
    client = stack.enter_context(server.connect())
    assert client.answer_to(get()).status == 200
    [child] = set(server.children()) - set(before)
    return name_of(child)


def test_who_has_answered_was_not_forked_in_vain(serve: ServeFixture) -> None:
    """That it hands its connection back then is no reason to fork the next one whole."""
    server = serve("--no-parking")
    repeats(server)
    with contextlib.ExitStack() as stack:
        until(lambda: name_of_next(server, stack) == "pyweb-child", "one that is bare")
        client = stack.enter_context(server.connect())
        assert client.answer_to(get()).status == 200
        ask_python(client)
        assert name_of_next(server, stack) == "pyweb-child"
        with server.connect() as other:
            ask_python(other)
            assert name_of_next(server, stack) != "pyweb-child"


def test_those_who_begin_together_say_it_once(serve: ServeFixture) -> None:
    server = serve("--no-parking")
    repeats(server)
    with contextlib.ExitStack() as stack:
        until(lambda: name_of_next(server, stack) == "pyweb-child", "one that is bare")
        some = [stack.enter_context(server.connect()) for _ in range(20)]
        for one in some:
            one.send(NEEDS_PYTHON)
        for one in some:
            assert one.answer().status == 405
        names = [name_of_next(server, stack) for _ in range(10)]
        assert "pyweb-child" in names
