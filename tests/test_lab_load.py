"""The laboratory's loads on real servers: what went wrong is told, and no figure comes of it."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import PATIENCE, ServeFixture, Server, need, state_of, until

from pyweb.lab import guards, load, reports, tools
from pyweb.lab.build import Programs
from pyweb.lab.load import OpenRun, Run, Target
from pyweb.lab.reports import Report, Request, Void

SIZE = 1320
S = 1_000_000_000

AB = """\
Document Path:          /page
Document Length:        1320 bytes

Concurrency Level:      10
Time taken for tests:   0.730 seconds
Complete requests:      300
Failed requests:        0
Total transferred:      480900 bytes
HTML transferred:       396000 bytes
Requests per second:    410.87 [#/sec] (mean)
Time per request:       24.339 [ms] (mean)
Time per request:       2.434 [ms] (mean, across all concurrent requests)
Transfer rate:          643.19 [Kbytes/sec] received

Connection Times (ms)
              min  mean[+/-sd] median   max
Connect:        0    0   0.1      0       1
Processing:     5   24   5.9     24      42
Waiting:        5   23   5.7     22      41
Total:          6   24   5.8     24      42

Percentage of the requests served within a certain time (ms)
  50%     24
  66%     26
  90%     31
  99%     41
 100%     42 (longest request)
"""
AB_KEPT = AB.replace("Failed requests:        0\n", "Failed requests:        0\n"
                     "Keep-Alive requests:    300\n")  # fmt: skip
AB_LENGTHS = AB.replace(
    "Failed requests:        0\n",
    "Failed requests:        20\n   (Connect: 0, Receive: 0, Length: 20, Exceptions: 0)\n",
)
AB_NON_2XX = AB.replace("Failed requests:        0\n", "Failed requests:        0\n"
                        "Non-2xx responses:      100\n")  # fmt: skip

WRK = """\
Running 1s test @ http://127.0.0.1:8931/page
  1 threads and 10 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    23.47ms    5.66ms  42.73ms   71.86%
    Req/Sec   420.91     38.85   460.00     72.73%
  Latency Distribution
     50%  222.00us
     75%   26.90ms
     90%   30.98ms
     99%    1.04s
  462 requests in 1.10s, 723.23KB read
Requests/sec:    418.60
Transfer/sec:    655.29KB
"""
WRK_404 = WRK.replace("Requests/sec", "  Non-2xx or 3xx responses: 417\nRequests/sec")
WRK_BROKEN = WRK.replace(
    "Requests/sec", "  Socket errors: connect 0, read 1808, write 0, timeout 10\nRequests/sec"
)
NO_FAILURES = {"Failed requests": 0, "Non-2xx responses": 0, "Write errors": 0}


# What ab and wrk say.


def test_a_good_report_of_ab() -> None:
    assert reports.parse_ab(AB) == Report(
        requests=300,
        seconds=0.73,
        rate=410.87,
        failures=NO_FAILURES,
        latency={0.5: 0.024, 0.66: 0.026, 0.9: 0.031, 0.99: 0.041, 1.0: 0.042},
        kept=None,
        length=1320,
        body=396000,
        mean=0.024,
    )
    assert reports.parse_ab(AB_KEPT).kept == 300
    guards.check_failures(reports.parse_ab(AB))


def test_a_good_report_of_wrk() -> None:
    assert reports.parse_wrk(WRK) == Report(
        requests=462,
        seconds=1.1,
        rate=418.6,
        failures={},
        latency=pytest.approx({0.5: 222e-6, 0.75: 0.0269, 0.9: 0.03098, 0.99: 1.04}),
        read=723.23 * 1024,
    )
    guards.check_failures(reports.parse_wrk(WRK))


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (reports.parse_ab(AB_LENGTHS), "Failed requests 20, Length 20"),
        (reports.parse_ab(AB_NON_2XX), "Non-2xx responses 100"),
        (reports.parse_ab(AB.replace("Total tr", "Write errors: 3\nTotal tr")), "Write errors 3"),
        (reports.parse_wrk(WRK_404), "Non-2xx or 3xx responses 417"),
        (reports.parse_wrk(WRK_BROKEN), "read 1808, timeout 10"),
    ],
)
def test_failures_make_it_void(report: Report, words: str) -> None:
    with pytest.raises(Void, match=f"requests failed: {words}"):
        guards.check_failures(report)


@pytest.mark.parametrize("cut", ["Complete", "Failed", "Time taken", "HTML", "Document Length"])
def test_half_a_report_is_none(cut: str) -> None:
    lines = [line for line in AB.splitlines() if not line.startswith(cut)]
    with pytest.raises(Void, match="without a whole report"):
        reports.parse_ab("\n".join(lines))


def test_half_a_report_of_wrk_is_none() -> None:
    with pytest.raises(Void, match="unable to connect"):
        reports.parse_wrk("unable to connect to 127.0.0.1:1 Connection refused\n")


# Guards, without a server.


def report_of(**changes: object) -> Report:
    return replace(reports.parse_ab(AB), **changes)  # type: ignore[arg-type]


def test_all_must_be_answered() -> None:
    guards.check_requests(report_of(), 300)
    with pytest.raises(Void, match="300 requests were answered of 301"):
        guards.check_requests(report_of(), 301)


def test_bodies_must_have_their_length() -> None:
    guards.check_bodies(report_of(), 1320, 10)
    guards.check_bodies(report_of(body=396000 + 1320), 1320, 10)
    for broken in (report_of(length=1321), report_of(body=395999), report_of(body=396000 * 2)):
        with pytest.raises(Void, match="bytes"):
            guards.check_bodies(broken, 1320, 10)


def test_what_wrk_has_read_must_be_answers() -> None:
    """723.23 KB are 462 answers of 1603 bytes."""
    report = reports.parse_wrk(WRK)
    guards.check_read(report, 1603, 10)
    for other in (1550, 1650, 283):  # 283: the head alone, as of a 304
        with pytest.raises(Void, match="bytes came"):
            guards.check_read(report, other, 10)


def test_a_connection_for_each() -> None:
    guards.check_opened(300, 300)
    guards.check_opened(310, 300)
    with pytest.raises(Void, match="299 connections were opened for 300"):
        guards.check_opened(299, 300)


def test_connections_must_be_kept() -> None:
    report = report_of(kept=300)
    guards.check_kept(report, opened=10, concurrency=10, stray=5)
    guards.check_kept(report, opened=10 + 3 + 5, concurrency=10, stray=5)
    guards.check_kept(report_of(), opened=10, concurrency=10, stray=5)
    with pytest.raises(Void, match="keep-alive was not used"):
        guards.check_kept(report, opened=10 + 3 + 5 + 1, concurrency=10, stray=5)
    with pytest.raises(Void, match="used for 299 of 300"):
        guards.check_kept(report_of(kept=299), opened=10, concurrency=10, stray=5)


GOOD = Request(S, S + 1000, S + 2000, S + 3000, S + 1_000_000, 200, SIZE)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (GOOD._replace(started=0, status=0, bytes=0), "1 not started"),
        (GOOD._replace(status=0), "1 refused, broken off or out of time"),
        (GOOD._replace(status=404), "1 with a status other than 200"),
        (GOOD._replace(bytes=SIZE + 1), "1 with other than 1320 bytes"),
        (GOOD._replace(bytes=SIZE - 1), "1 with other than 1320 bytes"),
    ],
)
def test_one_bad_request_among_a_thousand(request_: Request, words: str) -> None:
    guards.check_each([GOOD] * 1000, SIZE)
    with pytest.raises(Void, match=rf"requests failed: {words}.*\(of 1000\)"):
        guards.check_each([GOOD] * 999 + [request_], SIZE)


def test_a_generator_that_is_late_shows() -> None:
    guards.check_lateness([GOOD] * 1000)
    late = GOOD._replace(started=S + 500_000)
    guards.check_lateness([GOOD] * 999 + [late])
    with pytest.raises(Void, match="its own lateness"):
        guards.check_lateness([GOOD] * 100 + [late] * 900)
    # And the tail by itself.
    slow = GOOD._replace(started=S + 50_000_000, end=S + 60_000_000)
    with pytest.raises(Void, match="of the latency at 99%"):
        guards.check_lateness([GOOD] * 970 + [slow] * 30)


def test_insist_three_times_at_most() -> None:
    tries: list[int] = []

    def run() -> Run:
        tries.append(1)
        raise Void(f"number {len(tries)}")

    thrown_out: list[str] = []
    with pytest.raises(Void, match="number 3"):
        load.insist(run, thrown_out)
    assert thrown_out == ["number 1", "number 2"]
    assert load.insist(lambda: 7, thrown_out) == 7


def test_what_is_under_way_counts_by_its_bytes() -> None:
    few = replace(reports.parse_wrk(WRK), requests=10, seconds=2.0, rate=5.0, read=12.5 * 1603)
    assert load.with_what_is_under_way(few, 1603, 10).rate == pytest.approx(6.25)
    many = replace(few, requests=10_000, rate=5000.0)
    assert load.with_what_is_under_way(many, 1603, 10) == many


# Loads on servers.


@pytest.fixture
def target(serve: ServeFixture, site: Path) -> Callable[..., Target]:
    """target(*options): a server's page of 1320 bytes."""
    (site / "page").write_bytes(b"x" * SIZE)

    def make(*options: str) -> Target:
        return Target(serve("--access-log", "off", *options).port, "/page", SIZE)

    return make


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("cc")
    return Programs(tmp_path_factory.mktemp("lab")).program("openloop")


LOADS = [load.ab, load.ab_kept, load.wrk, load.wrk_closing]


def tool(work: Callable[..., Run]) -> dict[str, int]:
    """What makes it short; the tool is needed."""
    is_ab = work in (load.ab, load.ab_kept)
    need("ab" if is_ab else "wrk")
    return {"requests": 400} if is_ab else {"seconds": 1}


@pytest.mark.parametrize("work", LOADS, ids=lambda work: work.__name__)
def test_a_good_run(target: Callable[..., Target], work: Callable[..., Run]) -> None:
    options = tool(work)
    if work in (load.ab_kept, load.wrk):
        options["stray"] = 100_000  # other tests open connections too
    run = work(target(), concurrency=8, **options)
    assert run.failed == 0
    assert run.requests == options.get("requests", run.requests)
    assert run.rate == pytest.approx(run.requests / run.seconds, rel=0.05)
    assert run.opened >= (8 if "stray" in options else run.requests)
    assert run.kept in (None, run.requests)
    assert run.latency[0.5] <= run.latency[0.99]


def test_large_answers_have_their_time() -> None:
    assert load.patience(1320, 1000) == 2
    assert load.patience(10**9, 16) == 80


def test_a_run_of_few(serve: ServeFixture, site: Path) -> None:
    """Each client has a part of an answer at the end."""
    need("wrk")
    (site / "large").write_bytes(b"x" * 50_000_000)
    at = Target(serve("--access-log", "off").port, "/large", 50_000_000)
    run = load.wrk(at, concurrency=4, stray=100_000)
    assert run.requests <= run.rate * run.seconds * 1.02 <= (run.requests + 4) * 1.04


@pytest.mark.parametrize("work", [load.ab_kept, load.wrk], ids=lambda work: work.__name__)
def test_keep_alive_that_was_not_used(
    target: Callable[..., Target], work: Callable[..., Run]
) -> None:
    options = tool(work)
    with pytest.raises(Void, match="keep-alive was"):
        work(target("--keepalive-requests", "1"), concurrency=8, **options)


@pytest.mark.parametrize("work", LOADS, ids=lambda work: work.__name__)
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "/none"}, "Non-2xx|404"),
        ({"size": SIZE - 1}, "1320 bytes"),
        ({"port": 1}, "efused"),
    ],
    ids=["404", "size", "refused"],
)
def test_what_is_not_the_answer(
    target: Callable[..., Target], work: Callable[..., Run], change: dict[str, object], words: str
) -> None:
    options = tool(work)
    with pytest.raises(Void, match=words):
        work(replace(target(), **change), **options)  # type: ignore[arg-type]


def open_lines(program: Path, target: Target, *numbers: object) -> list[Request]:
    """What it tells, good or bad."""
    command = [program, target.port, target.path, target.size, *numbers]
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=PATIENCE * 3, check=True
    )
    return list(reports.parse_openloop(done.stdout))


def test_openloop_tells_of_all(target: Callable[..., Target], program: Path) -> None:
    each = open_lines(program, target(), 100, 200, 1)
    guards.check_each(each, SIZE)
    assert len(each) == 200
    for one in each:
        assert one.scheduled <= one.started <= one.connected <= one.first_byte <= one.end
    assert [one.scheduled for one in each] == sorted(one.scheduled for one in each)


def in_time_wait(port: int) -> int:
    """Ends of connections at this port (proc(5), /proc/net/tcp: local address, remote, state)."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]
    ends = [line.split()[1:4] for line in lines]
    return sum(state == "06" and f":{port:04X}" in local + far for local, far, state in ends)


def test_openloop_leaves_nothing_in_time_wait(target: Callable[..., Target], program: Path) -> None:
    """Of which those of seconds end at once, a minute later, in somebody's run."""
    at = target()
    before = in_time_wait(at.port)  # of others, who had this port a minute ago
    guards.check_each(open_lines(program, at, 200, 50, 1), SIZE)
    until(lambda: in_time_wait(at.port) <= before, "no end in TIME-WAIT")
    before = in_time_wait(at.port)
    load.answer_size(at, closing=True)
    until(lambda: in_time_wait(at.port) > before, "the end of who closes as others do")


def test_what_waits_is_counted_and_not_waited_for_for_ever(
    target: Callable[..., Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    load.answer_size(target(), closing=True)
    until(lambda: load.waiting() > 0, "an end in TIME-WAIT")
    monkeypatch.setattr(load, "_FEW_WAITING", 0)
    monkeypatch.setattr(load, "_TIME_WAIT", 0.5)
    load.await_rest()
    assert load.waiting() > 0


def test_it_is_waited_until_few_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's own take a minute."""
    left = [900, 501, 500]
    monkeypatch.setattr(load, "waiting", lambda: left.pop(0))
    load.await_rest()
    assert left == []


def test_a_large_answer_ends_with_its_last_byte(
    serve: ServeFixture, site: Path, program: Path
) -> None:
    (site / "large").write_bytes(b"x" * 3_000_000)
    each = open_lines(program, Target(serve().port, "/large", 3_000_000), 20, 5, 1)
    guards.check_each(each, 3_000_000)
    assert all(one.first_byte < one.end for one in each)


def test_the_schedule(unanswered: int, program: Path) -> None:
    """Nobody need answer for it."""
    target = Target(unanswered, "/", 0)

    def gaps(*numbers: object) -> list[int]:
        each = open_lines(program, target, *numbers)
        return [b.scheduled - a.scheduled for a, b in itertools.pairwise(each)]

    even = gaps(1000, 300, "even")
    assert all(abs(gap - S // 1000) <= 1 for gap in even)
    poisson = gaps(2000, 2000, 7)
    mean = sum(poisson) / len(poisson)
    assert mean == pytest.approx(S / 2000, rel=0.1)
    # Of exponential gaps: 1 - 1/e are below the mean, and exp(-2) above its double.
    assert sum(gap < mean for gap in poisson) / 2000 == pytest.approx(0.632, abs=0.04)
    assert sum(gap > 2 * mean for gap in poisson) / 2000 == pytest.approx(0.135, abs=0.03)
    assert gaps(2000, 50, 7) == poisson[:49]
    assert gaps(2000, 50, 8) != poisson[:49]


@pytest.fixture
def unanswered() -> Iterator[int]:
    """A port that refuses."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]


def test_refused_ones_are_told(unanswered: int, program: Path) -> None:
    target = Target(unanswered, "/page", SIZE)
    each = open_lines(program, target, 500, 50, 1)
    assert len(each) == 50
    assert all((one.status, one.bytes, one.connected) == (0, 0, 0) for one in each)
    assert all(one.end >= one.started > 0 for one in each)
    with pytest.raises(Void, match="50 refused"):
        load.openloop(target, program, rate=500, count=50)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"path": "/none"}, "100 with a status other than 200"),
        ({"size": SIZE + 1}, "100 with other than 1321 bytes"),
        ({"size": SIZE - 1}, "100 with other than 1319 bytes"),
    ],
    ids=["404", "too short", "too long"],
)
def test_other_answers_are_told(
    target: Callable[..., Target], program: Path, change: dict[str, object], words: str
) -> None:
    with pytest.raises(Void, match=words):
        load.openloop(replace(target(), **change), program, rate=200, count=100)  # type: ignore[arg-type]


class Rude(threading.Thread):
    """A server that sends to each who comes `data`, and resets the connection."""

    def __init__(self, data: bytes, count: int) -> None:
        super().__init__()
        self._data = data
        self._count = count
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port = self.listener.getsockname()[1]

    def run(self) -> None:
        with self.listener:
            for _ in range(self._count):
                sock, _ = self.listener.accept()
                sock.recv(65536)
                sock.sendall(self._data)
                # RST, and not FIN (SO_LINGER with 0 s).
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                sock.close()


@pytest.mark.parametrize(
    "data", [b"", b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10], ids=["at once", "in the body"]
)
def test_reset_ones_are_told(program: Path, data: bytes) -> None:
    rude = Rude(data, 20)
    rude.start()
    each = open_lines(program, Target(rude.port, "/page", SIZE), 200, 20, 1)
    rude.join()
    assert [one.status for one in each] == [0] * 20
    with pytest.raises(Void, match="20 refused, broken off"):
        guards.check_each(each, SIZE)


def test_a_broken_head_is_no_status(program: Path) -> None:
    class Odd(Rude):
        def run(self) -> None:
            with self.listener:
                sock, _ = self.listener.accept()
                with sock:
                    sock.recv(65536)
                    sock.sendall(self._data)

    for data in (b"SMTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\n", b"200\r\n\r\n"):
        odd = Odd(data, 1)
        odd.start()
        (one,) = open_lines(program, Target(odd.port, "/", 0), 10, 1, 1)
        odd.join()
        assert one.status == 0


def stopped(pid: int) -> int:
    """It is; since when, at the latest."""
    os.kill(pid, signal.SIGSTOP)
    until(lambda: state_of(pid) == "T", "it to stop")
    return time.monotonic_ns()


def test_a_pause_of_the_server_is_felt_by_all_who_came_in_it(
    serve: ServeFixture, site: Path, program: Path
) -> None:
    """No coordinated omission: a closed loop's client would have been there once, waiting."""
    (site / "page").write_bytes(b"x" * SIZE)
    server = serve("--access-log", "off")
    each, begin, end = paused(server, program)
    guards.check_each(each, SIZE)
    within = [one for one in each if begin <= one.scheduled <= end]
    expected = (end - begin) / S * 100
    assert 0.5 * expected <= len(within) <= 1.5 * expected
    assert all(one.end > end for one in within)
    waits = [one.end - one.scheduled for one in within]
    assert sum(wait > S // 2 for wait in waits) >= len(waits) / 3
    run = load.open_run(each, 300)
    # A second of three: two thirds of those who came in it are more than a fifth of all.
    assert run.latency[0.9] > 0.3


def paused(server: Server, program: Path) -> tuple[list[Request], int, int]:
    """Three seconds, and the master stands still for one of them; when that was, at least."""
    master = server.master
    command = [program, server.port, "/page", SIZE, 100, 300, 5]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as loading:
        time.sleep(1)
        try:
            begin = stopped(master)
            time.sleep(1)
            end = time.monotonic_ns()
        finally:
            os.kill(master, signal.SIGCONT)
        text, _ = loading.communicate(timeout=PATIENCE * 2)
    return list(reports.parse_openloop(text)), begin, end


def test_our_own_pause_is_told(target: Callable[..., Target], program: Path) -> None:
    """Its latencies count from the schedule all the same, and the run is void."""
    there = target()
    command = [program, there.port, there.path, SIZE, 100, 200, 5]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as loading:
        time.sleep(0.7)
        begin = stopped(loading.pid)
        time.sleep(0.7)
        end = time.monotonic_ns()
        loading.send_signal(signal.SIGCONT)
        text, _ = loading.communicate(timeout=PATIENCE * 2)
    each = reports.parse_openloop(text)
    guards.check_each(each, SIZE)
    within = [one for one in each if begin <= one.scheduled <= end]
    assert len(within) > 30
    assert all(one.started >= end for one in within)
    run = load.open_run(each, 200)
    assert run.latest > 0.5
    assert run.latency[0.9] > 0.3  # of a third of all, who came in 0.7 s
    with pytest.raises(Void, match="its own lateness"):
        guards.check_lateness(each)


def test_no_more_than_so_many_are_open(serve: ServeFixture, site: Path, program: Path) -> None:
    (site / "page").write_bytes(b"x" * SIZE)
    server = serve("--access-log", "off")
    master = server.master
    stopped(master)
    command = [program, server.port, "/page", SIZE, 1000, 100, 5, 30]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as loading:
        time.sleep(1.5)  # all of the schedule
        os.kill(master, signal.SIGCONT)
        text, _ = loading.communicate(timeout=PATIENCE * 2)
    each = reports.parse_openloop(text)
    assert [one.status for one in each] == [200] * 30 + [0] * 70
    assert {one.started for one in each[30:]} == {0}
    with pytest.raises(Void, match="70 not started"):
        guards.check_each(each, SIZE)


def test_saturation_and_a_share_of_it(target: Callable[..., Target], program: Path) -> None:
    need("wrk")
    there = target()
    saturated = load.saturation(there, seconds=1, concurrency=8)
    with pytest.raises(ValueError, match=r"not 1\.5"):
        load.latency_at(1.5, saturated, there, program)

    def half() -> OpenRun:
        return load.latency_at(0.3, saturated, there, program, seconds=1)

    try:
        run = load.insist(half, [])
    except Void as why:  # on a machine that is busy with other tests
        assert "own lateness" in str(why)  # noqa: PT017
        return
    assert run.requests == round(0.3 * saturated.rate)
    assert 0 < run.latency[0.5] <= run.latency[0.99]
    assert 0 <= run.late <= run.latest


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "usage"),
        (["80", "page", "1", "1", "1", "1"], "PATH"),
        (["80", "/a b", "1", "1", "1", "1"], "PATH"),
        (["70000", "/", "1", "1", "1", "1"], "PORT"),
        (["80", "/", "-1", "1", "1", "1"], "BYTES"),
        (["80", "/", "1", "fast", "1", "1"], "RATE"),
        (["80", "/", "1", "1", "0", "1"], "COUNT"),
        (["80", "/", "1", "1", "1", "odd"], "SEED"),
        (["80", "/", "1", "1", "1", "1", "0"], "MOST_OPEN"),
        (["80", "/", "1", "0.001", "1000", "1"], "more than an hour"),
    ],
)
def test_what_it_does_not_understand(program: Path, arguments: list[str], words: str) -> None:
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert words in done.stderr
    assert done.stderr.count("\n") == 1


# Tools.


def test_what_is_missing_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    lines = tools.missing(["ab", "wrk", "cc", "numpy"])
    assert len(lines) == 3
    assert lines[0].startswith("ab is not installed: apt install apache2-utils (what can't be")
    assert all("\n" not in line for line in lines)
    with pytest.raises(load.Missing, match="wrk is not installed: apt install wrk"):
        load.wrk_closing(Target(1, "/", 0))


def test_what_is_there_is_not_missing() -> None:
    need("ab")
    assert tools.missing(["ab", "numpy"]) == []
