"""Signals: each does what the README promises, in each mode, and in each order.

Nobody may lose anything over them. A connection that was there before is closed after an answer
that says so; what can't be done leaves all as it was, with a line that says why. What is a race
otherwise happens each time here: processes are stopped until it has.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import (
    PATIENCE,
    Client,
    ServeFixture,
    Server,
    children_of,
    heirs,
    is_gone,
    need,
    state_of,
    until,
)
from test_attacks_processes import cmdline, cpu_seconds, has_a_handler, start
from test_parking import until_parked
from test_supervisor import cannot_connect, is_stopped, large

import pyweb
from pyweb.config import MODES

LONG = os.environ.get("PYWEB_LIFE") == "long"
HELLO = b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"
SIZE = 24 << 20

each_mode = pytest.mark.parametrize("mode", MODES)


# A loaded machine is slow, and nobody is to be sent away for that.
PATIENT = {"timeout_idle": "1h", "timeout_header": "1h", "timeout_queue": "1h"}


class Settings:
    """A configuration file, and the options that name it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options = ("--config", str(path))

    def say(self, generation: str, **more: str | list[str]) -> Settings:
        """Each answer names its generation."""
        table = {"header": [f"X-Life: {generation}"], **PATIENT, **more}
        text = "".join(f"{key.replace('_', '-')} = {json.dumps(v)}\n" for key, v in table.items())
        return self.write(text)

    def write(self, text: str) -> Settings:
        """Another file of that name, for a server must not read half of one."""
        new = self.path.with_suffix(".new")
        new.write_text(text)
        new.rename(self.path)
        return self


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "pyweb.toml").say("one")


def tell(server: Server, number: int, pid: int = 0) -> None:
    """A signal for its supervisor, or for the one that took over."""
    target = pid or server.pid
    assert target > 1
    os.kill(target, number)


def said(server: Server, pattern: str, count: int = 1) -> None:
    until(lambda: len(re.findall(pattern, server.stderr())) >= count, f"{count} of {pattern!r}")


def reload(server: Server, generation: int) -> None:
    tell(server, signal.SIGHUP)
    said(server, f"reloaded: generation {generation} serves")


def upgrade(server: Server) -> int:
    """The pid of the supervisor that took over."""
    before = took_over(server)
    tell(server, signal.SIGUSR2, before[-1] if before else 0)
    until(lambda: took_over(server) != before, "a new supervisor")
    return took_over(server)[-1]


def took_over(server: Server) -> list[int]:
    """Supervisors, one after the other."""
    return [int(pid) for pid in re.findall(r"supervisor (\d+) serves; this", server.stderr())]


def end(server: Server, pid: int) -> None:
    """Of a supervisor that is no child of ours."""
    tell(server, signal.SIGTERM, pid)
    until(lambda: is_gone(pid), "the supervisor to end")


def masters(pid: int) -> list[int]:
    """Of this supervisor, the oldest first."""
    found = []
    for child in children_of(pid):
        with contextlib.suppress(OSError):
            if any(b"pyweb.generation" in word for word in cmdline(child)):
                found.append(child)
    return found


def listens(pid: int, port: int) -> bool:
    """Has it the port's listening socket open?"""
    with contextlib.suppress(OSError):
        rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        sockets = {
            f"socket:[{r[9]}]" for r in rows if r[3] == "0A" and r[1].endswith(f":{port:04X}")
        }
        return any(os.readlink(fd) in sockets for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def until_retired(server: Server, master: int) -> None:
    """It accepts no more, and neither do its workers."""
    until(
        lambda: not any(listens(pid, server.port) for pid in [master, *children_of(master)]),
        "the old ones to stop accepting",
    )


def until_ready(server: Server, mode: str) -> None:
    """Those who serve are there."""
    if mode != "fork":
        until(server.children, "a worker")


def is_silent(client: Client) -> bool:
    """No byte, and no end."""
    return not select.select([client.sock], [], [], 0)[0]


def says_goodbye(client: Client, generation: str) -> None:
    """It is answered by the one it belongs to, is told to close, and closed."""
    answer = client.answer_to(HELLO)
    assert (answer.status, answer["x-life"]) == (200, generation)
    assert answer.get("connection") == "close"
    assert client.is_closed()


def generation_of(server: Server) -> str:
    return server.ask("/hello.txt")["x-life"]


def until_served(server: Server, generation: str) -> None:
    """The old ones may still accept for a moment when the new ones do."""
    until(lambda: generation_of(server) == generation, f"{generation} to be served")


def status(server: Server) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "pyweb", "status", "--json", str(server.pid)]
    run = subprocess.run(command, capture_output=True, check=True, timeout=PATIENCE)
    found: list[dict[str, object]] = json.loads(run.stdout)["servers"]
    return found


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """They do nothing meanwhile, and go on afterwards, also when a test fails."""
    assert all(pid > 1 for pid in pids)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            until(lambda pid=pid: is_stopped(pid), "it to stop")
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


# SIGHUP: new configuration.


@each_mode
def test_a_reload(lively: ServeFixture, settings: Settings, mode: str) -> None:
    """New connections get the new configuration; those of before their next answer, the last."""
    server = lively("--mode", mode, *settings.options)
    old = server.master
    until_ready(server, mode)
    with server.connect() as silent, server.connect() as parked, server.connect() as lingering:
        assert parked.answer_to(HELLO)["x-life"] == "one"
        if mode == "fork":
            until_parked(server, 3)
        assert lingering.answer_to(HELLO)["x-life"] == "one"
        settings.say("two")
        reload(server, 2)
        until_served(server, "two")
        until_retired(server, old)
        assert masters(server.pid)[0] == old
        assert [one["generation"] for one in status(server)] == [1, 2]
        assert all(map(is_silent, (silent, parked, lingering)))
        for client in (lingering, parked, silent):
            says_goodbye(client, "one")
    until(lambda: state_of(old) == "", "the old master to be reaped")
    assert [one["generation"] for one in status(server)] == [2]
    assert server.stop() == 0


def test_a_new_connection_has_time_for_its_first_request(
    lively: ServeFixture, settings: Settings
) -> None:
    """Parked while its master retired it had half a second, as if the server stopped."""
    server = lively(*settings.options)
    old = server.master
    with server.connect() as other:
        assert other.answer_to(HELLO).status == 200
        until_parked(server, 1)  # or the dispatcher would leave
        with stopped(old):
            reload(server, 2)
            with stopped(server.master):  # so it is the old one that accepts
                client = server.connect()
                os.kill(old, signal.SIGCONT)
                until_retired(server, old)
        with client:
            time.sleep(1)
            assert is_silent(client)
            says_goodbye(client, "one")


@each_mode
def test_a_download_goes_on(
    lively: ServeFixture, settings: Settings, site: Path, mode: str
) -> None:
    server = lively("--mode", mode, *settings.options)
    with server.connect() as busy:
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        for generation in range(2, 5):
            reload(server, generation)
            assert server.ask("/hello.txt").status == 200
        assert len(busy.answer().body) == SIZE
        until(lambda: len(masters(server.pid)) <= 2, "those with nobody to leave")
    assert server.stop() == 0


WRONG = {
    "a word": {"colour": "red"},
    "a value": {"workers": "many"},
    "the log": {"access_log": "/nonexistent/log"},
    "an address": {"bind": ["127.0.0.1:0", "unix:SCRATCH/new", "unix:/nonexistent/sock"]},
}


@each_mode
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_configuration(
    lively: ServeFixture, settings: Settings, tmp_path: Path, mode: str, wrong: str
) -> None:
    """A line says so, the old one serves on, and nothing is left of the attempt."""
    server = lively("--mode", mode, *settings.options)
    until_ready(server, mode)
    master, before = server.master, descriptors(server.pid)
    settings.say("two", **WRONG[wrong])
    settings.write(settings.path.read_text().replace("SCRATCH", str(tmp_path)))
    tell(server, signal.SIGHUP)
    said(server, "not reloaded, all is as it was: ")
    assert generation_of(server) == "one"
    assert masters(server.pid) == [master]
    assert descriptors(server.pid) == before
    assert not (tmp_path / "new").exists()
    settings.say("three")
    reload(server, 2)
    until_served(server, "three")


def test_an_address_that_is_taken(lively: ServeFixture, settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "taken"
    server, other = lively(*settings.options), lively("-b", f"unix:{path}")
    before = descriptors(server.pid)
    settings.say("two", bind=["127.0.0.1:0", f"unix:{path}"])
    tell(server, signal.SIGHUP)
    said(server, "not reloaded, all is as it was: .*a server listens there")
    assert descriptors(server.pid) == before
    assert generation_of(server) == "one"
    assert other.ask("/hello.txt").status == 200


@each_mode
def test_a_directory_that_has_vanished(
    lively: ServeFixture, settings: Settings, site: Path, mode: str
) -> None:
    server = lively("--mode", mode, *settings.options)
    until_ready(server, mode)
    settings.say("two")
    site.rename(site.with_name("away"))
    tell(server, signal.SIGHUP)
    said(server, "not reloaded, all is as it was: directory: ")
    assert generation_of(server) == "one"
    site.with_name("away").rename(site)
    reload(server, 2)
    until_served(server, "two")


@each_mode
def test_addresses_come_and_go(
    lively: ServeFixture, settings: Settings, tmp_path: Path, mode: str
) -> None:
    """A port of 0 stays what it became. Who waits at an address that goes is served."""
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"
    settings.say("one", bind=["127.0.0.1:0", f"unix:{old}"])
    server = lively("--mode", mode, *settings.options)
    port = server.port
    until_ready(server, mode)
    with contextlib.ExitStack() as stack:
        old_master = server.master
        with stopped(*children_of(old_master)), stopped(old_master):
            waiting = [stack.enter_context(Client(to_unix(old))) for _ in range(5)]
            for client in waiting:
                client.send(HELLO)
            settings.say("two", bind=["127.0.0.1:0", f"unix:{new}"])
            reload(server, 2)
            assert not old.exists()
            os.kill(old_master, signal.SIGCONT)  # it is to retire before a worker moves
            until(lambda: not listens(old_master, port), "it to retire")
        for client in waiting:
            assert client.answer()["x-life"] == "one"
    with Client(to_unix(new)) as client:
        assert client.answer_to(HELLO)["x-life"] == "two"
    assert server.port == port
    until_served(server, "two")
    assert server.stop() == 0
    assert not new.exists()


@pytest.mark.parametrize("options", [
    ("--mode", "fork", "--max-connections", "1"),
    ("--mode", "prefork", "--workers", "1"),
    ("--mode", "prefork", "--workers", "1", "--max-connections-per-child", "1"),
])  # fmt: skip
def test_many_wait_at_an_address_that_goes(
    lively: ServeFixture, settings: Settings, options: tuple[str, ...]
) -> None:
    """More than the master holds, and who could take them has enough to do: they were reset."""
    settings.say("one", bind=["127.0.0.1:0", "127.0.0.2:0"])
    server = lively(*options, "--no-parking", "--timeout-idle", "3600", *settings.options)
    other = int(server.stdout().split()[1].rsplit(":", 1)[1].strip("/"))
    until_ready(server, options[1])
    with server.connect() as busy, contextlib.ExitStack() as stack:
        busy.send(HELLO)
        assert busy.answer().status == 200
        waiting = []
        for _ in range(150):
            sock = socket.create_connection(("127.0.0.2", other), PATIENCE)
            waiting.append(stack.enter_context(Client(sock)))
            waiting[-1].send(HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        settings.say("two", bind=["127.0.0.1:0"])
        reload(server, 2)
        busy.close()
        for client in waiting:
            assert client.answer()["x-life"] == "one"


def to_unix(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return sock


# SIGHUP: new code.


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of pyweb, of which servers are started."""
    copy = tmp_path / "lib" / "pyweb"
    shutil.copytree(Path(pyweb.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setenv("PYTHONPATH", str(copy.parent))
    return copy


def change(package: Path, name: str, old: str, new: str) -> None:
    """Of another length: what is compiled is known by that and by the second."""
    text = (package / name).read_text()
    assert old in text
    assert len(old) != len(new)
    (package / name).write_text(text.replace(old, new))


def test_a_reload_runs_new_code(lively: ServeFixture, package: Path) -> None:
    server = lively()
    assert [one["version"] for one in status(server)] == [pyweb.__version__]
    change(package, "__init__.py", pyweb.__version__, "0.1.0+new")
    reload(server, 2)
    until(lambda: len(masters(server.pid)) == 1, "the old master to leave")
    assert [one["version"] for one in status(server)] == ["0.1.0+new"]


BROKEN = ('"""Serve until told to stop. Gives the exit code."""', "return 3")


@each_mode
def test_code_that_does_not_serve(lively: ServeFixture, package: Path, mode: str) -> None:
    server = lively("--mode", mode)
    master, before = server.master, descriptors(server.pid)
    change(package, "generation.py", *BROKEN)
    tell(server, signal.SIGHUP)
    said(server, r"not reloaded, all is as it was: master \d+ left with code 3.* before it served")
    assert masters(server.pid) == [master]
    assert descriptors(server.pid) == before
    assert server.ask("/hello.txt").status == 200
    change(package, "generation.py", *reversed(BROKEN))
    reload(server, 3)
    assert server.ask("/hello.txt").status == 200


# Orders that nobody would choose.


@each_mode
def test_all_at_once(lively: ServeFixture, settings: Settings, mode: str) -> None:
    """The end wins."""
    server = lively("--mode", mode, *settings.options)
    until_ready(server, mode)
    family = [*masters(server.pid), *server.children()]
    with stopped(server.pid):
        for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGUSR1, signal.SIGTERM):
            tell(server, number)
    assert server.process.wait(PATIENCE) == 0
    until(lambda: all(map(is_gone, family)), "everybody to be gone")
    assert cannot_connect(server.port)
    assert "all is as it was" not in server.stderr()


@each_mode
def test_the_end_while_one_starts(lively: ServeFixture, mode: str) -> None:
    """A stop that comes while a reload's master starts is no failed reload."""
    server = lively("--mode", mode)
    young = start_one(server)
    with stopped(young):
        tell(server, signal.SIGTERM)
        said(server, "stopping: ")
    assert server.process.wait(PATIENCE) == 0
    until(lambda: is_gone(young), "the young one to end")
    assert "all is as it was" not in server.stderr()


def start_one(server: Server) -> int:
    """A reload's master, before it serves: the interpreter has just begun."""
    before = masters(server.pid)
    tell(server, signal.SIGHUP)
    until(lambda: set(masters(server.pid)) - set(before), "another master")
    (young,) = set(masters(server.pid)) - set(before)
    return young


def a_reload_begun(lively: ServeFixture, settings: Settings, mode: str) -> tuple[Server, int, int]:
    """The server, its master, and the one that is about to serve "two"."""
    server = lively("--mode", mode, *settings.options)
    old = server.master
    settings.say("two")
    return server, old, start_one(server)


def test_a_reload_before_the_first_master_serves(site: Path) -> None:
    process = start(site)
    try:
        (master,) = children_of(process.pid)
        until(lambda: b"-P" in cmdline(master), "it to be another program")
        with stopped(master):
            until(lambda: has_a_handler(process.pid, signal.SIGHUP), "handlers")
            process.send_signal(signal.SIGHUP)
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline().startswith("http://")
        while "reloaded: generation 2 serves" not in process.stderr.readline():
            assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0


@each_mode
def test_a_master_that_dies_while_another_starts(
    lively: ServeFixture, settings: Settings, mode: str
) -> None:
    """The other takes its place; the supervisor waited for that without a pause."""
    server, old, young = a_reload_begun(lively, settings, mode)
    with stopped(young):
        os.kill(old, signal.SIGKILL)
        said(server, f"reason 88: master {old} ")
        before = cpu_seconds(server.pid)
        time.sleep(0.5)
        assert cpu_seconds(server.pid) - before < 0.1
        assert masters(server.pid) == [young]
    said(server, "reloaded: generation 2 serves")
    until_served(server, "two")
    assert masters(server.pid) == [young]


@each_mode
def test_one_that_dies_before_it_serves(
    lively: ServeFixture, settings: Settings, mode: str
) -> None:
    server, old, young = a_reload_begun(lively, settings, mode)
    with stopped(young):
        os.kill(young, signal.SIGKILL)
        said(server, f"not reloaded, all is as it was: master {young} .* before it served")
    assert generation_of(server) == "one"
    assert masters(server.pid) == [old]
    reload(server, 3)
    until_served(server, "two")


@each_mode
def test_both_die(lively: ServeFixture, settings: Settings, mode: str) -> None:
    server = lively("--mode", mode, *settings.options)
    old, young = server.master, start_one(server)
    with stopped(young):
        os.kill(old, signal.SIGKILL)
        said(server, f"reason 88: master {old} ")
        os.kill(young, signal.SIGKILL)
    assert server.ask("/hello.txt").status == 200
    until(lambda: len(masters(server.pid)) == 1, "one that serves")


def test_one_that_is_told_to_leave_and_is_gone_at_once(lively: ServeFixture) -> None:
    """Its last word and its end are heard together; its channel must not be polled after that."""
    server = lively()
    master = server.master
    with stopped(server.pid):
        os.kill(master, signal.SIGTERM)
        until(lambda: state_of(master) == "Z", "it to end")
    until(lambda: masters(server.pid) and masters(server.pid) != [master], "another master")
    assert server.ask("/hello.txt").status == 200
    before = cpu_seconds(server.pid)
    time.sleep(0.5)
    assert cpu_seconds(server.pid) - before < 0.1


@each_mode
def test_retired_ones_with_connections(lively: ServeFixture, settings: Settings, mode: str) -> None:
    """Each of four generations answers whom it accepted; the end is for all of them."""
    server = lively("--mode", mode, *settings.options)
    with contextlib.ExitStack() as stack:
        clients = {}
        for number, name in enumerate(("one", "two", "three", "four"), 1):
            old = server.master
            if number > 1:
                settings.say(name)
                reload(server, number)
                until_retired(server, old)
            clients[name] = [stack.enter_context(server.connect()) for _ in range(2)]
            for client in clients[name]:
                assert client.answer_to(HELLO)["x-life"] == name
        assert len(masters(server.pid)) == 4
        for name in ("two", "one", "three"):
            says_goodbye(clients[name].pop(), name)
        tell(server, signal.SIGTERM)
        for some in clients.values():
            assert all(client.is_closed() for client in some)
    assert server.process.wait(PATIENCE) == 0
    assert server.stderr().count("stopped: ") == 4


@each_mode
def test_ten_reloads_in_a_row(lively: ServeFixture, settings: Settings, mode: str) -> None:
    """The last configuration is served in the end, by one master."""
    server = lively("--mode", mode, *settings.options)
    for number in range(10):
        settings.say(f"number {number}")
        tell(server, signal.SIGHUP)
    until(lambda: generation_of(server) == "number 9", "the last one")
    until(lambda: len(masters(server.pid)) == 1, "the others to leave")


def test_nothing_grows_in_the_supervisor(
    lively: ServeFixture, settings: Settings, tmp_path: Path
) -> None:
    """After 20 reloads and as many reopenings."""
    server = lively("--access-log", str(tmp_path / "log"), *settings.options)
    before = descriptors(server.pid)
    for number in range(20):
        reload(server, number + 2)
        tell(server, signal.SIGUSR1)
        said(server, "the log has been opened anew", number + 1)
    assert server.ask("/hello.txt").status == 200
    until(lambda: len(children_of(server.pid)) == 1, "no zombie, and one master")
    until(lambda: descriptors(server.pid) == before, "as many descriptors as before")


# SIGUSR1.


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def reopen(server: Server, count: int = 1) -> None:
    tell(server, signal.SIGUSR1)
    said(server, "the log has been opened anew", count)


@each_mode
def test_the_log_is_opened_anew(
    lively: ServeFixture, site: Path, tmp_path: Path, mode: str
) -> None:
    """What was being served may be told in the old file, what comes in the new one. In mode
    thread nobody served until the last old connection had ended."""
    log, old = tmp_path / "log", tmp_path / "log.1"
    options = ("--mode", mode, "--workers", "2", "--max-connections", "4")
    server = lively(*options, "--timeout-idle", "1h", "--access-log", str(log))
    until_ready(server, mode)
    before = server.children()
    with server.connect() as busy, server.connect() as idle:
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        assert idle.answer_to(HELLO).status == 200
        until(lambda: len(lines(log)) == 1, "a line")
        log.rename(old)
        reopen(server)
        if mode != "fork":
            until(lambda: not any(listens(p, server.port) for p in before), "them to retire")
        for _ in range(5):
            assert server.ask("/sub/one.txt").status == 200
        until(lambda: len(lines(log)) == 5, "the new lines in the new file")
        assert idle.answer_to(HELLO).status == 200
        assert len(busy.answer().body) == SIZE
    until(lambda: len(lines(log)) + len(lines(old)) == 8, "all lines")
    assert not [one for one in lines(old) if "/sub/one.txt" in one]
    assert server.stop() == 0


@pytest.mark.parametrize("mode", ["prefork", "thread"])
def test_all_workers_again_and_again(lively: ServeFixture, tmp_path: Path, mode: str) -> None:
    """As many as there may be: none was replaced before its connections had ended. When there is
    room for no more, those that are there serve on."""
    options = ("--mode", mode, "--workers", "1", "--max-connections", "1", "--threads", "1")
    server = lively(*options, "--timeout-idle", "1h", "--access-log", str(tmp_path / "log"))
    most = {"prefork": 2, "thread": 16}[mode]
    with contextlib.ExitStack() as stack:
        kept = []
        for number in range(1, most + 1):
            until(lambda n=number: len(server.children()) == n, "a worker that serves")
            kept.append(stack.enter_context(server.connect()))
            assert kept[-1].answer_to(HELLO).status == 200
            before = server.children()
            reopen(server, number)
            if number < most:
                until(lambda b=before: sum(listens(p, server.port) for p in b) == 0, "it to retire")
        said(server, "too many workers retire: the others write on into the old log")
        assert server.ask("/hello.txt").status == 200
        assert all(client.answer_to(HELLO).status == 200 for client in kept)


def test_the_dispatchers_lines(lively: ServeFixture, tmp_path: Path) -> None:
    log, old = tmp_path / "log", tmp_path / "log.1"
    server = lively("--access-log", str(log), "--timeout-header", "2")
    with server.connect() as slow:
        slow.send(HELLO[:20])
        until_parked(server, 1)
        log.rename(old)
        reopen(server)
        assert slow.answer().status == 408
    until(lambda: lines(log), "its line")
    assert " 408 " in lines(log)[0]
    assert lines(old) == []


def test_a_retired_master_keeps_its_own_log(
    lively: ServeFixture, settings: Settings, tmp_path: Path
) -> None:
    """It was given that of the new one, and wrote into it, or its standard output was."""
    first, second = tmp_path / "first", tmp_path / "second"
    settings.say("one", access_log=str(first))
    server = lively(*settings.options)
    old = server.master
    with server.connect() as kept:
        assert kept.answer_to(HELLO).status == 200
        settings.say("two", access_log=str(second))
        reload(server, 2)
        until_retired(server, old)
        reopen(server)
        says_goodbye(kept, "one")
    until(lambda: len(lines(first)) == 2, "its line in its own file")
    until_served(server, "two")
    until(lambda: len(lines(second)) == 1, "the new one's line in the other")


def test_no_file_to_open_anew(lively: ServeFixture) -> None:
    server = lively()
    tell(server, signal.SIGUSR1)
    said(server, "no log was opened anew: --access-log names no file")
    assert server.ask("/hello.txt").status == 200


@each_mode
def test_a_log_that_can_t_be_opened(lively: ServeFixture, tmp_path: Path, mode: str) -> None:
    logs, away = tmp_path / "logs", tmp_path / "away"
    logs.mkdir()
    server = lively("--mode", mode, "--access-log", str(logs / "log"))
    before = descriptors(server.pid)
    logs.rename(away)
    tell(server, signal.SIGUSR1)
    said(server, "the old log is written on: ")
    assert server.ask("/hello.txt").status == 200
    until(lambda: len(lines(away / "log")) == 1, "a line in the old file")
    assert descriptors(server.pid) == before


# SIGUSR2.


@each_mode
def test_an_upgrade(
    lively: ServeFixture, settings: Settings, site: Path, tmp_path: Path, mode: str
) -> None:
    """The old supervisor ends well when its connections have; names and ports stay."""
    path = tmp_path / "sock"
    settings.say("one", bind=["127.0.0.1:0", f"unix:{path}"])
    server = lively("--mode", mode, *settings.options)
    old = server.master
    with server.connect() as busy, server.connect() as kept:
        assert kept.answer_to(HELLO)["x-life"] == "one"
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        settings.say("two", bind=["127.0.0.1:0", f"unix:{path}"])
        young = upgrade(server)
        assert young != server.pid
        until_retired(server, old)
        until_served(server, "two")
        says_goodbye(kept, "one")
        assert len(busy.answer().body) == SIZE
    assert server.process.wait(PATIENCE) == 0
    with Client(to_unix(path)) as client:
        assert client.answer_to(HELLO)["x-life"] == "two"
    again = upgrade(server)
    until(lambda: is_gone(young), "the second one to end")
    until_served(server, "two")
    with Client(to_unix(path)) as client:
        assert client.answer_to(HELLO)["x-life"] == "two"
    end(server, again)
    assert cannot_connect(server.port)
    assert not path.exists()


@each_mode
def test_the_end_after_an_upgrade(lively: ServeFixture, site: Path, mode: str) -> None:
    """Of both: the old one's connections are the server's, and --grace holds for them."""
    server = lively("--mode", mode, "--grace", "1")
    with server.connect() as busy:
        busy.send(large(site))
        assert busy.sock.recv(1, socket.MSG_PEEK)
        young = upgrade(server)
        tell(server, signal.SIGTERM, young)
        assert server.process.wait(PATIENCE) == 0
        until(lambda: is_gone(young), "the new one to end, too")
    assert (
        server.stderr().count(" 1 connections are cut")
        + server.stderr().count(" 1 workers are cut")
        == 1
    )


def test_an_address_that_an_upgrade_takes_away(
    lively: ServeFixture, settings: Settings, tmp_path: Path
) -> None:
    """It stayed open in the new supervisor, and nobody accepted there; its name stayed, too."""
    path = tmp_path / "sock"
    settings.say("one", bind=["127.0.0.1:0", "127.0.0.2:0", f"unix:{path}"])
    server = lively(*settings.options)
    until(lambda: server.stdout().count("\n") == 3, "three addresses")
    port = int(server.stdout().split("\n")[1].rsplit(":", 1)[1].strip("/"))
    settings.say("two", bind=["127.0.0.1:0"])
    upgrade(server)
    assert server.process.wait(PATIENCE) == 0
    until_served(server, "two")
    assert not path.exists()
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.2", port)) != 0


@each_mode
def test_an_upgrade_with_a_wrong_configuration(
    lively: ServeFixture, settings: Settings, tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "sock"
    settings.say("one", bind=["127.0.0.1:0", f"unix:{path}"])
    server = lively("--mode", mode, *settings.options)
    until_ready(server, mode)
    before = descriptors(server.pid)
    settings.say("two", colour="red")
    tell(server, signal.SIGUSR2)
    said(server, "no upgrade: the new supervisor did not serve; this one serves on")
    until(lambda: is_gone(heirs(server)[0]), "the new one to end")
    assert descriptors(server.pid) == before
    assert generation_of(server) == "one"
    with Client(to_unix(path)) as client:
        assert client.answer_to(HELLO)["x-life"] == "one"
    settings.say("two", bind=["127.0.0.1:0", f"unix:{path}"])
    upgrade(server)
    until_served(server, "two")


def test_an_upgrade_to_code_that_does_not_serve(
    lively: ServeFixture, package: Path, tmp_path: Path
) -> None:
    """What failed took the names of unix sockets away, which were the old server's."""
    path = tmp_path / "sock"
    server = lively("-b", "127.0.0.1:0", "-b", f"unix:{path}")
    change(package, "generation.py", *BROKEN)
    tell(server, signal.SIGUSR2)
    said(server, "no upgrade: the new supervisor did not serve; this one serves on")
    until(lambda: is_gone(heirs(server)[0]), "the new one to end")
    with Client(to_unix(path)) as client:
        assert client.answer_to(HELLO).status == 200
    assert server.stop() == 0
    assert not path.exists()


def begin_upgrade(server: Server) -> int:
    """The new supervisor, which has hardly begun."""
    tell(server, signal.SIGUSR2)
    said(server, "is started to take over")
    return heirs(server)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_the_end_during_an_upgrade(lively: ServeFixture, number: signal.Signals) -> None:
    """Whoever was to take over ends, too, and the port is free."""
    server = lively()
    young = begin_upgrade(server)
    with stopped(young):
        tell(server, number)
        assert server.process.wait(PATIENCE) == 0
    until(lambda: is_gone(young), "the new supervisor to end")
    until(lambda: cannot_connect(server.port), "the port to be free")


def test_a_new_supervisor_that_is_killed(lively: ServeFixture, settings: Settings) -> None:
    server = lively(*settings.options)
    young = begin_upgrade(server)
    os.kill(young, signal.SIGKILL)
    said(server, "no upgrade: ")
    assert generation_of(server) == "one"
    assert len(children_of(server.pid)) == 1


def test_a_reload_during_an_upgrade(lively: ServeFixture, settings: Settings) -> None:
    """The new supervisor may have read its configuration already: the word was lost."""
    server = lively(*settings.options)
    young = begin_upgrade(server)
    with stopped(server.pid):
        until(lambda: len(masters(young)) == 1, "its master, so it has read all")
        settings.say("two")
        tell(server, signal.SIGHUP)
    until_served(server, "two")
    assert server.process.wait(PATIENCE) == 0


def test_a_master_that_dies_during_an_upgrade(lively: ServeFixture, settings: Settings) -> None:
    server = lively(*settings.options)
    old, young = server.master, begin_upgrade(server)
    with stopped(young):
        os.kill(old, signal.SIGKILL)
        said(server, f"reason 88: master {old} ")
        assert generation_of(server) == "one"
    said(server, "serves; this one ends")
    assert generation_of(server) == "one"
    assert server.process.wait(PATIENCE) == 0


# SIGTTIN, SIGTTOU.


def until_pool(server: Server, workers: int) -> None:
    said(server, f"the pool is to have {workers} workers")
    until(lambda: len(server.children()) == workers, f"{workers} workers")


def test_the_pool_by_one(lively: ServeFixture, settings: Settings) -> None:
    options = ("--mode", "prefork", "--workers", "2", "--max-connections", "3")
    server = lively(*options, *settings.options)
    until(lambda: len(server.children()) == 2, "two workers")
    tell(server, signal.SIGTTIN)
    until_pool(server, 3)
    tell(server, signal.SIGTTIN)
    said(server, "the pool stays: 4 workers are too many")
    for count in (2, 1):
        tell(server, signal.SIGTTOU)
        said(server, f"the pool is to have {count} workers")
        until(lambda c=count: len(server.children()) == c, "one less")
    tell(server, signal.SIGTTOU)
    said(server, "the pool stays: 0 workers are too few")
    assert server.ask("/hello.txt").status == 200
    os.kill(server.master, signal.SIGKILL)
    said(server, "another is started")
    until(lambda: server.master and len(server.children()) == 1, "as many as before it died")
    reload(server, 3)
    until(lambda: len(masters(server.pid)) == 1, "the old master to leave")
    until(lambda: len(server.children()) == 2, "as many as are configured")


@pytest.mark.parametrize("mode", sorted({*MODES} - {"prefork"}))
def test_no_pool(lively: ServeFixture, mode: str) -> None:
    server = lively("--mode", mode)
    for count, number in enumerate((signal.SIGTTIN, signal.SIGTTOU), 1):
        tell(server, number)
        said(server, f"mode {mode} has no pool that could grow or shrink", count)
    assert server.ask("/hello.txt").status == 200


def test_connections_of_a_worker_that_leaves(lively: ServeFixture, settings: Settings) -> None:
    server = lively("--mode", "prefork", "--workers", "3", *settings.options)
    until(lambda: len(server.children()) == 3, "three workers")
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(server.connect()) for _ in range(12)]
        for client in clients:
            assert client.answer_to(HELLO).status == 200
        for count in (2, 1):
            tell(server, signal.SIGTTOU)
            said(server, f"the pool is to have {count} workers")
        until(lambda: sum(listens(p, server.port) for p in server.children()) == 1, "one to stay")
        assert all(map(is_silent, clients))
        assert all(client.answer_to(HELLO).status == 200 for client in clients)
    until(lambda: len(server.children()) == 1, "the others to leave")


# Signals that mean nothing here, and those that are not for a master.


@each_mode
def test_nothing_comes_of_it(lively: ServeFixture, mode: str) -> None:
    server = lively("--mode", mode)
    until_ready(server, mode)
    master, before = server.master, server.stderr()
    family = [server.pid, master, *children_of(master)]
    with server.connect() as kept:
        assert kept.answer_to(HELLO).status == 200
        for pid in family:
            for number in (signal.SIGWINCH, signal.SIGCHLD, signal.SIGCONT):
                tell(server, number, pid)
        assert kept.answer_to(HELLO).get("connection") is None
    assert server.ask("/hello.txt").status == 200
    assert all(state_of(pid) not in ("", "Z") for pid in family)
    assert server.stderr() == before


@each_mode
@pytest.mark.parametrize("name", ["HUP", "USR1", "USR2", "TTIN", "TTOU"])
def test_those_for_the_supervisor_are_not_for_its_master(
    lively: ServeFixture, mode: str, name: str
) -> None:
    """systemctl kill sends to all of a unit's processes, a terminal to a group: a master died of
    SIGUSR1 and SIGUSR2, and stood still at SIGTTIN."""
    server = lively("--mode", mode)
    until_ready(server, mode)
    master = server.master
    tell(server, signal.Signals[f"SIG{name}"], master)
    assert server.ask("/hello.txt").status == 200
    assert server.master == master
    assert state_of(master) not in ("T", "Z", "")


# As the first process of a container.


@pytest.fixture
def contained(lively: ServeFixture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    """PID 1 of a namespace of its own."""
    if os.getuid() != 0:
        pytest.skip("only root can make a namespace everywhere")
    unshare = [need("unshare"), "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*unshare, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no namespaces here")
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec {" ".join(unshare)} {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return lively()


def init_of(server: Server) -> int:
    """The namespace's first process, as it is called outside."""
    (pid,) = children_of(server.pid)
    return pid


def test_as_pid_1(contained: Server) -> None:
    """It reaps whom nobody else does, upgrades never, and obeys."""
    first = init_of(contained)
    assert b"pyweb" in cmdline(first)
    enter = [need("nsenter"), "-t", str(first), "--pid", "--mount"]
    orphan = "sh -c 'sleep 1000 & echo $!'"
    subprocess.run([*enter, "sh", "-c", orphan], check=True, stdout=subprocess.DEVNULL)
    until(lambda: len(children_of(first)) == 2, "the orphan")
    adopted = next(pid for pid in children_of(first) if pid not in masters(first))
    tell(contained, signal.SIGKILL, adopted)
    until(lambda: len(children_of(first)) == 1, "it to be reaped")
    tell(contained, signal.SIGUSR2, first)
    said(contained, "no upgrade: PID 1 can't leave")
    tell(contained, signal.SIGHUP, first)
    said(contained, "reloaded: generation 2 serves")
    assert contained.ask("/hello.txt").status == 200
    tell(contained, signal.SIGTERM, first)
    assert contained.process.wait(PATIENCE) == 0
    assert "stopped: " in contained.stderr()


# The terminal.


@contextlib.contextmanager
def terminal() -> Iterator[tuple[int, int]]:
    """Its two sides; the first is closed by who makes it go away."""
    ours, theirs = os.openpty()
    try:
        yield ours, theirs
    finally:
        os.close(theirs)
        with contextlib.suppress(OSError):
            os.close(ours)


def in_terminal(serve: ServeFixture, tty: int, *, nohup: bool = False) -> Server:
    def begin() -> None:
        fcntl.ioctl(tty, termios.TIOCSCTTY, 0)
        if nohup:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)

    return serve("--access-log", "off", start_new_session=True, pass_fds=[tty], preexec_fn=begin)


def test_the_terminal_goes_away(lively: ServeFixture) -> None:
    """As long as it is there SIGHUP is a reload."""
    with terminal() as (ours, theirs):
        server = in_terminal(lively, theirs)
        reload(server, 2)
        os.close(ours)
        assert server.process.wait(PATIENCE) == 0
    assert cannot_connect(server.port)


def test_under_nohup(lively: ServeFixture) -> None:
    with terminal() as (ours, theirs):
        server = in_terminal(lively, theirs, nohup=True)
        master = server.master
        os.close(ours)
        tell(server, signal.SIGHUP)
        tell(server, signal.SIGUSR1)  # heard after it
        said(server, "no log was opened anew")
        assert server.ask("/hello.txt").status == 200
        assert server.master == master
        assert "reloaded" not in server.stderr()
        heir = upgrade(server)
        assert server.process.wait(PATIENCE) == 0
        tell(server, signal.SIGHUP, heir)  # it stays ignored there, too
        tell(server, signal.SIGUSR1, heir)
        said(server, "no log was opened anew", 2)
        assert server.ask("/hello.txt").status == 200
        end(server, heir)
