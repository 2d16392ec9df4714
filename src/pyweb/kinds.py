"""Kinds: what the answers for files of one directory whose names end alike have in common.

They differ in what the files' status says, and in nothing else. So a decision about one of them,
with holes where that stands, is a decision about all: C opens the file that is asked for, sees
that nothing is beside it that would be chosen instead, and fills the holes (_fastlook.pyx). A
document root may have any number of files, and its cache has a decision for each directory. Here
is of which answers that is true, and where their holes are. Not here: how a kind is kept and found
(_fastcache.pyx), which also says which names may be one of a kind.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence

from .clock import http_date
from .message import Head, Response

# What stands in a hole: the date of the answer, the file's size in decimal and hexadecimal digits,
# its mtime in hexadecimal ns, and as a date.
DATE, LENGTH, SIZE, MTIME, MODIFIED = range(1, 6)
# No hole needs more bytes.
LONGEST = 29

# The fields of an answer that differ, and of what they are made (static.py, render.py). One that
# is not exactly that makes no kind.
_MADE_OF: dict[bytes, tuple[bytes | int, ...]] = {
    b"Date": (DATE,),
    b"Content-Length": (LENGTH,),
    b"ETag": (b'"', MTIME, b"-", SIZE, b'"'),
    b"Last-Modified": (MODIFIED,),
}
# What the answer to these says depends on the one file.
_CONDITIONS = (
    b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since",
    b"if-unmodified-since",
)  # fmt: skip


class Kind:
    """`header`: without what stands in its `holes`, (where in it, what), in their order;
    `directory`: of its files, below the root, empty or with a slash at its end; `absent`: what
    must not be there, with such an end behind the file's name; `sends`: a content, as to GET."""

    __slots__ = ("absent", "directory", "header", "holes", "sends")

    def __init__(
        self,
        header: bytes,
        holes: Sequence[tuple[int, int]],
        directory: bytes,
        absent: Sequence[bytes],
        sends: bool,
    ) -> None:
        self.header = header
        self.holes = holes
        self.directory = directory
        self.absent = absent
        self.sends = sends

    def filled(self, status: os.stat_result, date: bytes) -> bytes:
        """The header for a file; as C fills it."""
        pieces, at = [], 0
        for place, what in self.holes:
            pieces += [self.header[at:place], _text(what, status, date)]
            at = place
        return b"".join(pieces) + self.header[at:]


def kind_of(
    head: Head,
    response: Response,
    header: bytes,
    opened: Sequence[tuple[bytes, os.stat_result]],
    missed: Iterable[bytes],
) -> Kind | None:
    """None: the answer is this file's alone. `header`: of the answer; opened, missed: paths that
    were found, and that were not."""
    name = head.path.rpartition(b"/")[2]
    if response.status != 200 or head.query is not None or len(opened) != 1 or not name:
        return None
    if any(head.get(one) is not None for one in _CONDITIONS):
        return None
    [(path, status)] = opened
    directory = path.removesuffix(name)
    if directory + name != path or directory[-1:] not in (b"", b"/"):
        return None  # it was decoded, or an index
    absent = [one.removeprefix(path) for one in missed]
    if not all(map(bytes.__eq__, (path + end for end in absent), missed)):
        return None
    if not 0 <= status.st_mtime_ns <= time.time_ns():
        return None
    made = _with_holes(header, status)
    return made and Kind(*made, directory, absent, head.method == b"GET")


def _with_holes(
    header: bytes, status: os.stat_result
) -> tuple[bytes, list[tuple[int, int]]] | None:
    """None: a field is not made of what it should be."""
    made, holes = bytearray(), []
    for line in header.splitlines(keepends=True):
        name, _, value = line.rstrip(b"\r\n").partition(b": ")
        parts = _MADE_OF.get(name, ())
        if not parts:
            made += line
            continue
        texts = [one if isinstance(one, bytes) else _text(one, status, value) for one in parts]
        if b"".join(texts) != value:
            return None
        made += name + b": "
        for one in parts:
            if isinstance(one, bytes):
                made += one
            else:
                holes.append((len(made), one))
        made += b"\r\n"
    return bytes(made), holes


def _text(what: int, status: os.stat_result, date: bytes) -> bytes:
    if what == DATE:
        return date
    if what == LENGTH:
        return b"%d" % status.st_size
    if what == SIZE:
        return b"%x" % status.st_size
    if what == MTIME:
        return b"%x" % status.st_mtime_ns
    return http_date(status.st_mtime_ns // 1_000_000_000)
