"""Real servers, real sockets, and the promise that nothing is left behind.

`serve` starts `python -m pyweb` as a user would and stops it by its pid. After each test no
child, no descriptor and no socket of this process may be left.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import hypothesis
import pytest

import pyweb
from pyweb.config import MODES
from pyweb.parse import ENGINES
from pyweb.scoreboard import Scoreboard, Slot

# A loaded machine is slow; that is no defect of what is tested.
hypothesis.settings.register_profile("pyweb", deadline=None)
hypothesis.settings.load_profile("pyweb")

# They serve nobody.
HELPERS = ("pyweb-dispatch", "pyweb-keeper", "pyweb-filler", "pyweb-zygote", "pyweb-spare")
# For whatever should happen at once: never waited for when all is well.
PATIENCE = 20.0

Found = TypeVar("Found")


def pytest_report_header() -> str:
    return f"pyweb engines: {', '.join(ENGINES)}"


def need(tool: str) -> str:
    """The path of a program. Missing: skipped here, failed under CI."""
    path = shutil.which(tool)
    if path is None:
        text = f"{tool} is not installed"
        if os.environ.get("CI"):
            pytest.fail(text)
        pytest.skip(text)
    return path


def is_corked(fd: int) -> bool:
    """Does less than a segment wait in this TCP socket (tcp(7))? `fd` stays open."""
    with socket.socket(fileno=os.dup(fd)) as sock:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CORK))


def until(condition: Callable[[], Found], what: str) -> Found:
    """Wait for what must become true, and give it: asked for again it may be another."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.01)
    return found


@pytest.fixture(autouse=True, scope="session")
def signals_go_to_processes() -> Iterator[None]:
    """Never to 0, which stands for "there is none" here and for our whole process group in kill(2):
    a helper that was gone when a test looked again has ended the whole run, and its shell."""

    def only_to_one(kill: Callable[[int, int], None]) -> Callable[[int, int], None]:
        def to_one(pid: int, number: int) -> None:
            assert pid > 0, f"signal {number} is for nobody ({pid})"
            kill(pid, number)

        return to_one

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "kill", only_to_one(os.kill))
        patch.setattr(os, "killpg", only_to_one(os.killpg))
        yield


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started meanwhile hears ^C: a background job of a shell ignores it, and so would its
    heirs."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def children_of(pid: int) -> list[int]:
    """Pids of direct children, zombies included."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def state_of(pid: int) -> str:
    """R, S, Z ... ; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def name_of(pid: int) -> str:
    """As ps shows it."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def open_descriptors() -> set[tuple[int, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{name}")
            if target.startswith(("/proc/", "anon_inode", "/dev/", "/tmp/_MEI")):
                continue
            found.add((int(name), target))
    return found


def end_children(pids: Iterable[int]) -> None:
    """Of a test that has failed: the next one may wait for all that it has."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@pytest.fixture(autouse=True)
def nothing_is_left(request: pytest.FixtureRequest) -> Iterator[None]:
    """No child and no descriptor more than before."""
    if "browser_page" in request.fixturenames:  # Playwright keeps a driver between tests
        yield
        return
    descriptors, children = open_descriptors(), set(children_of(os.getpid()))
    yield
    try:
        until(lambda: set(children_of(os.getpid())) <= children, "children of the test to end")
    except AssertionError:
        end_children(set(children_of(os.getpid())) - children)
        raise
    left = open_descriptors() - descriptors
    assert not left, f"descriptors left open: {left}"


class Answer:
    """A response as it came over the wire."""

    def __init__(self, status: int, fields: list[tuple[str, str]], body: bytes, raw: bytes) -> None:
        self.status = status
        self.fields = fields
        self.body = body
        self.raw = raw

    def __getitem__(self, name: str) -> str:
        """The field's value; KeyError without, AssertionError when it came twice."""
        found = [v for n, v in self.fields if n.lower() == name.lower()]
        assert len(found) < 2, f"{name} came {len(found)} times"
        if not found:
            raise KeyError(name)
        return found[0]

    def get(self, name: str) -> str | None:
        try:
            return self[name]
        except KeyError:
            return None


class Client:
    """A connection that reads answers strictly by Content-Length."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(PATIENCE)
        self._buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def _more(self) -> bool:
        data = self.sock.recv(1 << 20)
        self._buffer += data
        return bool(data)

    def answer(self, method: str = "GET") -> Answer:
        """The next response. EOFError: the connection ended before it was whole."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                raise EOFError(f"no answer, only {self._buffer!r}")
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        version, status, _phrase = lines[0].split(" ", 2)
        assert version == "HTTP/1.1"
        fields = [tuple(line.split(": ", 1)) for line in lines[1:]]
        answer = Answer(int(status), fields, b"", head + b"\r\n\r\n")  # type: ignore[arg-type]
        answer.body = self._body(answer, method)
        return answer

    def answer_to(self, request: bytes) -> Answer:
        self.send(request)
        return self.answer()

    def _body(self, answer: Answer, method: str) -> bytes:
        assert answer.get("transfer-encoding") is None
        if method == "HEAD" or answer.status in (204, 304) or answer.status < 200:
            return b""
        length = int(answer["content-length"])
        while len(self._buffer) < length:
            if not self._more():
                raise EOFError(f"{len(self._buffer)} of {length} bytes")
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        return body

    def rest(self) -> bytes:
        """Everything until the server closes."""
        with contextlib.suppress(ConnectionResetError):
            while self._more():
                pass
        data, self._buffer = self._buffer, b""
        return data

    def is_closed(self) -> bool:
        """Closed by the server without another byte."""
        return self.rest() == b""


class Server:
    """A running `python -m pyweb`; output goes to files, so that nothing ever waits for us."""

    def __init__(
        self,
        directory: Path,
        scratch: Path,
        *options: str,
        launcher: Sequence[str] = (),
        **popen: object,
    ) -> None:
        """launcher: a command that comes to ours by exec."""
        self.directory = directory
        self._has_pool = "prefork" in options or "thread" in options
        scratch.mkdir(parents=True, exist_ok=True)
        self._out, self._err = scratch / "stdout", scratch / "stderr"
        pyweb = [sys.executable, "-m", "pyweb"]
        command = [*launcher, *pyweb, "0", "-d", str(directory), *options]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(  # type: ignore[call-overload]
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, **popen
            )
        until(lambda: "\n" in self.stdout() or self.process.poll() is not None, "the URL line")
        if self.process.returncode is not None:
            raise RuntimeError(f"pyweb ended with {self.process.returncode}: {self.stderr()}")
        self.url = self.stdout().split("\n")[0]

    @property
    def pid(self) -> int:
        """The supervisor's: what a user starts and signals."""
        return self.process.pid

    @property
    def master(self) -> int:
        """The supervisor's youngest child; 0: there is none at the moment."""
        found = [pid for pid in children_of(self.pid) if state_of(pid) not in ("", "Z")]
        return found[-1] if found else 0

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].strip("/"))

    def stdout(self) -> str:
        return self._out.read_text("utf-8", "surrogateescape")

    def stderr(self) -> str:
        return self._err.read_text("utf-8", "surrogateescape")

    def log(self) -> list[str]:
        """The access log's lines so far."""
        return [line for line in self.stdout().split("\n")[1:] if not line.startswith("http://")][
            :-1
        ]

    def wait_for_log(self, count: int) -> list[str]:
        until(lambda: len(self.log()) >= count, f"{count} log lines")
        return self.log()

    def connect(self) -> Client:
        if self.url.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.url[5:])
            return Client(sock)
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Client(sock)

    def ask(self, target: str, *fields: str, method: str = "GET", version: str = "1.1") -> Answer:
        """One request on a connection of its own."""
        lines = [f"{method} {target} HTTP/{version}", "Host: test", "Connection: close", *fields]
        with self.connect() as client:
            client.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
            return client.answer(method)

    def children(self) -> list[int]:
        """What serves connections, zombies included."""
        named = [(pid, name_of(pid)) for pid in children_of(self.master)]
        if self._has_pool:  # a worker has its name when it is ready, and its keeper there
            return [pid for pid, name in named if name == "pyweb-worker"]
        return [pid for pid, name in named if name not in HELPERS]

    def keepers(self) -> list[int]:
        return [pid for pid in children_of(self.master) if name_of(pid) == "pyweb-keeper"]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal it, wait for it, give its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


ServeFixture = Callable[..., Server]


@pytest.fixture
def slot() -> Iterator[Slot]:
    """Of a scoreboard of its own."""
    board = Scoreboard(1)
    yield board.take(0)
    board.close()


def make_site(scratch: Path) -> Path:
    """A document root with a page, a text, a directory without index, things hidden and odd."""
    root = scratch / "site"
    (root / "sub" / "deep").mkdir(parents=True)
    (root / "with-index").mkdir()
    (root / ".well-known").mkdir()
    (root / "index.html").write_bytes(b"<!DOCTYPE html><title>home</title>\n")
    (root / "hello.txt").write_bytes(b"hello, world\n")
    (root / "empty.txt").write_bytes(b"")
    (root / "with-index" / "index.html").write_bytes(b"<p>inside\n")
    (root / "sub" / "one.txt").write_bytes(b"one\n")
    (root / "sub" / "deep" / "two.bin").write_bytes(bytes(range(256)) * 200)
    (root / ".hidden").write_bytes(b"secret\n")
    (root / ".well-known" / "security.txt").write_bytes(b"Contact: mailto:x@example.org\n")
    (root / "space and ü.txt").write_bytes(b"odd name\n")
    (root / "page.html").write_bytes(b"page " * 100)
    (root / "page.html.gz").write_bytes(b"\x1f\x8b pretend gzip")
    (root / "page.html.br").write_bytes(b"pretend brotli")
    (root / "page.html.zst").write_bytes(b"pretend zstd")
    return root


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path)


@pytest.fixture
def serve(tmp_path: Path, site: Path) -> Iterator[ServeFixture]:
    """serve(*options, directory=None): a server, stopped at the end; its children must be gone."""
    started: list[Server] = []

    def start(*options: str, directory: Path | None = None, **popen: object) -> Server:
        scratch = tmp_path / f"server{len(started)}"
        server = Server(directory or site, scratch, *options, **popen)
        started.append(server)
        return server

    yield start
    for server in started:
        running = server.process.poll() is None
        children = server.children() if running else []
        server.stop(signal.SIGQUIT)
        assert "Traceback" not in server.stderr(), server.stderr()
        until(lambda c=children: not any(map(state_of, c)), f"{children} to end")


def heirs(server: Server) -> list[int]:
    """Supervisors that were started to take over, as the journal tells."""
    found = re.findall(r"supervisor (\d+) is started to take over", server.stderr())
    return [int(pid) for pid in found]


def is_gone(pid: int) -> bool:
    """Whoever adopts orphans may be slow to reap them."""
    return state_of(pid) in ("", "Z")


def _end_heir(server: Server, pid: int) -> None:
    """By its pid, if that still is its own."""
    family = [pid, *children_of(pid)]
    with contextlib.suppress(OSError):
        if pid > 1 and os.fsencode(server.directory) in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGQUIT)
    until(lambda: all(map(is_gone, family)), f"supervisor {pid} and its masters to end")


@pytest.fixture
def lively(serve: ServeFixture) -> Iterator[ServeFixture]:
    """serve(), for servers that may be upgraded: who took over is no child of ours."""
    started: list[Server] = []

    def start(*options: str, directory: Path | None = None, **popen: object) -> Server:
        started.append(serve(*options, directory=directory, **popen))
        return started[-1]

    yield start
    for server in started:
        for pid in heirs(server):
            _end_heir(server, pid)


NOBODY = 65534


@pytest.fixture
def public(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory in which every user finds a `site`, and a Python with pyweb, which is
    `sys.executable` for as long. pytest's own directories, and maybe ours, are for one user alone.
    """
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    scratch = Path(tempfile.mkdtemp(prefix="pyweb-test-"))
    try:
        scratch.chmod(0o755)
        shutil.copytree(Path(pyweb.__file__).parent, scratch / "lib" / "pyweb")
        monkeypatch.setenv("PYTHONPATH", str(scratch / "lib"))
        monkeypatch.setattr(sys, "executable", _python_for_all())
        make_site(scratch)
        yield scratch
    finally:
        shutil.rmtree(scratch)


def _python_for_all() -> str:
    system = "/usr/bin/python{}.{}".format(*sys.version_info)
    for python in (sys.executable, system):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            code = f"import pyweb.cli; assert pyweb.cli.ENGINES == {ENGINES!r}"
            subprocess.run([python, "-c", code], user=NOBODY, cwd="/", check=True, timeout=PATIENCE)
            return python
    pytest.skip("no Python that other users could run")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[(m, e) for m in MODES for e in ENGINES], ids="-".join)
def way(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """The options of each mode with each engine."""
    mode, engine = request.param
    return "--mode", mode, "--engine", engine
