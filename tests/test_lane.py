"""A worker's lane: connections that idle, and requests that are repeated, in C, and what of them
goes to Python.

In this process: a lane over real sockets, an epoll and a ledger, with the cache of twins.py. The
same in real pools stands in test_cache.py, and in all tests of modes.
"""

from __future__ import annotations

import contextlib
import os
import resource
import select
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import H, get
from conftest import PATIENCE, ServeFixture, is_corked, until
from twins import Twins, everything, pair, without_date, without_time

from pyweb import ledger, scoreboard
from pyweb.cache import SETTLED
from pyweb.child import Driver
from pyweb.connection import Connection
from pyweb.handed import GO_ON, LATE, LINGER, NEW, Handed
from pyweb.ledger import Ledger
from pyweb.past import Owed, Past
from pyweb.shares import MOST, ROW, Shares, places
from pyweb.transport import Transport

_fastlane = pytest.importorskip("pyweb._fastlane", reason="needs the compiled engine")
from pyweb import _fastshares  # noqa: E402
from pyweb._fastcache import LARGEST_BODY  # noqa: E402

HELLO = b"hello, world\n"
LIMIT = 1024
CLOSING = get(fields=H + b"Connection: close\r\n")


class Bench:
    """A lane with one listening socket, whose turn is taken by hand."""

    def __init__(self, twins: Twins, **options: int | float) -> None:
        self.twins = twins
        self.slot = twins.slot
        self.epoll = select.epoll()
        self.door = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.door.setblocking(False)
        self.epoll.register(self.door, select.EPOLLIN)
        self.order, self.speak = os.pipe()
        self.epoll.register(self.order, select.EPOLLIN)
        self.ledger = Ledger(LIMIT)
        self.shares = Shares(2)
        self.shares.begin(0)
        self.shares.begin(1)
        per_client = int(options.pop("per_client", 0))
        row = _fastshares.Row(
            self.shares.counters, self.shares.used, places,
            row=0, row_size=ROW, most=MOST, limit=per_client,
        ) if per_client else None  # fmt: skip
        settings = {"limit": LIMIT, "first": 60, "idle": 60, "requests": 0, "connections": 0}
        self.lane = _fastlane.Lane(
            twins.repeater, self.slot.at, self.epoll.fileno(), [self.door.fileno()],
            (self.order,), self.ledger.words, self.ledger.texts, row,
            **(settings | options),
        )  # fmt: skip
        self.clients: list[socket.socket] = []
        self.left: list[Handed] = []
        self.others: list[tuple[int, int]] = []

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.door.getsockname())
        client.settimeout(PATIENCE)
        self.clients.append(client)
        client.sendall(data)
        return client

    def turn(self, patience: float = 0.02) -> list[Handed]:
        """What leaves the lane; who is not ours is in `others`."""
        others, left = self.lane.poll(patience)
        self.others += others
        self.left += left
        return list(left)

    def asks(self, client: socket.socket, data: bytes) -> bytes:
        client.sendall(data)
        self.turn()
        return client.recv(1 << 16)

    def marks(self) -> list[tuple[int, int]]:
        return [(one.mark, one.served) for one in self.ledger.entries()]

    def close(self) -> None:
        for _, fd, *_ in [*self.left, *self.lane.release()]:
            os.close(fd)
        for one in (*self.clients, self.door, self.epoll):
            one.close()
        os.close(self.order)
        os.close(self.speak)
        del self.lane  # it holds the scoreboard's memory


def noise(size: int) -> bytes:
    """In which no header ends: one body of 300 of that size has four such octets in a row."""
    return os.urandom(size).replace(b"\r", b"\n")


@pytest.fixture
def twins(tmp_path: Path, site: Path) -> Iterator[Twins]:
    made = Twins(site, tmp_path)
    for data in (get(), CLOSING, get(b"/sub/deep/two.bin")):
        assert made.filler.fill(data)
    yield made
    made.close()


@pytest.fixture
def bench(twins: Twins, request: pytest.FixtureRequest) -> Iterator[Bench]:
    made = Bench(twins, **getattr(request, "param", {}))
    yield made
    made.close()


def told(left: list[Handed]) -> list[tuple[int, int, bytes]]:
    """Kind, requests, bytes."""
    return [(kind, requests, data) for kind, _, _, _, requests, data, _, _ in left]


def test_it_accepts_answers_and_goes_on(bench: Bench, twins: Twins) -> None:
    expected = twins.in_python(get())
    client = bench.connect()
    for number in range(1, 4):
        assert without_date(bench.asks(client, get())) == without_date(expected)
        assert bench.marks() == [(ledger.QUIET, number)]
    assert bench.left == bench.others == []
    assert len(bench.lane) == 1
    assert bench.slot.get(scoreboard.CONNECTIONS) == bench.slot.get(scoreboard.OPEN) == 1
    assert bench.slot.get(scoreboard.REPEATED) == 3
    assert bench.slot.peer() == b"127.0.0.1"
    assert len({without_time(line) for line in twins.lines()}) == 1


def test_many_at_once(bench: Bench) -> None:
    clients = [bench.connect() for _ in range(50)]
    for _ in range(3):
        for client in clients:
            client.sendall(get())
        bench.turn(0.1)
        assert all(client.recv(4096).endswith(HELLO) for client in clients)
    assert len(bench.lane) == 50


def test_a_pipeline(bench: Bench) -> None:
    client = bench.connect()
    assert bench.asks(client, get() * 5).count(HELLO) == 5
    assert bench.marks() == [(ledger.QUIET, 5)]


def test_a_pipeline_with_something_else_behind(bench: Bench) -> None:
    """And its bytes, which nobody can peek at any more."""
    client = bench.connect(get() * 2 + get(b"/missing"))
    assert told(bench.turn()) == [(GO_ON, 2, get(b"/missing"))]
    assert client.recv(4096).count(HELLO) == 2
    assert bench.slot.get(scoreboard.OPEN) == 1
    assert len(bench.lane) == 0


@pytest.mark.parametrize(
    "data",
    [
        get()[:-2], get(b"/missing"), b"nonsense\r\n\r\n", get(b"/sub/"), b"G",
        get().replace(b"GET", b"POST"), get(fields=H + b"Content-Length: 1\r\n") + b"x",
        CLOSING + get(), b"\0" * 5000,
    ],
)  # fmt: skip
def test_what_is_not_plain_goes_to_python(bench: Bench, data: bytes) -> None:
    bench.connect(data)
    [(kind, fd, family, peer, requests, taken, owed, is_watched)] = bench.turn()
    assert (kind, requests, owed, is_watched) == (GO_ON, 0, None, True)
    assert (family, peer) == (socket.AF_INET, "127.0.0.1")
    rest = socket.socket(fileno=os.dup(fd))
    with rest:
        rest.setblocking(False)
        more = rest.recv(8192) if len(data) > len(taken) else b""
    assert taken + more == data


def test_who_closes_is_forgotten(bench: Bench) -> None:
    clients = [bench.connect(get()) for _ in range(3)]
    bench.turn()
    assert len(bench.lane) == 3
    clients[0].close()
    bench.turn()
    assert len(bench.lane) == bench.slot.get(scoreboard.OPEN) == 2
    assert bench.marks() == [(ledger.QUIET, 1)] * 2


def test_a_closing_answer(bench: Bench) -> None:
    client = bench.connect(CLOSING)
    bench.turn()
    assert everything(client).endswith(HELLO)
    assert len(bench.lane) == bench.slot.get(scoreboard.OPEN) == 0
    assert bench.marks() == []


@pytest.mark.parametrize("bench", [{"first": 0.05, "idle": 0.2}], indirect=True)
def test_who_is_silent_for_too_long(bench: Bench) -> None:
    bench.connect()
    bench.connect(get())
    bench.turn()
    assert bench.lane.late() == []
    time.sleep(0.06)
    first = bench.lane.late()
    assert told(first) == [(LATE, 0, b"")]
    time.sleep(0.2)
    second = bench.lane.late()
    assert told(second) == [(LATE, 1, b"")]
    bench.left += first + second
    assert len(bench.lane) == 0


def test_all_are_released(bench: Bench) -> None:
    for data in (b"", get(), get() * 2):
        bench.connect(data)
    bench.turn()
    bench.left = bench.lane.release()
    assert sorted(told(bench.left)) == [(GO_ON, n, b"") for n in range(3)]
    assert len(bench.lane) == 0
    assert bench.slot.get(scoreboard.OPEN) == 3  # they are still


def test_one_that_python_brings(bench: Bench) -> None:
    near, far = pair()
    bench.clients.append(near)
    fd = far.detach()
    assert bench.lane.add(fd, socket.AF_INET, "127.0.0.2", 7, False, False)
    assert not bench.lane.add(fd, socket.AF_INET, "127.0.0.2", 7, False, False)
    assert bench.marks() == [(ledger.QUIET, 7)]
    assert bench.asks(near, get()).endswith(HELLO)
    assert bench.marks() == [(ledger.QUIET, 8)]
    assert bench.twins.lines()[-1].startswith("127.0.0.2 ")


def test_an_order_comes_first(bench: Bench) -> None:
    """So that each answer from there on can be the last."""
    bench.connect(get())
    os.write(bench.speak, b".")
    bench.turn()
    assert bench.others == [(bench.order, select.EPOLLIN)]
    assert len(bench.lane) == 0
    assert bench.slot.get(scoreboard.CONNECTIONS) == 0


@pytest.mark.parametrize("bench", [{"requests": 3}], indirect=True)
def test_after_so_many_requests_it_returns(bench: Bench) -> None:
    for _ in range(5):
        bench.connect(get())
    began = time.monotonic()
    bench.turn(PATIENCE)
    assert bench.slot.get(scoreboard.REQUESTS) == 3
    assert time.monotonic() - began < PATIENCE / 2


@pytest.mark.parametrize("bench", [{"connections": 2}], indirect=True)
def test_after_so_many_connections_it_returns(bench: Bench) -> None:
    for _ in range(5):
        bench.connect()
    bench.turn(PATIENCE)
    assert len(bench.lane) == bench.slot.get(scoreboard.CONNECTIONS) == 2


@pytest.mark.parametrize("bench", [{"per_client": 3}], indirect=True)
def test_a_client_with_too_many(bench: Bench) -> None:
    """Counted with those of other workers, and those that end count no more."""
    bench.shares.add(1, "127.0.0.1", 1)
    clients = [bench.connect() for _ in range(3)]
    bench.turn(0.1)
    assert told(bench.left) == [(NEW, 0, b"")]
    assert bench.shares.of("127.0.0.1") == 3
    clients[0].close()
    bench.turn()
    assert bench.shares.of("127.0.0.1") == 2
    bench.connect(CLOSING)
    bench.turn()
    bench.turn()
    assert len(bench.left) == 1
    assert bench.shares.of("127.0.0.1") == 2
    assert bench.shares.of("127.0.0.9") == 0


@pytest.mark.parametrize("bench", [{"per_client": MOST}], indirect=True)
def test_shares_of_many_addresses_are_pythons(bench: Bench) -> None:
    """More of them than find a place of their own where the lane remembers them."""
    peers = [f"10.0.{n % 7}.{n}" for n in range(300)]
    pairs = [pair() for _ in peers]
    for (near, far), peer in zip(pairs, peers, strict=True):
        bench.clients.append(near)
        bench.shares.add(0, peer, 1)  # as Worker._admit
        assert bench.lane.add(far.detach(), socket.AF_INET, peer, 0, False, True)
    assert all(bench.shares.of(peer) >= 1 for peer in peers)
    for near, _ in pairs:
        near.close()
    while len(bench.lane):
        bench.turn()
    assert not any(bench.shares.counters)


@pytest.mark.parametrize("bench", [{"limit": 5}], indirect=True)
def test_a_descriptor_beyond_its_limit_is_pythons(bench: Bench) -> None:
    bench.connect(get())
    [(kind, fd, *_, is_watched)] = bench.turn()
    assert (kind, is_watched) == (NEW, False)
    assert fd >= 5
    assert bench.slot.get(scoreboard.OPEN) == 0


def test_without_descriptors_the_door_is_pythons(bench: Bench) -> None:
    client = bench.connect(get())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
    try:
        bench.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert bench.others == [(bench.door.fileno(), select.EPOLLIN)]
    bench.turn()
    assert client.recv(4096).endswith(HELLO)


def test_a_client_that_does_not_read_is_pythons(bench: Bench, site: Path) -> None:
    """And gets the rest of its answer, and nobody waits for it."""
    (site / "large").write_bytes(body := noise(8 << 20))
    assert bench.twins.filler.fill(get(b"/large"))
    slow, quick = bench.connect(get(b"/large") + get()), bench.connect(get())
    bench.turn()
    [(kind, fd, _, _, requests, data, owed, _)] = bench.left
    assert (kind, requests, data) == (GO_ON, 0, get())
    assert owed is not None
    assert not is_corked(fd)
    bench.turn()
    assert quick.recv(4096).endswith(HELLO)
    assert finished(bench, slow, Owed(*owed), data) == body + HELLO


@pytest.mark.parametrize("size", [40_000, 200_000, 1_000_000])
def test_what_follows_a_large_answer_does_not_wait(bench: Bench, site: Path, size: int) -> None:
    """Of those that leave at once."""
    (site / "large").write_bytes(body := noise(size))
    assert bench.twins.filler.fill(get(b"/large"))
    near, far = pair()
    bench.clients += [near, far]
    fd = os.dup(far.fileno())
    assert bench.lane.add(fd, socket.AF_INET, "127.0.0.2", 0, False, False)
    near.sendall(get(b"/large"))
    bench.turn()
    assert bench.marks() == [(ledger.QUIET, 1)]
    assert not is_corked(far.fileno())
    far.shutdown(socket.SHUT_WR)
    assert everything(near).endswith(body)


def test_a_client_that_reads_on_needs_no_python(bench: Bench, site: Path) -> None:
    """And nobody waits for it meanwhile."""
    (site / "large").write_bytes(body := noise(12 << 20))
    assert bench.twins.filler.fill(get(b"/large"))
    slow, quick = bench.connect(get(b"/large")), bench.connect(get())
    found = bytearray()
    quick.setblocking(False)
    while not quick_has(quick, found):
        assert bench.turn() == []
    end = time.monotonic() + PATIENCE
    got = bytearray()
    slow.setblocking(False)
    while len(got) < len(body) and time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            got += slow.recv(1 << 20)
        assert bench.turn(0.001) == []
        bench.lane.late()
    assert got.endswith(body)
    slow.settimeout(PATIENCE)
    assert bench.asks(slow, get()).endswith(HELLO)  # and it goes on
    assert (ledger.QUIET, 2) in bench.marks()
    assert b'" 200 %d "-" "-" 0\n' % len(body) in bench.twins.log.read_bytes()


def quick_has(client: socket.socket, found: bytearray) -> bool:
    with contextlib.suppress(BlockingIOError):
        found += client.recv(4096)
    return found.endswith(HELLO)


def test_a_client_that_stops_reading_is_pythons(bench: Bench, site: Path) -> None:
    (site / "large").write_bytes(body := noise(12 << 20))
    assert bench.twins.filler.fill(get(b"/large"))
    slow = bench.connect(get(b"/large"))
    until(lambda: bench.turn() or is_sending(bench), "an answer")
    assert bench.left == []
    late: list[Handed] = []
    until(lambda: late.extend(bench.lane.late()) or late, "a client that is late")
    bench.left = late
    [(kind, _, _, _, requests, data, owed, _)] = late
    assert (kind, requests, data) == (GO_ON, 0, b"")
    assert owed is not None
    assert finished(bench, slow, Owed(*owed), b"") == body


def test_whole_segments_end_where_others_are_sent_to(bench: Bench, site: Path) -> None:
    """And only there: one alone is woken less often with them."""
    (site / "large").write_bytes(body := noise(20 << 20))
    assert bench.twins.filler.fill(get(b"/large"))
    pairs = [pair(), pair()]
    for near, far in pairs:
        bench.clients += [near, far]
        far.setblocking(False)
        assert bench.lane.add(os.dup(far.fileno()), socket.AF_INET, "127.0.0.2", 0, False, False)

    def read(client: socket.socket, size: int) -> bytes:
        found = b""
        while len(found) < size:
            bench.turn(0.001)
            found += client.recv(1 << 20)
        return found

    [first, far_of_first], [second, far_of_second] = pairs
    first.sendall(get(b"/large"))
    got = read(first, 6 << 20)
    assert is_corked(far_of_first.fileno())
    second.sendall(get(b"/large"))
    some = read(second, 6 << 20)
    assert not is_corked(far_of_second.fileno())
    got += read(first, 6 << 20)
    assert not is_corked(far_of_first.fileno())
    assert (some + read(second, len(body) - len(some))).endswith(body[-100:])
    got += read(first, len(body) - len(got))
    assert body.startswith(got.partition(b"\r\n\r\n")[2])
    assert bench.left == []


def test_who_is_sent_to_when_the_lane_ends(bench: Bench, site: Path) -> None:
    """Python has the rest."""
    (site / "large").write_bytes(body := noise(12 << 20))
    assert bench.twins.filler.fill(get(b"/large"))
    idle = bench.connect()
    assert bench.asks(idle, get()).endswith(HELLO)
    client = bench.connect(get(b"/large"))
    until(lambda: bench.turn() or is_sending(bench), "an answer")
    idle_too = bench.connect()
    until(lambda: bench.turn() or len(bench.lane) == 3, "another connection")
    del idle_too
    left = bench.lane.release()
    # What one has sent is nobody else's.
    assert sorted((data, owed is None) for *_, data, owed, _ in left) == [
        (b"", False),
        (b"", True),
        (b"", True),
    ]
    [bench.left] = [[one] for one in left if one[6]]
    for _, fd, *_ in (one for one in left if not one[6]):
        os.close(fd)
    [(_, _, _, _, _, _, owed, _)] = bench.left
    assert owed is not None
    assert finished(bench, client, Owed(*owed), b"") == body


def is_sending(bench: Bench) -> bool:
    return any(mark == ledger.SENDING for mark, _ in bench.marks())


def test_a_small_answer_that_does_not_leave(tmp_path: Path, site: Path) -> None:
    """Of a content that stands in the cache: what is owed of it goes along."""
    (site / "small").write_bytes(body := os.urandom(6000))
    time.sleep(SETTLED / 1e9)
    twins = Twins(site, tmp_path, largest=LARGEST_BODY)
    assert twins.filler.fill(get(b"/small"))
    bench = Bench(twins)
    near, far = pair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    bench.clients.append(near)
    assert bench.lane.add(far.detach(), socket.AF_INET, "127.0.0.1", 0, False, False)
    near.sendall(get(b"/small") * 8)
    bench.turn()
    [(_, _, _, _, requests, data, owed, _)] = bench.left
    assert owed is not None
    assert owed[4] == body
    count = 8 - requests
    assert finished(bench, near, Owed(*owed), data).count(body) == count + requests
    bench.close()
    twins.close()


def finished(bench: Bench, client: socket.socket, owed: Owed, data: bytes) -> bytes:
    """What the client has got in all, without headers, Python having gone on."""
    [(_, fd, *_)] = bench.left
    bench.left = []
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    client.shutdown(socket.SHUT_WR)
    connection = Connection(
        bench.twins.service, Transport(sock, "cython"), "127.0.0.1", bench.slot,
        past=Past(0), owed=owed, received=data,
    )  # fmt: skip
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(everything(client)))
    reader.start()
    Driver(connection, sock, -1).run(connection.serve())
    reader.join()
    pieces = found[0].split(b"\r\n\r\n")
    return b"".join(
        piece.rpartition(b"HTTP/1.1 200 OK\r\n")[0] if b"HTTP/1.1 200 OK\r\n" in piece else piece
        for piece in pieces
    )


@pytest.mark.parametrize("family", [socket.AF_INET6, socket.AF_UNIX])
def test_other_addresses(bench: Bench, tmp_path: Path, family: int) -> None:
    """As Python has them."""
    where: object = str(tmp_path / "s") if family == socket.AF_UNIX else ("::1", 0)
    with socket.socket(family) as door, socket.socket(family) as client:
        try:
            door.bind(where)
        except OSError:
            pytest.skip("no such addresses here")
        door.listen()
        door.setblocking(False)
        lane = _fastlane.Lane(
            bench.twins.repeater, bench.slot.at, bench.epoll.fileno(), [door.fileno()], (),
            bench.ledger.words, bench.ledger.texts, None,
            limit=LIMIT, first=60, idle=60, requests=0, connections=0,
        )  # fmt: skip
        bench.epoll.register(door, select.EPOLLIN)
        client.connect(door.getsockname())
        client.sendall(get())
        lane.poll(0.02)
        assert client.recv(4096).endswith(HELLO)
        expected = "unix:" if family == socket.AF_UNIX else "::1"
        assert bench.twins.lines()[-1].startswith(f"{expected} - -")
        for _, fd, of, peer, *_ in lane.release():
            assert (of, peer) == (family, expected)
            os.close(fd)


def test_what_has_come_behind_the_last_answer(bench: Bench) -> None:
    """It is lingered for: closing would take the answer from the client. Of a head that is as long
    as what the lane receives at once."""
    head = CLOSING[:-2] + b"X: "
    client = bench.connect(head + b"x" * (4096 - len(head) - 4) + b"\r\n\r\n" + b"more")
    assert told(bench.turn()) == [(LINGER, 1, b"")]
    assert client.recv(4096).endswith(HELLO)
    assert len(bench.lane) == bench.slot.get(scoreboard.OPEN) == 0


def test_a_worker_hands_over_and_takes_back(serve: ServeFixture) -> None:
    """A kept connection whose requests are C's, then Python's, then C's, and all are counted."""
    server = serve("--mode", "prefork", "--workers", "1")
    with server.connect() as client:
        for _ in range(3):
            for target in (b"/hello.txt", b"/missing", b"/hello.txt", b"/sub/"):
                client.answer_to(get(target))
                time.sleep(0.01)
    lines = server.wait_for_log(12)
    statuses = [line.split('" ')[1].split()[0] for line in lines]
    assert statuses == ["200", "404", "200", "200"] * 3
