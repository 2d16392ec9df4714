"""Files: from a Head to a Response, by RFC 9110. Opens files, never sees a socket.

Which names are served, index, redirect, listing, validators, precompressed neighbours,
conditions, ranges. That nothing outside the root is reached is docroot.py's business; what the
pages look like is pages.py's.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time

from . import conditions, mime, negotiate, ranges
from .clock import http_date
from .docroot import PATH, READ, DocRoot
from .errors import HTTPError, Reason
from .listing import listing
from .message import FileBody, Head, Part, Response

ALLOW = (b"Allow", b"GET, HEAD, OPTIONS")
_NOSNIFF = (b"X-Content-Type-Options", b"nosniff")
_ESCAPE = re.compile(rb"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# RFC 3986 3.3: all but pchar, for a Location made of decoded segments.
_NOT_PCHAR = re.compile(rb"[^A-Za-z0-9\-._~!$&'()*+,;=:@]")
# Year 1 is the first that an HTTP date can write.
_FIRST_DATE = -62135596800

# What an errno of open(2) means to the client; anything else is STORAGE.
_REASONS = {
    errno.ENOENT: Reason.NOT_FOUND,
    errno.ENOTDIR: Reason.NOT_FOUND,
    errno.ENAMETOOLONG: Reason.NOT_FOUND,
    errno.ELOOP: Reason.NOT_FOUND,
    errno.ESTALE: Reason.NOT_FOUND,
    # Names that this file system can't hold.
    errno.EINVAL: Reason.NOT_FOUND,
    errno.EILSEQ: Reason.NOT_FOUND,
    errno.EXDEV: Reason.OUTSIDE_ROOT,
    errno.EACCES: Reason.FORBIDDEN,
    errno.EPERM: Reason.FORBIDDEN,
    errno.ENXIO: Reason.NOT_A_FILE,
    errno.ENODEV: Reason.NOT_A_FILE,
    errno.EOPNOTSUPP: Reason.NOT_A_FILE,
    errno.EMFILE: Reason.OUT_OF_DESCRIPTORS,
    errno.ENFILE: Reason.OUT_OF_DESCRIPTORS,
    errno.ENOMEM: Reason.OUT_OF_DESCRIPTORS,
}


class Target:
    """A decoded path: the segments that are not empty, and whether a slash ended it."""

    __slots__ = ("is_directory", "segments")

    def __init__(self, segments: list[bytes], is_directory: bool) -> None:
        self.segments = segments
        self.is_directory = is_directory

    @property
    def relative(self) -> bytes:
        return b"/".join(self.segments) or b"."

    def location(self, query: bytes | None) -> bytes:
        """This path with a slash at its end, encoded anew: one leading slash (never the two of
        another host's name), no byte that could end the field."""
        path = b"".join(b"/" + _NOT_PCHAR.sub(_escape, segment) for segment in self.segments)
        return path + b"/" + (b"" if query is None else b"?" + query)


def _escape(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % match[0][0]


def decode(path: bytes) -> Target:
    """RFC 3986 2.1 and 3.3, cut at the slashes before anything is decoded.

    "." says nothing but at the end, and is dropped; ".." stays: the kernel resolves it below the
    root. HTTPError: PATH_ENCODING for what stands for no octet or for NUL, NOT_FOUND for a segment
    with a slash in it, HIDDEN.
    """
    if _BAD_ESCAPE.search(path):
        raise HTTPError(Reason.PATH_ENCODING)
    raw = path.split(b"/")
    segments = [_decode_segment(segment) for segment in raw if segment]
    segments = [segment for segment in segments[:-1] if segment != b"."] + segments[-1:]
    for place, segment in enumerate(segments):
        if _is_hidden(segment) and not (place == 0 and segment == b".well-known"):
            raise HTTPError(Reason.HIDDEN)
    return Target(segments, raw[-1] == b"")


def _decode_segment(segment: bytes) -> bytes:
    decoded = _ESCAPE.sub(lambda match: bytes.fromhex(match[1].decode()), segment)
    if b"\0" in decoded:
        raise HTTPError(Reason.PATH_ENCODING)
    if b"/" in decoded:
        raise HTTPError(Reason.NOT_FOUND)
    return decoded


def _is_hidden(segment: bytes) -> bool:
    return segment.startswith(b".") and segment not in (b".", b"..")


def failure(error: OSError) -> HTTPError:
    return HTTPError(_REASONS.get(error.errno or 0, Reason.STORAGE))


Opened = tuple[int, os.stat_result]


class Files:
    """The descriptors opened for one answer. Those that it doesn't keep are closed with it,
    however it ends: no function below has to remember."""

    def __init__(self, root: DocRoot) -> None:
        self._root = root
        self._opened: list[int] = []

    def open(self, path: bytes) -> Opened:
        """A regular file, to be read. IsADirectoryError; ENODEV for what is neither.

        It is looked at before it is opened: to open a FIFO wakes its writer, and some devices act
        when they are opened. And after, because names change.
        """
        _check_regular(self._open(path, PATH)[1])
        opened = self._open(path, READ)
        _check_regular(opened[1])
        return opened

    def open_directory(self, path: bytes) -> int:
        return self._open(path + b"/", READ | os.O_DIRECTORY)[0]

    def _open(self, path: bytes, flags: int) -> Opened:
        fd = self._root.open(path, flags)
        self._opened.append(fd)
        return fd, os.fstat(fd)

    def close_but(self, kept: tuple[int, ...]) -> None:
        for fd in self._opened:
            if fd not in kept:
                os.close(fd)


def _check_regular(status: os.stat_result) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


class StaticSite:
    """A document root that answers GET and HEAD."""

    def __init__(self, root: DocRoot, index: tuple[bytes, ...], no_listing: bool) -> None:
        self._root = root
        self._index = index
        self._no_listing = no_listing

    def answer(self, head: Head) -> Response:
        """HTTPError: refused. The caller closes the response's files."""
        target = decode(head.path)
        files = Files(self._root)
        kept: tuple[int, ...] = ()
        try:
            response = self._answer(head, target, files)
            kept = response.files
            return response
        except OSError as error:
            raise failure(error) from None
        finally:
            files.close_but(kept)

    def _answer(self, head: Head, target: Target, files: Files) -> Response:
        if target.is_directory:
            return self._answer_directory(head, target, files)
        try:
            opened = files.open(target.relative)
        except IsADirectoryError:
            return redirect(target, head)
        return answer_file(head, target.segments, opened, files)

    def _answer_directory(self, head: Head, target: Target, files: Files) -> Response:
        for name in self._index:
            segments = [*target.segments, name]
            try:
                opened = files.open(b"/".join(segments))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                continue  # one that may not be read is not passed over
            return answer_file(head, segments, opened, files)
        directory = files.open_directory(target.relative)
        if self._no_listing:
            raise HTTPError(Reason.LISTING_OFF)
        return listing(self._root, directory, target.segments, head)


def answer_file(head: Head, segments: list[bytes], opened: Opened, files: Files) -> Response:
    """The file or its best precompressed neighbour."""
    fields = [
        (b"Content-Type", mime.content_type(segments[-1])),
        _NOSNIFF,
        (b"Accept-Ranges", b"bytes"),
    ]
    neighbours = _neighbours(segments, files)
    coding = _choose(head, list(neighbours))
    if neighbours:
        fields.append((b"Vary", b"Accept-Encoding"))
    if coding != b"identity":
        opened = neighbours[coding]
        fields.append((b"Content-Encoding", coding))
    return represent(head, opened, fields, coding)


def _neighbours(segments: list[bytes], files: Files) -> dict[bytes, Opened]:
    """content coding -> open file, for each precompressed neighbour that may be read."""
    found = {}
    path = b"/".join(segments)
    for coding, suffix in mime.CODINGS:
        try:
            found[coding] = files.open(path + suffix)
        except OSError:
            continue
    return found


def _choose(head: Head, available: list[bytes]) -> bytes:
    coding = negotiate.choose_coding(head.get(b"accept-encoding"), available)
    if coding is None:
        raise HTTPError(Reason.NOT_ACCEPTABLE, fields=((b"Vary", b"Accept-Encoding"),))
    return coding


def redirect(target: Target, head: Head) -> Response:
    return Response(301, ((b"Location", target.location(head.query)), _NOSNIFF))


def entity_tag(status: os.stat_result, coding: bytes) -> bytes:
    """Strong: the kernel's time in ns and the size change when the content does (but for two
    changes within one tick, 4 ms, before Linux 6.13). No inode: two servers with copies of one
    file agree. One tag for each coding (RFC 9110 8.8.3.3)."""
    suffix = b"" if coding == b"identity" else b"-" + coding
    return b'"%x-%x%s"' % (status.st_mtime_ns, status.st_size, suffix)


def represent(
    head: Head, opened: Opened, fields: list[tuple[bytes, bytes]], coding: bytes
) -> Response:
    """200, 206 or 304 for an open regular file; HTTPError for 412 and 416."""
    fd, status = opened
    etag = entity_tag(status, coding)
    now = int(time.time())
    # Never later than Date (RFC 9110 8.8.2.1), whatever the file's clock says. (st_mtime, a float,
    # would round the last fraction of a second up to the next one.)
    modified = max(_FIRST_DATE, min(status.st_mtime_ns // 1_000_000_000, now))
    verdict = conditions.evaluate(head, etag, modified)
    if verdict == conditions.FAILED:
        raise HTTPError(Reason.PRECONDITION_FAILED)
    if verdict == conditions.NOT_MODIFIED:
        return _not_modified(fields, etag)
    fields = [*fields, (b"ETag", etag), (b"Last-Modified", http_date(modified))]
    pieces = None
    # Range means something to GET alone (RFC 9110 14.2).
    if head.method == b"GET" and conditions.range_holds(head, etag, modified, now):
        pieces = _wanted(head, status.st_size)
    if pieces is not None:
        return _partial(fd, status.st_size, pieces, fields)
    return Response(200, tuple(fields), (FileBody(fd, 0, status.st_size),), files=(fd,))


def _not_modified(fields: list[tuple[bytes, bytes]], etag: bytes) -> Response:
    """What a 200 would say and a cache needs (RFC 9110 15.4.5), and no more."""
    kept = [pair for pair in fields if pair[0] == b"Vary"]
    return Response(304, ((b"ETag", etag), *kept))


def _wanted(head: Head, size: int) -> list[ranges.Slice] | None:
    try:
        return ranges.slices(head.get(b"range"), size)
    except ranges.Unsatisfiable:
        field = (b"Content-Range", ranges.unsatisfied_range(size))
        raise HTTPError(Reason.RANGE_UNSATISFIABLE, fields=(field,)) from None


def _partial(
    fd: int, size: int, pieces: list[ranges.Slice], fields: list[tuple[bytes, bytes]]
) -> Response:
    if len(pieces) == 1:
        fields = [*fields, (b"Content-Range", ranges.content_range(pieces[0], size))]
        return Response(206, tuple(fields), (FileBody(fd, *pieces[0]),), files=(fd,))
    return _multipart(fd, size, pieces, fields)


def _multipart(
    fd: int, size: int, pieces: list[ranges.Slice], fields: list[tuple[bytes, bytes]]
) -> Response:
    """multipart/byteranges (RFC 9110 14.6). The boundary is random: no file can contain it on
    purpose."""
    boundary = os.urandom(16).hex().encode()
    content_type = dict(fields)[b"Content-Type"]
    parts: list[Part] = []
    for number, piece in enumerate(pieces):
        parts.append(
            b"%s--%s\r\nContent-Type: %s\r\nContent-Range: %s\r\n\r\n"
            % (
                b"\r\n" if number else b"",
                boundary,
                content_type,
                ranges.content_range(piece, size),
            )
        )
        parts.append(FileBody(fd, *piece))
    parts.append(b"\r\n--%s--\r\n" % boundary)
    others = [pair for pair in fields if pair[0] != b"Content-Type"]
    multipart = (b"Content-Type", b"multipart/byteranges; boundary=" + boundary)
    return Response(206, (multipart, *others), tuple(parts), files=(fd,))
