"""The response cache: C says what Python would say, byte for byte, for as long as it is true.

In this process: a filler, a cache and a conversation over a socket pair, beside the conversation
in Python. And real servers, whose children answer without the interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import errno
import faulthandler
import gc
import mmap
import os
import re
import resource
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cases import CASES, H, get
from conftest import (
    PATIENCE,
    Client,
    ServeFixture,
    Server,
    children_of,
    is_corked,
    make_site,
    name_of,
    state_of,
    until,
)
from hypothesis import given
from hypothesis import strategies as st
from twins import LIMITS, Table, Twins, everything, pair, without_date, without_time

from pyweb import cache as policy
from pyweb import parking, procfs, scoreboard
from pyweb.child import END, EXIT_HANDED_BACK
from pyweb.clock import http_date
from pyweb.docroot import RecordingRoot
from pyweb.errors import Reason
from pyweb.parse import Limits, Parser
from pyweb.scoreboard import BYTES, REPEATED, REQUESTS, STATE
from pyweb.static import StaticSite

_fastcache = pytest.importorskip("pyweb._fastcache", reason="needs the compiled engine")
from pyweb import _fastclock, _fastzygote  # noqa: E402


@pytest.fixture
def table() -> Iterator[Table]:
    """Of one set: four entries that have the same places."""
    made = Table(4)
    yield made
    made.close()


@pytest.fixture(params=[0, _fastcache.LARGEST_BODY], ids=["read", "kept"])
def twins(tmp_path: Path, site: Path, request: pytest.FixtureRequest) -> Iterator[Twins]:
    """With a content that is read each time, and with one that stands beside its decision."""
    made = Twins(site, tmp_path, largest=request.param)
    if request.param:
        time.sleep(policy.SETTLED / 1e9)
    yield made
    made.close()


@pytest.fixture(scope="module")
def always(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """For many examples."""
    scratch = tmp_path_factory.mktemp("cache")
    made = Twins(make_site(scratch), scratch)
    yield made
    made.close()


# What is repeated is what Python says.


PAGE = get(b"/page.html", H + b"Accept-Encoding: gzip, br\r\n")
REPEATED_HEADS = {
    "plain": get(),
    "HTTP/1.0": get(fields=b"", version=b"HTTP/1.0"),
    "HTTP/1.0, kept": get(fields=b"Connection: keep-alive\r\n", version=b"HTTP/1.0"),
    "closing": get(fields=H + b"Connection: close\r\n"),
    "HEAD": get().replace(b"GET", b"HEAD"),
    "empty": get(b"/empty.txt"),
    "index": get(b"/with-index/"),
    "a query": get(b"/hello.txt?a=b"),
    "escaped": get(b"/space%20and%20%c3%bc.txt"),
    "a body in a file of 51,200 bytes": get(b"/sub/deep/two.bin"),
    "a coding": PAGE,
    "identity": get(b"/page.html"),
    "a range": get(b"/sub/deep/two.bin", H + b"Range: bytes=100-299\r\n"),
    "the end": get(b"/hello.txt", H + b"Range: bytes=-3\r\n"),
    "If-None-Match: *": get(fields=H + b"If-None-Match: *\r\n"),
    "not modified, one of four": get(b"/page.html", H + b"If-None-Match: *\r\n"),
}


@pytest.mark.parametrize("data", REPEATED_HEADS.values(), ids=REPEATED_HEADS)
def test_the_answer_is_pythons(twins: Twins, data: bytes) -> None:
    expected = twins.in_python(data)
    assert twins.in_c(data)[0] == b""  # nobody has decided yet
    assert twins.filler.fill(data)
    answer, rest = twins.in_c(data)
    assert without_date(answer) == without_date(expected) != b""
    assert rest is None
    first, second = map(without_time, twins.lines())
    assert first == second


@pytest.mark.parametrize("case", CASES, ids=repr)
def test_cases(twins: Twins, case) -> None:  # type: ignore[no-untyped-def]
    """What C answers of a case is the beginning of what Python answers, and the rest is left in
    the kernel."""
    twins.filler.fill(case.data[: case.data.find(b"\r\n\r\n") + 4])
    answer, rest = twins.in_c(case.data)
    expected = twins.in_python(case.data)
    assert without_date(expected).startswith(without_date(answer))
    if rest is None:
        assert len(answer) == len(expected)


NEVER = {
    "a listing": get(b"/sub/"),
    "a redirect": get(b"/sub"),
    "not found": get(b"/missing"),
    "hidden": get(b"/.hidden"),
    "a body": b"GET /hello.txt HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\n",
    "chunked": b"GET /hello.txt HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
    "Expect": get(fields=H + b"Expect: 100-continue\r\n"),
    "If-Range": get(fields=H + b"Range: bytes=0-3\r\nIf-Range: x\r\n"),
    "two ranges": get(fields=H + b"Range: bytes=0-1,4-5\r\n"),
    "OPTIONS": get().replace(b"GET", b"OPTIONS"),
    "POST": get().replace(b"GET", b"POST"),
    "412": get(fields=H + b'If-Match: "x"\r\n'),
    "no Host": get(fields=b""),
    "a bare LF": get().replace(b"\r\n", b"\n"),
    "not whole": get()[:-2],
    "more than a head": get() + b"x",
    "too long": get(b"/hello.txt?" + b"a" * 700),
}


@pytest.mark.parametrize("data", NEVER.values(), ids=NEVER)
def test_what_is_never_kept(twins: Twins, data: bytes) -> None:
    assert not twins.filler.fill(data)
    answer, _ = twins.in_c(data)
    assert answer == b""


def test_a_field_that_no_decision_depends_on(twins: Twins) -> None:
    """Of one decision; the log tells them apart."""
    twins.filler.fill(get())
    other = get(fields=H + b"User-Agent: somebody\r\nReferer: there\r\nCookie: c\r\n")
    assert twins.in_c(other)[0].endswith(b"hello, world\n")
    assert twins.lines()[-1].endswith(' 200 13 "there" "somebody" 0')


@pytest.mark.parametrize(
    "fields",
    [b"Host: other\r\n", H + b"Accept-Encoding: br\r\n", H + b"Range: bytes=1-2\r\n"],
)
def test_a_field_that_a_decision_may_depend_on(twins: Twins, fields: bytes) -> None:
    twins.filler.fill(get())
    assert twins.in_c(get(fields=fields))[0] == b""


def test_a_decision_that_asks_for_another_field_is_not_kept(twins: Twins) -> None:
    recording = RecordingRoot(twins.root)
    site = StaticSite(recording, (), False)

    def curious(head):  # type: ignore[no-untyped-def]
        head.get(b"cookie")
        return site.answer(head)

    found = Parser("python", Limits(*LIMITS, 1)).parse(get())
    assert found is not None
    assert policy.Decider(site.answer, recording, ()).entry(found[0]) is not None
    assert policy.Decider(curious, recording, ()).entry(found[0]) is None


WORDS = st.binary(max_size=60).map(lambda b: re.sub(rb"[\x00-\x08\x0a-\x1f\x7f]", b"?", b))


@given(WORDS, WORDS, st.sampled_from([b"1.0", b"1.1"]))
def test_the_log_line_is_pythons(
    always: Twins, agent: bytes, referer: bytes, version: bytes
) -> None:
    """Whatever is in it."""
    fields = H + b"User-Agent: " + agent + b"\r\nreferer:" + referer + b"\r\n"
    data = get(b"/hello.txt?a'b%22", fields, b"HTTP/" + version)
    assert always.filler.fill(data)
    before = len(always.lines())
    assert always.in_c(data)[0]
    always.in_python(data)
    first, second = always.lines()[before:]
    assert without_time(first) == without_time(second)


# As long as it is true.


def change(path: Path) -> None:
    path.write_bytes(b"HELLO, WORLD\n")


def replace(path: Path) -> None:
    beside = path.with_name("new")
    beside.write_bytes(b"hello, world\n")
    beside.replace(path)


def truncate(path: Path) -> None:
    os.truncate(path, 5)


def same_size_and_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"HELLO, WORLD\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def take_rights(path: Path) -> None:
    path.chmod(0)


def remove(path: Path) -> None:
    path.unlink()


def link_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("sub/one.txt")


def link_outside(path: Path) -> None:
    outside = path.parent.parent / "outside"
    path.rename(outside)  # the very same file, but no longer inside
    path.symlink_to("../outside")


CHANGES = [
    change, replace, truncate, same_size_and_time, take_rights, remove, link_elsewhere,
    link_outside,
]  # fmt: skip


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize("act", CHANGES, ids=lambda act: act.__name__)
def test_a_file_that_is_another_is_not_repeated(
    twins: Twins, site: Path, act, method: bytes
) -> None:  # type: ignore[no-untyped-def]
    data = get().replace(b"GET", method)
    twins.filler.fill(data)
    assert twins.in_c(data)[0]
    time.sleep(0.01)  # the kernel's clock for files ticks every 4 ms
    act(site / "hello.txt")
    assert twins.in_c(data)[0] == b""


def test_a_file_that_was_passed_over_counts(twins: Twins, site: Path) -> None:
    """brotli is served; that page.html is there, and when it has changed, is part of it."""
    twins.filler.fill(PAGE)
    assert b"pretend brotli" in twins.in_c(PAGE)[0]
    time.sleep(0.01)
    (site / "page.html").write_bytes(b"new")
    assert twins.in_c(PAGE)[0] == b""


def test_what_is_old_is_wished_anew_and_then_not_repeated(twins: Twins) -> None:
    twins.filler.fill(get())
    assert twins.in_c(get())[0]
    assert twins.wished() == b""
    time.sleep(policy.FRESH + 0.05)
    assert twins.in_c(get())[0]
    assert twins.wished() == get()
    time.sleep(policy.GOOD - policy.FRESH)
    assert twins.in_c(get())[0] == b""
    assert twins.filler.fill(get())
    assert twins.in_c(get())[0]


@pytest.fixture
def lasting(
    tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Twins]:
    """A site that has been as it is for long enough."""
    monkeypatch.setattr(policy, "_LASTING", policy.SETTLED)
    for act in getattr(request, "param", ()):
        act(site)
    time.sleep(policy.SETTLED / 1e9)
    made = Twins(site, tmp_path, largest=_fastcache.LARGEST_BODY)
    yield made
    made.close()


def is_repeated(twins: Twins, data: bytes) -> bool:
    return bool(twins.in_c(data)[0])


def grow_old(twins: Twins, data: bytes) -> None:
    assert twins.filler.fill(data)
    time.sleep(policy.GOOD + 0.02)


@pytest.mark.parametrize(
    "data", [get(), get().replace(b"GET", b"HEAD"), get(b"/with-index/"), get(b"/empty.txt")]
)
def test_a_decision_lasts(lasting: Twins, data: bytes) -> None:
    expected = lasting.in_python(data)
    grow_old(lasting, data)
    wishes = 0
    for _ in range(800):
        answer, rest = lasting.in_c(data)
        assert without_date(answer) == without_date(expected)
        assert rest is None
        wishes += lasting.wished() == data
    assert 0 < wishes < 80  # one of 64


def a_neighbour(site: Path) -> None:
    (site / "hello.txt.gz").write_bytes(b"zipped")


def a_neighbour_that_is_taken_away_again(site: Path) -> None:
    a_neighbour(site)
    (site / "hello.txt.gz").unlink()


def another_root_file(site: Path) -> None:
    change(site / "hello.txt")


@pytest.mark.parametrize(
    "act", [a_neighbour, a_neighbour_that_is_taken_away_again, another_root_file],
    ids=lambda act: act.__name__,
)  # fmt: skip
def test_until_a_name_comes_or_goes(lasting: Twins, site: Path, act) -> None:  # type: ignore[no-untyped-def]
    data = get(fields=H + b"Accept-Encoding: gzip\r\n")
    grow_old(lasting, data)
    assert is_repeated(lasting, data)
    act(site)
    assert not is_repeated(lasting, data)


def forbidden_neighbour(site: Path) -> None:
    a_neighbour(site)
    (site / "hello.txt.gz").unlink()
    (site / "hello.txt.gz").mkdir()


def link_to_nowhere(site: Path) -> None:
    (site / "hello.txt.gz").symlink_to("nowhere")


@pytest.mark.parametrize(
    "lasting", [[forbidden_neighbour], [link_to_nowhere]], indirect=True,
    ids=["no file", "a link to nowhere"],
)  # fmt: skip
def test_what_could_come_to_be_there_without_a_trace(lasting: Twins) -> None:
    data = get(fields=H + b"Accept-Encoding: gzip\r\n")
    assert lasting.filler.fill(data)
    assert is_repeated(lasting, data)
    time.sleep(policy.GOOD + 0.02)
    assert not is_repeated(lasting, data)


def test_a_year_of_two_digits_does_not_last(lasting: Twins) -> None:
    data = get(fields=H + b"If-Modified-Since: Sunday, 06-Nov-94 08:49:37 GMT\r\n")
    grow_old(lasting, data)
    assert not is_repeated(lasting, data)


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_old_decision_stays_below_the_root(
    lasting: Twins, site: Path, tmp_path: Path, method: bytes
) -> None:
    """The same file, but by now it is elsewhere."""
    data = get(b"/sub/deep/two.bin").replace(b"GET", method)
    grow_old(lasting, data)
    assert is_repeated(lasting, data)
    (site / "sub").rename(tmp_path / "moved")
    (site / "sub").symlink_to(tmp_path / "moved")
    assert not is_repeated(lasting, data)


def test_who_writes_to_a_mapping(lasting: Twins, site: Path) -> None:
    """Its first write has changed the times, its second does not."""
    with open(site / "hello.txt", "r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:5] = b"HELLO"
        time.sleep(policy.SETTLED / 1e9 + 0.02)
        grow_old(lasting, get())
        memory[:5] = b"hullo"
        assert lasting.in_c(get())[0].endswith(b"hullo, world\n")


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    """The filler goes on: an error of reading is for who sends it."""
    lo = Path("/sys/class/net/lo")
    if not (lo / "speed").exists():
        pytest.skip("no such file here")
    made = Twins(lo, tmp_path, largest=_fastcache.LARGEST_BODY)
    made.filler.fill(get(b"/speed"))
    made.close()


def test_a_file_from_the_future_is_not_kept(twins: Twins, site: Path) -> None:
    os.utime(site / "hello.txt", (time.time() + 100, time.time() + 100))
    assert not twins.filler.fill(get())


# The conversation.


def test_requests_in_a_row(twins: Twins) -> None:
    twins.filler.fill(get())
    answer, rest = twins.in_c(get() * 5)
    assert answer.count(b"hello, world\n") == 5
    assert rest is None
    assert twins.slot.get(REQUESTS) == twins.slot.get(REPEATED) == 5
    assert twins.slot.get(BYTES) == 65
    assert twins.slot.get(STATE) == scoreboard.FREE


def test_what_it_can_not_do_stays_in_the_kernel(twins: Twins) -> None:
    twins.filler.fill(get())
    near, far = pair()
    with near, far:
        near.sendall(get() * 2 + get(b"/missing"))
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 7) == (9, None)
        assert far.recv(1000) == get(b"/missing")


def test_it_leaves_when_the_lifeline_speaks(twins: Twins) -> None:
    twins.filler.fill(get())
    near, far = pair()
    with near, far:
        near.sendall(get())
        twins.hang_up()
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 1) == (1, None)


@pytest.mark.parametrize("requests", [0, 1])
def test_who_idles_for_too_long_is_owed_nothing(twins: Twins, requests: int) -> None:
    near, far = pair()
    with near, far:
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, requests) is None
        assert near.recv(1) == b""
    assert twins.lines() == []


def test_without_a_descriptor_who_idles_for_long_is_pythons(twins: Twins) -> None:
    """Which waits without; it must not be ended after a moment."""
    near, far = pair()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with near, far:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 1) == (1, None)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_keepalive_requests(tmp_path: Path, site: Path) -> None:
    """The last one says close: that is Python's to say."""
    twins = Twins(site, tmp_path, "--keepalive-requests", "3")
    twins.filler.fill(get())
    near, far = pair()
    with near, far:
        near.sendall(get() * 3)
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at) == (2, None)
    twins.close()


def test_a_socket_that_is_full(twins: Twins, site: Path) -> None:
    """What has not left is owed, and told to the byte."""
    body = os.urandom(8 << 20)
    (site / "large").write_bytes(body)
    data = get(b"/large")
    twins.filler.fill(data)
    near, far = pair()
    with near, far:
        near.sendall(data)
        requests, owed = twins.repeater.serve(far.fileno(), b"p", twins.slot.at)
        head, header, status, keeps, file, offset, count, sent, _began = owed
        os.close(file)
        assert (requests, head, status, keeps, offset, count) == (0, data, 200, True, 0, len(body))
        assert 0 < sent < count
        assert not is_corked(far.fileno())
        far.close()
        got = everything(near)
        assert got == header + body[: sent - len(header)]


def test_a_closing_answer_with_more_behind_it_is_pythons(twins: Twins) -> None:
    """It has to linger: closing now would take the answer from the client."""
    data = get(fields=H + b"Connection: close\r\n")
    twins.filler.fill(data)
    near, far = pair()
    with near, far:
        near.sendall(data + b"more")
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at) == (0, None)
        assert far.recv(1000) == data + b"more"


def test_without_python_a_small_answer_is_waited_for(twins: Twins, site: Path) -> None:
    small = os.urandom(32768)
    (site / "small").write_bytes(small)
    assert twins.filler.fill(get(b"/small"))
    near, far = pair()
    found: list[bytes] = []
    with near, far:
        near.sendall(get(b"/small") * 600)  # more than two sockets hold
        reader = threading.Timer(0.2, lambda: found.append(everything(near)))
        reader.start()
        rest = twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True)
        far.shutdown(socket.SHUT_WR)
        reader.join()
        done = 600 if rest is None else rest[0]
        left = b"" if rest is None else far.recv(1 << 20)
    assert done > 100  # within a second: then the decisions are old
    assert left == get(b"/small") * (600 - done)
    assert found[0].count(small) == done


def test_whole_segments_end_where_the_client_reads_from_others_too(
    twins: Twins, site: Path
) -> None:
    """It takes 10 ms for a step, and is well; more is to come than the sockets hold."""
    (site / "large").write_bytes(body := os.urandom(40 << 20))
    assert twins.filler.fill(get(b"/large"))
    near, far = pair()
    found: list[bytes] = []
    corked: list[bool] = []

    def read() -> None:
        for _ in range(64):
            found.append(near.recv(1 << 18, socket.MSG_WAITALL))
            time.sleep(0.005)
            corked.append(is_corked(far.fileno()))
        found.append(everything(near))

    with near, far:
        near.sendall(get(b"/large"))
        reader = threading.Thread(target=read)
        reader.start()
        twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True)
        far.shutdown(socket.SHUT_WR)
        reader.join()
    assert b"".join(found).endswith(body)
    assert corked[-1] is False


def test_what_follows_a_large_answer_does_not_wait(twins: Twins, site: Path) -> None:
    (site / "large").write_bytes(body := os.urandom(12 << 20))
    assert twins.filler.fill(get(b"/large"))
    near, far = pair()
    found: list[bytes] = []
    with near, far:
        near.sendall(get(b"/large"))
        reader = threading.Thread(target=lambda: found.append(everything(near)))
        reader.start()
        requests, owed = twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True) or (1, 0)
        assert not is_corked(far.fileno())
        far.close()
        reader.join()
    assert (requests, owed) == (1, 0)
    assert found[0].endswith(body)


@contextlib.contextmanager
def large(site: Path, twins: Twins) -> Iterator[tuple[socket.socket, socket.socket, bytes]]:
    """A client that has asked for more than two sockets hold, and what it asked for."""
    (site / "large").write_bytes(body := os.urandom(12 << 20))
    data = get(b"/large", H + b"Connection: close\r\n")
    assert twins.filler.fill(data)
    near, far = pair()
    with near, far:
        near.sendall(data)
        yield near, far, body


def test_without_python_nothing_is_owed(twins: Twins, site: Path) -> None:
    with large(site, twins) as (near, far, body):
        found: list[bytes] = []
        reader = threading.Timer(0.7, lambda: found.append(everything(near)))  # it is slow at first
        reader.start()
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True) is None
        reader.join()
        assert found[0].endswith(body)
    assert b'" 200 %d "-" "-" 0\n' % len(body) in twins.log.read_bytes()


def test_without_python_a_client_is_given_its_time(tmp_path: Path, site: Path) -> None:
    twins = Twins(site, tmp_path, "--timeout-write", "0.7")
    with large(site, twins) as (near, far, body):
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True) is None
        got = len(everything(near).partition(b"\r\n\r\n")[2])
    assert 0 < got < len(body)
    line = b'" 200 %d "-" "-" %d\n' % (got, Reason.WRITE_TIMEOUT)
    assert twins.log.read_bytes().endswith(line)
    twins.close()


def test_without_python_a_header_that_does_not_leave_is_given_its_time(
    tmp_path: Path, site: Path
) -> None:
    """The socket is full when it is its turn, to the last byte or nearly."""
    twins = Twins(site, tmp_path, "--timeout-write", "0.7")
    (site / "large").write_bytes(os.urandom(12 << 20))
    room = 0
    for number in (2000, 0, 1, 2):  # first, how many there is room for
        assert twins.filler.fill(get())
        assert twins.filler.fill(get(b"/large"))
        before = len(twins.lines())
        near, far = pair()
        far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        with near, far:
            data = get() * (number if not room else room - number) + get(b"/large")
            near.settimeout(0.1)
            with contextlib.suppress(TimeoutError):
                near.sendall(data)
            breaker = threading.Timer(PATIENCE, near.close)  # it would wait for ever
            breaker.start()
            twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True)
            breaker.cancel()
        ends = [int(line.split()[-1]) for line in twins.lines()[before:]]
        assert ends[-1] == Reason.WRITE_TIMEOUT
        assert set(ends[:-1]) == {0}
        room = room or len(ends) - 1
    twins.close()


def test_without_python_a_slow_client_earns_time(tmp_path: Path, site: Path) -> None:
    """As much as clock.Deadline says: at 4 MB/s it is never late, though it takes longer."""
    twins = Twins(site, tmp_path, "--timeout-write", "0.7", "--min-rate", "1000000")
    with large(site, twins) as (near, far, body):
        found = bytearray()

        def read() -> None:
            while data := near.recv(200_000):
                found.extend(data)
                time.sleep(0.05)

        reader = threading.Thread(target=read)
        reader.start()
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True) is None
        reader.join()
        assert found.endswith(body)
    twins.close()


@pytest.mark.parametrize("reason", [Reason.CLIENT_RESET, Reason.FILE_SHRANK])
def test_without_python_an_answer_is_broken_off(twins: Twins, site: Path, reason: Reason) -> None:
    with large(site, twins) as (near, far, body):

        def end() -> None:
            if reason == Reason.FILE_SHRANK:
                os.truncate(site / "large", 1000)
                everything(near)
            else:
                near.close()

        ender = threading.Timer(0.2, end)
        ender.start()
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True) is None
        ender.join()
    found = re.search(rb'" 200 (\d+) "-" "-" (\d+)\n$', twins.log.read_bytes())
    assert found is not None
    assert int(found[2]) == reason
    assert 0 < int(found[1]) < len(body)


def test_without_python_the_servers_end_is_heard(twins: Twins, site: Path) -> None:
    """Its signal is held back, as all are in such a child."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [END])
    try:
        with large(site, twins) as (near, far, _body):
            here = threading.get_ident()

            def end() -> None:
                near.recv(1, socket.MSG_PEEK)  # it has begun
                signal.pthread_kill(here, END)  # others of this process may not hold it back

            ender = threading.Thread(target=end)
            ender.start()
            assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True) is None
            ender.join()
            everything(near)
        assert twins.log.read_bytes().endswith(b" %d\n" % Reason.ENDED)
    finally:
        assert signal.sigwait([END]) == END
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    ("patience", "reason"), [("0.2", Reason.WRITE_TIMEOUT), ("60", Reason.CLIENT_RESET)]
)
def test_a_client_that_does_not_take_a_small_answer(
    tmp_path: Path, site: Path, patience: str, reason: int
) -> None:
    (site / "small").write_bytes(os.urandom(32768))
    twins = Twins(site, tmp_path, "--timeout-write", patience)
    twins.filler.fill(get(b"/small"))
    near, far = pair()
    with far:
        near.sendall(get(b"/small") * 600)
        leaving = threading.Timer(0.3 if reason == Reason.CLIENT_RESET else 1, near.close)
        leaving.start()
        assert twins.repeater.serve(far.fileno(), b"p", twins.slot.at, 0, True) is None
        leaving.join()
    assert twins.lines()[-1].endswith(f" {reason:d}")
    twins.close()


@given(st.integers(0, 253402300799), st.integers(-12 * 60, 14 * 60).map(lambda m: 60 * m))
def test_times_are_pythons(second: int, offset: int) -> None:
    date, log = _fastclock.times(second, offset)
    assert date == http_date(second)
    if second + offset >= 0:
        zone = datetime.timezone(datetime.timedelta(seconds=offset))
        local = datetime.datetime.fromtimestamp(min(second, 253402200000), zone)
        _, log = _fastclock.times(min(second, 253402200000), offset)
        assert log.decode() == local.strftime("[%d/%b/%Y:%H:%M:%S %z]")


def test_a_log_that_takes_nothing(twins: Twins) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, twins.sink.fd)
    os.close(full)
    twins.filler.fill(get())
    assert twins.in_c(get() * 2)[0]
    assert twins.slot.get(scoreboard.LOST_LINES) == 2


# Without an interpreter.


@contextlib.contextmanager
def zygote_of(twins: Twins) -> Iterator[_fastzygote.Zygote]:
    shared = (0, 1, 2, twins.sink.fd, twins.root.fd, twins.lifeline, twins.wishes)
    zygote = _fastzygote.Zygote(twins.repeater, shared)
    try:
        yield zygote
    finally:
        zygote.close()
        assert os.waitpid(zygote.pid, 0)[1] == 0


def ask(zygote: _fastzygote.Zygote, sock: socket.socket, slot: scoreboard.Slot) -> int:
    """For a child. Its pid."""
    assert zygote.order(sock.fileno(), b"127.0.0.1", slot.at, 0, 0, 0, 1)
    poll = select.poll()
    poll.register(zygote.fileno(), select.POLLIN)
    assert poll.poll(1000 * PATIENCE)
    [(_, pid)] = zygote.told()
    assert zygote.last == pid
    return pid


def fork_bare(twins: Twins, data: bytes) -> tuple[bytes, int]:
    """What a bare child answers, and how it ends: an exit code, or minus a signal."""
    near, far = pair()
    with zygote_of(twins) as zygote, near, far:
        near.sendall(data)
        _, status = os.waitpid(ask(zygote, far, twins.slot), 0)
        left = far.recv(1 << 16, socket.MSG_DONTWAIT | socket.MSG_PEEK) if status else b""
        assert left in (b"", data)  # nothing is taken of what is handed back
        far.shutdown(socket.SHUT_WR)
        return everything(near), os.waitstatus_to_exitcode(status)


CLOSING = get(fields=H + b"Connection: close\r\n")


def test_a_bare_child_answers(twins: Twins) -> None:
    twins.filler.fill(CLOSING)
    for _ in range(3):
        answer, code = fork_bare(twins, CLOSING)
        assert (answer[-13:], code) == (b"hello, world\n", 0)
    assert len(twins.lines()) == 3


def test_a_bare_child_hands_back(twins: Twins) -> None:
    assert fork_bare(twins, CLOSING) == (b"", EXIT_HANDED_BACK)


def test_beside_a_zygote_others_are_whole(twins: Twins) -> None:
    with zygote_of(twins):
        pid = os.fork()
        if pid == 0:
            # Python lives: it makes objects, and collects those that nobody has any more.
            gc.collect()
            os._exit(len([object() for _ in range(40)]))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 40


def test_a_bare_child_has_nothing_of_the_interpreter(twins: Twins) -> None:
    """It lingers with its connection for a moment: long enough to look."""
    twins.filler.fill(get())
    near, far = pair()
    with zygote_of(twins) as zygote, near, far:
        near.sendall(get())
        pid = ask(zygote, far, twins.slot)
        assert near.recv(1 << 16)
        mappings = Path(f"/proc/{pid}/maps").read_text()
        _, status = os.waitpid(pid, 0)
    assert status == 0
    assert "/_fast." in mappings
    for other in ("[heap]", "libpython", "/bin/python", "/select.", "libssl"):
        assert other not in mappings
    if os.uname().machine in ("x86_64", "aarch64"):
        assert "libc" not in mappings
        assert mappings.count("\n") <= 12


def test_a_bare_child_that_touches_what_it_has_not_dies_alone(twins: Twins) -> None:
    """At once, by a signal, though Python's own handler for it stands (faulthandler): the slot it
    writes to is left out of the fork."""
    twins.filler.fill(CLOSING)
    faulthandler.enable()
    twins.board.memory.madvise(mmap.MADV_DONTFORK)
    answer, code = fork_bare(twins, CLOSING)
    assert (answer, code) == (b"", -signal.SIGSEGV)
    twins.board.memory.madvise(mmap.MADV_DOFORK)
    assert fork_bare(twins, CLOSING)[1] == 0


def test_a_bare_child_has_no_descriptor_of_others(twins: Twins) -> None:
    """From its first moment. Who holds the other end of a pipe hears it."""
    twins.filler.fill(get())
    ours, theirs = os.pipe()
    near, far = pair()
    with zygote_of(twins) as zygote, near, far:
        near.sendall(get())
        pid = ask(zygote, far, twins.slot)
        os.close(theirs)
        assert near.recv(1 << 16)
        os.set_blocking(ours, False)
        assert os.read(ours, 1) == b""  # the child, which lives, has it not
        assert state_of(pid) not in ("", "Z")
        links = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        way = os.stat(zygote.fileno()).st_ino
        assert f"socket:[{way}]" not in links
        os.waitpid(pid, 0)
    os.close(ours)


def test_what_a_zygote_can_not_fork_it_tells(twins: Twins) -> None:
    """With -errno, and a SIGCHLD, which wakes a master."""
    heard: list[int] = []
    before = signal.signal(signal.SIGCHLD, lambda number, _frame: heard.append(number))
    near, far = pair()
    try:
        with zygote_of(twins) as zygote, near, far:
            resource.prlimit(zygote.pid, resource.RLIMIT_NOFILE, (3, 3))
            assert zygote.order(far.fileno(), b"127.0.0.1", twins.slot.at, 0, 0, 0, 7)
            told: list[tuple[int, int]] = []
            while not told:
                time.sleep(0.01)
                told = zygote.told()
            assert told == [(7, -errno.EMFILE)]
            assert heard == [signal.SIGCHLD]
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_what_a_dead_zygote_has_told_is_heard(twins: Twins) -> None:
    """Though it has died with an order unread."""
    twins.filler.fill(CLOSING)
    shared = (0, 1, 2, twins.sink.fd, twins.root.fd, twins.lifeline, twins.wishes)
    zygote = _fastzygote.Zygote(twins.repeater, shared)
    near, far = pair()
    with near, far:
        near.sendall(CLOSING)
        assert zygote.order(far.fileno(), b"127.0.0.1", twins.slot.at, 0, 0, 0, 7)
        assert everything(near).endswith(b"hello, world\n")
        until(lambda: state_of(zygote.last) == "Z", "its child to end")
        assert select.select([zygote.fileno()], [], [], PATIENCE)[0]
        os.kill(zygote.pid, signal.SIGSTOP)
        assert zygote.order(far.fileno(), b"127.0.0.1", twins.slot.at, 0, 0, 0, 7)
        os.kill(zygote.pid, signal.SIGKILL)
        os.waitpid(zygote.pid, 0)
    assert zygote.told() == [(7, zygote.last)]
    assert zygote.is_over
    os.waitpid(zygote.last, 0)
    zygote.close()


def test_a_zygote_goes_with_its_master(twins: Twins) -> None:
    """Killed or not."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        zygote = _fastzygote.Zygote(twins.repeater, (0, 1, 2, sink))
        os.write(sink, str(zygote.pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.close(sink)
    with open(source) as told:
        assert int(told.read()) > 0  # until all who have the other end are gone
    os.waitpid(pid, 0)


def test_an_idle_connection_is_parked(tmp_path: Path, site: Path) -> None:
    """With what a process that is Python says of it."""
    inbox, way = parking.pair()
    twins = Twins(site, tmp_path, parker=way.fileno())
    twins.filler.fill(get())
    near, far = pair()
    with near, far, inbox, way:
        near.sendall(get() * 2)
        assert twins.repeater.serve(far.fileno(), b"10.0.0.1", twins.slot.at, 5) is None
        arrival = parking.receive(inbox)
        assert isinstance(arrival, parking.Arrival)
        assert (arrival.past.requests, arrival.past.began, arrival.peer) == (7, 0.0, "10.0.0.1")
        arrival.sock.send(b"hello")
        arrival.sock.close()
        assert near.recv(1 << 16).endswith(b"hello, world\nhello")
    twins.close()


@pytest.mark.parametrize("is_well", [True, False], ids=["well", "silent"])
def test_who_still_takes_a_large_answer_does_not_idle(
    tmp_path: Path, site: Path, is_well: bool
) -> None:
    """Though all of it has left: it is parked when it has been taken, or is taken no more."""
    size, left = 300_000, [300_000]
    (site / "large.bin").write_bytes(bytes(size))
    inbox, way = parking.pair()
    twins = Twins(site, tmp_path, parker=way.fileno())
    twins.filler.fill(get(b"/large.bin"))
    near, far = pair()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * size)

    def take() -> None:
        while left[0] > 0:
            time.sleep(0.005)
            left[0] -= len(near.recv(20_000))

    taker = threading.Thread(target=take)
    with near, far, inbox, way:
        near.sendall(get(b"/large.bin"))
        if is_well:
            taker.start()
        assert twins.repeater.serve(far.fileno(), b"10.0.0.1", twins.slot.at, 5) is None
        assert (left[0] <= 0) == is_well
        arrival = parking.receive(inbox)
        assert isinstance(arrival, parking.Arrival)
        arrival.sock.close()
        if is_well:
            taker.join()
    twins.close()


# The memory.


def entry(cache, head: bytes, decided: int = 1, path: bytes = b"x") -> bool:  # type: ignore[no-untyped-def]
    return bool(
        cache.put(head, decided, 200, 0, True, b"header", -1, 0, 0, [(path, 1, 2, 3, 4, 5)])
    )


def test_who_reads_can_not_write(table: Table) -> None:
    entry(table.writer, get())
    assert table.reader.decided(get()) == 1
    with pytest.raises(TypeError):
        entry(table.reader, get())
    fd = next(fd for fd, to in procfs.descriptors(os.getpid()).items() if "pyweb-test" in to)
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"x", 0)
    with pytest.raises(PermissionError):
        mmap.mmap(fd, 4096)
    readable = mmap.mmap(fd, 4096, prot=mmap.PROT_READ)
    libc = ctypes.CDLL(None, use_errno=True)
    address = _address_of(readable)
    both = mmap.PROT_READ | mmap.PROT_WRITE
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), both) == -1
    assert ctypes.get_errno() == errno.EACCES
    readable.close()


def _address_of(one: mmap.mmap) -> int:
    from ctypes import POINTER, byref, c_char, c_int, c_ssize_t, c_void_p, cast, pythonapi

    class Buffer(ctypes.Structure):
        _fields_ = [("buf", c_void_p), ("rest", c_ssize_t * 16)]

    view = Buffer()
    pythonapi.PyObject_GetBuffer.argtypes = [ctypes.py_object, c_void_p, c_int]
    pythonapi.PyObject_GetBuffer(one, byref(view), 0)
    address = cast(view.buf, POINTER(c_char))
    pythonapi.PyBuffer_Release(byref(view))
    return ctypes.addressof(address.contents)


def test_the_oldest_gives_way(table: Table) -> None:
    heads = [get(b"/%d" % n) for n in range(6)]
    for number, head in enumerate(heads, 1):
        assert entry(table.writer, head, number)
    assert [table.reader.decided(head) for head in heads] == [0, 0, 3, 4, 5, 6]


def test_an_entry_is_found_again_as_the_same(table: Table) -> None:
    for decided in (5, 6, 7):
        entry(table.writer, get(), decided)
        entry(table.writer, get(b"/other"), decided)
    assert table.reader.decided(get()) == 7
    assert table.reader.decided(get(b"/other")) == 7


@pytest.mark.parametrize("path", [b"x" * 1800, b"a\0b"])
def test_what_has_no_room(table: Table, path: bytes) -> None:
    assert not entry(table.writer, get(), path=path)


def test_an_entry_that_is_being_written_is_not_read(table: Table) -> None:
    """Its writer may have died there; the next one mends it."""
    memory = table.memory
    entry(table.writer, get())
    at = next(a for a in range(0, len(memory), 2048) if memory[a : a + 8] != bytes(8))
    [turn] = struct.unpack_from("=Q", memory, at)
    struct.pack_into("=Q", memory, at, turn + 1)
    assert table.reader.decided(get()) == 0
    entry(table.writer, get(), 9)
    assert table.reader.decided(get()) == 9


@given(st.lists(st.tuples(st.integers(40, 330), st.binary(min_size=1, max_size=8)), max_size=20))
def test_nonsense_in_the_memory_harms_nobody(pokes: list[tuple[int, bytes]]) -> None:
    """Lengths and places beyond the entry: it is none."""
    table = Table(4)
    entry(table.writer, get())
    for at in range(0, len(table.memory), 2048):
        for offset, data in pokes:
            table.memory[at + offset : at + offset + len(data)] = data
    table.reader.decided(get())
    table.close()


# Real servers.


def totals(server: Server) -> dict[str, int]:
    reader = board_of(server)
    return {
        name: reader.get(word) + sum(r.get(w) for r in reader.records())
        for name, word, w in (
            ("requests", scoreboard.ENDED_REQUESTS, REQUESTS),
            ("repeated", scoreboard.ENDED_REPEATED, REPEATED),
        )
    }


def board_of(server: Server) -> scoreboard.Reader:
    fds = procfs.descriptors(server.master)
    [number] = [n for n, to in fds.items() if scoreboard.MEMFD_NAME in to][:1]
    fd = procfs.open_descriptor(server.master, number)
    try:
        return scoreboard.Reader(fd)
    finally:
        os.close(fd)


def repeats(server: Server, target: str = "/hello.txt") -> None:
    """Ask until an answer comes from the cache."""
    before = totals(server)["repeated"]

    def asked() -> bool:
        assert server.ask(target).status == 200
        return totals(server)["repeated"] > before

    until(asked, "an answer that is repeated")


def sending(server: Server) -> list[int]:
    """Pids of processes of whose answer a part has left."""
    records = board_of(server).records()
    return [r.get(scoreboard.PID) for r in records if r.get(scoreboard.SENT) > 1]


def filler(server: Server) -> int:
    found = [pid for pid in children_of(server.master) if name_of(pid) == "pyweb-filler"]
    return found[0] if found else 0


@pytest.mark.parametrize(
    "options",
    [
        (), ("--no-bare",), ("--no-parking",), ("--mode", "prefork"), ("--mode", "thread"),
        ("--mode", "prefork", "--per-client", "4"), ("--mode", "prefork", "--workers", "1"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_a_server_repeats(serve: ServeFixture, options: tuple[str, ...]) -> None:
    server = serve(*options)
    repeats(server)
    with server.connect() as client:
        for _ in range(3):
            assert client.answer_to(get()).body == b"hello, world\n"


# Segments that have come: behind 8 words of 8 bits and 24 of 32 in tcp_info there are four of 64,
# and one of 32 (Linux, include/uapi/linux/tcp.h).
_SEGMENTS_IN = struct.Struct("=140xI")


def segments(server: Server, request: bytes) -> int:
    """How many a client gets, in all."""
    with server.connect() as client:
        client.send(request)
        assert client.answer().body == b"hello, world\n"
        if b"close" in request:
            assert client.is_closed()
        info = client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SEGMENTS_IN.size)
        count: int = _SEGMENTS_IN.unpack(info)[0]
        return count


@pytest.mark.parametrize("mode", ["fork", "prefork"])
def test_the_end_comes_with_the_answer(serve: ServeFixture, mode: str) -> None:
    """In one segment, where the client has asked for the end."""
    server = serve("--mode", mode)
    repeats(server)
    closing = min(segments(server, CLOSING) for _ in range(20))
    assert closing == min(segments(server, get()) for _ in range(20))


@pytest.mark.parametrize("mode", ["fork", "prefork"])
def test_who_sends_more_behind_the_end_gets_his_answer(serve: ServeFixture, mode: str) -> None:
    """Whenever that comes: while the answer is made, sent, logged, closed."""
    server = serve("--mode", mode)
    repeats(server)
    for moment in range(600):
        with server.connect() as client:
            client.send(CLOSING)
            time.sleep(moment % 60 * 2e-6)
            with contextlib.suppress(OSError):
                client.send(b"\r\n")
            assert client.answer().body == b"hello, world\n"


@pytest.mark.parametrize(
    "options",
    [
        ("--cache", "0"), ("--engine", "python"), ("--log-format", "json"),
        ("--timeout-request", "5"), ("--mode", "prefork", "--no-parking"),
        ("--mode", "prefork", "--cache", "0"), ("--mode", "prefork", "--stamps", "100"),
    ],
)  # fmt: skip
def test_a_server_that_does_not(serve: ServeFixture, options: tuple[str, ...]) -> None:
    server = serve(*options)
    for _ in range(3):
        assert server.ask("/hello.txt").status == 200
        time.sleep(0.02)
    until(lambda: totals(server)["requests"] == 3, "three requests")
    assert totals(server)["repeated"] == 0
    assert not filler(server)


MODES = ("fork", "prefork", "thread")


@pytest.mark.parametrize("mode", MODES)
def test_new_files_are_seen_within_a_second(serve: ServeFixture, site: Path, mode: str) -> None:
    """A neighbour, and an index that goes before the one there is."""
    server = serve("--index", "first.html,index.html", "--mode", mode)
    repeats(server, "/with-index/")
    repeats(server, "/hello.txt")
    (site / "hello.txt.gz").write_bytes(b"zipped")
    (site / "with-index" / "first.html").write_bytes(b"the first")
    time.sleep(1)
    assert server.ask("/hello.txt", "Accept-Encoding: gzip").body == b"zipped"
    assert server.ask("/with-index/").body == b"the first"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("changes", "pause"), [(120, 0.006), (15, 0.08)], ids=["read", "kept"])
def test_no_answer_is_stale(
    serve: ServeFixture, site: Path, mode: str, changes: int, pause: float
) -> None:
    """A file that changes all the time: who asks after a change never gets what was before."""
    server = serve("--mode", mode)
    path = site / "hello.txt"
    for number in range(changes):
        beside = site / "beside"
        beside.write_bytes(b"%04d" % number)
        if number % 3:
            beside.replace(path)
        else:
            path.write_bytes(beside.read_bytes())
        for _ in range(3):
            assert server.ask("/hello.txt").body == b"%04d" % number
        time.sleep(pause)
        assert server.ask("/hello.txt").body == b"%04d" % number
    until(lambda: totals(server)["repeated"] > 0, "some that were repeated")


@pytest.mark.parametrize("mode", MODES)
def test_a_filler_that_dies_is_replaced(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode)
    repeats(server)
    first = filler(server)
    os.kill(first, signal.SIGKILL)
    until(lambda: filler(server) not in (0, first), "another filler")
    assert "reason 92: filler" in server.stderr()
    repeats(server, "/sub/one.txt")


@pytest.mark.parametrize("mode", MODES)
def test_a_filler_that_is_stopped_costs_no_answer(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode)
    repeats(server)
    pid = until(lambda: filler(server), "the filler")
    os.kill(pid, signal.SIGSTOP)
    time.sleep(policy.GOOD + 0.1)
    for _ in range(20):
        assert server.ask("/hello.txt").body == b"hello, world\n"
    os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("mode", MODES)
def test_a_slow_client_of_a_large_file(serve: ServeFixture, site: Path, mode: str) -> None:
    """Begun in C, finished in Python, with the connection kept."""
    body = os.urandom(24 << 20)  # more than two sockets hold
    (site / "large").write_bytes(body)
    server = serve("--mode", mode)
    repeats(server, "/large")
    with server.connect() as client:
        client.send(get(b"/large"))
        time.sleep(0.2)
        assert client.answer().body == body
        assert client.answer_to(get()).body == b"hello, world\n"
    lines = server.wait_for_log(3)
    assert sum(f" 200 {len(body)} " in line for line in lines) >= 2


def test_a_child_that_is_killed_while_it_sends(serve: ServeFixture, site: Path) -> None:
    """It began in C; nobody else is harmed, and the master goes on."""
    (site / "large").write_bytes(os.urandom(24 << 20))
    server = serve()
    repeats(server, "/large")
    with server.connect() as client:
        client.send(get(b"/large"))
        os.kill(until(lambda: sending(server), "a child that sends")[0], signal.SIGKILL)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
    assert server.ask("/hello.txt").status == 200


def kept(server: Server) -> tuple[Client, int]:
    """A connection that has been answered in C, and the pid of its child, which is bare."""
    for _ in range(140):  # after those that had to be handed back
        with server.connect() as client:
            assert client.answer_to(get()).status == 200
    client = server.connect()
    assert client.answer_to(get()).status == 200
    until(lambda: len(server.children()) == 1, "the others to end")
    [child] = server.children()
    until(lambda: child in idle(server), "the end of its answer, as its slot has it")
    return client, child


def idle(server: Server) -> list[int]:
    """Pids of processes that wait for a request."""
    records = board_of(server).records()
    return [r.get(scoreboard.PID) for r in records if r.get(STATE) == scoreboard.IDLE]


def test_who_has_no_master_any_more_answers(serve: ServeFixture) -> None:
    """Nobody would take the connection back."""
    server = serve("--no-parking")
    time.sleep(3.1)  # a decision about what is so old lasts (cache.py)
    client, _ = kept(server)
    with client:
        client.send(get())
        os.kill(server.master, signal.SIGKILL)
        assert client.answer().status == 200
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()


def test_a_child_that_is_killed_while_it_idles(serve: ServeFixture) -> None:
    """It had taken nothing: another goes on with its client."""
    server = serve("--no-parking")
    client, child = kept(server)
    with client:
        os.kill(child, signal.SIGKILL)
        assert client.answer_to(get()).status == 200
    assert "reason 87: child" in server.stderr()


def test_who_idles_is_owed_nothing_when_it_ends(serve: ServeFixture) -> None:
    server = serve("--no-parking")
    client, _ = kept(server)
    with client:
        server.process.send_signal(signal.SIGQUIT)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
    assert " 503 " not in server.stdout()


def test_who_idles_has_no_interpreter(serve: ServeFixture) -> None:
    """However long, where nobody holds it meanwhile."""
    server = serve("--no-parking")
    client, child = kept(server)
    with client:
        time.sleep(0.3)  # its first wait is over
        assert name_of(child) == "pyweb-child"
        assert child in idle(server)
        assert client.answer_to(get()).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, END])
def test_who_idles_for_long_hears_signals(serve: ServeFixture, number: int) -> None:
    server = serve("--no-parking")
    client, child = kept(server)
    with client:
        time.sleep(0.3)
        os.kill(child, number)
        with pytest.raises((EOFError, ConnectionResetError)):
            client.answer()
    assert "reason 87" not in server.stderr()


def test_who_idles_for_long_hears_no_others(serve: ServeFixture) -> None:
    """An operator's, for the log: it is the supervisor's."""
    server = serve("--no-parking")
    client, child = kept(server)
    with client:
        time.sleep(0.3)
        os.kill(child, signal.SIGUSR1)
        time.sleep(0.1)
        assert client.answer_to(get()).status == 200
        until(lambda: child in idle(server), "the same child, idle again")


def test_who_idles_while_another_takes_over(serve: ServeFixture) -> None:
    """Its next answer is its last, and says so."""
    server = serve("--no-parking")
    client, child = kept(server)
    with client:
        server.process.send_signal(signal.SIGHUP)
        until(lambda: server.stderr().count("serving ") == 2, "another master")
        time.sleep(0.2)
        assert state_of(child) == "S"
        assert client.answer_to(get())["connection"] == "close"


def test_a_zygote_that_is_killed(serve: ServeFixture) -> None:
    """Another is started, and nobody notices."""
    server = serve()
    repeats(server)
    [first] = zygotes(server)
    os.kill(first, signal.SIGKILL)
    for _ in range(20):
        with server.connect() as client:
            assert client.answer_to(get()).status == 200
    until(lambda: zygotes(server) not in ([], [first]), "another zygote")
    assert "reason 93: zygote" in server.stderr()


def test_a_zygote_that_stands_still(serve: ServeFixture) -> None:
    """It is ended, and who waits for it gets another process."""
    server = serve()
    repeats(server)
    [first] = zygotes(server)
    os.kill(first, signal.SIGSTOP)
    with server.connect() as client:
        assert client.answer_to(get()).status == 200
    assert "reason 93: zygote" in server.stderr()


def test_a_zygote_writes_to_the_log_that_is_opened_anew(
    serve: ServeFixture, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    server = serve("--access-log", str(log))
    repeats(server)
    before = zygotes(server)
    log.rename(tmp_path / "old.log")
    server.process.send_signal(signal.SIGUSR1)
    until(log.exists, "another log")
    until(lambda: zygotes(server) not in ([], before), "another zygote")
    with server.connect() as client:
        assert client.answer_to(get(b"/hello.txt?new")).status == 200
        assert client.answer_to(get()).status == 200
    until(lambda: log.read_text().count("\n") == 2, "its lines")


def zygotes(server: Server) -> list[int]:
    return [pid for pid in children_of(server.master) if name_of(pid) == "pyweb-zygote"]


def test_a_number_of_requests_that_no_connection_has() -> None:
    """From another process, which may have been taken over: C adds to it."""
    near, far = parking.pair()
    a, b = socket.socketpair()
    message, at = parking.idle_message()
    forged = message[:at] + b"\xff" * 8 + message[at + 8 :] + b"127.0.0.1"
    socket.send_fds(near, [forged], [a.fileno()])
    arrival = parking.receive(far)
    assert isinstance(arrival, parking.Arrival)
    assert arrival.past.requests == parking.MOST_REQUESTS
    for one in (near, far, a, b, arrival.sock):
        one.close()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_server_ends_while_others_repeat(serve: ServeFixture, number: int, mode: str) -> None:
    """Of a kept connection: the next answer says close, or the connection ends."""
    server = serve("--mode", mode)
    repeats(server)
    with server.connect() as client:
        assert client.answer_to(get()).status == 200
        server.process.send_signal(number)
        try:
            while True:
                answer = client.answer_to(get())
                if answer.get("connection") == "close":
                    break
        except (EOFError, BrokenPipeError, ConnectionResetError):
            pass
    assert server.process.wait(PATIENCE) in (0, -number)
