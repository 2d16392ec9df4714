"""The pid file: whole from the first moment, never another's, gone at the end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PATIENCE, ServeFixture, until
from unprivileged import as_nobody

from pyweb.errors import StartError
from pyweb.pidfile import PidFile, read_pid


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pyweb", *words],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def refused(path: Path, part: str) -> None:
    with pytest.raises(StartError, match=part) as failure:
        PidFile(str(path), os.getpid())
    assert str(failure.value).startswith(f"pid-file: '{path}': ")


def a_dead_pid() -> int:
    process = subprocess.Popen(["/bin/true"])
    process.wait(PATIENCE)
    return process.pid


# With a server.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_from_start_to_end(serve: ServeFixture, tmp_path: Path, number: int) -> None:
    path = tmp_path / "pyweb.pid"
    server = serve("--pid-file", str(path))
    assert path.read_text() == f"{server.pid}\n"
    assert server.stop(number) == 0
    assert [p.name for p in tmp_path.iterdir() if "pid" in p.name] == []


def test_a_second_server_is_refused(serve: ServeFixture, tmp_path: Path, site: Path) -> None:
    path = tmp_path / "pyweb.pid"
    server = serve("--pid-file", str(path))
    done = run("0", str(site), "--pid-file", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"pyweb: pid-file: '{path}': process {server.pid} runs already;"
        " stop it, or name another file\n"
    )
    assert path.read_text() == f"{server.pid}\n"
    assert server.ask("/hello.txt").status == 200


def test_what_a_killed_server_leaves_is_replaced(serve: ServeFixture, tmp_path: Path) -> None:
    """Also while its master still answers somebody: the lock was the supervisor's."""
    path = tmp_path / "pyweb.pid"
    first = serve("--pid-file", str(path))
    first.process.kill()
    first.process.wait(PATIENCE)
    assert path.read_text() == f"{first.pid}\n"
    second = serve("--pid-file", str(path))
    assert path.read_text() == f"{second.pid}\n"
    assert second.stop() == 0
    assert not path.exists()


def test_a_server_that_can_not_start_leaves_none(tmp_path: Path, serve: ServeFixture) -> None:
    """It is written when the listeners are bound."""
    path = tmp_path / "second.pid"
    server = serve()
    done = run(str(server.port), "--pid-file", str(path))
    assert (done.returncode, path.exists()) == (1, False)
    socket = tmp_path / "web.sock"
    done = run("-b", f"unix:{socket}", "--pid-file", "/nowhere/at/all.pid")
    assert (done.returncode, socket.exists()) == (1, False)
    assert "/nowhere/at/all.pid': No such file or directory; name a file" in done.stderr
    assert done.stderr.count("\n") == 1


def test_status_takes_it(serve: ServeFixture, tmp_path: Path) -> None:
    path = tmp_path / "pyweb.pid"
    server = serve("--pid-file", str(path))
    serve()  # another, which is not asked for
    until(lambda: run("status", str(path)).returncode == 0, "the server to be found")
    done = run("status", str(path))
    assert f"supervisor {server.pid}," in done.stdout
    assert done.stdout.count("supervisor ") == 1
    assert server.stop() == 0
    done = run("status", str(path))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"pyweb: pid-file: '{path}': No such file or directory; no pyweb that writes it runs\n"
    )
    path.write_text("[table]\n")
    done = run("status", str(path))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no pid stands in it" in done.stderr


# Alone.


def test_stale_ones_are_replaced(tmp_path: Path) -> None:
    """Whoever has that pid now (it may be anybody) does not hold the lock."""
    path = tmp_path / "x.pid"
    for text in (f"{a_dead_pid()}\n", f"{os.getppid()}", "", "  7 \n"):
        path.write_text(text)
        PidFile(str(path), 42).remove()
        assert not path.exists()


def test_other_files_are_not_touched(tmp_path: Path) -> None:
    file, directory, link, fifo = (tmp_path / n for n in ("file", "directory", "link", "fifo"))
    file.write_text("precious")
    directory.mkdir()
    link.symlink_to(tmp_path / "target")
    (tmp_path / "target").write_text("1\n")
    os.mkfifo(fifo)
    for path in (file, directory, fifo):
        refused(path, "no pid file stands there")
    refused(link, "a symbolic link")
    assert file.read_text() == "precious"
    assert directory.is_dir()
    assert link.is_symlink()
    assert fifo.is_fifo()
    assert (tmp_path / "target").read_text() == "1\n"
    assert sorted(os.listdir(tmp_path)) == ["directory", "fifo", "file", "link", "target"]


def test_where_it_can_not_be_written() -> None:
    def claim() -> str:
        try:
            PidFile("/etc/pyweb.pid", 1)
        except StartError as error:
            return str(error)
        return ""

    assert "Permission denied; name a file in a directory" in as_nobody(claim)


def test_a_reader_never_sees_half_of_it(tmp_path: Path) -> None:
    """It has its name only when it is whole: what stands there before the rename is the old one."""
    path = tmp_path / "x.pid"
    seen = []

    def look(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and arguments[1] == str(path):
            seen.append((path.read_text(), Path(str(arguments[0])).read_text()))

    path.write_text("7\n")
    sys.addaudithook(look)  # it can't be taken away again, and looks at this path alone
    made = PidFile(str(path), 42)
    assert seen == [("7\n", "42\n")]
    made.remove()


def test_removed_only_if_it_still_is_ours(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    first = PidFile(str(path), 42)
    path.write_text("43\n")  # rewritten
    first.remove()
    assert path.read_text() == "43\n"
    second = PidFile(str(path), 44)
    path.unlink()
    path.write_text("44\n")  # another file
    second.remove()
    assert path.exists()
    third = PidFile(str(path), 45)
    path.unlink()
    third.remove()


def test_a_successor_replaces_its_predecessors(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    old = PidFile(str(path), 42)
    refused(path, "process 42 runs already")
    new = PidFile(str(path), 43, predecessor=42)
    old.remove()
    assert read_pid(str(path)) == 43
    new.remove()
    assert not path.exists()
