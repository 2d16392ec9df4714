"""Who is let in and seen off in C: it is what Python would have done, and who is not like the
others is Python's. A real porter with a real zygote and real connections; then real servers."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cases import H, get
from conftest import PATIENCE, ServeFixture, Server, name_of, state_of, until
from test_cache import board_of, kept, repeats, totals, zygotes
from twins import Twins, everything

from pyweb import nursery, scoreboard, stamps
from pyweb.child import EXIT_HANDED_BACK
from pyweb.scoreboard import ENDED_REQUESTS, LOST_LINES, PID, REQUESTS, SERVED, STATE
from pyweb.signals import HEARD_BY_MASTER, SignalPipe
from pyweb.stamps import NO_STAMPS, NoStamps, Stamps

_fastporter = pytest.importorskip("pyweb._fastporter", reason="needs the compiled engine")
_fastzygote = pytest.importorskip("pyweb._fastzygote", reason="needs the compiled engine")

CLOSING = get(fields=H + b"Connection: close\r\n")
UNKNOWN = get(b"/no-such", fields=H + b"Connection: close\r\n")
SLOTS = 8


class House:
    """A porter, the zygote, a listener, and clients."""

    def __init__(self, twins: Twins, clock: Stamps | NoStamps = NO_STAMPS) -> None:
        self.clock = clock
        self.board = twins.board
        free = [self.board.take(0) for _ in range(SLOTS)]
        for slot in free:
            self.board.give_back(slot)
        self.signals = SignalPipe(HEARD_BY_MASTER)
        self.porter = _fastporter.Porter(twins.repeater, self.board, clock)
        shared = (0, 1, 2, twins.sink.fd, twins.root.fd, twins.lifeline, twins.wishes)
        self.zygote = _fastzygote.Zygote(twins.repeater, shared)
        self.porter.zygote = self.zygote
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.clients: list[socket.socket] = []
        self.open()

    def open(self, room: int = SLOTS, *, also_silent: bool = False) -> None:
        self.porter.open([self.listener.fileno()], room, also_silent)

    def close(self) -> None:
        os.kill(self.zygote.pid, signal.SIGCONT)
        for client in self.clients:
            client.close()
        try:
            self.end_children()
        finally:
            self.signals.close()
            self.listener.close()
            if isinstance(self.clock, Stamps):
                del self.clock.also_waits
            del self.porter, self.zygote  # which hold the memory of others

    def end_children(self) -> None:
        try:
            self.until(lambda: not self.porter.untold, "all to be known")
        finally:
            for given in self.porter.give_up_known(1e18):
                os.close(given[4])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(given[1], signal.SIGKILL)
            self.porter.zygote = None
            self.zygote.close()
        until(all_are_reaped, "the children to end")

    def visit(self, request: bytes) -> socket.socket:
        """A client, and what it asks is there."""
        client = socket.create_connection(self.listener.getsockname(), PATIENCE)
        client.sendall(request)
        self.clients.append(client)
        assert select.select([self.listener], [], [], PATIENCE)[0]
        return client

    def comes(self, request: bytes = CLOSING) -> socket.socket:
        """And is let in."""
        client = self.visit(request)
        assert self.let_in()
        return client

    def let_in(self) -> bool:
        done: bool = self.porter.do([(self.listener.fileno(), select.POLLIN)], self.signals)
        return done

    def ended(self) -> bool:
        """Somebody has ended: and is seen off?"""
        assert select.select([self.signals.fd], [], [], PATIENCE)[0]
        # Who ends before the zygote has told whose it was is Python's, till it has.
        self.until(lambda: not self.porter.untold, "its pid")
        done: bool = self.porter.do([(self.signals.fd, select.POLLIN)], self.signals)
        return done

    def until(self, condition: Callable[[], object], what: str) -> None:
        def heard() -> object:
            self.porter.told(0)
            return condition()

        until(heard, what)

    def known(self) -> int:
        """Its pid, of the only one."""
        self.until(lambda: not self.porter.untold, "its pid")
        pids = [r.get(PID) for r in board_here().records() if r.get(PID)]
        return pids[0]


def all_are_reaped() -> bool:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def board_here() -> scoreboard.Reader:
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if scoreboard.MEMFD_NAME in os.readlink(f"/proc/self/fd/{name}"):
                fd = os.open(f"/proc/self/fd/{name}", os.O_RDONLY)
                try:
                    return scoreboard.Reader(fd)
                finally:
                    os.close(fd)
    raise AssertionError("no scoreboard is open")


@contextlib.contextmanager
def opened(site: Path, scratch: Path, clock: Stamps | NoStamps = NO_STAMPS) -> Iterator[House]:
    twins = Twins(site, scratch, slots=1 + SLOTS, records=clock.memory)
    twins.filler.fill(CLOSING)
    twins.filler.fill(get())
    house = House(twins, clock)
    yield house
    house.close()
    twins.close()


@pytest.fixture
def house(tmp_path: Path, site: Path) -> Iterator[House]:
    with opened(site, tmp_path) as one:
        yield one


def test_one_comes_and_goes(house: House) -> None:
    client = house.comes()
    assert house.porter.count == 1
    assert house.porter.served == 1
    assert len(house.board.free) == SLOTS - 1
    assert everything(client).endswith(b"hello, world\n")
    assert house.ended()
    assert house.porter.count == house.porter.untold == 0
    assert house.porter.seen_off == 1
    assert len(house.board.free) == SLOTS
    assert all(slot.get(word) == 0 for slot in house.board.free for word in range(18))
    assert house.board.get(ENDED_REQUESTS) == 1
    assert not house.signals.heard


def test_what_its_slot_says(house: House) -> None:
    client = house.comes(get())
    pid = house.known()
    [record] = [r for r in board_here().records() if r.get(PID) == pid]
    assert record.peer == b"127.0.0.1"
    assert record.get(scoreboard.KIND) == scoreboard.CHILD
    assert record.get(scoreboard.GENERATION_OF) == house.board.generation
    assert abs(record.get(scoreboard.STARTED_MS) - time.time() * 1000) < PATIENCE * 1000
    assert client.recv(65536)


@pytest.mark.parametrize("family", [socket.AF_INET6, socket.AF_UNIX], ids=["ipv6", "unix"])
def test_addresses(house: House, tmp_path: Path, family: int) -> None:
    """As transport.peer_name has them."""
    path = str(tmp_path / "sock")
    name = path if family == socket.AF_UNIX else ("::1", 0)
    with socket.socket(family) as door, socket.socket(family) as client:
        door.bind(name)
        door.listen()
        door.setblocking(False)
        client.connect(door.getsockname())
        house.porter.open([door.fileno()], 1, also_silent=False)
        assert not house.porter.do([(door.fileno(), select.POLLIN)], house.signals)
        [(where, fd, peer)] = house.porter.take_came()
        os.close(fd)
        assert where == door.fileno()
        assert peer == ("unix:" if family == socket.AF_UNIX else "::1")


def test_who_is_silent_is_pythons(house: House) -> None:
    client = house.visit(b"")
    assert not house.let_in()
    [(door, fd, peer)] = house.porter.take_came()
    assert (door, peer) == (house.listener.fileno(), "127.0.0.1")
    with socket.socket(fileno=fd) as ours:
        assert ours.getpeername() == client.getsockname()
    assert house.porter.take_came() == []
    assert house.porter.count == 0
    assert len(house.board.free) == SLOTS


def test_where_nobody_parks_the_silent_come_in_too(house: House) -> None:
    house.open(also_silent=True)
    client = house.visit(b"")
    assert house.let_in()
    client.sendall(CLOSING)
    assert everything(client).endswith(b"hello, world\n")
    assert house.ended()


def test_no_more_than_there_is_room_for(house: House) -> None:
    house.open(1)
    first = house.visit(CLOSING)
    assert not house.let_in()  # the next would be Python's
    assert house.porter.count == 1
    second = house.visit(CLOSING)
    assert not house.let_in()
    assert house.porter.count == 1
    assert house.porter.take_came() == []  # it is still in the backlog
    assert everything(first).endswith(b"hello, world\n")
    assert house.ended()
    assert not house.let_in()  # there was room again
    assert everything(second).endswith(b"hello, world\n")
    assert house.ended()


def test_without_a_zygote_or_a_slot_nobody_comes_in(house: House) -> None:
    client = house.visit(CLOSING)
    house.porter.zygote = None
    assert not house.let_in()
    house.porter.zygote = house.zygote
    free = house.board.free[:]
    house.board.free.clear()
    assert not house.let_in()
    house.board.free.extend(free)
    assert house.let_in()
    assert everything(client).endswith(b"hello, world\n")
    assert house.ended()


def given_up(house: House, code: int) -> _fastporter.Given:
    """The only one, whose child has ended so, is Python's."""
    assert not house.ended()
    assert house.signals.heard == {signal.SIGCHLD}  # Python has still to reap
    [(pid, how, usage)] = house.porter.reap()
    assert how == code
    assert usage.ru_maxrss >= 0
    assert house.porter.has(pid)
    found = house.porter.give_up(pid)
    assert not house.porter.has(pid)
    assert house.porter.count == 0
    return found


def test_who_hands_back_is_pythons(house: House) -> None:
    client = house.comes(UNKNOWN)
    ticket, pid, slot, peer, fd, record, began = given_up(house, EXIT_HANDED_BACK)
    assert ticket > nursery._MOST_TICKETS
    assert pid > 0
    assert peer == "127.0.0.1"
    assert record is None
    assert abs(began - time.monotonic()) < PATIENCE
    assert slot not in house.board.free
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)  # nothing is answered, nothing is closed
    os.close(fd)


def test_who_is_killed_is_pythons(house: House) -> None:
    house.comes(get())
    os.kill(house.known(), signal.SIGKILL)
    os.close(given_up(house, -signal.SIGKILL)[4])


@pytest.mark.parametrize("word", [LOST_LINES, scoreboard.STARVED, REQUESTS, scoreboard.BYTES])
def test_numbers_that_are_not_like_others_are_pythons(house: House, word: int) -> None:
    """What is lost is told; and what a child says of itself may be anything."""
    client = house.comes(get())
    assert client.recv(65536)
    pid = house.known()
    place = next(r.number for r in board_here().records() if r.get(PID) == pid)
    board = house.board
    at = (scoreboard._HEAD_SIZE + place * scoreboard.SLOT_SIZE) // 8 + word
    board._words[at] = 1 if word in (LOST_LINES, scoreboard.STARVED) else 1 << 62
    client.shutdown(socket.SHUT_WR)
    found = given_up(house, 0)
    os.close(found[4])
    board.give_back(found[2])


def test_another_signal_is_pythons(house: House) -> None:
    client = house.comes()
    assert everything(client).endswith(b"hello, world\n")
    assert select.select([house.signals.fd], [], [], PATIENCE)[0]
    os.kill(os.getpid(), signal.SIGTERM)
    assert not house.ended()
    assert house.signals.read() == {signal.SIGTERM, signal.SIGCHLD}
    assert house.porter.reap() == []
    assert house.porter.seen_off == 1


def test_what_else_is_ready_is_pythons(house: House) -> None:
    """And what is not is done."""
    client = house.visit(CLOSING)
    ready = [(house.zygote.fileno(), select.POLLIN), (house.listener.fileno(), select.POLLIN)]
    assert not house.porter.do(ready, house.signals)
    assert house.porter.count == 1
    assert everything(client).endswith(b"hello, world\n")
    assert house.ended()


def test_no_signal_is_lost(house: House) -> None:
    """Another process sends them all the time. What has come stands in the pipe, or Python is told
    to look."""
    master = os.getpid()
    sender = os.fork()
    if sender == 0:
        while os.getppid() == master:
            os.kill(master, signal.SIGTERM)
            for _ in range(60):
                pass  # or nothing but handlers would run there
        os._exit(0)
    poll = select.poll()
    poll.register(house.signals.fd, select.POLLIN)
    ready = [(house.signals.fd, select.POLLIN)]
    rounds = lost = 0
    until_then = time.monotonic() + 2
    while time.monotonic() < until_then:
        house.signals.read()
        os.kill(master, signal.SIGCHLD)
        if house.porter.do(ready, house.signals):
            rounds += 1
            heard = set(house.signals.heard)
            lost += bool(heard) and not poll.poll(0) and heard == house.signals.heard
    os.kill(sender, signal.SIGKILL)
    os.waitpid(sender, 0)
    assert rounds
    assert lost == 0


def test_those_who_are_not_known_can_become_pythons(house: House) -> None:
    """In the order in which they came; what is told of them is told to Python then."""
    os.kill(house.zygote.pid, signal.SIGSTOP)
    clients = [house.comes() for _ in range(3)]
    assert house.porter.untold == 3
    found = house.porter.give_up_untold()
    tickets = [one[0] for one in found]
    assert sorted(one[-1] for one in found) == [one[-1] for one in found]
    assert house.porter.untold == house.porter.count == 0
    os.kill(house.zygote.pid, signal.SIGCONT)
    told: list[tuple[int, int]] = []
    until(lambda: told.extend(house.porter.told(0)) or len(told) == 3, "their pids")
    assert [ticket for ticket, _ in told] == tickets
    for one, client in zip(found, clients, strict=True):
        os.close(one[4])
        assert everything(client).endswith(b"hello, world\n")


def test_a_place_is_another_guests(house: House) -> None:
    """What is told of one who has gone is not taken for his who came after him."""
    os.kill(house.zygote.pid, signal.SIGSTOP)
    house.comes()
    [gone] = house.porter.give_up_untold()
    os.close(gone[4])
    client = house.comes(get())
    os.kill(house.zygote.pid, signal.SIGCONT)
    told: list[tuple[int, int]] = []
    until(lambda: told.extend(house.porter.told(0)) or not house.porter.untold, "both pids")
    assert [ticket for ticket, _ in told] == [gone[0]]
    assert client.recv(65536)
    assert house.known() not in dict(told).values()


def test_for_whom_there_is_no_child(house: House) -> None:
    """A zygote without room for another descriptor."""
    resource.prlimit(house.zygote.pid, resource.RLIMIT_NOFILE, (3, 3))
    house.comes()
    assert not house.ended()  # by a SIGCHLD it tells
    assert house.porter.failed
    [one] = house.porter.give_up_failed()
    assert one[1] < 0
    assert house.porter.failed == house.porter.count == house.porter.untold == 0
    os.close(one[4])


def test_who_stays_can_become_pythons(house: House) -> None:
    house.comes(get())
    pid = house.known()
    assert house.porter.give_up_known(time.monotonic() - PATIENCE) == []
    [one] = house.porter.give_up_known(time.monotonic())
    assert one[1] == pid
    os.close(one[4])
    os.kill(pid, signal.SIGKILL)
    assert not house.ended()
    assert house.porter.reap()[0][:2] == (pid, -signal.SIGKILL)
    assert not house.porter.has(pid)
    with pytest.raises(KeyError):
        house.porter.give_up(pid)


def test_a_zygote_that_takes_no_order(house: House) -> None:
    """Who was accepted meanwhile is Python's; the slot is free again."""
    os.kill(house.zygote.pid, signal.SIGSTOP)
    house.zygote.end_orders()
    client = house.visit(CLOSING)
    assert not house.let_in()
    [(_, fd, _)] = house.porter.take_came()
    assert len(house.board.free) == SLOTS
    assert all(slot.get(word) == 0 for slot in house.board.free for word in range(18))
    os.close(fd)
    client.close()


@pytest.mark.parametrize("count", [4, 1], ids=["room for all", "a ring that comes round"])
def test_stamps(tmp_path: Path, site: Path, count: int) -> None:
    """The same words as Python's, in the order of time; a record that is another's by now is let
    alone by the master."""
    clock = Stamps.make(count)
    with opened(site, tmp_path, clock) as house:
        clock.woke()
        clients = [house.comes(get()) for _ in range(2)]
        clock.waits()
        for client in clients:
            assert client.recv(65536)
            client.shutdown(socket.SHUT_WR)
        house.until(lambda: not house.porter.untold, "their pids")
        while house.porter.count:
            clock.woke()
            assert house.ended()
        clock.waits()
    data = mmap_bytes(clock.memory)
    records = [data[stamps.SIZE * at : stamps.SIZE * (at + 1)] for at in range(1, count + 1)]
    words = [memoryview(one).cast("q") for one in records]
    assert [one[stamps.NUMBER] for one in words[:2]] == ([1, 2] if count == 4 else [2])
    for one in words[: min(count, 2)]:
        times = [
            one[word]
            for word in (
                stamps.AWAKE, stamps.ACCEPTED, stamps.FORK_BEGIN, stamps.FORK_END, stamps.WAITS,
                stamps.NOTICED, stamps.REAPED, stamps.RESTS,
            )
        ]  # fmt: skip
        assert times == sorted(times)
        assert all(times)
        if count == 4:
            assert one[stamps.EXIT] <= one[stamps.NOTICED]
        assert one[stamps.PID] not in (0, os.getpid())
        assert one[stamps.MINOR_FAULTS] > 0
    clock.close()


def mmap_bytes(memory: mmap.mmap | None) -> bytes:
    assert memory is not None
    return memory[:]


# Real servers.


@pytest.mark.parametrize("options", [(), ("--no-porter",), ("--spares", "2")], ids=" ".join)
def test_all_are_counted(serve: ServeFixture, options: tuple[str, ...]) -> None:
    server = serve(*options)
    repeats(server)
    until(lambda: not server.children(), "the end")
    before = totals(server)["requests"], board_of(server).get(SERVED)
    for _ in range(150):
        with server.connect() as client:
            assert client.answer_to(CLOSING).body == b"hello, world\n"

    def counted() -> bool:
        board = board_of(server)
        slots = [record for record in board.records() if record.get(STATE)]
        done = board.get(ENDED_REQUESTS) - before[0], board.get(SERVED) - before[1]
        return done == (150, 150) and all(r.get(scoreboard.KIND) for r in slots)

    until(counted, "the numbers of all, and free slots")
    assert server.stderr().count("reason") == 0


def test_who_stays_is_looked_after(serve: ServeFixture) -> None:
    """As one of the mode's own, and the server ends in time."""
    server = serve("--no-parking", "--grace", "0.1")
    client, child = kept(server)
    with client:
        time.sleep(2.2)  # two looks
        assert name_of(child) == "pyweb-child"
        os.kill(child, signal.SIGKILL)
        assert client.answer_to(get()).status == 200  # another goes on
        assert f"child {child}" in server.stderr()


def test_who_has_just_come_is_ended_with_the_server(serve: ServeFixture, site: Path) -> None:
    (site / "large").write_bytes(bytes(8 << 20))
    server = serve("--grace", "0.1")
    repeats(server, "/large")
    client = server.connect()
    with client:
        client.send(get(b"/large"))
        client.sock.recv(1)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == 0
    assert "1 connections are cut" in server.stderr()


def test_the_limit_counts_guests(serve: ServeFixture) -> None:
    server = serve("--no-parking", "--max-connections", "2", "--timeout-queue", "60")
    first, _ = kept(server)
    with first, server.connect() as second, server.connect() as third:
        assert second.answer_to(get()).status == 200
        third.send(get())
        time.sleep(0.3)
        third.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            third.sock.recv(1)
        third.sock.settimeout(PATIENCE)
        second.close()
        assert third.answer().status == 200


def test_more_than_a_porter_knows(serve: ServeFixture) -> None:
    server = serve("--no-parking", "--max-connections", "400")
    repeats(server)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(300)]
        for client in clients:
            assert client.answer_to(get()).status == 200
        assert len(server.children()) == 300
        for client in clients:
            assert client.answer_to(get()).status == 200


def test_a_zygote_that_dies_with_guests_unknown(serve: ServeFixture) -> None:
    server = serve()
    repeats(server)
    [first] = zygotes(server)
    os.kill(first, signal.SIGSTOP)
    until(lambda: state_of(first) == "T", "it to stand still")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(10)]
        for client in clients:
            client.send(CLOSING)
        time.sleep(0.2)
        os.kill(first, signal.SIGKILL)
        for client in clients:
            assert client.answer().body == b"hello, world\n"
    assert "reason 93: zygote" in server.stderr()


def test_who_got_no_child_gets_another_process(serve: ServeFixture) -> None:
    """One after the other, so that nobody else has the master ask."""
    server = serve()
    repeats(server)
    [zygote] = zygotes(server)
    resource.prlimit(zygote, resource.RLIMIT_NOFILE, (3, 3))
    for _ in range(4):
        with server.connect() as client:
            assert client.answer_to(CLOSING).body == b"hello, world\n"
    assert zygotes(server) == [zygote]


def test_a_child_that_is_killed_at_once(serve: ServeFixture, site: Path) -> None:
    """While it answers: what has left was half of it, and nobody else notices."""
    (site / "large").write_bytes(bytes(8 << 20))
    server = serve()
    repeats(server, "/large")
    with server.connect() as client:
        client.send(get(b"/large"))
        client.sock.recv(1)
        [child] = server.children()
        os.kill(child, signal.SIGKILL)
        until(lambda: f"child {child}" in server.stderr(), "what is said of it")
    assert served_after(server)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_who_comes_in_the_moment_of_an_order(serve: ServeFixture, number: int) -> None:
    """Silent so far, so the master has to see to him, and forgets its listeners."""
    server = serve()
    repeats(server)
    until(lambda: not server.children(), "the end")
    os.kill(server.master, signal.SIGSTOP)
    with server.connect() as client:
        server.process.send_signal(number)
        time.sleep(0.2)
        os.kill(server.master, signal.SIGCONT)
        if number == signal.SIGQUIT:
            with pytest.raises((EOFError, ConnectionResetError)):
                client.answer()
        else:
            client.send(CLOSING)
            assert client.answer().status == 200
    assert "Traceback" not in server.stderr()
    assert "master" not in server.stderr()


def served_after(server: Server) -> bool:
    return server.ask("/hello.txt").status == 200
