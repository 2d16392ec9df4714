"""Lines for the operator: whole or lost and counted, and never a reason to wait."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import NOBODY, PATIENCE

from pyweb.journal import PIPE_BUF, Journal, Sink, printable

LINE = b"x" * 99 + b"\n"


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        with contextlib.suppress(OSError):
            os.close(writer)


@contextlib.contextmanager
def closing(sink: Sink, fd: int) -> Iterator[Sink]:
    """A Sink lives as long as its process; here, what it has opened is closed."""
    try:
        yield sink
    finally:
        if sink.fd != fd:
            os.close(sink.fd)
        if hasattr(sink, "_socket"):
            sink._socket.detach()


def drain(fd: int) -> bytes:
    os.set_blocking(fd, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(fd, 1 << 20):
            data += piece
    return data


def test_pipe() -> None:
    with pipe() as (reader, writer), closing(Sink(writer), writer) as sink:
        assert sink.is_pipe
        assert sink.write(LINE)
        assert drain(reader) == LINE


def fill(sink: Sink) -> int:
    """Write until lines are lost. How many were not."""
    count = 0
    while sink.write(LINE):
        count += 1
        assert count < 1_000_000
    return count


def test_full_pipe_loses_whole_lines() -> None:
    with pipe() as (reader, writer), closing(Sink(writer), writer) as sink:
        count = fill(sink)
        assert not sink.write(LINE)
        assert sink.lost == 2
        assert drain(reader) == LINE * count
        assert sink.write(LINE)  # as soon as somebody reads again
        assert drain(reader) == LINE


def test_the_shared_description_is_not_changed() -> None:
    """O_NONBLOCK on stdout would make whoever shares it with us fail (a shell's other commands)."""
    with pipe() as (_, writer):
        before = fcntl.fcntl(writer, fcntl.F_GETFL)
        with closing(Sink(writer), writer) as sink:
            fill(sink)
            assert fcntl.fcntl(writer, fcntl.F_GETFL) == before
            assert os.get_blocking(writer)


def test_pipe_of_another_user() -> None:
    """It can't be opened anew; a full one still holds up nobody."""
    if os.getuid() != 0:
        pytest.skip("only root can become somebody else")
    with pipe() as (reader, writer):
        os.seteuid(NOBODY)
        try:
            sink = Sink(writer)
        finally:
            os.seteuid(0)
        assert sink.fd == writer
        count = fill(sink)
        assert drain(reader) == LINE * count
        assert os.get_blocking(writer)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_socket(kind: int) -> None:
    """As systemd gives one: its stdout is a socket to the journal."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs, closing(Sink(ours.fileno()), ours.fileno()) as sink:
        count = fill(sink)
        assert ours.getblocking()
        assert drain(theirs.fileno()).count(LINE) == count > 0


def test_terminal() -> None:
    leader, follower = pty.openpty()
    try:
        with closing(Sink(follower), follower) as sink:
            assert not sink.is_pipe
            assert sink.write(b"hello\n")
            assert os.read(leader, 100) == b"hello\r\n"
            fill(sink)
            assert os.get_blocking(follower)
    finally:
        os.close(leader)
        os.close(follower)


def test_reader_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with closing(Sink(writer), writer) as sink:
        assert not sink.write(LINE)
        assert sink.lost == 1
    os.close(writer)


def test_no_descriptor() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    sink = Sink(writer)
    assert not sink.write(LINE)
    assert sink.lost == 1


def test_full_disk() -> None:
    sink = Sink.open("/dev/full")
    assert not sink.write(LINE)
    assert sink.lost == 1
    os.close(sink.fd)


def test_file_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"before\n")
    sink = Sink.open(str(path))
    assert not sink.is_pipe
    assert sink.write(LINE)
    os.close(sink.fd)
    assert path.read_bytes() == b"before\n" + LINE
    sink = Sink.open(str(tmp_path / "new"))
    os.close(sink.fd)
    assert (tmp_path / "new").stat().st_mode & 0o137 == 0


def test_fifo_without_a_reader(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        Sink.open(str(tmp_path / "fifo"))


# The journal.

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} pyweb\[\d+\] "


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[tuple[Journal, Path]]:
    path = tmp_path / "journal"
    sink = Sink.open(str(path))
    yield Journal(sink), path
    os.close(sink.fd)


ODD = ["plain", "a\nb", "\x1b[31m", "\r", "ü ☃", "\u2028", "\udcff", "\0", "x" * 9_000, "☃" * 9_000]


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_one_line_whatever_is_said(journal: tuple[Journal, Path], text: str) -> None:
    journal[0].say(text)
    said = journal[1].read_bytes()
    assert len(said) <= PIPE_BUF
    assert re.fullmatch(STAMP + r"[^\n]*\n", said.decode())
    assert said.decode()[:-1].isprintable()


def test_printable() -> None:
    assert printable("a\nb\x1b\udcff ü") == r"a\nb\x1b\udcff ü"


def counts(path: Path, text: str) -> list[int]:
    """How many events each line of `text` stands for."""
    found = []
    for line in path.read_text().splitlines():
        match = re.fullmatch(STAMP + text + r"(?: \((\d+) times\))?", line)
        assert match, line
        found.append(int(match[1] or 1))
    return found


def test_often_is_said_once_a_second(journal: tuple[Journal, Path]) -> None:
    start = time.monotonic()
    for _ in range(5000):
        journal[0].say_often("again")
    seconds = time.monotonic() - start
    said = counts(journal[1], "again")
    assert said[0] == 1
    assert len(said) <= 1 + seconds
    journal[0].flush(at_once=True)
    assert sum(counts(journal[1], "again")) == 5000
    assert journal[0].next_flush() is None


def test_what_is_held_back_is_said_a_second_later(journal: tuple[Journal, Path]) -> None:
    for count in (1, 7, 5):
        journal[0].say_often("lost", count)
    assert counts(journal[1], "lost") == [1]
    due = journal[0].next_flush()
    assert due is not None
    journal[0].flush()
    while time.monotonic() < due:
        time.sleep(0.05)
    journal[0].flush()
    assert counts(journal[1], "lost") == [1, 12]
    assert journal[0].next_flush() is None


IN_THE_BACKGROUND = """
import fcntl, os, signal, sys, termios
tty = int(sys.argv[1])
fcntl.ioctl(tty, termios.TIOCSCTTY, 0)
ways = termios.tcgetattr(tty)
ways[3] |= termios.TOSTOP
termios.tcsetattr(tty, termios.TCSANOW, ways)
source, sink = os.pipe()
child = os.fork()
if child == 0:
    os.setpgid(0, 0)
    os.read(source, 1)
    os._exit(0)
os.setpgid(child, child)
os.tcsetpgrp(tty, child)
signal.signal(signal.SIGTTOU, lambda *_: None)
from pyweb.journal import Sink
assert Sink(tty).write(b"a line")
os.write(sink, b".")
os.waitpid(child, 0)
"""


def test_a_terminal_that_stops_the_background() -> None:
    """stty tostop, and SIGTTOU handled: the write was tried again for ever."""
    ours, theirs = os.openpty()
    try:
        subprocess.run(
            [sys.executable, "-c", IN_THE_BACKGROUND, str(theirs)],
            pass_fds=[theirs], start_new_session=True, timeout=PATIENCE, check=True,
        )  # fmt: skip
        assert os.read(ours, 100) == b"a line"
    finally:
        os.close(ours)
        os.close(theirs)
