"""Other people's servers beside pyweb: each that is here really runs, answers, logs, is counted and
is gone; and what fails has no figure."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import need, state_of, until
from test_lab_cli import lab

from pyweb.lab import contest, guests, peers, usage
from pyweb.lab.build import Programs
from pyweb.lab.load import Target, ab
from pyweb.lab.peers import BY_NAME, OTHERS, PEERS, Peer, Setting, Start
from pyweb.lab.run import Failed
from pyweb.lab.rungs import NAME, SIZE, Place

COMBINED = re.compile(r'^\S+ - - \[[^]]+\] "GET /page\.txt(?: HTTP/1(?:\.[01])?)?" 200 ')
# Those that the tests need (apt, or pip with the extra `test`); others where they are found.
PROGRAMS = {"apache": "apache2", "nginx": "nginx", "lighttpd": "lighttpd",
            "mini_httpd": "mini_httpd"}  # fmt: skip
COMPILED = ("uwsgi", "bjoern")


@pytest.fixture
def place() -> Iterator[Place]:
    """Where other users may look, too: pytest's directories are the tester's alone."""
    with tempfile.TemporaryDirectory(prefix="pyweb-lab-") as path:
        found = Place(Path(path), Programs(Path(path)))
        found.prepare()
        yield found


def installed(peer: Peer) -> Peer:
    if peer.find() is None:
        if peer.name in PROGRAMS:
            need(PROGRAMS[peer.name])
        assert peer.name in COMPILED, f"{peer.name}: {peer.get}"
        pytest.skip(f"{peer.name}: {peer.get}")
    return peer


@pytest.mark.parametrize("name", [one.name for one in PEERS if not one.name.endswith(" again")])
def test_each_runs(name: str, place: Place) -> None:
    """It answers with the file, logs that in the combined form or what comes nearest to it, works,
    has its memory, and leaves nothing."""
    peer = installed(BY_NAME[name])
    with guests.running(peer, place, 2) as guest:
        family = guest.family()
        done = ask(guest)
        assert done > 0
        assert guest.cpu_seconds() > 0
        # Not every root may look at another user's memory (capabilities(7), CAP_SYS_PTRACE).
        others = [pid for pid in family if owner(pid) not in (os.geteuid(), None)]
        memory = guest.memory()
        assert (memory is None and others) or (memory or 0) > 100_000
        assert str(place.directory) not in guest.command + guest.configuration
        # Some write it when they end, and then its directory goes.
        kept = place.directory / "kept"
        os.link(guest.log, kept)
    lines = [line for line in kept.read_text("utf-8").splitlines() if COMBINED.match(line)]
    assert len(lines) >= 20, kept.read_text("utf-8")[-500:]
    assert [pid for pid in family if state_of(pid) not in ("", "Z")] == []


def owner(pid: int) -> int | None:
    """None: it is gone."""
    try:
        return os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return None


def ask(guest: guests.Guest) -> int:
    need("ab")
    return ab(Target(guest.port, f"/{NAME}", SIZE), requests=20, concurrency=2).requests


def test_bjoern_does_not_wait_for_its_client(place: Place) -> None:
    """Head and file in one segment: the second of two would wait for an acknowledgement."""
    with (
        guests.running(installed(BY_NAME["bjoern"]), place, 2) as guest,
        socket.create_connection(("127.0.0.1", guest.port), 10) as sock,
    ):
        for count in (1, 2, 3):
            sock.sendall(f"GET /{NAME} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            data = b""
            while len(data.partition(b"\r\n\r\n")[2]) < SIZE:
                data += sock.recv(65536)
            assert data_segments(sock) == count


def data_segments(sock: socket.socket) -> int:
    """That have come (linux/tcp.h: tcpi_data_segs_in)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
    return int.from_bytes(info[152:156], sys.byteorder)


def test_granian_is_told_to_kill_who_does_not_end() -> None:
    """A worker that has not started when it is told to end does so only then; it would be waited
    for without an end."""
    setting = Setting(8123, Path("/x"), Path("/s/page.txt"), 3)
    words = BY_NAME["granian"].start("granian", setting).words
    assert words[words.index("--workers-kill-timeout") + 1] == "2"


def test_versions_are_told() -> None:
    for peer in PEERS:
        if peer.find():
            assert re.search(r"\d", guests.version(peer)), peer.name


def test_who_is_missing_is_told() -> None:
    peer = Peer("nobody", "", lambda: None, "apt install nobody", (), lambda *_: Start(()))
    assert peer.missing == "nobody is not installed: apt install nobody"


# It serves in a child, which hears no SIGTERM; the parent waits.
DEAF = r"""
import os, signal, socket, sys
port, file = sys.argv[1:]
content = open(file, "rb").read()
listener = socket.create_server(("127.0.0.1", int(port)))
if os.fork():
    signal.pause()
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    connection.sendall(head + content)
    connection.close()
"""


def test_children_of_one_that_died_are_ended(place: Place) -> None:
    """They are nobody's family by then."""
    peer = planted("deaf", (sys.executable, "-c", DEAF))
    with pytest.raises(RuntimeError), guests.running(peer, place, 2) as guest:
        master, child = guest.family()
        os.kill(master, signal.SIGKILL)
        until(lambda: state_of(master) in ("", "Z"), "the master to end")
        assert state_of(child) not in ("", "Z")
        raise RuntimeError
    until(lambda: state_of(child) in ("", "Z"), "its child to end")


def test_an_interrupt_at_its_start_leaves_nobody(
    place: Place, monkeypatch: pytest.MonkeyPatch, interruptible: None
) -> None:
    """^C that comes when it runs, but nobody has noted it yet."""
    spawn, started = guests._spawn, []

    def interrupted(*arguments: Any) -> Any:
        started.append(spawn(*arguments))
        os.kill(os.getpid(), signal.SIGINT)
        return started[0]

    monkeypatch.setattr(guests, "_spawn", interrupted)
    with pytest.raises(KeyboardInterrupt), guests.running(BY_NAME["http.server"], place, 2):
        pass
    ended = started[0].poll()
    if ended is None:  # or it would outlive the test
        started[0].kill()
        started[0].wait()
    assert ended is not None


def test_other_bytes_are_not_the_file(place: Place) -> None:
    """As many as the file has."""
    code = DEAF.replace(".read()\n", ".read().swapcase()\n")
    peer = planted("liar", (sys.executable, "-c", code))
    with (
        pytest.raises(Failed, match="liar: answers with other bytes than those of the file"),
        guests.running(peer, place, 2),
    ):
        pass


def test_who_only_looks_at_timers_is_at_rest(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """bjoern does, ten times a second: it was waited for as long as anybody is."""
    look, looks = usage.cpu_seconds, []

    def counted(pids: list[int]) -> float:
        looks.append(len(pids))
        assert len(looks) < 300, "it is never at rest"
        return look(pids)

    monkeypatch.setattr(guests, "_RESTLESS", 1e9)
    monkeypatch.setattr(usage, "cpu_seconds", counted)
    with guests.running(installed(BY_NAME["bjoern"]), place, 2):
        assert looks


def test_one_that_does_not_start(place: Place) -> None:
    """Its last words are told."""
    words = (sys.executable, "-c", "raise SystemExit('no such option: --wings')")
    peer = planted("wingless", words)
    with (
        pytest.raises(Failed, match="wingless: did not start: no such option: --wings"),
        guests.running(peer, place, 2),
    ):
        pass


def planted(name: str, words: tuple[str, ...], *, keeps: bool = False) -> Peer:
    def start(_program: str, setting: Setting) -> Start:
        return Start((*words, str(setting.port), str(setting.file)))

    return Peer(name, "", lambda: sys.executable, "", ("--version",), start, keeps=keeps)


# Forks for each connection; the child burns CPU, or the second of two connections gets nothing.
SERVER = r"""
import os, socket, sys, time
kind, port, file = sys.argv[1:]
content = open(file, "rb").read()
listener = socket.create_server(("127.0.0.1", int(port)), backlog=500)
count = 0
while True:
    connection, _ = listener.accept()
    count += 1
    if os.fork() == 0:
        connection.recv(65536)
        end = time.process_time() + (0.005 if kind == "burns" else 0)
        while time.process_time() < end:
            pass
        if kind == "burns" or count % 2:
            head = f"HTTP/1.0 200 OK\r\nContent-Length: {len(content)}\r\n\r\n".encode()
            connection.sendall(head + content)
        os._exit(0)
    connection.close()
    os.waitpid(-1, 0)
"""


def measured(place: Place, peer: Peer) -> dict[str, Any]:
    need("ab")
    found = contest.measure(place, [BY_NAME[peers.FORK], peer], 2, quick=True, tick=lambda _: None)
    rows: dict[str, Any] = found.as_data()["loads"]["ab"]["rows"]
    return rows


def test_cpu_time_is_counted(place: Place) -> None:
    """Of children that are gone."""
    rows = measured(place, planted("burner", (sys.executable, "-c", SERVER, "burns")))
    assert rows["burner"]["cpu_us"][0] >= 5000
    assert rows["burner"]["runs"] == 2
    assert rows["burner"]["failures"] == []
    assert rows[peers.FORK]["ratio"] == [1.0, None, None]


def test_who_fails_has_no_figure(place: Place) -> None:
    rows = measured(place, planted("half", (sys.executable, "-c", SERVER, "fails")))
    row = rows["half"]
    assert (row["rate"], row["ratio"], row["cpu_us"], row["runs"]) == (None, None, None, 0)
    assert len(row["failures"]) == 2
    assert re.search(r"\d", row["failures"][0])


def test_what_an_answer_lacks_is_told() -> None:
    head = b"HTTP/1.0 200 OK\r\ndate: x\r\nLast-Modified: y"
    assert contest.head_notes(head) == ["sends no ETag", "answers with HTTP/1.0"]


def test_configurations_are_filled() -> None:
    """Whatever is a word of ours is replaced, and nothing else is touched."""
    setting = Setting(8123, Path("/x"), Path("/s/page.txt"), 3, "www-data")
    text = BY_NAME["nginx"].start("nginx", setting).configuration
    assert "listen 127.0.0.1:8123 backlog" in text
    assert "worker_processes 3;" in text
    assert "user www-data;" in text
    assert "'$remote_addr - $remote_user" in text
    apache = BY_NAME["apache"].start("apache2", setting).configuration
    assert r'"%h %l %u %t \"%r\" %>s %b' in apache
    assert "Listen 127.0.0.1:8123" in apache
    assert "$" not in apache


def test_the_command(tmp_path: Path) -> None:
    """With one of the others, as a user calls it."""
    need("ab"), need("wrk"), need("nginx")
    path = tmp_path / "peers.json"
    done = lab("peers", "--quick", "--blocks", "2", "--only", "nginx", "--json", str(path))
    assert done.returncode == 0, done.stderr
    assert "requests/s" in done.stdout
    answer = json.loads(path.read_text("utf-8"))
    assert answer["command"] == "peers"
    assert [one["name"] for one in answer["peers"]][-1] == "nginx"
    assert "worker_processes" in answer["peers"][-1]["configuration"]
    for load, reference in (("ab", peers.FORK), ("wrk", peers.PREFORK)):
        found = answer["loads"][load]
        assert found["reference"] == reference
        assert set(found["rows"]) == {"nginx", *(one.name for one in peers.OWN)}
        # Beside other tests, which open connections, runs are void.
        for name, row in found["rows"].items():
            disturbed = [line for line in answer["void"] if line.startswith(f"{name}, {load}: ")]
            assert row["runs"] + len(row["failures"]) + len(disturbed) == 2, name
            assert (row["rate"] is None) == (row["runs"] == 0), name
    assert sum(row["runs"] for row in answer["loads"]["ab"]["rows"].values()) >= 6
    assert len(answer["setting"]) == 4
    for path in (peers.FILES, sys.prefix, tempfile.gettempdir()):
        assert str(path) not in json.dumps(answer["peers"])


def test_an_unknown_server_is_refused() -> None:
    done = lab("peers", "--only", "caddy")
    assert done.returncode == 2
    assert "there is no server caddy; there are" in done.stderr
    assert all(one.name in done.stderr for one in OTHERS)
