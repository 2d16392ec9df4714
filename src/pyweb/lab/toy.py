"""The rungs of the ladder that have an interpreter: one tiny server, in six ways.

    python -S -m pyweb.lab.toy RUNG PATH FILE EXTENSION [STAMPS_FD]

Answers GET of PATH on 127.0.0.1 with FILE (a .txt) and closes; prints its port; SIGTERM ends it.
EXTENSION is c/rung.c, built. All rungs import the same, and little, so that they differ in what
they do and not in the memory that a fork copies: with -S there are no site-packages, so PYTHONPATH
must lead to pyweb. Each differs from the one before it in one thing:

    c-loop-excluded  accept, fork and serve in C, the interpreter's heap left out of the fork
    c-loop           and the heap is in it
    raw-fork         the accept loop is Python's
    os-fork          the fork is os.fork: Python's hooks run, and the child comes back to Python
    python-child     the child serves in Python
    finalised        and leaves by sys.exit: the interpreter cleans up

Not here: the C rungs without an interpreter (c/server.c), who asks and who compares.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from types import ModuleType
from typing import NoReturn

from .. import stamps
from .._pysend import push_bytes, push_file
from ..errors import Disconnected
from ..signals import SignalPipe
from ..stamps import NO_STAMPS, Record, Stamps

_USAGE = "usage: python -S -m pyweb.lab.toy RUNG PATH FILE EXTENSION [STAMPS_FD]"
# As in c/path.h and c/loop.h.
_PATIENCE = 10_000
_HEAD_ROOM = 16384
_BATCH = 64
_ENDS = (signal.SIGTERM, signal.SIGINT)
_NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Lost(Exception):
    """The client is gone, or says nothing for too long."""


class Toy:
    """What is served, and with what. `memory`: a descriptor for stamps; -1: none."""

    def __init__(self, path: bytes, file: bytes, rung: ModuleType, memory: int) -> None:
        self.path = path
        self.file = file
        self.rung = rung
        self.memory = memory
        self.stamps = Stamps.inherited(memory) if memory >= 0 else NO_STAMPS
        self._number = 0
        rung.attach(memory)

    def take(self) -> tuple[Record, int]:
        """A record and its number; 0: nobody measures."""
        self._number += self.stamps.on
        return self.stamps.accepted(), self._number


_OF_THE_CLIENT = (OSError, Lost, Disconnected)

# Forks: of a connection and its record to the child's pid.
Fork = Callable[[Toy, socket.socket, Record, int], int]


def _raw_fork(toy: Toy, sock: socket.socket, record: Record, number: int) -> int:
    record.mark(stamps.FORK_BEGIN)
    pid: int = toy.rung.fork_serve(sock.fileno(), toy.path, toy.file, number)
    return pid


def _forking(child: Callable[[Toy, socket.socket, Record, int], NoReturn]) -> Fork:
    """os.fork, and this in the child."""

    def fork(toy: Toy, sock: socket.socket, record: Record, number: int) -> int:
        record.mark(stamps.FORK_BEGIN)
        pid = os.fork()
        if pid == 0:
            record.mark(stamps.CHILD)
            child(toy, sock, record, number)
        return pid

    return fork


# Children. A signal that meets one is noted and passed on, by the pipe that it shares with its
# parent; that costs nothing, and they are over soon.


def _compiled_child(toy: Toy, sock: socket.socket, record: Record, number: int) -> NoReturn:
    code = 1
    try:
        code = not toy.rung.serve(sock.detach(), toy.path, toy.file, number)
    finally:
        record.mark(stamps.EXIT)
        os._exit(code)


def _python_child(toy: Toy, sock: socket.socket, record: Record, _number: int) -> NoReturn:
    code = 1
    try:
        _converse(toy, sock, record)
        sock.shutdown(socket.SHUT_WR)
        sock.close()
        code = 0
    except _OF_THE_CLIENT:
        pass
    finally:
        record.mark(stamps.EXIT)
        os._exit(code)


def _finalised_child(toy: Toy, sock: socket.socket, record: Record, _number: int) -> NoReturn:
    """Its connection ends with the process: else the client would be back before it is gone, and
    children that are being finalised would pile up. So there is a copy of it that no object has."""
    os.dup(sock.fileno())
    code = 1
    try:
        _converse(toy, sock, record)
        code = 0
    except _OF_THE_CLIENT:
        pass
    finally:
        record.mark(stamps.EXIT)
        sys.exit(code)


# The work of c/path.h, in Python.


def _converse(toy: Toy, sock: socket.socket, record: Record) -> None:
    record.set(stamps.PID, os.getpid())
    sock.setblocking(False)
    head = _receive_head(sock, record)
    wanted = _is_wanted(head, toy.path)
    record.mark(stamps.PARSED)
    try:
        file = os.open(toy.file, os.O_RDONLY | os.O_CLOEXEC) if wanted else -1
    except OSError:
        file = -1
    if file < 0:
        _push(sock, len(_NOT_FOUND), lambda done: push_bytes(sock, _NOT_FOUND, done))
    else:
        _answer_with(sock, file, record)
        os.close(file)


def _receive_head(sock: socket.socket, record: Record) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        try:
            data = sock.recv(_HEAD_ROOM)
        except BlockingIOError:
            _wait_for(sock, select.POLLIN)
            continue
        if not head:
            record.mark(stamps.FIRST_BYTE)
        head += data
        if not data or len(head) >= _HEAD_ROOM:
            raise Lost
    return head


def _is_wanted(head: bytes, path: bytes) -> bool:
    line = head[: head.index(b"\r\n")]
    return line[:-1] == b"GET " + path + b" HTTP/1." and line[-1:].isdigit()


def _answer_with(sock: socket.socket, file: int, record: Record) -> None:
    status = os.fstat(file)
    record.mark(stamps.OPENED)
    header = _header(status)
    record.mark(stamps.DECIDED)
    size = status.st_size

    def step(done: int) -> int:
        return push_file(sock, header, file, 0, size, done)

    done = _push(sock, len(header), step)
    record.mark(stamps.HEADER_SENT)
    _push(sock, len(header) + size, step, done)
    record.mark(stamps.BODY_SENT)


def _header(file: os.stat_result) -> bytes:
    now = int(time.time())
    return (
        b"HTTP/1.1 200 OK\r\nDate: %s\r\nServer: pyweb\r\nContent-Type: text/plain; charset=utf-8"
        b"\r\nX-Content-Type-Options: nosniff\r\nAccept-Ranges: bytes\r\n"
        b'ETag: "%x-%x"\r\nLast-Modified: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n'
        % (
            _date(now),
            file.st_mtime_ns,
            file.st_size,
            _date(min(file.st_mtime_ns // 1_000_000_000, now)),
            file.st_size,
        )
    )


def _date(seconds: int) -> bytes:
    """The interpreter leaves LC_TIME alone, so this is English; pyweb's own, which must not rely
    on that, would bring `re` along."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(seconds)).encode()


def _push(sock: socket.socket, size: int, step: Callable[[int], int], done: int = 0) -> int:
    """To the `size`th byte at least, from the `done`th on. Gives how far it went."""
    while done < size:
        before, done = done, step(done)
        if done == before:
            _wait_for(sock, select.POLLOUT)
    return done


def _wait_for(sock: socket.socket, events: int) -> None:
    poll = select.poll()
    poll.register(sock, events)
    if not poll.poll(_PATIENCE):
        raise Lost


# The accept loop of c/loop.h, in Python.


class Loop:
    def __init__(self, toy: Toy, listener: socket.socket, fork: Fork) -> None:
        self._toy = toy
        self._listener = listener
        self._fork = fork
        self._signals = SignalPipe((*_ENDS, signal.SIGCHLD))
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._poll.register(self._signals.fd, select.POLLIN)
        self._children: dict[int, Record] = {}

    def run(self) -> None:
        """Until SIGTERM or SIGINT; then all children have ended."""
        while True:
            self._toy.stamps.waits()
            ready = [fd for fd, _ in self._poll.poll()]
            self._toy.stamps.woke()
            if self._signals.fd in ready:
                heard = self._signals.read()
                self._reap(os.WNOHANG)
                if heard - {signal.SIGCHLD}:
                    break
            if self._listener.fileno() in ready:
                self._accept()
        # Children have copies of it: a close alone would leave it open.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._reap(0)

    def _reap(self, flags: int) -> None:
        while self._children:
            pid, _, usage = os.wait4(-1, flags)
            if not pid:
                return
            self._toy.stamps.reaped(self._children.pop(pid), usage)

    def _accept(self) -> None:
        for _ in range(_BATCH):
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            except ConnectionAbortedError:
                continue
            record, number = self._toy.take()
            pid = self._fork(self._toy, sock, record, number)
            self._toy.stamps.forked(record)
            record.set(stamps.PID, pid)
            self._children[pid] = record
            sock.close()


FORKS: dict[str, Fork] = {
    "raw-fork": _raw_fork,
    "os-fork": _forking(_compiled_child),
    "python-child": _forking(_python_child),
    "finalised": _forking(_finalised_child),
}
RUNGS = ("c-loop-excluded", "c-loop", *FORKS)


def _load(path: str) -> ModuleType:
    """ImportError, OSError."""
    loader = ExtensionFileLoader("rung", path)
    spec = ModuleSpec("rung", loader, origin=path)
    module = loader.create_module(spec)
    loader.exec_module(module)
    return module


def _listen() -> socket.socket:
    """What is accepted inherits TCP_NODELAY."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)
    return listener


def _run(name: str, toy: Toy, listener: socket.socket) -> None:
    if name in FORKS:
        Loop(toy, listener, FORKS[name]).run()
        return
    if name == "c-loop-excluded":
        toy.rung.exclude_heap()
    toy.rung.loop(listener.fileno(), toy.path, toy.file, toy.memory)


def _is_number(word: str) -> bool:
    return word.isascii() and word.isdigit()


def main(words: list[str]) -> int:
    """2: one line on stderr."""
    if len(words) not in (4, 5) or words[0] not in RUNGS or not all(map(_is_number, words[4:])):
        print(_USAGE, f"(RUNG: {', '.join(RUNGS)})", file=sys.stderr)
        return 2
    name, path, file, extension, *memory = words
    try:
        os.stat(file)
        rung = _load(extension)
        rung.bound_life()
        toy = Toy(os.fsencode(path), os.fsencode(file), rung, int(memory[0]) if memory else -1)
        listener = _listen()
        # One that comes before somebody listens to it is heard then.
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
        print(listener.getsockname()[1], flush=True)
        _run(name, toy, listener)
    except (OSError, ImportError) as error:
        print(f"toy: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
