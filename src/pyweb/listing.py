"""A directory's entries, and the answer that lists them.

Shown is what would be served: regular files and directories whose names are not hidden, and
links that stay below the root. The page itself is made in pages.py.
"""

from __future__ import annotations

import os
import re
import stat

from . import conditions, pages
from .docroot import PATH, DocRoot
from .errors import HTTPError, Reason
from .message import Head, Response
from .negotiate import prefers_json

_SORT = re.compile(rb"(?:^|&)sort=(name|size|date)(?:&|$)")
_DESCENDING = re.compile(rb"(?:^|&)order=desc(?:&|$)")
POLICY = (b"Content-Security-Policy", b"default-src 'none'; style-src 'unsafe-inline'")
_VARY = (b"Vary", b"Accept")
_NOSNIFF = (b"X-Content-Type-Options", b"nosniff")


def listing(root: DocRoot, directory: int, segments: list[bytes], head: Head) -> Response:
    """HTML, or JSON where the Accept field prefers it. `directory`: open for reading.

    It has no validator: what it says changes without the directory's date. Conditions are judged
    all the same (RFC 9110 13.2.1), and "*" means this too.
    """
    verdict = conditions.evaluate(head, None, None)
    if verdict == conditions.FAILED:
        raise HTTPError(Reason.PRECONDITION_FAILED)
    if verdict == conditions.NOT_MODIFIED:
        return Response(304, (_VARY,))
    entries = read_entries(root, directory, segments)
    query = head.query or b""
    match = _SORT.search(query)
    sort = match[1].decode() if match else "name"
    descending = bool(_DESCENDING.search(query))
    if prefers_json(head.get(b"accept")):
        content_type = b"application/json"
        body = pages.listing_json(pages.sort_entries(entries, sort, descending))
    else:
        content_type = b"text/html; charset=utf-8"
        path = b"/" + b"".join(segment + b"/" for segment in segments)
        body = pages.listing_page(path, entries, sort, descending)
    fields = ((b"Content-Type", content_type), _NOSNIFF, POLICY, _VARY)
    return Response(200, fields, (body,))


def read_entries(root: DocRoot, directory: int, segments: list[bytes]) -> list[pages.Entry]:
    found = []
    # The scan is over a descriptor, so its names are str; the file system's are bytes.
    for name in map(os.fsencode, os.listdir(directory)):
        if name.startswith(b".") and not (not segments and name == b".well-known"):
            continue
        status = _status(root, directory, segments, name)
        if status is not None:
            is_directory = stat.S_ISDIR(status.st_mode)
            found.append(pages.Entry(name, is_directory, status.st_size, status.st_mtime))
    return found


def _status(
    root: DocRoot, directory: int, segments: list[bytes], name: bytes
) -> os.stat_result | None:
    """None: gone, or nothing that is served."""
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            status = _link_status(root, b"/".join([*segments, name]))
    except OSError:
        return None
    served = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
    return status if served else None


def _link_status(root: DocRoot, path: bytes) -> os.stat_result:
    fd = root.open(path, PATH)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
