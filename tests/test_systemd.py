"""systemd's part, played here: it passes listeners, is told what goes on, and confines."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import PATIENCE, Client, Server, need, state_of, until

from pyweb.config import MODES, Address
from pyweb.errors import StartError
from pyweb.inherited import OWN, inherited_listeners, passed_on
from pyweb.listen import Listener, listen
from pyweb.notify import Notifier

UNITS = Path(__file__).parent.parent / "systemd"
HELLO = b"GET /hello.txt HTTP/1.0\r\n\r\n"
VARIABLES = re.compile(rb"(?:^|\0)(NOTIFY_|LISTEN_|WATCHDOG_|PYWEB_LISTEN)")

# systemd forks, passes descriptors from 3 on, and names the pid that will be the service's.
EXEC = """
import os, sys
for number, fd in enumerate(sys.argv[1].split(","), 3):
    os.dup2(int(fd), number)
os.environ["LISTEN_PID"] = os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


class Manager:
    """A socket for notifications, and the service that it has started."""

    def __init__(self, scratch: Path, name: str = "") -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.name = name or str(scratch / "notify")
        self.sock.bind(self.name.replace("@", "\0", 1) if name else self.name)
        self.sock.settimeout(PATIENCE)
        self._scratch = scratch
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, site: Path, *options: str, listeners: list[int], **environ: str) -> None:
        """Descriptors that are passed must not be 3, 4, ... themselves."""
        given = {"LISTEN_FDS": str(len(listeners)), "NOTIFY_SOCKET": self.name, **environ}
        high = [os.dup(fd) for fd in listeners]
        passed = ",".join(map(str, high))
        command = [sys.executable, "-c", EXEC, passed, sys.executable, "-m", "pyweb"]
        with (self._scratch / "out").open("wb") as out, (self._scratch / "err").open("wb") as err:
            self.process = subprocess.Popen(
                [*command, "-d", str(site), *options], pass_fds=high, env={**os.environ, **given},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )  # fmt: skip
        for fd in high:
            os.close(fd)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def said(self) -> list[str]:
        """stderr's lines."""
        return (self._scratch / "err").read_text().splitlines()

    def urls(self) -> list[str]:
        return (self._scratch / "out").read_text().splitlines()

    def hear(self) -> dict[str, str]:
        """The next message."""
        try:
            words = self.sock.recv(4096).decode().split("\n")
        except TimeoutError:
            pytest.fail(f"no message; stderr: {self.said()}")
        return dict(word.split("=", 1) for word in words)

    def hear_until(self, name: str) -> dict[str, str]:
        """The first message with that name in it, whatever came before."""
        while name not in (message := self.hear()):
            pass
        return message

    def drained(self) -> list[bytes]:
        """What has come and was not heard."""
        found = []
        self.sock.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.sock.recv(4096))
        self.sock.settimeout(PATIENCE)
        return found

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self.sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(tmp_path)
    yield made
    made.close()


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(50)
        yield sock


def answer(sock: socket.socket) -> bytes:
    """Of the server that listens at the socket's address, to one request."""
    with socket.socket(sock.family) as client:
        client.settimeout(PATIENCE)
        client.connect(sock.getsockname())
        client.sendall(HELLO)
        return Client(client).answer().body


def everybody(pid: int) -> list[int]:
    """The process's descendants."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *everybody(int(child))]
    return found


# A service from its start to its end.


def test_the_whole_of_it(manager: Manager, site: Path, listening: socket.socket) -> None:
    """READY when it serves and not before, STOPPING when it ends; not a word on stderr more than
    without systemd."""
    manager.start(site, listeners=[listening.fileno()])
    port = listening.getsockname()[1]
    ready = manager.hear()
    url = f"http://127.0.0.1:{port}/"
    assert ready == {"READY": "1", "STATUS": f"generation 1 serves {url}"}
    assert manager.urls() == [url]
    assert answer(listening) == b"hello, world\n"
    assert manager.process is not None
    manager.process.terminate()
    assert manager.hear() == {"STOPPING": "1", "STATUS": "connections have 30 s"}
    assert manager.process.wait(PATIENCE) == 0
    assert len(manager.said()) == 6
    assert manager.drained() == []


@pytest.mark.parametrize("mode", ["fork", "prefork", "thread"])
def test_no_child_has_the_variables(
    manager: Manager, site: Path, listening: socket.socket, mode: str
) -> None:
    """A child that had them could speak for the service."""
    manager.start(
        site, "--mode", mode, listeners=[listening.fileno()],
        LISTEN_FDNAMES="http", WATCHDOG_USEC="600000000",
    )  # fmt: skip
    manager.hear_until("READY")
    assert answer(listening) == b"hello, world\n"
    seen = 0
    for pid in everybody(manager.pid):
        with contextlib.suppress(OSError):  # it may have ended
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            assert not VARIABLES.search(environ), environ
            seen += b"PATH=" in environ
    assert seen > 1
    # The supervisor's was given: the pattern finds something.
    assert VARIABLES.search(Path(f"/proc/{manager.pid}/environ").read_bytes())
    assert manager.stop() == 0


def test_another_master_is_told(manager: Manager, site: Path, listening: socket.socket) -> None:
    manager.start(site, listeners=[listening.fileno()])
    manager.hear_until("READY")
    (master,) = (pid for pid in everybody(manager.pid) if parent_of(pid) == manager.pid)
    os.kill(master, signal.SIGKILL)
    died = manager.hear()
    assert died["STATUS"].startswith(f"master {master} was ended by SIGKILL")
    assert manager.hear()["STATUS"].startswith("generation 2 serves http://")
    assert answer(listening) == b"hello, world\n"
    assert manager.stop() == 0


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_reload_is_told(manager: Manager, site: Path, listening: socket.socket) -> None:
    """RELOADING with its time, then READY of the next generation; also when it is refused."""
    file = site.parent / "pyweb.toml"
    file.write_text("header = ['X-Word: one']\n")
    manager.start(site, "--config", str(file), listeners=[listening.fileno()])
    manager.hear_until("READY")
    before = time.monotonic_ns() // 1000
    os.kill(manager.pid, signal.SIGHUP)
    told = manager.hear()
    assert told["RELOADING"] == "1"
    assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    ready = manager.hear()
    assert ready["READY"] == "1"
    assert ready["STATUS"].startswith("generation 2 serves http://")
    file.write_text("headers = 1\n")
    os.kill(manager.pid, signal.SIGHUP)
    assert "RELOADING" in manager.hear()
    ready = manager.hear()
    assert ready["READY"] == "1"
    assert ready["STATUS"].startswith("not reloaded: ")
    assert answer(listening) == b"hello, world\n"
    assert manager.stop() == 0


def test_an_upgrade_is_told(
    manager: Manager, site: Path, tmp_path: Path, listening: socket.socket
) -> None:
    """The new supervisor is the service from then on: it speaks, pings, and has the pid file."""
    pid_file = tmp_path / "pid"
    manager.start(
        site, "--pid-file", str(pid_file), listeners=[listening.fileno()], WATCHDOG_USEC="400000"
    )
    manager.hear_until("READY")
    old = manager.pid
    assert int(pid_file.read_text()) == old
    os.kill(old, signal.SIGUSR2)
    new = int(manager.hear_until("MAINPID")["MAINPID"])
    try:
        assert new not in (0, 1, old)
        assert manager.process is not None
        assert manager.process.wait(PATIENCE) == 0
        until(lambda: int(pid_file.read_text()) == new, "its pid in the file")
        manager.drained()
        assert manager.hear_until("WATCHDOG") == {"WATCHDOG": "1"}
        assert answer(listening) == b"hello, world\n"
        os.kill(new, signal.SIGTERM)
        assert "STOPPING" in manager.hear_until("STOPPING")
        until(lambda: state_of(new) in ("", "Z"), "it to end")
        assert not pid_file.exists()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(new, signal.SIGKILL)


def test_an_abstract_name(tmp_path: Path, site: Path, listening: socket.socket) -> None:
    manager = Manager(tmp_path, f"@pyweb-test-{os.getpid()}")
    try:
        manager.start(site, listeners=[listening.fileno()])
        assert "READY" in manager.hear()
        assert manager.stop() == 0
    finally:
        manager.close()


def test_a_manager_that_is_gone(manager: Manager, site: Path, listening: socket.socket) -> None:
    """Nobody hears; it serves, and ends, all the same."""
    manager.start(site, listeners=[listening.fileno()], NOTIFY_SOCKET="/nowhere/at/all")
    until(manager.urls, "the URL line")
    assert answer(listening) == b"hello, world\n"
    assert manager.stop() == 0
    assert len(manager.said()) == 6


# The watchdog.

OFTEN = {"WATCHDOG_USEC": "100000"}


def test_watchdog(manager: Manager, site: Path, listening: socket.socket) -> None:
    manager.start(site, listeners=[listening.fileno()], **OFTEN)
    manager.hear_until("READY")
    for _ in range(3):
        assert manager.hear() == {"WATCHDOG": "1"}
    assert answer(listening) == b"hello, world\n"
    assert manager.stop() == 0


def test_a_watchdog_for_somebody_else(listening: socket.socket) -> None:
    """WATCHDOG_PID is not ours, or there is nonsense: nothing is due, ever."""
    for environ in (
        {**OFTEN, "WATCHDOG_PID": str(os.getppid())},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "-5"},
        {},
    ):
        given = {"NOTIFY_SOCKET": "@x", **environ}
        assert Notifier(given, os.getpid()).watch_at is None
        assert given == {}
    assert Notifier({"NOTIFY_SOCKET": "@x", **OFTEN}, os.getpid()).watch_at is not None


def test_a_master_that_hangs_is_not_hidden(
    manager: Manager, site: Path, listening: socket.socket
) -> None:
    manager.start(site, listeners=[listening.fileno()], **OFTEN)
    manager.hear_until("WATCHDOG")
    (master,) = (pid for pid in everybody(manager.pid) if parent_of(pid) == manager.pid)
    os.kill(master, signal.SIGSTOP)
    until(lambda: state_of(master) == "T", "the master to stop")
    settle(manager)
    time.sleep(1)
    assert manager.drained() == []
    os.kill(master, signal.SIGCONT)
    assert manager.hear() == {"WATCHDOG": "1"}
    assert manager.stop() == 0


def settle(manager: Manager) -> None:
    """What was said before must not be taken for what comes after."""
    time.sleep(0.5)
    manager.drained()


def test_a_master_that_can_not_start_is_not_hidden(
    manager: Manager, site: Path, listening: socket.socket
) -> None:
    manager.start(site, listeners=[listening.fileno()], **OFTEN)
    manager.hear_until("WATCHDOG")
    (master,) = (pid for pid in everybody(manager.pid) if parent_of(pid) == manager.pid)
    site.rename(site.with_name("away"))
    os.kill(master, signal.SIGKILL)
    while "was ended by SIGKILL" not in manager.hear().get("STATUS", ""):
        pass
    # Three tries, with pauses that are longer than the watchdog's together.
    tries = "another is started"
    until(lambda: sum(tries in line for line in manager.said()) > 3, "three tries")
    assert not [message for message in manager.drained() if b"WATCHDOG" in message]
    site.with_name("away").rename(site)
    assert "READY" in manager.hear_until("READY")
    assert manager.hear_until("WATCHDOG")
    assert manager.stop() == 0


# What the Notifier can say.


def test_words_of_the_notifier(manager: Manager) -> None:
    environ = {"NOTIFY_SOCKET": manager.name, **OFTEN, "OTHER": "stays"}
    notifier = Notifier(environ, os.getpid())
    assert environ == {"OTHER": "stays"}
    notifier.status("two\nlines \udcff\x1b[31m")
    assert manager.hear() == {"STATUS": "two\\nlines \\udcff\\x1b[31m"}
    before = time.monotonic_ns() // 1000
    notifier.reloading()
    reloading = manager.hear()
    assert reloading["RELOADING"] == "1"
    assert before <= int(reloading["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    notifier.ready("again")
    assert manager.hear() == {"READY": "1", "STATUS": "again"}
    assert notifier.environ() == {"NOTIFY_SOCKET": manager.name, **OFTEN}
    notifier.main_pid(4711)
    assert manager.hear() == {"MAINPID": "4711"}
    # It is another's service now.
    notifier.stopping("x")
    notifier.watchdog()
    assert notifier.watch_at is None
    assert manager.drained() == []


def test_a_manager_that_does_not_listen_is_not_waited_for(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    notifier = Notifier({"NOTIFY_SOCKET": manager.name}, os.getpid())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", manager.name)
    notifier.ready("nobody takes it")
    manager.close()
    notifier.ready("nobody is there")
    Path(manager.name).unlink()
    notifier.ready("nothing is there")


# Listeners that are passed.


def test_unix_sockets_of_systemd_stay(manager: Manager, site: Path, tmp_path: Path) -> None:
    """Their names are systemd's, which goes on listening while we are started anew."""
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        first.bind(str(path))
        second.bind(f"\0pyweb-test-{os.getpid()}")
        for sock in (first, second):
            sock.listen()
        manager.start(site, listeners=[first.fileno(), second.fileno()])
        manager.hear_until("READY")
        assert manager.urls() == [f"unix:{path}", f"unix:@pyweb-test-{os.getpid()}"]
        for sock in (first, second):
            assert answer(sock) == b"hello, world\n"
        assert manager.stop() == 0
        assert path.is_socket()


def test_systemds_own_tool(tmp_path: Path, site: Path) -> None:
    """The one that systemd has for trying it: it listens, and comes to us by exec."""
    path = tmp_path / "web.sock"
    tool = need("systemd-socket-activate")
    command = [tool, "-l", str(path), "--fdname=http", sys.executable, "-m", "pyweb", str(site)]
    with (tmp_path / "err").open("wb") as err:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err)
    with process:
        try:
            until(path.is_socket, "the socket")
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(PATIENCE)
                until(lambda: client.connect_ex(str(path)) == 0, "the tool to listen")
                client.sendall(HELLO)
                assert Client(client).answer().body == b"hello, world\n"
            assert process.stdout is not None
            assert process.stdout.readline().decode() == f"unix:{path}\n"
        finally:
            process.terminate()
        assert process.wait(PATIENCE) == 0
    assert path.is_socket()


def test_they_come_instead_of_bind(
    manager: Manager, site: Path, listening: socket.socket, tmp_path: Path
) -> None:
    """And it is said, if addresses were named."""
    other = tmp_path / "other.sock"
    manager.start(site, "-b", f"unix:{other}", listeners=[listening.fileno()])
    manager.hear_until("READY")
    assert len(manager.urls()) == 1
    assert not other.exists()
    assert "bind and port are not obeyed" in manager.said()[0]
    assert manager.stop() == 0


def test_what_is_meant_for_another_process(
    manager: Manager, site: Path, listening: socket.socket, tmp_path: Path
) -> None:
    """A wrapper that forked: the variables say nothing to us, and --bind is obeyed."""
    path = tmp_path / "own.sock"
    environ = {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x"}
    assert inherited_listeners(environ, os.getpid()) == []
    assert environ == {}
    done = subprocess.Popen(
        [sys.executable, "-m", "pyweb", "-d", str(site), "-b", f"unix:{path}"],
        env={**os.environ, "LISTEN_PID": "1", "LISTEN_FDS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    with done:
        assert done.stdout is not None
        assert done.stdout.readline().decode() == f"unix:{path}\n"
        done.terminate()


def given(*fds: int, **more: str) -> dict[str, str]:
    """As systemd would say it of descriptors 3, 4, ..."""
    return {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds)), **more}


def ends(*, listeners: list[int], **environ: str) -> tuple[int, str]:
    """Code and stderr of a server that can't start."""
    high = [os.dup(fd) for fd in listeners]
    passed = ",".join(map(str, high))
    done = subprocess.run(
        [sys.executable, "-c", EXEC, passed, sys.executable, "-m", "pyweb"], pass_fds=high,
        env={**os.environ, "LISTEN_FDS": str(len(listeners)), **environ}, check=False,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    for fd in high:
        os.close(fd)
    return done.returncode, done.stderr


def test_what_is_no_listener_is_refused(listening: socket.socket) -> None:
    """Connected (Accept=yes), a datagram's, another family's, a file, nothing: one line."""
    ours, theirs = socket.socketpair()
    with (
        ours, theirs, socket.socket(type=socket.SOCK_DGRAM) as datagrams,
        socket.socket() as silent, open("/dev/null", "rb") as null,
    ):  # fmt: skip
        for bad, why in [
            (ours.fileno(), "is not a TCP or unix socket that listens"),
            (datagrams.fileno(), "is not a TCP or unix socket that listens"),
            (silent.fileno(), "is not a TCP or unix socket that listens"),
            (null.fileno(), "Socket operation on non-socket"),
        ]:
            code, said = ends(listeners=[listening.fileno(), bad], LISTEN_FDNAMES="http:odd")
            assert code == 1
            assert said.startswith("pyweb: LISTEN_FDS: descriptor 4 (odd)")
            assert why in said
            assert said.count("\n") == 1
    code, said = ends(listeners=[listening.fileno()], LISTEN_FDS="500")
    assert (code, said.count("\n")) == (1, 1)
    assert said.startswith("pyweb: LISTEN_FDS: descriptor ")
    for count in ("x", "-1", "", "9999"):
        code, said = ends(listeners=[listening.fileno()], LISTEN_FDS=count)
        assert (code, said.count("\n")) == (1, 1)
        assert "LISTEN_FDS" in said


# A supervisor that takes another's place.


def test_a_successor_gets_the_listeners(tmp_path: Path) -> None:
    path = tmp_path / "web.sock"
    with socket.socket(socket.AF_UNIX) as systemds:
        systemds.bind(str(tmp_path / "other.sock"))
        systemds.listen()
        tcp, unix = listen(Address("127.0.0.1", 0), 5), listen(Address("", path=str(path)), 5)
        foreign = Listener(systemds.dup())
        before = [tcp, unix, foreign]
        named = [Address("127.0.0.1", 0), Address("", path=str(path)), None]
        environ = passed_on(list(zip(named, before, strict=True)))
        fds = [one.sock.fileno() for one in before]
        for fd in fds:
            os.set_inheritable(fd, True)
        assert [fd for fd, _, _ in json.loads(environ[OWN])] == fds
        held = inherited_listeners(environ, os.getpid())
        assert environ == {}
    assert [where for where, _ in held] == named
    after = [one for _, one in held]
    assert [one.url for one in after] == [one.url for one in before]
    assert [one.has_name for one in after] == [False, True, False]
    assert not any(os.get_inheritable(fd) for fd in fds)
    # The predecessor leaves the name alone, the successor removes it.
    unix.is_ours = False
    for one in before:
        one.remove()
        one.sock.detach()
    assert path.is_socket()
    for one in after:
        one.is_ours = True
        one.close()
    assert not path.exists()
    assert (tmp_path / "other.sock").is_socket()


@pytest.mark.parametrize(
    "text",
    ["x", "3", "[3]", "[[3, 4]]", '[["", "", true]]', '[[99999, "", false]]', '[[3, ":x", 1]]'],
)
def test_nonsense_instead_of_descriptors(text: str) -> None:
    with pytest.raises(StartError, match=OWN):
        inherited_listeners({OWN: text}, os.getpid())


# The units.


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """With the pyweb that is tested in them, for one that isn't there is no valid command."""
    found = []
    for name in ("pyweb.service", "pyweb.socket"):
        text = (UNITS / name).read_text()
        path = tmp_path / name
        path.write_text(text.replace("/opt/pyweb/bin/pyweb", f"{sys.executable} -m pyweb"))
        found.append(str(path))
    return found


def test_the_units_are_valid(units: list[str]) -> None:
    command = [need("systemd-analyze"), "verify", "--man=no", *units]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_service_is_hardened(units: list[str]) -> None:
    """systemd's own measure, from 0 (nothing is exposed) to 10."""
    command = [need("systemd-analyze"), "security", "--offline=true", "--no-pager", units[0]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    found = re.search(r"Overall exposure level for pyweb\.service: ([\d.]+)", done.stdout)
    assert found, done.stdout + done.stderr
    assert float(found[1]) <= 1.5


def test_the_command_of_the_unit(units: list[str], site: Path) -> None:
    text = Path(units[0]).read_text().replace("/srv/www", str(site))
    command = re.search(r"^ExecStart=(.*)$", text, re.M)
    assert command
    done = subprocess.run([*command[1].split(), "--check-config"], check=False, timeout=PATIENCE)
    assert done.returncode == 0


CONFINED = Path(__file__).parent / "confined.py"


def confined(units: list[str], *command: str) -> list[str]:
    need("systemd-analyze")
    return [sys.executable, str(CONFINED), units[0], *command]


@pytest.mark.parametrize("mode", MODES)
def test_it_serves_with_so_few_system_calls(
    units: list[str], tmp_path: Path, site: Path, mode: str
) -> None:
    """Whatever the unit's filter forbids would kill: files, listings, a process that crashes, a
    master that does, the end."""
    launcher = confined(units)
    server = Server(site, tmp_path / "server", "--mode", mode, launcher=launcher)
    try:
        assert server.ask("/hello.txt").body == b"hello, world\n"
        assert server.ask("/sub/").status == 200
        assert len(server.ask("/sub/deep/two.bin").body) == 51200
        for victim in (*server.children()[:1], server.master):
            with contextlib.suppress(ProcessLookupError):  # it has just left
                os.kill(victim, signal.SIGKILL)
            assert server.ask("/hello.txt").status == 200
        assert server.stop() == 0
        assert "SIGSYS" not in server.stderr()
    finally:
        server.stop(signal.SIGKILL)


def test_the_filter_filters(units: list[str]) -> None:
    """Or the test above would say nothing."""
    code = "import os; os.sched_setaffinity(0, os.sched_getaffinity(0))"
    done = subprocess.run(confined(units, sys.executable, "-c", code), check=False)
    assert done.returncode == -signal.SIGSYS
