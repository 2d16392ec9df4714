"""The article's experiment: its kind of server, the limit that ended it, what is made of runs."""

from __future__ import annotations

import csv
import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import PATIENCE, need
from test_lab_cli import lab

from pyweb.lab import article, guests, limits, peers
from pyweb.lab.article import PROCESSES, Article, AtLimit
from pyweb.lab.build import Programs
from pyweb.lab.load import Run, Target, answer_head
from pyweb.lab.reports import Void
from pyweb.lab.run import Failed
from pyweb.lab.rungs import NAME, SIZE, Place
from pyweb.lab.visitors import BROKEN, REFUSED, SILENT, Visit, visit


@pytest.fixture
def place() -> Iterator[Place]:
    """Where other users may look, too: pytest's directories are the tester's alone."""
    with tempfile.TemporaryDirectory(prefix="pyweb-lab-") as path:
        found = Place(Path(path), Programs(Path(path)))
        found.prepare()
        yield found


def at_limit(place: Place, name: str) -> AtLimit:
    need("prlimit"), need("setpriv")

    def start(name: str, uid: int | None) -> guests.Running:
        return guests.running(peers.BY_NAME[name], place, 2, uid)

    found = Article()
    article._at_the_limit(start, name, found)
    assert found.missing == []
    return found.limit[name]


def test_the_articles_kind_dies_of_the_limit(place: Place) -> None:
    """Errno 11, as in 2009: those who had a process are answered, nobody else."""
    found = at_limit(place, peers.PLAIN)
    assert not found.alive
    assert not found.again
    assert "[Errno 11]" in found.said
    assert 0 < found.ends["200"] <= PROCESSES + 1
    assert sum(found.ends.values()) == 200


@pytest.mark.parametrize("name", [peers.FORK, peers.PREFORK])
def test_pyweb_does_not(place: Place, name: str) -> None:
    found = at_limit(place, name)
    assert (found.ends, found.alive, found.again) == ({"200": 200}, True, True)


def test_the_articles_kind_answers(place: Place) -> None:
    with guests.running(peers.BY_NAME[peers.PLAIN], place, 2) as guest:
        head = answer_head(Target(guest.port, f"/{NAME}", SIZE))
    assert head.startswith(b"HTTP/1.0 200 OK\r\nDate: ")
    assert head.endswith(b"Connection: close")


def test_the_limit_is_lifted() -> None:
    """From us, if we are not root; else of a process that is another's."""
    need("prlimit")
    uid, pid = os.geteuid(), os.getpid()
    before = limits._prlimit(uid, pid, "--output=SOFT", "--noheadings", "--nproc")
    with limits.limited([pid, 2**22 + 1], uid, 500):
        inside = limits._prlimit(uid, pid, "--output=SOFT", "--noheadings", "--nproc")
        assert int(inside) >= 500
        assert int(inside) - 500 <= limits.tasks(uid) + 100
    assert limits._prlimit(uid, pid, "--output=SOFT", "--noheadings", "--nproc") == before


def test_tasks_are_counted() -> None:
    """Threads too."""
    before = limits.tasks(os.geteuid())
    go = threading.Event()
    threads = [threading.Thread(target=go.wait, args=(PATIENCE,)) for _ in range(40)]
    for one in threads:
        one.start()
    try:
        # Others of the same user come and go meanwhile.
        assert limits.tasks(os.geteuid()) >= before + 20
    finally:
        go.set()
        for one in threads:
            one.join()


@contextmanager
def answering(answer: bytes | None) -> Iterator[int]:
    """A server with one answer for everybody; None: it says nothing."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    held = []

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            held.append(connection)
            if answer is not None:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(65536)
                connection.sendall(answer)
                connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield int(listener.getsockname()[1])
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(PATIENCE)
        for one in held:
            one.close()


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 9, "200"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 8, BROKEN),
        (b"HTTP/1.1 503 No\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\n", BROKEN),
        (b"", BROKEN),
        (None, SILENT),
    ],
)
def test_visitors_know_their_end(answer: bytes | None, end: str) -> None:
    with answering(answer) as port:
        assert visit(port, "/", 9, Visit(3, 0.1, 1.0)) == {end: 3}


def test_visitors_who_find_nobody() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert visit(port, "/", 9, Visit(2, 0.0, 1.0)) == {REFUSED: 2}


def run_of(rate: float) -> Run:
    return Run("ab", 1000, 1.0, rate, 0, 1000, 0, {1.0: 0.25}, mean=0.125)


def test_known_runs_as_data() -> None:
    found = Article()
    load = "ab -n 1000 -c 100"
    found.runs[load] = {
        peers.PLAIN: {n: run_of(100 + n) for n in range(8)},
        peers.FORK: {n: run_of(200 + 2 * n) for n in range(8)},
    }
    found.failures[load] = {peers.APACHE: ["requests failed: Failed requests 3 (of 1000)"]}
    found.kept[peers.FORK] = dict.fromkeys(range(8), 100.0)
    found.anew[peers.FORK] = dict.fromkeys(range(7), 300.0)
    found.limit[peers.FORK] = AtLimit({"200": 190, "503": 10}, True, False, "last")
    answer = json.loads(json.dumps(found.as_data(), allow_nan=False))
    rows = answer["loads"][load]["rows"]
    assert rows[peers.FORK]["ratio"] == [2.0, 2.0, 2.0]
    assert rows[peers.FORK]["rate"][0] == 207
    assert rows[peers.PLAIN]["mean_ms"][0] == 125
    assert rows[peers.PLAIN]["max_ms"][0] == 250
    assert rows[peers.APACHE]["rate"] is None
    assert rows[peers.APACHE]["failures"] == ["requests failed: Failed requests 3 (of 1000)"]
    assert answer["pool"]["rows"][peers.FORK]["ratio"] == [3.0, 3.0, 3.0]
    limit = answer["limit"]["rows"][peers.FORK]
    assert (limit["answered"], limit["asked"], limit["alive"], limit["again"]) == (
        190, 200, True, False
    )  # fmt: skip
    assert answer["void"] == []
    assert answer["aa"] is None


def test_what_was_published_is_as_it_was() -> None:
    """As the example site has it, from the article's own text."""
    path = Path(__file__).parent.parent / "example" / "files" / "ab-2009.csv"
    with open(path, encoding="utf-8", newline="") as file:
        known = {row["measure"]: row for row in csv.DictReader(file)}
    for name, column in (("server", "python_fork"), ("apache", "apache_2")):
        said = article.PUBLISHED[name]
        measures = ("throughput", "total mean", "total max")
        expected = [float(known[one][column]) for one in measures]
        assert [said["rate"], said["mean_ms"], said["max_ms"]] == expected
        assert f"-c {known['concurrency'][column]}," in str(said["about"])


def test_a_run_that_fails_is_told_and_the_others_go_on() -> None:
    """And a server that is not there is told once."""

    @contextmanager
    def start(name: str, uid: int | None) -> Iterator[guests.Guest]:
        if name == peers.APACHE or uid is not None:
            raise Failed(f"{name} is not installed: apt install {name}")
        raise Void(f"{name}: 3 failed")
        yield

    found = article.measure(start, 2, quick=True, tick=lambda _: None)  # type: ignore[arg-type]
    assert found.missing[0] == "apache is not installed: apt install apache"
    assert len(found.missing) == 1 + len(article.LIMITED)
    assert found.runs == {}
    assert found.failures["ab -n 1000 -c 100"][peers.FORK] == ["pyweb fork: 3 failed"] * 2
    assert len(found.failures["ab -n 10000 -c 100"][peers.FORK]) == 1


def test_without_ab_it_is_told(tmp_path: Path) -> None:
    done = lab("article", path=str(tmp_path))
    assert done.returncode == 1
    assert "ab is not installed: apt install apache2-utils" in done.stderr
