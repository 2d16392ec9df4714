"""Slots in shared memory: what a fork shares, what it doesn't, and how a stranger reads it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyweb import scoreboard
from pyweb.scoreboard import (
    ACTIVE_MS,
    ANSWERING,
    BYTES,
    ENDED_BYTES,
    ENDED_REQUESTS,
    GENERATION,
    GENERATION_OF,
    KIND,
    MASTER,
    PID,
    REQUESTS,
    SERVED,
    SLOTS,
    STATE,
    SUPERVISOR,
    USED,
    WORKER,
    Reader,
    Scoreboard,
)


def memfd() -> int:
    """This process's scoreboard, as a stranger would find it."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if scoreboard.MEMFD_NAME in os.readlink(f"/proc/self/fd/{name}"):
                return os.open(f"/proc/self/fd/{name}", os.O_RDWR)
    raise AssertionError("no scoreboard is open")


@pytest.fixture
def board() -> Iterator[Scoreboard]:
    one = Scoreboard(4, generation=3, supervisor=77)
    yield one
    one.close()


@pytest.fixture
def fd(board: Scoreboard) -> Iterator[int]:
    found = memfd()
    yield found
    os.close(found)


def test_a_reader_sees_what_was_written(board: Scoreboard, fd: int) -> None:
    board.set(SERVED, 12)
    board.describe([("url", "http://a/"), ("url", "http://b/"), ("directory", "/ü\n\t\udcff")])
    slot = board.take(5, WORKER)
    slot.set(PID, 99)
    slot.set(STATE, ANSWERING)
    slot.add(BYTES, 1000)
    slot.set(ACTIVE_MS, 7)
    slot.say(b"GET /x")
    slot.say_peer(b"192.0.2.1")
    reader = Reader(fd)
    head = [reader.get(word) for word in (SERVED, SLOTS, GENERATION, MASTER, SUPERVISOR, USED)]
    assert head == [12, 4, 3, os.getpid(), 77, 1]
    assert reader.about() == [
        ("url", "http://a/"), ("url", "http://b/"), ("directory", "/ü\\n\\t\\udcff")
    ]  # fmt: skip
    (record,) = reader.records()
    words = (PID, STATE, BYTES, ACTIVE_MS, KIND, GENERATION_OF)
    assert [record.get(word) for word in words] == [99, ANSWERING, 1000, 7, WORKER, 3]
    assert (record.text, record.peer) == (b"GET /x", b"192.0.2.1")


def test_only_taken_slots_are_read(board: Scoreboard, fd: int) -> None:
    slots = [board.take(1) for _ in range(3)]
    board.give_back(slots[1])
    assert [record.number for record in Reader(fd).records()] == [0, 2]


def test_texts_are_cut_off_where_their_room_ends(board: Scoreboard, fd: int) -> None:
    first, second = board.take(1), board.take(1)
    first.say(b"r" * 1000)
    first.say_peer(b"p" * 1000)
    assert (first.text(), first.peer()) == (b"r" * 255, b"p" * 63)
    assert (second.get(PID), second.text(), second.peer()) == (0, b"", b"")
    board.describe([("k", "v" * 100_000)])
    assert first.get(STATE) == scoreboard.STARTING
    assert Reader(fd).about()[0][0] == "k"


def test_what_the_ended_told_is_kept(board: Scoreboard) -> None:
    """As far as it can be: a sum beyond what a word holds, or below 0, harms nobody."""
    for number in (5, 1 << 62, 1 << 62, (1 << 63) - 1, -(1 << 63)):
        slot = board.take(1)
        slot.set(REQUESTS, 2)
        slot.set(BYTES, number)
        board.give_back(slot)
    assert board.get(ENDED_REQUESTS) == 10
    assert board.get(ENDED_BYTES) == (1 << 63) - 1


def test_a_fork_shares_the_slots_and_not_the_head() -> None:
    code = """if True:
        import os
        from pyweb.scoreboard import *
        board = Scoreboard(2)
        slot = board.take(1)
        for touch in (lambda: slot.add(REQUESTS, 3), lambda: board.set(SERVED, 9)):
            pid = os.fork()
            if pid == 0:
                os.closerange(3, 100)
                touch()
                os._exit(0)
            print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(slot.get(REQUESTS), board.get(SERVED))
    """
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", str(-signal.SIGSEGV), "3", "0"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_without_memfd(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", refuse)
    board = Scoreboard(1)
    assert not board.has_memfd
    slot = board.take(8)
    slot.say(b"x")
    assert slot.text() == b"x"
    board.close()


def test_no_room_for_a_descriptor_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(os, "memfd_create", refuse)
    with pytest.raises(OSError, match="24"):
        Scoreboard(1)


def test_it_costs_one_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    board = Scoreboard(1)
    assert len(os.listdir("/proc/self/fd")) == before + 1
    board.close()
    assert len(os.listdir("/proc/self/fd")) == before


# What is no scoreboard, or has been written by somebody hostile.


def test_another_layout_is_named(board: Scoreboard, fd: int) -> None:
    board.set(scoreboard.VERSION, 99)
    with pytest.raises(ValueError, match="layout 99, and this pyweb reads 2"):
        Reader(fd)


@pytest.mark.parametrize("content", [b"", b"\0" * 8192, b"x" * 100_000])
def test_something_else_is_no_scoreboard(content: bytes) -> None:
    fd = os.memfd_create("other")
    try:
        os.write(fd, content)
        with pytest.raises(ValueError, match="scoreboard"):
            Reader(fd)
    finally:
        os.close(fd)


@given(st.data())
def test_a_reader_survives_anything(data: st.DataObject) -> None:
    board = Scoreboard(4)
    fd = memfd()
    try:
        board.take(1).set(PID, 1)
        board.take(1).set(PID, 2)
        board.describe([("key", "value")])
        size = os.fstat(fd).st_size
        for _ in range(data.draw(st.integers(1, 6))):
            junk = data.draw(st.binary(min_size=1, max_size=600))
            os.pwrite(fd, junk, data.draw(st.integers(16, size - len(junk))))
        if data.draw(st.booleans()):
            os.ftruncate(fd, data.draw(st.integers(8192, size)))
        reader = Reader(fd)
        for record in reader.records():
            assert len(record.text) < 256
            assert len(record.peer) < 64
        assert all(isinstance(key, str) for key, _ in reader.about())
    finally:
        board.close()
        os.close(fd)


@pytest.mark.parametrize("length", [-(1 << 63), -1, (1 << 63) - 1])
def test_lengths_in_the_head_are_bounded(board: Scoreboard, fd: int, length: int) -> None:
    board.take(1).set(PID, 1)
    board.set(USED, length)
    board.set(scoreboard._ABOUT_SIZE, length)
    reader = Reader(fd)
    reader.about()
    assert len(reader.records()) == (1 if length > 0 else 0)
