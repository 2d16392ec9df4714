"""`pyweb status` over servers that run: found from outside, shown, and never trusted.

The master is the process that the scoreboard names, whatever stands above it.
"""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import NOBODY, PATIENCE, Client, ServeFixture, Server, until

from pyweb import scoreboard
from pyweb.config import MODES
from pyweb.errors import Reason
from pyweb.statustext import human, span, text_of

Facts = dict[str, Any]

HEAD = b"Host: h\r\n\r\n"


def status(*arguments: str, **popen: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pyweb", "status", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE, check=False, **popen
    )


def facts(server: Server) -> Facts:
    """Of this server among all that run here. Not yet, or no more: empty."""
    run = status("--json")
    found = json.loads(run.stdout)["servers"] if run.returncode == 0 else []
    return next((one for one in found if server.url in one.get("urls", ())), {})


def processes(server: Server) -> list[Facts]:
    found: list[Facts] = facts(server).get("processes", [])
    return found


def total(server: Server, name: str) -> int:
    return int(facts(server)["totals"][name])


def master_of(server: Server) -> int:
    return int(facts(server)["master"]["pid"])


def shown(server: Server) -> str:
    run = status(str(master_of(server)))
    assert (run.returncode, run.stderr) == (0, "")
    return run.stdout


@contextlib.contextmanager
def writing_to(server: Server) -> Iterator[int]:
    """The server's scoreboard, as a descriptor."""
    master = master_of(server)
    (path,) = [
        path
        for path in Path(f"/proc/{master}/fd").iterdir()
        if scoreboard.MEMFD_NAME in os.readlink(path)
    ]
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


@pytest.fixture
def serve(serve: ServeFixture) -> ServeFixture:
    """In mode fork connections keep their process, so that there is one to be shown, and no filler
    is."""

    def start(*options: str, **more: object) -> Server:
        parking = "prefork" in options or "thread" in options or "--parking" in options
        words = [word for word in options if word != "--parking"]
        return serve("--cache", "0", *words, *([] if parking else ["--no-parking"]), **more)

    return start


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# What it shows.


def test_an_idle_server(serve: ServeFixture, mode: str, site: Path) -> None:
    server = serve("--mode", mode, "--workers", "2", "--threads", "3", "--max-connections", "7")
    idle = {"fork": 0, "prefork": 2, "thread": 3}[mode]
    until(lambda: facts(server).get("states") == ({"waiting": idle} if idle else {}), "its workers")
    seen = facts(server)
    assert seen["urls"] == [server.url]
    assert seen["directory"] == str(site)
    assert (seen["mode"], seen["max_connections"], seen["generation"]) == (mode, 7, 1)
    assert server.pid in (seen["supervisor_pid"], seen["master"]["pid"])
    assert all(one["exists"] and one["kind"] == "worker" for one in seen["processes"])
    assert set(seen["totals"].values()) == {0}
    text = shown(server)
    for part in (server.url, f"mode {mode}", f"slots: {idle} of", "_" * idle, f"{site}:"):
        assert part in text


def test_the_master_as_the_kernel_has_it(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode)
    master = facts(server)["master"]
    proc = Path(f"/proc/{master['pid']}")
    assert master["descriptors"] == len(list((proc / "fd").iterdir()))
    assert master["mappings"] == len((proc / "maps").read_text().splitlines())
    rollup = (proc / "smaps_rollup").read_text()
    assert 0 < master["private_bytes"] < master["resident_bytes"]
    assert master["private_pages"] * os.sysconf("SC_PAGESIZE") == master["private_bytes"]
    private = re.search(r"Anonymous: +(\d+)", rollup)
    assert private
    assert abs(int(private[1]) * 1024 - master["private_bytes"]) < 1 << 20  # busy since, perhaps
    assert master["cpu_seconds"] > 0


def test_a_head_that_has_begun(serve: ServeFixture) -> None:
    server = serve()
    with server.connect() as client:
        client.send(b"GET ")
        until(lambda: facts(server)["states"] == {"reading": 1}, "the child to read")
        (one,) = processes(server)
        assert (one["peer"], one["kind"], one["generation"]) == ("127.0.0.1", "child", 1)
        assert one["exists"]
        assert (one["requests"], one["last_request_seconds_ago"]) == (0, None)
        client.send(b"/hello.txt HTTP/1.1\r\n" + HEAD)
        assert client.answer().status == 200
        until(lambda: facts(server)["states"] == {"idle": 1}, "the child to idle")
        (one,) = processes(server)
        assert (one["requests"], one["bytes"], one["request"]) == (1, 13, "")
        assert 0 <= one["last_request_seconds_ago"] <= one["age_seconds"]
        assert re.search(rf"^ *{one['pid']}  child +1  idle +.* 127\.0\.0\.1 ", shown(server), re.M)


def test_an_open_connection_of_a_pool(serve: ServeFixture) -> None:
    server = serve("--mode", "prefork", "--workers", "1")
    with server.connect() as client:
        client.send(b"GET /nothing HTTP/1.1\r\n" + HEAD)
        assert client.answer().status == 404
        until(lambda: facts(server)["states"] == {"waiting": 1}, "the worker to wait")
        (one,) = processes(server)
        assert (one["peer"], one["reason"]) == ("127.0.0.1", Reason.NOT_FOUND)
        assert (one["connections"], one["open_connections"], one["requests"]) == (1, 1, 1)
    until(lambda: processes(server)[0]["open_connections"] == 0, "the connection to end")
    assert total(server, "served_connections") == 1


def stalled(server: Server, site: Path) -> Client:
    """A client that has asked for much and reads nothing."""
    with (site / "large.bin").open("wb") as file:
        file.truncate(24 << 20)
    client = server.connect()
    client.send(b"GET /large.bin?x HTTP/1.1\r\n" + HEAD)
    return client


def test_an_answer_that_nobody_reads(serve: ServeFixture, mode: str, site: Path) -> None:
    server = serve("--mode", mode)
    with stalled(server, site):
        until(lambda: [one for one in processes(server) if one["sending_bytes"] > 1], "bytes")
        busy = [one for one in processes(server) if one["request"]]
        assert [one["request"] for one in busy] == ["GET /large.bin?x"]
        assert busy[0]["peer"] == "127.0.0.1"
        assert busy[0]["state"] == ("answering" if mode == "fork" else "waiting")
        assert busy[0]["bytes"] == 0 < busy[0]["sending_bytes"] < 24 << 20
        assert total(server, "bytes") == busy[0]["sending_bytes"]
        assert "GET /large.bin?x" in shown(server)


def test_a_worker_tells_of_the_connection_at_hand(serve: ServeFixture, site: Path) -> None:
    """One stalls, another is served: peer and request never belong to different ones."""
    server = serve("--mode", "prefork", "--workers", "1")
    with stalled(server, site) as first, server.connect() as second:
        until(lambda: processes(server)[0]["request"], "the first")
        second.send(b"GET /hello.txt HTTP/1.1\r\n" + HEAD)
        assert second.answer().status == 200
        until(lambda: processes(server)[0]["requests"] == 1, "the second to be counted")
        assert processes(server)[0]["request"] == ""
        first.sock.recv(8 << 20)
        until(lambda: processes(server)[0]["request"] == "GET /large.bin?x", "the first again")


def test_parked_connections(serve: ServeFixture) -> None:
    """They are the dispatcher's."""
    server = serve("--parking")
    with server.connect(), server.connect() as idle:
        idle.send(b"GET /hello.txt HTTP/1.1\r\n" + HEAD)
        assert idle.answer().status == 200
        until(lambda: total(server, "parked_connections") == 2, "both to be parked")
        (one,) = processes(server)
        assert (one["kind"], one["state"], one["open_connections"]) == ("dispatcher", "waiting", 2)
        assert one["exists"]
        assert " 2 parked" in shown(server)


def test_what_has_ended_is_counted(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode)
    for _ in range(3):
        assert server.ask("/hello.txt").status == 200
    until(lambda: total(server, "requests") == 3, "the requests")
    until(lambda: total(server, "served_connections") == 3, "the connections")
    assert total(server, "bytes") == 3 * 13
    if mode == "fork":
        until(lambda: processes(server) == [], "the children to be reaped")
        assert total(server, "requests") == 3


def test_after_a_kill(serve: ServeFixture) -> None:
    server = serve()
    with server.connect() as client:
        client.send(b"GET ")
        until(lambda: [one for one in processes(server) if one["pid"]], "a child")
        os.kill(processes(server)[0]["pid"], signal.SIGKILL)
        until(lambda: total(server, "cut") == 1, "the death to be counted")
        assert processes(server) == []
        assert ", 1 cut, " in shown(server)


def test_waiting_and_refused(serve: ServeFixture) -> None:
    server = serve("--max-connections", "1", "--timeout-queue", "1000")
    with server.connect() as first, server.connect():
        until(lambda: total(server, "waiting_connections") == 1, "one to wait")
        assert total(server, "served_connections") == 1
        first.close()
        until(lambda: total(server, "served_connections") == 2, "its turn")
        assert total(server, "waiting_connections") == 0
    other = serve("--per-client", "1")
    with other.connect(), other.connect():
        until(lambda: total(other, "refused_connections") == 1, "one to be refused")


def test_lost_lines(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode, "--access-log", "/dev/full")
    assert server.ask("/hello.txt").status == 200
    until(lambda: total(server, "lost_log_lines") == 1, "the loss to be counted")


# Which servers.


def test_none_is_found(tmp_path: Path) -> None:
    """In a pid namespace of its own no server of another test runs."""
    if os.getuid() != 0:
        pytest.skip("only root can make a namespace everywhere")
    command = ["unshare", "--pid", "--fork", "--mount-proc"]
    run = subprocess.run(
        [*command, sys.executable, "-m", "pyweb", "status"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    if "unshare:" in run.stderr:
        pytest.skip(run.stderr)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "pyweb: no pyweb is running\n"


def test_by_pid(serve: ServeFixture) -> None:
    """The pid that the user knows, and the master's: the same server."""
    server, other = serve(), serve()
    for pid in {server.pid, master_of(server)}:
        run = status("--json", str(pid))
        assert [one["urls"] for one in json.loads(run.stdout)["servers"]] == [[server.url]]
    run = status()
    assert run.stdout.count("\n\npyweb ") >= 1
    assert server.url in run.stdout
    assert other.url in run.stdout


def test_a_pid_that_is_no_server(serve: ServeFixture) -> None:
    run = status(str(os.getpid()))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (
        f"pyweb: process {os.getpid()} is neither the supervisor nor the master of a pyweb\n"
    )
    run = status("4194304")  # the kernel's greatest is one below
    assert (run.returncode, run.stderr) == (1, "pyweb: there is no process 4194304\n")


def test_a_server_that_has_ended(serve: ServeFixture) -> None:
    server = serve()
    pid = master_of(server)
    assert server.stop() == 0
    assert status(str(pid)).returncode == 1
    assert facts(server) == {}


def small_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def test_a_server_without_a_memfd_says_so(serve: ServeFixture) -> None:
    """RLIMIT_FSIZE holds for a memfd, too."""
    server = serve(preexec_fn=small_files)
    assert server.ask("/hello.txt").status == 200
    assert "no memfd here: pyweb status will not find this server" in server.stderr()
    assert facts(server) == {}


def test_of_another_user(serve: ServeFixture, public: Path) -> None:
    """Root's server is not for everybody; a server of theirs is for root."""
    roots = serve(directory=public / "site")
    pid = str(master_of(roots))
    run = status(pid, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == (f"pyweb: process {pid}: Permission denied; ask as its user, or as root\n")
    run = status(user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    assert roots.url not in run.stdout
    assert "Traceback" not in run.stderr
    theirs = serve(
        directory=public / "site", user=NOBODY, group=NOBODY, extra_groups=[], cwd="/"
    )  # fmt: skip
    assert facts(theirs)["urls"] == [theirs.url]


@pytest.mark.parametrize(
    "words", [["x"], ["0"], ["-1"], ["1", "2"], ["--jsn"], ["--json", "--watch"], ["9" * 30]]
)
def test_wrong_words(words: list[str]) -> None:
    run = status(*words)
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"pyweb: .*; see pyweb status --help\n", run.stderr)


def test_help() -> None:
    run = status("--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("usage: pyweb status [PID|FILE]")


def test_a_directory_of_that_name(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "status").mkdir()
    (tmp_path / "status" / "a.txt").write_bytes(b"a")
    server = serve(directory=Path("./status"), cwd=str(tmp_path))
    assert server.ask("/a.txt").status == 200
    run = status("--json", cwd=str(tmp_path))
    assert server.url in run.stdout


# What nobody should believe.


def test_hostile_texts(serve: ServeFixture) -> None:
    """A process may write anything into its slot: the terminal sees none of it."""
    server = serve()
    with server.connect() as client, writing_to(server) as fd:
        client.send(b"G")
        until(lambda: [one for one in processes(server) if one["state"] == "reading"], "a child")
        slot = scoreboard._HEAD_SIZE
        evil = b"\x1b[2J\x07\r\n\xff\xe2\x80\xae" + b"x" * 300
        os.pwrite(fd, b"\xff" + evil[:255], slot + scoreboard.TEXT_AT)
        os.pwrite(fd, b"\xff" + evil[:63], slot + scoreboard.PEER_AT)
        text = shown(server)
        assert "\\x1b[2J\\x07\\r\\n\\xff\\u202exx" in text
        assert "\r" not in text
        assert all(c.isprintable() for c in text.replace("\n", ""))
        (one,) = processes(server)
        assert one["request"].isprintable()


def test_hostile_numbers(serve: ServeFixture) -> None:
    """It is shown, marked where it can be, and the server ends as it should."""
    server = serve()
    with server.connect() as client, writing_to(server) as fd:
        client.send(b"G")
        until(lambda: [one for one in processes(server) if one["state"] == "reading"], "a child")
        pid = processes(server)[0]["pid"]
        words = [(1 << 63) - 1] * 24
        words[scoreboard.PID], words[scoreboard.STATE] = 4194304, -77
        raw = b"".join(word.to_bytes(8, sys.byteorder, signed=True) for word in words)
        os.pwrite(fd, raw, scoreboard._HEAD_SIZE)
        (one,) = processes(server)
        assert (one["pid"], one["exists"], one["state"]) == (4194304, False, "?-77")
        assert one["kind"] == f"?{(1 << 63) - 1}"
        text = shown(server)
        assert " 4194304?  " in "\n " + text.replace("\n", "\n ")
        assert "(a pid with ? is no process that exists)" in text
        os.kill(pid, signal.SIGKILL)
    until(lambda: processes(server) == [], "it to be reaped")
    assert server.ask("/hello.txt").status == 200
    until(lambda: total(server, "served_connections") == 2, "the next")
    assert server.stop() == 0


def test_another_layout(serve: ServeFixture) -> None:
    server = serve()
    pid = master_of(server)
    with writing_to(server) as fd:
        os.pwrite(fd, (9).to_bytes(8, sys.byteorder), scoreboard.VERSION * 8)
        run = status(str(pid))
        assert run.returncode == 0
        assert f"process {pid} has a scoreboard of layout 9, and this pyweb reads 2" in run.stdout


def test_a_stranger_with_the_scoreboard_is_not_its_master(serve: ServeFixture) -> None:
    server = serve()
    with writing_to(server):  # we have it open, too
        run = status(str(os.getpid()))
        assert run.returncode == 1
        found = json.loads(status("--json").stdout)["servers"]
        assert [one["urls"] for one in found].count([server.url]) == 1


# --watch.


@pytest.fixture
def watching() -> Iterator[Callable[..., tuple[subprocess.Popen[bytes], int]]]:
    """watching(server): `status --watch` on a terminal of its own, and the terminal."""
    started: list[tuple[subprocess.Popen[bytes], int]] = []

    def start(server: Server) -> tuple[subprocess.Popen[bytes], int]:
        terminal, theirs = pty.openpty()
        command = [sys.executable, "-m", "pyweb", "status", "--watch", str(master_of(server))]
        env = os.environ | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"}
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=env
        )
        os.close(theirs)
        started.append((process, terminal))
        return process, terminal

    yield start
    for process, terminal in started:
        process.kill()
        process.wait()
        os.close(terminal)


def read_until(terminal: int, wanted: bytes) -> bytes:
    """What the terminal was sent, up to what was waited for."""
    seen, end = b"", time.monotonic() + PATIENCE
    while wanted not in seen:
        assert time.monotonic() < end, seen
        if select.select([terminal], [], [], 0.1)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:  # the other side is closed
                assert wanted in seen, seen
    return seen


def test_watch_on_a_terminal(serve: ServeFixture, watching: Any) -> None:
    pytest.importorskip("rich")
    server = serve()
    process, terminal = watching(server)
    read_until(terminal, server.url.encode())
    assert server.ask("/hello.txt").status == 200
    read_until(terminal, b"requests: 1, 0 of them repeated, 13 sent")
    process.send_signal(signal.SIGINT)
    last = read_until(terminal, b"\x1b[?1049l")  # the screen as it was
    assert process.wait(PATIENCE) == 0
    assert b"Traceback" not in last


def test_watch_ends_with_the_server(serve: ServeFixture, watching: Any) -> None:
    pytest.importorskip("rich")
    server = serve()
    process, terminal = watching(server)
    read_until(terminal, server.url.encode())
    assert server.stop() == 0
    read_until(terminal, b"no server is left to watch")
    assert process.wait(PATIENCE) == 0


def test_watch_into_a_file(serve: ServeFixture, tmp_path: Path) -> None:
    pytest.importorskip("rich")
    server = serve()
    out = tmp_path / "out"
    command = [sys.executable, "-m", "pyweb", "status", "--watch", str(server.pid)]
    with out.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)
    try:
        until(lambda: out.read_text().count(server.url) > 1, "a second text")
        assert server.stop() == 0
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    text = out.read_text()
    assert "\x1b" not in text
    assert "\nnow: 0 connections/s, 0 requests/s, 0/s; the master computes " in text
    assert text.endswith("no server is left to watch\n")


def test_watch_without_rich(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve()
    (tmp_path / "rich.py").write_text("raise ImportError\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    run = status("--watch", str(server.pid), env=os.environ | {"PYTHONPATH": path})
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr == "pyweb: --watch needs rich: pip install 'pyweb[watch]'\n"


def test_nothing_of_it_is_loaded_by_a_server() -> None:
    code = "import sys, pyweb.cli; print({'rich', 'pyweb.status', 'pyweb.watch'} & {*sys.modules})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


# Texts.


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1.0K"), (1536, "1.5K"), (10240, "10K"), (1 << 20, "1.0M"),
        (5 << 30, "5.0G"), ((1 << 63) - 1, "8.0E"), (-2048, "-2.0K"),
    ],
)  # fmt: skip
def test_human(size: int, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0.0s"), (59.99, "59.9s"), (60, "1m00s"), (3599, "59m59s"),
        (3600, "1h00m"), (86399, "23h59m"), (86400, "1d00h"), (-61, "-1m01s"),
    ],
)  # fmt: skip
def test_span(seconds: float | None, text: str) -> None:
    assert span(seconds) == text


def test_many_processes_take_many_lines() -> None:
    one = dict.fromkeys(("pid", "generation", "open_connections", "requests", "bytes"), 1)
    one |= dict.fromkeys(("sending_bytes", "reason"), 0)
    process: Facts = {
        **one, "exists": True, "kind": "child", "state": "idle", "peer": "p", "request": "",
        "age_seconds": 1, "last_request_seconds_ago": None,
    }  # fmt: skip
    server: Facts = {
        "version": "1", "urls": ["u"], "directory": "d", "mode": "fork", "engine": "e",
        "served_by": "by", "limits": "", "protections": "",
        "generation": 1, "uptime_seconds": 1, "supervisor_pid": 5, "slots": 200,
        "states": {"idle": 130}, "processes": [process] * 130,
        "totals": dict.fromkeys(
            ("served_connections", "refused_connections", "cut", "waiting_connections",
             "parked_connections", "requests", "repeated", "bytes", "lost_log_lines"), 0),
        "master": dict.fromkeys(("pid", "mappings", "private_pages", "private_bytes",
                                 "resident_bytes", "descriptors", "cpu_seconds"), 7),
    }  # fmt: skip
    text = text_of(server)
    assert re.findall(r"^  (K+)$", text, re.M) == ["K" * 64, "K" * 64, "KK"]
    assert "\nsupervisor 5, master 7: " in text
