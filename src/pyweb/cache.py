"""Decisions that may be repeated: which they are, what is kept of them, and for how long.

Python decides once; C repeats the decision (_fastlook.pyx) as long as the files that it has found
are the same. What it did not find, a precompressed neighbour or an index that comes into being,
is noticed within a second: when the decision is made anew, or because the directory where it would
be is another (a directory's times change with its names). Not here: what the decision is
(route.py), who makes it (filler.py), and how it is found again (_fastcache.pyx).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable

from . import accesslog, render
from .clock import http_date
from .docroot import RecordingRoot
from .errors import Reason
from .kinds import Kind, kind_of
from .message import Fields, FileBody, Head, Response

# The fields that a decision about a file may depend on: a key holds them, and a decision that has
# looked at any other is not kept. (Accept is not here: a listing depends on it, and no file.)
NAMES = (
    b"host", b"connection", b"content-length", b"transfer-encoding", b"expect",
    b"accept-encoding", b"range", b"if-range", b"if-match", b"if-none-match",
    b"if-modified-since", b"if-unmodified-since",
)  # fmt: skip
# Seconds. A decision that is older is made anew while it is still repeated; one that is older than
# GOOD is repeated only after a look at the directories of what it did not find, if it lasts.
FRESH, GOOD = 0.5, 1.0
# A head that is longer is left to Python.
LONGEST_HEAD = 4096
# ns: a kernel's clock of files may stand still for so long (a tick is 10 ms at most). For what is
# to last it must do for all file systems (FAT has times of 2 s).
SETTLED, _LASTING = 50_000_000, 3_000_000_000
_DATES = (b"if-modified-since", b"if-unmodified-since")

_STATUSES = (200, 206, 304)
_DATE = b"Date: "
_DATE_SIZE = 29


# What a line of the log says when a repeated answer did not leave whole, in the order in which C
# knows them: the client is gone, or slow; the file has become shorter; the server ends.
BROKEN_OFF = (Reason.CLIENT_RESET, Reason.WRITE_TIMEOUT, Reason.FILE_SHRANK, Reason.ENDED)


class Entry:
    """A decision as it is kept. `files`: (path, device, inode, size, mtime and ctime in ns) of
    what it has found, the one that is sent first; `directories`: likewise, of where it has found
    nothing; `lasts`: as long as all these are the same; `date_at`: where in `header` the date
    stands, -1: nowhere; `body`: what is sent of the file, None: it has to be read each time;
    `kind`: what others have in common with it."""

    __slots__ = (
        "body", "count", "date_at", "directories", "files", "header", "keeps", "kind", "lasts",
        "offset", "status",
    )  # fmt: skip

    def __init__(
        self,
        status: int,
        header: bytes,
        date_at: int,
        keeps: bool,
        files: list[Found],
        offset: int,
        count: int,
        body: bytes | None,
        directories: list[Found] | None,
        kind: Kind | None,
    ) -> None:
        self.kind = kind
        self.lasts = directories is not None
        self.directories = directories or []
        self.status = status
        self.header = header
        self.date_at = date_at
        self.keeps = keeps
        self.files = files
        self.offset = offset
        self.count = count
        self.body = body


Found = tuple[bytes, int, int, int, int, int]


def may_be_repeated(head: Head, response: Response) -> bool:
    """A whole answer or a slice of one file, or that nothing has changed; on a request that has
    no body. What If-Range says depends on the time."""
    parts = response.parts
    return (
        response.status in _STATUSES
        and response.reason == Reason.DONE
        and not response.close
        and head.method in (b"GET", b"HEAD")
        and head.length == 0
        and not head.expects_continue
        and head.get(b"if-range") is None
        and (not parts or (len(parts) == 1 and isinstance(parts[0], FileBody)))
    )


class _Observed(Head):
    """A head that remembers what it was asked for."""

    __slots__ = ("asked",)

    def __init__(self, head: Head) -> None:
        for name in Head.__slots__:
            setattr(self, name, getattr(head, name))
        self.asked: set[bytes] = set()

    def get(self, name: bytes) -> bytes | None:
        self.asked.add(name)
        return super().get(name)


def _found(path: bytes, status: os.stat_result) -> Found:
    return (
        path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns,
    )  # fmt: skip


def _have_ns(found: Iterable[Found]) -> bool:
    """Some file systems keep times that have no ns in 64 bits."""
    return all(abs(moment) < 1 << 63 for one in found for moment in one[4:])


class Decider:
    """entry(head): the decision for it as it is kept; None: it can't be repeated.

    answer   Router.answer, of a site whose root is `root`
    extra    --header
    largest  bytes of a content that is kept
    kinds    are others of its kind decided with it?
    """

    def __init__(
        self,
        answer: Callable[[Head], Response],
        root: RecordingRoot,
        extra: Fields,
        largest: int = 0,
        *,
        kinds: bool = False,
    ) -> None:
        self._answer = answer
        self._root = root
        self._extra = extra
        self._largest = largest
        self._kinds = kinds

    def entry(self, head: Head) -> Entry | None:
        self._root.forget()
        observed = _Observed(head)
        response = self._answer(observed)
        try:
            if not may_be_repeated(head, response) or not observed.asked <= set(NAMES):
                return None
            return self._kept(head, response)
        finally:
            for fd in response.files:
                os.close(fd)

    def _kept(self, head: Head, response: Response) -> Entry | None:
        files = self._files(response)
        if not files or any(mtime >= time.time_ns() for *_, mtime, _ in files):
            return None  # from the future: Last-Modified would follow the clock
        if not _have_ns(files):
            return None
        keeps = head.keep_alive
        header = render.header_bytes(response, head.minor, keeps, self._extra)
        slices = response.parts if head.method == b"GET" else ()
        body = slices[0] if slices else None
        offset, count = (body.offset, len(body)) if isinstance(body, FileBody) else (0, 0)
        known = self._content(body, files[0]) if isinstance(body, FileBody) else None
        return Entry(
            response.status,
            header,
            _date_at(header),
            keeps,
            files,
            offset,
            count,
            known,
            self._directories(head, files),
            self._kind(head, response, header),
        )

    def _kind(self, head: Head, response: Response, header: bytes) -> Kind | None:
        if not self._kinds or self._root.odd:
            return None
        opened = [(path, status) for _, path, status in self._root.opened]
        return kind_of(head, response, header, opened, self._root.missed)

    def _directories(self, head: Head, files: list[Found]) -> list[Found] | None:
        """As they are while there is nothing where nothing was found: they are looked at first.
        None: the decision does not last. Something may come to be there or be allowed without a
        trace, the times are so young that a change might leave them as they are, or what the head
        says depends on the date (RFC 9110 5.6.7: years of two digits)."""
        missed = self._root.missed
        paths = sorted({os.path.dirname(path) or b"." for path in missed})
        young = time.time_ns() - _LASTING
        try:
            found = [_found(path, self._root.look(path)) for path in paths]
        except OSError:
            return None
        if not _have_ns(found):
            return None
        if self._root.odd or any(max(one[4:]) > young for one in (*found, *files)):
            return None
        if any(b"-" in (head.get(name) or b"") for name in _DATES):
            return None
        return found if all(map(self._root.has_nothing, missed)) else None

    def _content(self, body: FileBody, file: Found) -> bytes | None:
        """None: it is too large, or was changed so lately that a change while it is read might
        leave the file's times as they are."""
        now = time.time_ns()
        if not 0 < len(body) <= self._largest or max(file[4:]) > now - SETTLED:
            return None
        try:
            data = os.pread(body.fd, len(body), body.offset)
            is_same = len(data) == len(body) and _found(file[0], os.fstat(body.fd)) == file
        except OSError:
            return None  # who sends it will see for himself
        return data if is_same else None

    def _files(self, response: Response) -> list[Found]:
        """Of all that were found, the one that is sent first."""
        ordered = sorted(self._root.opened, key=lambda one: one[0] not in response.files)
        return [_found(path, status) for _, path, status in ordered]


def _date_at(header: bytes) -> int:
    """-1: --header has put something else in its place."""
    at = header.find(b"\r\n" + _DATE) + 2 + len(_DATE)
    date = header[at : at + _DATE_SIZE]
    near = (http_date(int(time.time()) - ago) for ago in (0, 1, 2))
    return at if date in near else -1


def escapes() -> tuple[bytes, ...]:
    """What each octet becomes in a quoted field of the log."""
    return tuple(accesslog.escaped(bytes((octet,))) for octet in range(256))
