"""A file name's Content-Type, and the content codings that a neighbour file may hold.

The table is fixed (_mimetable.py, generated): nothing is read from the system at run time, so
the same tree is served with the same types on every machine, and no /etc/mime.types that somebody
edits can turn an upload into text/html. Not here: the file itself. Nobody looks inside to guess;
that is sniffing, and we tell browsers not to do it either.
"""

from __future__ import annotations

from ._mimetable import TYPES

UNKNOWN = b"application/octet-stream"

# Content coding -> suffix of the precompressed neighbour, best first (smaller, by experience).
CODINGS: tuple[tuple[bytes, bytes], ...] = ((b"br", b".br"), (b"zstd", b".zst"), (b"gzip", b".gz"))


def content_type(name: bytes) -> bytes:
    """By what follows the last dot, in either case. A name that begins with its only dot has
    no extension: ".html" is a hidden file, not a page."""
    stem, _, extension = name.rpartition(b".")
    media_type = TYPES.get(extension.lower(), UNKNOWN) if stem else UNKNOWN
    return _with_charset(media_type)


def _with_charset(media_type: bytes) -> bytes:
    """charset for text/* alone, which without it is anybody's guess, often windows-1252.

    Not for application/json: RFC 8259 defines no charset parameter, JSON is UTF-8.
    Not for the XML types (image/svg+xml, application/xml): a charset would overrule the
    encoding that the document declares itself (RFC 7303 section 3), and the document knows better.
    """
    return media_type + b"; charset=utf-8" if media_type.startswith(b"text/") else media_type
