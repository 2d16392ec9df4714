"""The command line as a user meets it: words in any order, exit codes, what is said and where."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NOBODY, PATIENCE, ServeFixture, Server, need, until

from pyweb import __version__
from pyweb.cli import _arguments, configure
from pyweb.config import MODES, OPTIONS
from pyweb.parse import ENGINES

PYWEB = [sys.executable, "-m", "pyweb"]


def run(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-m", "pyweb", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        encoding="utf-8",
        errors="surrogateescape",
        **more,
    )


# Positional arguments.


def meant(*words: str) -> tuple[str, str]:
    found = configure(_arguments().parse_intermixed_args(list(words)), {})
    return str(found.bind[0]), found.directory


def test_words_in_any_order(site: Path) -> None:
    """Each order of port, directory and options says the same."""
    parts = [["9000"], [str(site)], ["-b", "127.0.0.2"], ["--no-listing"], ["--grace", "1"]]
    for order in itertools.permutations(parts):
        assert meant(*itertools.chain(*order)) == ("127.0.0.2:9000", str(site))


HTTP_SERVER = [
    (["8000", "--bind", "127.0.0.1", "--directory", "{site}"], "127.0.0.1:8000", "{site}"),
    (["--bind", "127.0.0.1", "--directory", "{site}", "8000"], "127.0.0.1:8000", "{site}"),
    (["-b", "::1"], "[::1]:8000", "."),
    (["-b", "::1", "9"], "[::1]:9", "."),
    (["-p", "HTTP/1.1"], "127.0.0.1:8000", "."),
    (["--protocol", "HTTP/1.0", "-d", "{site}"], "127.0.0.1:8000", "{site}"),
    (["--port=7", "--directory={site}"], "127.0.0.1:7", "{site}"),
    (["-d{site}", "-b127.0.0.2:5"], "127.0.0.2:5", "{site}"),
]


@pytest.mark.parametrize(("words", "address", "directory"), HTTP_SERVER)
def test_http_servers_way(site: Path, words: list[str], address: str, directory: str) -> None:
    given = [word.replace("{site}", str(site)) for word in words]
    assert meant(*given) == (address, directory.replace("{site}", str(site)))


def test_a_directory_with_a_colon_or_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What exists as a directory is one; bare digits are the port all the same."""
    (tmp_path / "a:b").mkdir()
    (tmp_path / "8000").mkdir()
    monkeypatch.chdir(tmp_path)
    assert meant("a:b")[1] == "a:b"
    assert meant("8000") == ("127.0.0.1:8000", ".")
    assert meant("./8000")[1] == "./8000"


# Failures: the code, one or two lines that name the thing, never a traceback.

USAGE = [
    (["nowhere"], "nowhere"),
    ([""], "''"),
    (["module:app"], "module:app.*application"),
    (["http://127.0.0.1:8000/"], "application"),
    (["/etc/passwd"], "/etc/passwd"),
    (["-1"], "-1"),
    (["65536"], "65536"),
    (["99999999999999999999"], "99999999999999999999"),
    (["٣"], "no such directory"),
    (["8000", "8001"], "port is given twice"),
    ([".", "."], "directory is given twice"),
    (["8000", "--port", "1"], "port is given twice"),
    (["-d", "nowhere"], "nowhere.*No such file"),
    (["-d", "/etc/passwd"], "/etc/passwd.*Not a directory"),
    (["-d", ""], "directory"),
    (["--port", "http"], "port"),
    (["--nonsense"], "--nonsense"),
    (["--max-conn", "5"], "--max-conn"),
    (["--bind"], "--bind"),
    (["-b", "127.0.0.1:99999"], "port"),
    (["-b", "8000"], "--port 8000"),
    (["-b", ""], "bind"),
    (["-b", "unix:"], "bind"),
    (["--mode", "prefork", "--workers", "0"], "workers"),
    (["--mode", "nonsense"], "fork, prefork, thread"),
    (["--engine", "nonsense"], "cython, python"),
    (["--max-connections", "0"], "max-connections"),
    (["--limit-head", "256"], "limit-head"),
    (["--timeout-idle", "0"], "timeout-idle"),
    (["--grace", "soon"], "grace"),
    (["--header", "Content-Length: 5"], "Content-Length"),
    (["--header", "X: a\r\nY: b"], "header"),
    (["--log-format", "xml"], "combined, json"),
    (["--access-log", ""], "access-log"),
    (["--config", "nowhere.toml"], "nowhere.toml"),
    (["--config", ""], "config"),
    (["--config", "."], "config"),
    (["--config", "/etc/passwd"], "/etc/passwd.*not TOML"),
    (["-p", "HTTP/2"], "HTTP/1.1"),
    (["--no-listing=maybe"], "no-listing"),
    (["--cgi"], "--cgi"),
    (["a\nb\x1b[31m"], r"a\\nb\\x1b\[31m"),
    (["--a\nb\x1b[31m"], r"a\\nb\\x1b\[31m"),
    (["\udcff\udcfe"], r"udcff"),
    (["--\udcff"], r"udcff"),
]


@pytest.mark.parametrize(("words", "part"), USAGE, ids=[repr(words)[:40] for words, _ in USAGE])
def test_usage(words: list[str], part: str) -> None:
    failed(run(*words), 2, part)


def failed(done: subprocess.CompletedProcess[str], code: int, part: str) -> None:
    lines = done.stderr.splitlines()
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert 1 <= len(lines) <= 2, done.stderr
    assert lines[0].startswith("pyweb: ")
    assert re.search(part, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert all(line.isprintable() for line in lines)


CANNOT_START = [
    (["-b", "192.0.2.1:0"], "192.0.2.1:0"),
    (["-b", "no-such-host.invalid"], "no-such-host.invalid"),
    (["-b", "a" * 70], "aaa"),
    (["-b", "a..b"], r"a\.\.b"),
    (["-b", "unix:/nowhere/at/all"], "/nowhere/at/all.*directory"),
    (["-b", "unix:/etc/passwd"], "/etc/passwd"),
    (["-b", "unix:" + "x" * 200], "too long"),
    (["0", "--access-log", "/nowhere/log"], "/nowhere/log"),
    (["0", "--access-log", "/"], "access-log"),
]


@pytest.mark.parametrize(("words", "part"), CANNOT_START, ids=[w[-1][:20] for w, _ in CANNOT_START])
def test_cannot_start(words: list[str], part: str) -> None:
    failed(run(*words), 1, part)


def test_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        failed(run(str(port)), 1, f"127.0.0.1:{port}.*in use.*choose another port, or 0")
        # All or none: the other listener is gone as well.
        failed(run("-b", "127.0.0.1:0", "-b", f"127.0.0.1:{port}"), 1, "in use")


def test_the_environment_and_the_file_fail_alike(tmp_path: Path) -> None:
    environ = {**os.environ, "PYWEB_GRACE": "soon"}
    failed(run(env=environ), 2, "PYWEB_.*grace: 'soon'")
    file = tmp_path / "x.toml"
    file.write_text("max-conections = 5\n")
    failed(run("--config", str(file)), 2, "did you mean max-connections")
    failed(run(env={**os.environ, "PYWEB_CONFIG": str(file)}), 2, "did you mean max-connections")


# What is asked for and answered at once.


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert done.stderr == ""
    python = ".".join(map(str, sys.version_info[:3]))
    assert done.stdout == f"pyweb {__version__} (engine {ENGINES[0]}, cpython {python})\n"
    done = run("--version", "--engine", "python")
    assert done.stdout == f"pyweb {__version__} (engine python, cpython {python})\n"


def the_only(pattern: str, lines: list[str]) -> str:
    found = [line for line in lines if re.fullmatch(pattern, line)]
    assert len(found) == 1, pattern
    return found[0]


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help(word: str) -> None:
    done = run(word)
    assert done.returncode == 0
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 100
    assert not [line for line in lines if line != line.rstrip()]
    for option in OPTIONS:
        entry = the_only(rf"  (-.,|   ) --{option.name}( .*|)", lines)
        if option.short:
            assert f"-{option.short}, --{option.name} " in entry
        if not option.is_flag and option.name != "header":
            assert re.search(r"\[.+\]$", entry), f"no default: {entry}"
        if option.default not in (None, "false"):
            assert entry.endswith(f" [{option.default}]")
    for other in ("--config", "--check-config", "--print-config", "--version", "--help"):
        assert f"{other} " in done.stdout


@pytest.mark.parametrize("word", ["--help", "--version", "--print-config", "--check-config"])
def test_output_that_nobody_takes(word: str) -> None:
    """A reader that has left is no failure; a full disk is."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as gone:
        done = subprocess.run(
            [*PYWEB, word], stdout=gone, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
        )
    assert (done.returncode, done.stderr) == (0, b"")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PYWEB, word], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
        )
    assert done.returncode == 1
    assert done.stderr == b"pyweb: standard output: No space left on device\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("word", ["--help", "--version", "--print-config", "nowhere"])
def test_closed_streams(word: str, closed: str) -> None:
    shell = f"exec {sys.executable} -W error -X dev -m pyweb {word} {closed}"
    done = subprocess.run(
        ["/bin/sh", "-c", shell], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == (2 if word == "nowhere" else 0)
    assert b"Traceback" not in done.stderr + done.stdout


def test_the_current_directory_is_no_place_for_modules(tmp_path: Path) -> None:
    """It is what is served, maybe what others may write to: python -m must not import from it."""
    for name in ("argparse", "json", "select", "socket", "tomllib"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('a module of the visitor')\n")
    done = run("--print-config", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


# A server's first and last words.


def test_url_lines(serve: ServeFixture, tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    server = serve("-b", "127.0.0.1", "-b", "[::1]", "-b", f"unix:{path}", "-b", "127.0.0.2:0")
    until(lambda: server.stdout().count("\n") >= 4, "four URL lines")
    lines = server.stdout().splitlines()
    assert re.fullmatch(r"http://127\.0\.0\.1:[1-9]\d*/", lines[0])
    assert re.fullmatch(r"http://\[::1\]:[1-9]\d*/", lines[1])
    assert lines[2] == f"unix:{path}"
    assert re.fullmatch(r"http://127\.0\.0\.2:[1-9]\d*/", lines[3])
    for line in (lines[0], lines[1], lines[3]):
        host, port = line[7:-1].rsplit(":", 1)
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as sock:
            sock.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
            assert sock.recv(100).startswith(b"HTTP/1.1 200 ")


STARTS = [PYWEB, [str(Path(sys.executable).parent / "pyweb")]]


@pytest.mark.parametrize("command", STARTS, ids=["python -m pyweb", "pyweb"])
def test_both_names(site: Path, command: list[str]) -> None:
    if not Path(command[0]).exists():
        pytest.skip(f"no script at {command[0]}")
    with started([*command, "0", str(site)]) as process:
        assert process.stdout is not None
        url = process.stdout.readline()
        assert re.fullmatch(rb"http://127\.0\.0\.1:\d+/\n", url)
        assert get(url.decode().strip()) == b"hello, world\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0


@contextlib.contextmanager
def started(command: list[str], **more: object) -> Iterator[subprocess.Popen[bytes]]:
    """A process with pipes; it ends here, at the latest by SIGKILL."""
    process = subprocess.Popen(  # type: ignore[call-overload]
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more
    )
    with process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
                process.wait(PATIENCE)


def get(url: str) -> bytes:
    host, port = url[7:-1].rsplit(":", 1)
    with socket.create_connection((host, int(port)), PATIENCE) as sock:
        sock.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
        data = b""
        while piece := sock.recv(65536):
            data += piece
    return data.partition(b"\r\n\r\n")[2]


STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} pyweb\[\d+\] "


def said(server: Server) -> list[str]:
    """stderr's lines, each of which must have its time."""
    lines = server.stderr().splitlines()
    assert all(re.match(STAMP, line) for line in lines), lines
    return [re.sub(STAMP, "", line, count=1) for line in lines]


def test_first_and_last_words(serve: ServeFixture, site: Path) -> None:
    server = serve()
    assert server.ask("/hello.txt").status == 200
    assert server.stop() == 0
    serving, processes, limits, protections, stopping, stopped = said(server)
    assert serving == f"serving {site} on {server.url}"
    assert re.fullmatch(
        f"processes: mode fork, engine {ENGINES[0]}, up to 1024, as (root|user [0-9]+);"
        " the system allows .*[0-9]+ descriptors.*",
        processes,
    )
    assert limits == (
        "limits: head 64K in 20 s, body 1G in 60 s, answer in 60 s, more at 500 bytes/s;"
        " idle 15 s, a process within 10 s, the end within 30 s"
    )
    assert re.fullmatch(
        "protections: paths stay inside by .*, dot files hidden, a crash answers 500;"
        " idle connections hold no process; watchdog off; share of a client: none",
        protections,
    )
    assert re.fullmatch(r"stopping: \d connections have 30 s", stopping)
    assert stopped == "stopped: 1 connections served, 0 refused, 0 cut"


def test_no_warnings(serve: ServeFixture, engine: str) -> None:
    """Development mode, warnings are errors: a start, an answer, a refusal, an end."""
    environ = {**os.environ, "PYTHONWARNINGS": "error", "PYTHONDEVMODE": "1"}
    server = serve("--engine", engine, "--log-format", "json", "--per-client", "1", env=environ)
    with server.connect() as client:
        client.send(b"G")
        assert server.ask("/hello.txt").status == 503
    until(lambda: server.ask("/sub/").status == 200, "the share to be free")
    assert server.stop() == 0
    assert len(said(server)) == 6
    assert '"status": 503' in server.stdout()


def test_closed_stdout(site: Path, tmp_path: Path) -> None:
    """`>&-`: served all the same, and no client's socket gets the number 1 and the log with it."""
    path = tmp_path / "s.sock"
    shell = f"exec {sys.executable} -m pyweb {site} -b unix:{path} <&- >&-"
    with started(["/bin/sh", "-c", shell]) as process:
        until(path.exists, "the socket")
        for _ in range(3):
            with socket.socket(socket.AF_UNIX) as sock:
                until(lambda s=sock: s.connect_ex(str(path)) == 0, "the listener")
                sock.sendall(b"GET /hello.txt HTTP/1.0\r\n\r\n")
                data = b""
                while piece := sock.recv(65536):
                    data += piece
            assert data.endswith(b"\r\n\r\nhello, world\n")
            assert data.startswith(b"HTTP/1.1 200 OK\r\n")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert len(process.stderr.read().splitlines()) == 6


def test_signal_before_the_server(site: Path) -> None:
    """SIGINT while modules are being read or the port is being opened: no traceback from main."""
    code = (
        "import os, signal, sys\n"
        "import pyweb.cli as cli\n"
        "cli.serve = lambda *_: os.kill(os.getpid(), signal.SIGINT)\n"
        f"sys.exit(cli.main(['0', {str(site)!r}]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=PATIENCE, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


# Another user.


def test_an_unprivileged_user(serve: ServeFixture, public: Path) -> None:
    """Nobody's rights, a directory that can't be written: only the usual lines are said."""
    nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": [], "cwd": "/"}
    server = serve(directory=public / "site", **nobody)
    assert server.ask("/hello.txt").status == 200
    assert server.stop() == 0
    assert len(said(server)) == 6
    assert len(server.log()) == 1


def test_what_an_unprivileged_user_may_not(public: Path) -> None:
    low = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if low > 80:
        failed(run("80", user=NOBODY, cwd="/"), 1, "127.0.0.1:80.*CAP_NET_BIND_SERVICE")
    failed(run("-b", "unix:/etc/x.sock", user=NOBODY, cwd="/"), 1, "/etc/x.sock.*may write")
    failed(run("0", "--access-log", "/etc/x.log", user=NOBODY, cwd="/"), 1, "/etc/x.log")
    (public / "site" / "sub").chmod(0o700)
    words = [str(public / "site" / "sub")]
    failed(run(*words, user=NOBODY, cwd="/"), 2, "sub.*Permission denied")


def be_idle() -> None:
    resource.setrlimit(resource.RLIMIT_NICE, (0, 0))
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def test_who_may_not_choose_its_turns(public: Path) -> None:
    """To leave SCHED_IDLE is not for everybody (sched(7))."""
    words = ["0", str(public / "site"), "--batch"]
    why = "batch: Operation not permitted; leave --batch out, and have who starts pyweb do it"
    failed(run(*words, user=NOBODY, cwd="/", preexec_fn=be_idle), 1, why)


def test_a_read_only_system(site: Path) -> None:
    """Nothing is written anywhere but to stdout and stderr."""
    unshare = need("unshare")
    shell = (
        "mount -o remount,bind,ro / 2>/dev/null || mount -o remount,ro / || exit 77;"
        f"exec {' '.join(PYWEB)} 0 {site}"
    )
    command = [unshare, "--mount", "/bin/sh", "-c", shell]
    if os.getuid() != 0:
        pytest.skip("only root can make a mount namespace here")
    with started(command) as process:
        assert process.stdout is not None
        url = process.stdout.readline().decode().strip()
        if not url and process.wait(PATIENCE) == 77:
            pytest.skip("the root can't be made read-only here")
        assert get(url) == b"hello, world\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        assert process.stderr is not None
        assert len(process.stderr.read().splitlines()) == 6


@pytest.mark.parametrize("mode", MODES)
def test_a_read_only_root_no_home_and_a_random_user(public: Path, mode: str) -> None:
    """A container with as little as there can be: no variable but what Python needs, no place to
    write, a user that no file knows. Not a word more than ever."""
    uid = random.randrange(100_000, 1 << 31)
    shell = (
        "mount -o remount,bind,ro / 2>/dev/null || mount -o remount,ro / || exit 77;"
        "for at in /tmp /run /var/tmp /dev/shm; do [ -d $at ] || continue;"
        " mount -o bind,ro $at $at && mount -o remount,bind,ro $at || exit 77; done 2>/dev/null;"
        f"cd / && exec setpriv --reuid {uid} --regid {uid} --clear-groups --no-new-privs"
        f" env -i PYTHONPATH=$PYTHONPATH PYTHONWARNINGS=error PYTHONDEVMODE=1 TMPDIR=/nowhere"
        f" {sys.executable} -m pyweb 0 {public}/site --mode {mode}"
    )
    need("setpriv")
    command = [need("unshare"), "--mount", "/bin/sh", "-c", shell]
    with started(command) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        url = process.stdout.readline().decode().strip()
        if not url and process.wait(PATIENCE) == 77:
            pytest.skip("the root can't be made read-only here")
        assert get(url) == b"hello, world\n"
        mounts = Path(f"/proc/{process.pid}/mounts").read_text()
        assert re.search(r"^\S+ /tmp \S+ ro\b", mounts, re.M)
        assert f"Uid:\t{uid}\t" in Path(f"/proc/{process.pid}/status").read_text()
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
        lines = process.stderr.read().decode().splitlines()
    assert all(re.match(STAMP, line) for line in lines), lines
    assert len(lines) == 6, lines
