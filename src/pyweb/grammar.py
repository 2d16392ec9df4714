"""RFC 9110 and 9112 as data: which byte may stand where.

The two parsers read these tables: `_pyparse` makes regular expressions of them, `_fastparse`
copies CLASSES into C when it is imported. So no character class is written twice.
This file imports nothing and does nothing.
"""

from __future__ import annotations

DIGIT = b"0123456789"
ALPHA = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

# RFC 9110 5.6.2: token = 1*tchar
TCHAR = b"!#$%&'*+-.^_`|~" + DIGIT + ALPHA

# RFC 9112 3: request-target. RFC 3986 allows less than VCHAR, browsers send more than RFC 3986
# (| ^ ` { } in queries), so: every VCHAR but "#". A fragment is never sent; parsers that cut it
# off and parsers that keep it would read two different targets.
TARGET = bytes(c for c in range(0x21, 0x7F) if c != ord("#"))

# RFC 9110 5.5: field-content = VCHAR, obs-text, SP, HTAB.
FIELD = b"\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))

# One byte for each octet: the sets that it belongs to.
IN_TOKEN, IN_TARGET, IN_FIELD = 1, 2, 4
CLASSES = bytes(
    (IN_TOKEN if c in TCHAR else 0)
    | (IN_TARGET if c in TARGET else 0)
    | (IN_FIELD if c in FIELD else 0)
    for c in range(256)
)

# RFC 9110 9.3 and RFC 5789: methods that we know and a file may refuse.
METHODS = frozenset(
    (b"GET", b"HEAD", b"OPTIONS", b"POST", b"PUT", b"PATCH", b"DELETE", b"TRACE", b"CONNECT")
)

# RFC 3986 3.2.2: reg-name and IP-literal, as characters of a regular expression's class.
UNRESERVED = rb"A-Za-z0-9\-._~"
SUB_DELIMS = rb"!$&'()*+,;="
HOST = (
    rb"(?:\[[0-9A-Fa-f:.]+\]|\[[vV][0-9A-Fa-f]+\.[" + UNRESERVED + SUB_DELIMS + rb":]+\]"
    rb"|(?:[" + UNRESERVED + SUB_DELIMS + rb"]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)

# RFC 9112 7.1.1: chunk-size [ chunk-ext ], without the CRLF. Sixteen hex digits are 2^64.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
CHUNK_LINE = (
    rb"([0-9A-Fa-f]{1,16})(?:[ \t]*;[ \t]*"
    + _TOKEN
    + rb"(?:[ \t]*=[ \t]*(?:"
    + _TOKEN
    + rb"|"
    + _QUOTED
    + rb"))?)*"
)
