"""The ladder's rungs and the client that times them: each does the same work, stamps it right,
and leaves nothing behind. How fast they are is not tested here."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Answer, Client, Server, children_of, is_gone, need, until

import pyweb
from pyweb import stamps
from pyweb.clock import http_date
from pyweb.lab.build import CannotBuild, Programs
from pyweb.lab.toy import FORKS, RUNGS

MODES = ("close", "serve", "fork-exit", "fork-serve")
SILENT = ("close", "fork-exit")
SERVING = [name for name in (*MODES, *RUNGS) if name not in SILENT]
FORKING = [name for name in (*MODES, *RUNGS) if name not in ("close", "serve")]
# One segment; no byte; more than a socket takes at once.
BODIES = {"small.txt": b"hello\n" * 220, "empty.txt": b"", "large.txt": bytes(range(256)) * 40_000}

PARENT = [
    stamps.AWAKE, stamps.ACCEPTED, stamps.FORK_BEGIN, stamps.FORK_END, stamps.WAITS,
    stamps.NOTICED, stamps.REAPED,
]  # fmt: skip
CHILD = [stamps.FORK_BEGIN, stamps.CHILD]
WORK = [
    stamps.FIRST_BYTE, stamps.PARSED, stamps.OPENED, stamps.DECIDED, stamps.HEADER_SENT,
    stamps.BODY_SENT,
]  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    need("cc")
    return Programs(tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="module")
def extension(programs: Programs) -> Path:
    """Without Python.h: skipped here, failed under CI."""
    try:
        return programs.extension("rung")
    except CannotBuild as error:
        if os.environ.get("CI") or "Python.h" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    for name, body in BODIES.items():
        (root / name).write_bytes(body)
    return root


@pytest.fixture(scope="module")
def real(pages: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """What pyweb says, by file."""
    server = Server(pages, tmp_path_factory.mktemp("real"))
    try:
        return {name: server.ask(f"/{name}") for name in BODIES}
    finally:
        server.stop()


def python(*words: str) -> tuple[list[str], dict[str, str]]:
    """Command and environment of an interpreter that finds pyweb and nothing else."""
    environment = {**os.environ, "PYTHONPATH": str(Path(pyweb.__file__).parent.parent)}
    return [sys.executable, "-S", *words], environment


class Rung:
    """A running one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout
        line = process.stdout.readline()
        assert line, process.communicate()[1]
        self.port = int(line)

    @property
    def pid(self) -> int:
        return self.process.pid

    def connect(self) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def ask(self, target: str) -> Answer:
        with self.connect() as client:
            answer = client.answer_to(request(target))
            assert client.is_closed()
            return answer

    def stop(self) -> int:
        """Its exit code. It has nothing to say."""
        if self.process.poll() is None:
            self.process.terminate()
        _, err = self.process.communicate(timeout=PATIENCE)
        assert err == ""
        return self.process.returncode


def request(target: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: test\r\n\r\n".encode()


Start = Callable[..., Rung]


@pytest.fixture
def command(programs: Programs, request: pytest.FixtureRequest) -> Callable[..., list[str]]:
    """Of a rung: a mode of the C server, or a toy."""

    def of(name: str, *words: str) -> list[str]:
        if name in MODES:
            return [str(programs.program("server")), name, *words]
        extension = request.getfixturevalue("extension")
        path, file, *memory = words
        return python("-m", "pyweb.lab.toy", name, path, file, str(extension), *memory)[0]

    return of


@pytest.fixture
def start(command: Callable[..., list[str]], pages: Path) -> Iterator[Start]:
    """start(name, file, memory): a rung, stopped at the end."""
    started: list[Rung] = []

    def begin(name: str, file: str = "small.txt", memory: int = -1) -> Rung:
        words = [f"/{file}", str(pages / file), *([str(memory)] if memory >= 0 else [])]
        process = subprocess.Popen(
            command(name, *words),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=python()[1],
            pass_fds=[memory] if memory >= 0 else [],
            text=True,
        )
        started.append(Rung(process))
        return started[-1]

    yield begin
    for rung in started:
        assert rung.stop() == 0


@pytest.fixture
def memory() -> Iterator[int]:
    """Room for two records."""
    fd = os.memfd_create("test-stamps")
    os.ftruncate(fd, stamps.SIZE * 3)
    yield fd
    os.close(fd)


def run_client(programs: Programs, *words: object) -> subprocess.CompletedProcess[str]:
    command = [str(programs.program("client")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)


# What is answered.


@pytest.mark.parametrize("name", SERVING)
def test_answers_as_pyweb_does(name: str, start: Start, real: dict[str, Answer]) -> None:
    for file, body in BODIES.items():
        answer, expected = start(name, file).ask(f"/{file}"), real[file]
        assert (answer.status, answer.body) == (200, body)
        assert without_date(answer) == without_date(expected)
        assert [field for field, _ in answer.fields] == [field for field, _ in expected.fields]
        assert len(answer.raw) == len(expected.raw)


def without_date(answer: Answer) -> list[tuple[str, str]]:
    return [pair for pair in answer.fields if pair[0] != "Date"]


@pytest.mark.parametrize("name", SERVING)
def test_what_is_not_asked_for_rightly(name: str, start: Start) -> None:
    rung = start(name)
    for target in ("/other", "/smell.txt", "/small.txt2", "/small.tx", "/small.txt HTTP/1.1 x"):
        assert rung.ask(target).status == 404
    for head in (b"\r\n\r\n", b"GET\r\n\r\n", b"PUT /small.txt HTTP/1.1\r\n\r\n"):
        with rung.connect() as client:
            assert client.answer_to(head).status == 404
    with rung.connect() as client:  # says nothing
        client.sock.shutdown(socket.SHUT_WR)
        assert client.is_closed()
    assert rung.ask("/small.txt").status == 200


@pytest.mark.parametrize("name", SERVING)
def test_a_head_in_pieces(name: str, start: Start) -> None:
    whole = request("/small.txt")
    with start(name).connect() as client:
        for at in range(0, len(whole), 16):
            client.send(whole[at : at + 16])
            time.sleep(0.01)
        assert client.answer().status == 200


@pytest.mark.parametrize("name", ["serve", "fork-serve"])
def test_a_file_that_is_gone(name: str, start: Start, pages: Path) -> None:
    (pages / "gone.txt").write_bytes(b"x")
    rung = start(name, "gone.txt")
    (pages / "gone.txt").unlink()
    assert rung.ask("/gone.txt").status == 404


def test_dates(start: Start, pages: Path) -> None:
    """path.h reckons them itself."""
    (pages / "dated.txt").write_bytes(b"x")
    rung = start("serve", "dated.txt")
    leap_days = [68169600, 951782400, 1709164800]
    odd = [0, 1, 86399, 86400, *(day + by for day in leap_days for by in (-1, 0, 86399, 86400))]
    for seconds in [*odd, *range(0, int(time.time()), 86400 * 37 + 12345)]:
        os.utime(pages / "dated.txt", (seconds, seconds))
        answer = rung.ask("/dated.txt")
        assert answer["Last-Modified"] == http_date(seconds).decode()
        assert answer["ETag"] == f'"{seconds * 10**9:x}-1"'
    os.utime(pages / "dated.txt", (1 << 33, 1 << 33))
    future = rung.ask("/dated.txt")
    assert future["Last-Modified"] == future["Date"]


def test_linked_statically(programs: Programs, pages: Path) -> None:
    server = [str(programs.program("server", static=True)), "fork-serve", "/small.txt"]
    process = subprocess.Popen(
        [*server, str(pages / "small.txt")],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    rung = Rung(process)
    try:
        assert rung.ask("/small.txt").body == BODIES["small.txt"]
    finally:
        assert rung.stop() == 0


# Life and end.


@pytest.mark.parametrize("name", [*MODES, *RUNGS])
def test_two_hundred_connections_timed(name: str, start: Start, programs: Programs) -> None:
    rung = start(name)
    size = len(BODIES["small.txt"])
    silent = ["silent"] if name in SILENT else []
    done = run_client(programs, rung.port, "/small.txt", 180, 20, size, *silent)
    assert (done.returncode, done.stderr) == (0, "")
    rows = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert len(rows) == 180
    assert all(len(row) == 5 and row == sorted(row) for row in rows)
    assert all(before[-1] <= after[0] for before, after in itertools.pairwise(rows))
    assert all((row[1] == row[2]) == bool(silent) for row in rows)
    until(lambda: not children_of(rung.pid), "all to be reaped")
    assert rung.stop() == 0


@pytest.mark.parametrize("name", [name for name in FORKING if name in SERVING])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_after_its_children(name: str, number: int, start: Start) -> None:
    rung = start(name)
    with rung.connect() as client:
        until(lambda: children_of(rung.pid), "a child")
        (child,) = children_of(rung.pid)
        rung.process.send_signal(number)
        until(lambda: not can_connect(rung.port), "the listener to be closed")
        time.sleep(0.3)  # who would not wait would be gone by now
        assert rung.process.poll() is None
        assert client.answer_to(request("/small.txt")).body == BODIES["small.txt"]
    assert rung.process.wait(PATIENCE) == 0
    assert is_gone(child)


def can_connect(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("name", ["serve", "c-loop", "os-fork"])
def test_it_ends_with_who_started_it(
    name: str, command: Callable[..., list[str]], pages: Path
) -> None:
    """Though that had no time to say so."""
    words = command(name, "/small.txt", str(pages / "small.txt"))
    script = "import subprocess, sys; subprocess.Popen(sys.argv[1:]).wait()"
    starter = subprocess.Popen(
        [sys.executable, "-c", script, *words],
        stdout=subprocess.PIPE, env=python()[1], text=True,
    )  # fmt: skip
    assert starter.stdout
    port = int(starter.stdout.readline())
    (rung,) = children_of(starter.pid)
    starter.kill()
    starter.communicate()
    until(lambda: is_gone(rung) and not can_connect(port), "it to end")


# Stamps.


@pytest.mark.parametrize("name", [*MODES, *RUNGS])
def test_stamps(name: str, start: Start, memory: int) -> None:
    rung = start(name, memory=memory)
    for number in (1, 2, 3):
        visit(name, rung)
        until(lambda n=number: is_complete(name, memory, n), f"record {number}")
    assert rung.stop() == 0  # so the last words, after REAPED, are written too
    records = list(stamps.read(memory))
    assert [record[stamps.NUMBER] for record in records] == [2, 3]
    for record in records:
        check_words(name, rung, record)
    assert len({record[stamps.PID] for record in records}) == (2 if name in FORKING else 1)


def visit(name: str, rung: Rung) -> None:
    if name in SILENT:
        with rung.connect() as client:
            assert client.is_closed()
    else:
        assert rung.ask("/small.txt").status == 200


def is_complete(name: str, memory: int, number: int) -> bool:
    word = stamps.REAPED if name in FORKING else stamps.WAITS
    return any(r[stamps.NUMBER] == number and r[word] for r in stamps.read(memory))


def check_words(name: str, rung: Rung, record: tuple[int, ...]) -> None:
    work = WORK if name in SERVING else []
    if name in FORKING:
        chains = [PARENT, [*CHILD, *work, stamps.EXIT, stamps.NOTICED]]
        assert record[stamps.PID] not in (0, rung.pid)
        assert record[stamps.MINOR_FAULTS] > 0
        assert record[stamps.USER_US] + record[stamps.SYSTEM_US] > 0
    else:
        chains = [[stamps.AWAKE, stamps.ACCEPTED, *work, stamps.EXIT, stamps.WAITS]]
        assert record[stamps.PID] == rung.pid
    for chain in chains:
        times = [record[word] for word in chain]
        assert all(times)
        assert times == sorted(times)
    # In Python the parent also tells when it has done its books after a reaping.
    numbers = range(stamps.MINOR_FAULTS, len(stamps.WORDS))
    counted = (stamps.NUMBER, stamps.PID, stamps.RESTS, *numbers)
    others = set(range(len(stamps.WORDS))) - set(counted) - {w for chain in chains for w in chain}
    assert not any(record[word] for word in others)


@pytest.mark.parametrize("name", ["fork-serve", "c-loop", "raw-fork"])
def test_a_head_of_its_own_making(name: str, start: Start, memory: int) -> None:
    """The memory needs not be prepared; and what was refused has no times of a file."""
    assert start(name, memory=memory).ask("/other").status == 404
    until(lambda: is_complete(name, memory, 1), "the record")
    (record,) = stamps.read(memory)
    assert record[stamps.PARSED]
    assert not record[stamps.OPENED]


# The heap, left out.


def mappings(pid: int) -> dict[str, tuple[str, str]]:
    """Range: permissions and VmFlags (proc_pid_smaps(5))."""
    found: dict[str, tuple[str, str]] = {}
    current = ("", "")
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        words = line.split()
        if not words[0].endswith(":"):
            current = (words[0], words[1])
        elif words[0] == "VmFlags:":
            found[current[0]] = (current[1], line.partition(":")[2])
    return found


def size_of(mapping: str) -> int:
    low, high = mapping.split("-")
    return int(high, 16) - int(low, 16)


@pytest.mark.parametrize("name", ["c-loop", "c-loop-excluded"])
def test_what_a_child_has(name: str, start: Start) -> None:
    rung = start(name)
    with rung.connect() as client:
        until(lambda: children_of(rung.pid), "a child")
        (child,) = children_of(rung.pid)
        theirs, ours = mappings(rung.pid), mappings(child)
        left_out = {one for one, (_, flags) in theirs.items() if "dc" in flags.split()}
        writable = sum(size_of(one) for one, (may, _) in ours.items() if may.startswith("rw-p"))
        if name == "c-loop":
            assert not left_out
            assert writable > 1 << 20
        else:
            assert sum(map(size_of, left_out)) > 1 << 20
            assert not left_out & set(ours)
            assert writable < 1 << 19
        assert client.answer_to(request("/small.txt")).status == 200


SCRIPT = """
import os, socket, sys
from pyweb.lab.toy import _load
rung = _load(sys.argv[1])
"""


def run_script(extension: Path, script: str) -> str:
    command, environment = python("-c", SCRIPT + script, str(extension))
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_exclude_and_include(extension: Path, pages: Path) -> None:
    """The heap that is planted is among it; then Python forks again and its child has all."""
    script = f"""
planted = bytearray(20 << 20)
planted[:] = b"x" * len(planted)
print(*rung.exclude_heap())
ours, theirs = socket.socketpair()
pid = rung.fork_serve(theirs.fileno(), b"/x", {os.fsencode(pages / "small.txt")!r}, 0)
theirs.close()
ours.sendall(b"GET /x HTTP/1.1\\r\\n\\r\\n")
answer = b""
while data := ours.recv(65536):
    answer += data
print(answer[:15].decode(), os.waitpid(pid, 0)[1])
ours.close()
rung.include_heap()
pid = os.fork()
if pid == 0:
    import json
    os._exit(len(json.loads("[1, 2]")) + planted.count(b"x") // len(planted))
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
print(sum(" dc" in line for line in open("/proc/self/smaps") if line.startswith("VmFlags")))
"""
    counts, answer, code, left = run_script(extension, script).splitlines()
    mapped, size = map(int, counts.split())
    assert mapped > 3
    assert size > 20 << 20
    assert answer == "HTTP/1.1 200 OK 0"
    assert code == "3"
    assert left == "0"


# The client does not believe everything.


def test_client_and_a_wrong_size(start: Start, programs: Programs) -> None:
    port, size = start("serve").port, len(BODIES["small.txt"])
    for wrong in (size - 1, size + 1):
        done = run_client(programs, port, "/small.txt", 3, 0, wrong)
        assert (done.returncode, done.stdout) == (1, "")
        expected = f"connection 1 of 3: a body of {size} bytes instead of {wrong}"
        assert done.stderr == f"client: {expected}\n"


def test_client_and_another_status(start: Start, programs: Programs) -> None:
    done = run_client(programs, start("serve").port, "/other", 3, 2, 0)
    assert done.returncode == 1
    assert done.stderr == "client: connection 1 of 2 (warm-up): status 404\n"


def test_client_and_nobody(programs: Programs) -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        done = run_client(programs, bound.getsockname()[1], "/", 1, 0, 0)
    assert done.returncode == 1
    assert done.stderr == "client: connection 1 of 1: Connection refused\n"


@pytest.mark.parametrize(
    ("said", "silent", "wrong"),
    [
        (b"", False, "closed without an answer"),
        (b"nonsense, and much of it", False, "no HTTP answer"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", False, "a body of 0 bytes instead of 1"),
        (b"x", True, "an answer to nothing"),
    ],
)
def test_client_and_an_odd_server(
    said: bytes, silent: bool, wrong: str, programs: Programs
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        words = [str(listener.getsockname()[1]), "/", "1", "0", "1", *["silent"] * silent]
        client = subprocess.Popen(
            [str(programs.program("client")), *words], stderr=subprocess.PIPE, text=True
        )
        listener.settimeout(PATIENCE)
        with listener.accept()[0] as sock:
            if not silent:
                assert sock.recv(4096).startswith(b"GET / HTTP/1.1\r\nHost: lab\r\n")
            sock.sendall(said)
        _, err = client.communicate(timeout=PATIENCE)
    assert (client.returncode, err) == (1, f"client: connection 1 of 1: {wrong}\n")


@pytest.mark.parametrize(
    "words", [[], ["1", "/", "1", "0"], ["0", "/", "1", "0", "1"], ["1", "/", "x", "0", "1"],
              ["1", "/", "1", "0", "1", "loud"], ["1", "/" * 3000, "1", "0", "1"]],
)  # fmt: skip
def test_client_and_bad_words(words: list[str], programs: Programs) -> None:
    done = run_client(programs, *words)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


# Bad words for the others.


@pytest.mark.parametrize("name", ["serve", "os-fork", "c-loop"])
@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["/x", "/no/such/file.txt"], "No such file"),
        (["/x", __file__, "999"], ""),
        (["/x", __file__, "x"], "usage: "),
        (["/x", __file__, "-1"], "usage: "),
        (["/x", __file__, "1", "2"], "usage: "),
    ],
)
def test_bad_words(
    name: str, words: list[str], what: str, command: Callable[..., list[str]]
) -> None:
    assert_refused(command(name, *words), what)


def assert_refused(command: list[str], what: str) -> None:
    """In one line."""
    done = subprocess.run(
        command, env=python()[1], capture_output=True, text=True, check=False, timeout=PATIENCE
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert what in done.stderr


def test_no_such_rung(programs: Programs) -> None:
    server = str(programs.program("server"))
    toy = python("-m", "pyweb.lab.toy")[0]
    assert_refused([server, "sing", "/x", __file__], "close|serve|fork-exit|fork-serve")
    assert_refused([server], "usage: ")
    assert_refused([*toy, "sing", "/x", __file__, __file__], ", ".join(RUNGS))
    assert_refused([*toy, "c-loop", "/x", __file__, __file__], "toy: ")


def test_memory_that_is_too_small(command: Callable[..., list[str]]) -> None:
    with contextlib.ExitStack() as stack:
        fd = os.memfd_create("test-stamps", 0)
        stack.callback(os.close, fd)
        os.ftruncate(fd, stamps.SIZE)
        done = subprocess.run(
            command("serve", "/x", __file__, str(fd)),
            pass_fds=[fd], capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "server: stamps: Invalid argument\n")


def test_every_rung_is_tried() -> None:
    assert set(RUNGS) == {"c-loop-excluded", "c-loop", *FORKS}
    assert len(SERVING) == 8
    assert len(FORKING) == 8
