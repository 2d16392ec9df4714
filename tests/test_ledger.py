"""What the ledger says of a connection at each moment at which its worker may die."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from pyweb.accesslog import AccessLog
from pyweb.cli import _arguments as arguments
from pyweb.cli import configure
from pyweb.connection import Connection
from pyweb.journal import Journal, Sink
from pyweb.ledger import ANSWERED, LINGERS, OWED, QUIET, SENDING, Entry, Ledger, Seat
from pyweb.message import Head, Response
from pyweb.scoreboard import IDLE, SENT, STATE, Slot
from pyweb.service import Service
from pyweb.transport import Transport
from pyweb.wait import ANSWER, BODY, HEAD, LINGER, READY, TIMED_OUT, TURN
from pyweb.wait import IDLE as IDLE_WAIT

GET = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"


class Talk:
    """A conversation that is stepped by hand; its answer is longer than a socket's buffer."""

    def __init__(self, size: int, slot: Slot) -> None:
        config = configure(arguments().parse_args([]), {})
        journal = Journal(Sink(os.open(os.devnull, os.O_WRONLY)))
        service = Service(config, self.answer, AccessLog(None, "combined"), journal)
        self._size = size
        self._journal = journal
        self.near, far = socket.socketpair()
        far.setblocking(False)
        self.ledger = Ledger(1000)
        self.fd = far.fileno()
        self.slot = slot
        self.seat = Seat(self.slot, self.ledger, self.fd)
        self.transport = Transport(far, config.engine)
        self.steps = Connection(service, self.transport, "192.0.2.1", self.seat).serve()
        self.answering: list[Entry] = []

    def answer(self, _head: Head) -> Response:
        self.answering = self.ledger.entries()
        return Response(200, (), (b"x" * self._size,))

    def entry(self) -> Entry:
        (one,) = self.ledger.entries()
        assert one.fd == self.fd
        return one

    def close(self) -> None:
        self.near.close()
        self.transport.close()
        os.close(self._journal.sink.fd)


@pytest.fixture(params=[10, 10_000_000], ids=["small", "large"])
def talk(request: pytest.FixtureRequest, slot: Slot) -> Iterator[Talk]:
    one = Talk(request.param, slot)
    yield one
    one.close()


def test_from_idle_to_the_answer(talk: Talk) -> None:
    assert talk.ledger.entries() == []
    assert next(talk.steps).kind == IDLE_WAIT
    assert (talk.entry().mark, talk.entry().served) == (QUIET, 0)
    talk.near.send(GET[:5])
    assert talk.steps.send(READY).kind == HEAD
    assert (talk.entry().mark, talk.entry().request) == (OWED, b"")
    talk.near.send(GET[5:])
    wait = talk.steps.send(READY)
    (answering,) = talk.answering
    assert (answering.mark, answering.request, answering.served) == (OWED, b"GET /x", 1)
    if wait.kind == ANSWER:
        assert (talk.entry().mark, talk.entry().request) == (SENDING, b"GET /x")
        while wait.kind == ANSWER:
            talk.near.recv(1 << 20)
            wait = talk.steps.send(READY)
    assert wait.kind == IDLE_WAIT
    entry = talk.entry()
    assert (entry.mark, entry.request, entry.served) == (QUIET, b"", 1)
    with pytest.raises(StopIteration):
        talk.steps.send(TIMED_OUT)
    assert talk.ledger.entries() == []


def test_a_body_is_part_of_a_request(talk: Talk) -> None:
    next(talk.steps)
    talk.near.send(b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab")
    assert talk.steps.send(READY).kind == BODY
    assert (talk.entry().mark, talk.entry().request) == (OWED, b"POST /x")


def test_what_has_been_pipelined_is_owed(slot: Slot) -> None:
    """Its bytes have been taken from the socket with those of the request before."""
    talk = Talk(10, slot)
    next(talk.steps)
    talk.near.send(GET * 2)
    assert talk.steps.send(READY).kind == TURN
    assert (talk.entry().mark, talk.entry().request) == (OWED, b"")
    talk.close()


def test_lingering(slot: Slot) -> None:
    talk = Talk(10, slot)
    next(talk.steps)
    talk.near.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    assert talk.steps.send(READY).kind == LINGER
    assert talk.entry().mark == LINGERS
    talk.close()


def test_an_answer_that_has_left_is_owed_no_more(slot: Slot) -> None:
    """From the log line to the next request: never a 500 behind a whole answer."""
    ledger = Ledger(10)
    seat = Seat(slot, ledger, 3)
    seat.set(STATE, IDLE)
    seat.set(SENT, 1)
    seat.set(SENT, 0)
    assert [one.mark for one in ledger.entries()] == [ANSWERED]


def test_descriptors_beyond_are_not_covered(slot: Slot) -> None:
    ledger = Ledger(10)
    for fd in (9, 10, 100_000):
        seat = Seat(slot, ledger, fd)
        seat.set(STATE, IDLE)
        seat.say(b"GET /")
    assert [one.fd for one in ledger.entries()] == [9]


def test_the_slot_names_whose_turn_it_is(slot: Slot) -> None:
    ledger = Ledger(10)
    first, second = Seat(slot, ledger, 3), Seat(slot, ledger, 4)
    first.begin("192.0.2.1")
    second.begin("192.0.2.2")
    first.take_turn(None)
    first.say(b"GET /first")
    second.take_turn(first)
    assert (slot.peer(), slot.text()) == (b"192.0.2.2", b"")
    first.take_turn(second)
    assert (slot.peer(), slot.text()) == (b"192.0.2.1", b"GET /first")
