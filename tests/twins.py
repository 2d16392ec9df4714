"""One site, answered by Python and by C: what tests of the cache and of lanes stand on."""

from __future__ import annotations

import mmap
import os
import re
import socket
from pathlib import Path

import pytest
from conftest import PATIENCE

from pyweb import cache as policy
from pyweb.accesslog import AccessLog
from pyweb.child import END, INTERRUPTS, Driver
from pyweb.cli import _arguments as arguments
from pyweb.cli import configure
from pyweb.connection import Connection
from pyweb.docroot import BENEATH, PATH, READ, DocRoot, RecordingRoot
from pyweb.filler import Filler
from pyweb.journal import Journal, Sink
from pyweb.listen import NOT_SENT
from pyweb.memory import sealed_memory
from pyweb.parking import idle_message
from pyweb.parse import Limits, Parser
from pyweb.route import Router
from pyweb.scoreboard import Scoreboard
from pyweb.service import Service
from pyweb.static import StaticSite
from pyweb.transport import Transport

_fastcache = pytest.importorskip("pyweb._fastcache", reason="needs the compiled engine")
from pyweb import _fastserve  # noqa: E402

LIMITS = (8190, 65536, 100)


class Table:
    """Memory, and its two sides."""

    def __init__(self, entries: int) -> None:
        size = _fastcache.size_of(entries)
        self.memory, self._readable = sealed_memory("pyweb-test", size)
        make = _fastcache.Cache
        self.writer = make(self.memory, policy.NAMES, LIMITS, writable=True)
        self.reader = make(self._readable, policy.NAMES, LIMITS, writable=False)

    def close(self) -> None:
        del self.writer, self.reader
        self.memory.close()
        self._readable.close()


class Twins:
    """One site, answered by Connection and by a Repeater, with one log."""

    def __init__(
        self,
        root: Path,
        scratch: Path,
        *options: str,
        parker: int = -1,
        largest: int = 0,
        kinds: bool = False,
        slots: int = 1,
        records: mmap.mmap | None = None,
    ) -> None:
        """`largest`: bytes of a content that the cache keeps; `kinds`: see Decider; `records`: see
        Repeater."""
        self.root = DocRoot(str(root))
        recording = RecordingRoot(self.root)
        self.config = configure(arguments().parse_args(["-d", str(root), *options]), {})
        index = tuple(map(os.fsencode, self.config.index))
        answer = Router(StaticSite(recording, index, False)).answer
        decider = policy.Decider(answer, recording, self.config.header, largest, kinds=kinds)
        self.log = scratch / "log"
        sink = Sink.open(str(self.log))
        self._journal = Journal(Sink(2))
        router = Router(StaticSite(self.root, index, False))
        log = AccessLog(sink, "combined")
        self.service = Service(self.config, router.answer, log, self._journal)
        self.table = Table(64)
        parser = Parser("python", Limits(*LIMITS, 1 << 30))
        self._inbox, self._wishes = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._inbox.setblocking(False)
        self.lifeline, self._mine = os.pipe()
        self.filler = Filler(self._inbox, self.lifeline, parser, decider, self.table.writer)
        self.board = Scoreboard(slots)
        self.slot = self.board.take(0)
        parked, at = idle_message()
        self.repeater = _fastserve.Repeater(
            self.table.reader,
            self.board.memory,
            records,
            root=self.root.fd,
            log=sink.fd,
            log_is_socket=False,
            lifeline=self.lifeline,
            wishes=self._wishes.fileno(),
            fresh=policy.FRESH,
            good=policy.GOOD,
            linger=0.02,
            first=0.2,
            idle=0.2,
            keepalive_requests=self.config.keepalive_requests,
            flags=READ,
            path_flags=PATH,
            resolve=BENEATH,
            escapes=policy.escapes(),
            silence=0.2,
            timeout_write=self.config.timeout_write,
            min_rate=self.config.min_rate,
            not_sent=NOT_SENT,
            reasons=policy.BROKEN_OFF,
            heard=INTERRUPTS,
            ends=END,
            parker=parker,
            parked=parked,
            parked_requests=at,
        )
        self.sink = sink
        self.wishes = self._wishes.fileno()
        self.wishes_way = self._wishes

    def close(self) -> None:
        del self.repeater, self.filler
        self.table.close()
        for one in (self._inbox, self._wishes):
            one.close()
        for fd in (self.lifeline, self._mine, self.sink.fd):
            os.close(fd)
        self.root.close()
        self.board.close()

    def hang_up(self) -> None:
        os.write(self._mine, b".")

    def wished(self) -> bytes:
        """The next wish; b"": there is none."""
        try:
            return self._inbox.recv(8192)
        except BlockingIOError:
            return b""

    def in_python(self, data: bytes) -> bytes:
        near, far = pair()
        far.setblocking(False)
        near.sendall(data)
        near.shutdown(socket.SHUT_WR)
        transport = Transport(far, "cython")
        connection = Connection(self.service, transport, "127.0.0.1", self.slot)
        Driver(connection, far, -1).run(connection.serve())
        with near:
            return everything(near)

    def in_c(self, data: bytes, requests: int = 0) -> tuple[bytes, object]:
        """What was sent, and what is left for Python."""
        near, far = pair()
        with near:
            near.sendall(data)
            near.shutdown(socket.SHUT_WR)
            rest = self.repeater.serve(far.fileno(), b"127.0.0.1", self.slot.at, requests)
            far.close()
            return everything(near), rest

    def lines(self) -> list[str]:
        return self.log.read_text("latin-1").splitlines()


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    near.settimeout(PATIENCE)
    return near, far


def everything(sock: socket.socket) -> bytes:
    found = b""
    try:
        while piece := sock.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


def without_date(answer: bytes) -> bytes:
    return re.sub(rb"Date: [^\r]*", b"Date:", answer)


def without_time(line: str) -> str:
    return re.sub(r"\[[^]]*\]", "[]", line, count=1)
