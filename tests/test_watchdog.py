"""A process that hangs over a request is ended, and that one alone: its client gets a 504, others
what they get after a crash, the log names everything, and another process takes its place.

The servers run a copy of the package in which some requests hang, each in its own way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, ServeFixture, Server, state_of, until

import pyweb
from pyweb import status
from pyweb.child import STACK
from pyweb.config import MODES
from pyweb.journal import Journal, Sink
from pyweb.keeper import POSSIBLE
from pyweb.scoreboard import SENT, STEP, THREAD, Slot
from pyweb.watchdog import Watchdog

POOLS = [mode for mode in MODES if mode != "fork"]
needs_keeper = pytest.mark.skipif(not POSSIBLE, reason="no compiled extension, or no pidfd")

# More than any request of these tests takes on a loaded machine.
LIMIT = 1.5
HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"
# Of a file of this size the first bytes leave, and then nothing happens any more.
HALF = 7_654_321
BIG = 64 << 20

# Behind route.py, and behind transport.py, of the copy.
HANGS = """
import re, time

def hang_as_asked(self, head, _answer=Router.answer):
    if head.path == b"/spin":
        while True:
            pass
    if head.path == b"/sleep":
        time.sleep(3600)
    if head.path == b"/hold":  # as a C extension does: no other thread runs, no signal is handled
        re.match("(a+)+b", "a" * 60)
    return _answer(self, head)

Router.answer = hang_as_asked
"""
HANGS_HALF_WAY = f"""
import time

def push_half(self, _push=Transport.push):
    body = self._pending[-1][1]
    if self.sent and body and body.count == {HALF}:
        time.sleep(3600)
    return _push(self)

Transport.push = push_half
"""


@pytest.fixture
def hanging(serve: ServeFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServeFixture:
    """As `serve`, with the watchdog and the requests that hang."""
    copy = tmp_path / "lib" / "pyweb"
    shutil.copytree(Path(pyweb.__file__).parent, copy)
    for name, text in (("route.py", HANGS), ("transport.py", HANGS_HALF_WAY)):
        with (copy / name).open("a") as file:
            file.write(text)
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))

    def start(mode: str, *options: str, limit: float = LIMIT) -> Server:
        common = ("--mode", mode, "--workers", "1", "--threads", "3")
        return serve(*common, "--timeout-request", str(limit), *options)

    return start


def get(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: h\r\n\r\n".encode()


def asked(server: Server, target: str) -> Client:
    client = server.connect()
    client.send(get(target))
    return client


def is_at(server: Server, target: str) -> bool:
    """Does somebody serve this?"""
    (facts,) = status.look(server.pid)
    return any(one["request"] == f"GET {target}" for one in facts["processes"])


def death(server: Server) -> str:
    """The line that names it."""
    until(lambda: "by our watchdog" in server.stderr(), "the death to be told")
    (line,) = [one for one in server.stderr().splitlines() if "by our watchdog" in one]
    return line


def hung_pid(server: Server) -> int:
    """Of the one that is said to hang."""
    until(lambda: " hangs for " in server.stderr(), "the watchdog to see it")
    found = re.search(r"(?:child|worker) (\d+), .* hangs for ", server.stderr())
    assert found
    return int(found[1])


@pytest.mark.parametrize("mode", ["fork", *(pytest.param(m, marks=needs_keeper) for m in POOLS)])
@pytest.mark.parametrize("target", ["/spin", "/sleep", "/hold"])
def test_who_hangs_gets_a_504(hanging: ServeFixture, mode: str, target: str) -> None:
    server = hanging(mode)
    with asked(server, target + "?x") as client:
        answer = client.answer()
        assert (answer.status, answer["connection"]) == (504, "close")
        assert answer.get("retry-after") is None
        assert client.is_closed()
    assert server.ask("/hello.txt").status == 200  # another has taken its place
    (line,) = (one for one in server.wait_for_log(2) if f'"GET {target}?x" 504 ' in one)
    assert line.startswith("127.0.0.1 ")
    assert line.endswith(" 91")
    said = re.search(
        r"reason 91: (?:child|worker) (\d+), serving 127\.0\.0\.1 'GET (\S+)\?x', was ended by our"
        r" watchdog after (\S+) s and (\S+) s of CPU \(--timeout-request 1\.5\);"
        r" it used \S+ s of CPU, \d+ MB at most",
        death(server),
    )
    assert said
    pid, what, seconds, cpu = said.groups()
    assert (int(pid), what) == (hung_pid(server), target)
    assert state_of(int(pid)) == ""
    assert float(seconds) >= LIMIT
    if target == "/sleep":
        assert float(cpu) < 0.5
    else:
        assert 0 < float(cpu) <= float(seconds) + 0.1
    # Where Python was, before it was killed.
    told = server.stderr()
    assert told.index(" hangs for ") < told.index("in hang_as_asked") < told.index("our watchdog")
    assert "reason 87" not in told


@pytest.mark.parametrize("mode", ["fork", pytest.param("prefork", marks=needs_keeper)])
def test_the_log_has_the_time(hanging: ServeFixture, mode: str) -> None:
    server = hanging(mode, "--log-format", "json")
    with asked(server, "/sleep") as client:
        assert client.answer().status == 504
    entry = json.loads(server.wait_for_log(1)[0])
    assert (entry["status"], entry["reason"], entry["target"]) == (504, 91, "GET /sleep")
    assert entry["seconds"] >= LIMIT


@pytest.mark.parametrize("mode", MODES)
def test_what_has_begun_is_only_cut(hanging: ServeFixture, site: Path, mode: str) -> None:
    """Never a second status line in the midst of a body."""
    with (site / "half").open("wb") as file:
        file.truncate(HALF)
    server = hanging(mode)
    with asked(server, "/half") as client:
        got = client.rest()
    assert got.startswith(b"HTTP/1.1 200 ")
    assert got.count(b"HTTP/1.1") == 1
    assert "'GET /half', was ended by our watchdog" in death(server)
    if POSSIBLE or mode == "fork":
        line = server.wait_for_log(1)[0]
        assert '"GET /half" 000 ' in line
        assert line.endswith(" 91")
    assert server.ask("/hello.txt").status == 200


def test_other_children_notice_nothing(hanging: ServeFixture) -> None:
    server = hanging("fork", "--no-parking")
    with asked(server, "/spin") as client, asked(server, "/hello.txt") as other:
        assert other.answer().status == 200
        before = set(server.children())
        assert client.answer().status == 504
        gone = {hung_pid(server)}
        until(lambda: set(server.children()) == before - gone, "that one alone to end")
        assert other.answer_to(HELLO).status == 200


def test_other_workers_notice_nothing(hanging: ServeFixture) -> None:
    """And there are as many as before."""
    server = hanging("prefork", "--workers", "3")
    until(lambda: len(server.children()) == 3, "three workers")
    before = set(server.children())
    with asked(server, "/sleep") as client:
        hung = hung_pid(server)
        for _ in range(20):
            assert server.ask("/hello.txt").status == 200
        if POSSIBLE:
            assert client.answer().status == 504
    until(lambda: len(server.children()) == 3 and hung not in server.children(), "a new one")
    assert before - {hung} <= set(server.children())


@needs_keeper
@pytest.mark.parametrize("mode", POOLS)
def test_others_of_its_process(hanging: ServeFixture, mode: str) -> None:
    """As after a crash: 500 to whom an answer was owed, and who idles does not notice."""
    server = hanging(mode, "--threads", "1")
    begun = b"POST /heavy HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nab"
    with server.connect() as idle, server.connect() as owed:
        assert idle.answer_to(HELLO).status == 200
        assert owed.answer_to(HELLO).status == 200
        owed.send(begun)
        assert idle.answer_to(HELLO).status == 200  # the other has been read meanwhile
        time.sleep(0.2)
        with asked(server, "/spin") as client:
            assert client.answer().status == 504
        assert owed.answer().status == 500
        assert idle.answer_to(HELLO).status == 200
    lines = server.wait_for_log(6)
    assert sorted(line.rsplit(" ", 1)[1] for line in lines) == ["0"] * 4 + ["87", "91"]
    assert [line for line in lines if '"POST /heavy" 500 ' in line and line.endswith(" 87")]


@needs_keeper
def test_other_threads_go_on(hanging: ServeFixture) -> None:
    """Until their process is ended; each that hangs is named and gets its 504."""
    server = hanging("thread", "--threads", "3")
    with asked(server, "/sleep?1") as first, asked(server, "/sleep?2") as second:
        assert server.ask("/hello.txt").status == 200
        assert first.answer().status == 504
        assert second.answer().status in (504, 500)  # it began a moment later
    until(lambda: "by our watchdog" in server.stderr(), "the death to be told")
    assert "'GET /sleep?1', was ended by our watchdog" in server.stderr()
    assert server.ask("/hello.txt").status == 200


@pytest.mark.parametrize("mode", MODES)
def test_one_that_is_stopped(hanging: ServeFixture, mode: str) -> None:
    """It can say nothing, and is killed all the same."""
    server = hanging(mode)
    with asked(server, "/sleep") as client:
        until(lambda: is_at(server, "/sleep"), "it to hang")
        (pid,) = server.children()
        os.kill(pid, signal.SIGSTOP)
        if POSSIBLE or mode == "fork":
            assert client.answer().status == 504
        assert hung_pid(server) == pid
    assert "'GET /sleep', was ended by our watchdog" in death(server)
    assert "hang_as_asked" not in server.stderr()
    assert server.ask("/hello.txt").status == 200


@pytest.fixture
def frozen() -> Iterator[Path]:
    """A control group (version 1) in which no signal arrives before it is thawed: as in a system
    call that can't be interrupted. For a process that is thawed before it goes."""
    group = Path(f"/sys/fs/cgroup/freezer/pyweb-test-{os.getpid()}")
    try:
        group.mkdir()
    except OSError:
        pytest.skip("no control group can be made that freezes")
    yield group
    (group / "freezer.state").write_text("THAWED")
    until(lambda: not (group / "cgroup.procs").read_text(), "the group to be empty")
    group.rmdir()


@needs_keeper
def test_one_that_the_system_does_not_let_go(hanging: ServeFixture, frozen: Path) -> None:
    """Another takes its place at once; its client must wait."""
    server = hanging("prefork")
    with asked(server, "/sleep") as client:
        until(lambda: is_at(server, "/sleep"), "it to hang")
        (pid,) = server.children()
        (frozen / "cgroup.procs").write_text(str(pid))
        (frozen / "freezer.state").write_text("FROZEN")
        assert server.ask("/hello.txt").status == 200
        assert pid in server.children()
        assert "by our watchdog" not in server.stderr()
        (frozen / "freezer.state").write_text("THAWED")
        assert client.answer().status == 504
    assert f"worker {pid}, " in death(server)


@needs_keeper
def test_workers_of_one_connection_each(hanging: ServeFixture) -> None:
    """They have keepers for its sake."""
    server = hanging("prefork", "--max-connections-per-child", "1")
    with asked(server, "/sleep") as client:
        assert client.answer().status == 504


@pytest.mark.parametrize("mode", MODES)
def test_while_the_server_stops(hanging: ServeFixture, mode: str) -> None:
    """It need not wait for --grace."""
    server = hanging(mode)
    with asked(server, "/sleep") as client:
        until(lambda: is_at(server, "/sleep"), "it to hang")
        server.process.send_signal(signal.SIGTERM)
        if POSSIBLE or mode == "fork":
            assert client.answer().status == 504
        assert server.process.wait(PATIENCE) == 0
    assert "are cut" not in server.stderr()


# Whom it leaves alone.


@pytest.mark.parametrize("mode", MODES)
def test_slow_clients_live(hanging: ServeFixture, site: Path, mode: str) -> None:
    """A download with pauses, one that nobody takes for a while, an upload piece by piece, a head
    piece by piece: all take longer than --timeout-request, and none is the server's fault."""
    with (site / "big").open("wb") as file:
        file.truncate(BIG)
    server = hanging(mode, limit=1)
    upload = b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\n"
    with (
        asked(server, "/big") as reader,
        asked(server, "/big") as stalled,
        server.connect() as writer,
        server.connect() as beginner,
    ):
        writer.send(upload)
        got = 0
        for at in range(20):
            if at == 10:
                time.sleep(2.5)  # none of them moves
            writer.send(b"x")
            beginner.send(HELLO[at : at + 1])
            got += len(reader.sock.recv(1 << 16))
            time.sleep(0.05)
        assert writer.answer().status == 405
        assert beginner.answer_to(HELLO[20:]).status == 200
        while got < BIG:
            more = len(reader.sock.recv(1 << 20))
            assert more, f"cut after {got} bytes"
            got += more
        assert len(stalled.answer().body) == BIG
    assert "our watchdog" not in server.stderr()
    assert "hangs for" not in server.stderr()


@pytest.mark.parametrize("mode", MODES)
def test_without_the_option_nobody_is_ended(hanging: ServeFixture, mode: str) -> None:
    server = hanging(mode, limit=0)
    with asked(server, "/sleep"):
        until(lambda: is_at(server, "/sleep"), "it to hang")
        before = server.children()
        time.sleep(3)
        assert server.children() == before
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        until(lambda: "reason 87" in server.stderr(), "the death to be told")
        assert "by a signal from elsewhere" in server.stderr()
    assert "hangs for" not in server.stderr()


def test_a_time_below_0_is_refused() -> None:
    command = [sys.executable, "-m", "pyweb", "--timeout-request=-1", "--check-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 2
    assert "timeout-request: '-1' is not a time: seconds" in done.stderr
    assert done.stderr.count("\n") == 1


# What stands in a slot is a child's word.


class Watched:
    """A process whose slot the test writes."""

    def __init__(self, slot: Slot, path: Path) -> None:
        self.slot = slot
        self.path = path
        self.sink = os.open(path, os.O_WRONLY | os.O_CREAT)
        self.process = subprocess.Popen(["sleep", "3600"])
        self.watchdog = Watchdog(0.05, "child", Journal(Sink(self.sink)))

    def look(self) -> None:
        self.watchdog.look([(self.process.pid, [self.slot])])

    def look_for(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.look()
            time.sleep(0.01)

    def lives(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.sink)


@pytest.fixture
def watched(slot: Slot, tmp_path: Path) -> Iterator[Watched]:
    one = Watched(slot, tmp_path / "said")
    yield one
    one.close()


def is_seen(watched: Watched) -> bool:
    watched.look()
    return " hangs for " in watched.path.read_text()


def test_who_takes_no_step_lives(watched: Watched) -> None:
    watched.slot.set(STEP, 2)
    watched.look_for(0.5)
    assert watched.lives()
    assert watched.path.read_text() == ""


def test_bytes_that_leave_are_progress(watched: Watched) -> None:
    """And so is the next step. (Both go on faster than anybody hangs.)"""
    watched.watchdog = Watchdog(1, "child", Journal(Sink(watched.sink)))
    watched.slot.set(STEP, 1)
    for word in (SENT, STEP):
        for count in range(20):
            watched.slot.set(word, 2 * count + 1)
            watched.look_for(0.1)
    assert watched.lives()
    assert watched.path.read_text() == ""


def test_who_goes_on_while_asked_lives(tmp_path: Path, slot: Slot) -> None:
    """Here the process hears the question, and does not die of it."""
    watched = Watched(slot, tmp_path / "said")
    watched.process.kill()
    watched.process.wait()
    code = (
        "import faulthandler as f, sys, time; f.register(int(sys.argv[1])); print(flush=True);"
        " time.sleep(3600)"
    )
    command = [sys.executable, "-c", code, str(int(STACK))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as watched.process:
        try:
            assert watched.process.stdout
            watched.process.stdout.readline()
            slot.set(STEP, 1)
            until(lambda: is_seen(watched), "it to be seen")
            slot.set(STEP, 2)
            watched.look_for(1)
            assert watched.lives()
            assert "has gone on, and lives" in watched.path.read_text()
            slot.set(STEP, 3)  # once more, and for good
            until(lambda: watched.look() or not watched.lives(), "its end")
            assert watched.process.returncode == -signal.SIGKILL
        finally:
            watched.close()


@pytest.mark.parametrize("number", [-(1 << 63), -1, 1, (1 << 63) - 1])
def test_any_number_may_stand_there(watched: Watched, number: int) -> None:
    watched.slot.set(STEP, number | 1)
    watched.slot.set(SENT, number)
    watched.slot.set(THREAD, number)
    until(lambda: watched.look() or not watched.lives(), "its end")


def test_another_process_in_the_same_slot(watched: Watched) -> None:
    """It is not to blame for what its predecessor did."""
    watched.watchdog = Watchdog(2, "child", Journal(Sink(watched.sink)))
    watched.slot.set(STEP, 1)
    watched.look_for(1)
    watched.process.kill()
    watched.process.wait()
    watched.process = subprocess.Popen(["sleep", "3600"])
    since = time.monotonic()
    until(lambda: is_seen(watched), "it to be seen")
    assert time.monotonic() - since >= 2
    assert f"child {watched.process.pid}, " in watched.path.read_text()
