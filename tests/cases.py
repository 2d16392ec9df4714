"""The one list of what a client may send and what it must get, as data.

Each case runs whole, in pieces, byte by byte and with a tail, on both engines (test_protocol.py);
its heads feed the parsers and the outside oracles too (test_parsers_agree.py, test_oracles.py).
The site is conftest.site.
"""

from __future__ import annotations

from pyweb.errors import Reason as R  # noqa: N817  it stands in every line


class Case:
    """`data` is sent on one connection; `statuses` are answered in order.

    reason   of the last answer
    closes   the connection ends after the last answer
    """

    def __init__(
        self,
        name: str,
        data: bytes,
        statuses: int | tuple[int, ...],
        reason: R = R.DONE,
        *,
        closes: bool | None = None,
        head: bool = False,
    ) -> None:
        self.name = name
        self.data = data
        self.statuses = (statuses,) if isinstance(statuses, int) else statuses
        self.reason = reason
        self.closes = reason not in (R.DONE, *_ANSWERS) if closes is None else closes
        self.head = head

    def __repr__(self) -> str:
        return self.name


# Refusals that are answers about a file: the connection lives on.
_ANSWERS = (
    R.NOT_FOUND, R.HIDDEN, R.OUTSIDE_ROOT, R.FORBIDDEN, R.NOT_A_FILE, R.LISTING_OFF,
    R.PRECONDITION_FAILED, R.RANGE_UNSATISFIABLE, R.NOT_ACCEPTABLE, R.PATH_ENCODING,
    R.METHOD_NOT_ALLOWED, R.METHOD_UNKNOWN,
)  # fmt: skip

H = b"Host: h\r\n"


def get(target: bytes = b"/hello.txt", fields: bytes = H, version: bytes = b"HTTP/1.1") -> bytes:
    return b"GET " + target + b" " + version + b"\r\n" + fields + b"\r\n"


def post(fields: bytes, body: bytes = b"", target: bytes = b"/hello.txt") -> bytes:
    return b"POST " + target + b" HTTP/1.1\r\n" + H + fields + b"\r\n" + body


CHUNKED = b"Transfer-Encoding: chunked\r\n"

GOOD = [
    Case("plain", get(), 200),
    Case("root", get(b"/"), 200),
    Case("query", get(b"/hello.txt?a=b&c=%20|^`{}"), 200),
    Case("empty query", get(b"/hello.txt?"), 200),
    Case("empty line first", b"\r\n" + get(), 200),
    Case("no space after colon", get(fields=b"Host:h\r\n"), 200),
    Case("white space around a value", get(fields=b"Host: \t h \t \r\n"), 200),
    Case("empty value", get(fields=H + b"X-Empty:\r\nX-Blank:   \r\n"), 200),
    Case("obs-text in a value", get(fields=H + b"X-Name: J\xfcrgen\r\n"), 200),
    Case("token of every kind", get(fields=H + b"!#$%&'*+-.^_`|~09azAZ: x\r\n"), 200),
    Case("field name in capitals", get(fields=b"HOST: h\r\n"), 200),
    Case("HTTP/1.2 is 1.1", get(version=b"HTTP/1.2"), 200),
    Case("HTTP/1.9 is 1.1", get(version=b"HTTP/1.9"), 200),
    Case("HTTP/1.0 without Host", get(fields=b"", version=b"HTTP/1.0"), 200, closes=True),
    Case("HTTP/1.0 with Host", get(version=b"HTTP/1.0"), 200, closes=True),
    Case(
        "HTTP/1.0 keep-alive",
        get(fields=b"Connection: Keep-Alive\r\n", version=b"HTTP/1.0") * 2,
        (200, 200),
        closes=False,
    ),
    Case("HTTP/1.1 close", get(fields=H + b"Connection: close\r\n"), 200, closes=True),
    Case("close in a list", get(fields=H + b"Connection: x, CLOSE ,y\r\n"), 200, closes=True),
    Case(
        "close beats keep-alive",
        get(fields=H + b"Connection: keep-alive\r\nConnection: close\r\n"),
        200,
        closes=True,
    ),
    Case("three pipelined", get() + get(b"/nothing") + get(b"/sub/one.txt"), (200, 404, 200)),
    Case("pipelined after an empty line", get() + b"\r\n" + get(), (200, 200)),
    Case("absolute form", get(b"http://elsewhere:81/hello.txt?q"), 200),
    Case("absolute form, https, capitals", get(b"HTTPS://h/hello.txt"), 200),
    Case("absolute form without a path", get(b"http://h"), 200),
    Case("absolute form, query only", get(b"http://h?x"), 200),
    Case("HEAD", b"HEAD /hello.txt HTTP/1.1\r\n" + H + b"\r\n", 200, head=True),
    Case("HEAD of nothing", b"HEAD /no HTTP/1.1\r\n" + H + b"\r\n", 404, R.NOT_FOUND, head=True),
    Case("OPTIONS", b"OPTIONS /hello.txt HTTP/1.1\r\n" + H + b"\r\n", 204),
    Case("OPTIONS *", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", 204),
    Case("OPTIONS of a bare authority", b"OPTIONS http://h HTTP/1.1\r\n" + H + b"\r\n", 204),
    Case("unknown fields", get(fields=H + b"X-A: 1\r\nx-a: 2\r\nUpgrade: h2c\r\n"), 200),
    Case("redirect", get(b"/sub?x=1"), 301),
    Case("not modified", get(fields=H + b"If-None-Match: *\r\n"), 304),
    Case("range", get(fields=H + b"Range: bytes=1-3\r\n"), 206),
]

HOSTS = [
    *(
        Case(f"Host {host.decode()!r}", get(fields=b"Host: " + host + b"\r\n"), 200)
        for host in (
            b"",
            b"h",
            b"h:80",
            b"h:",
            b"a-b.c_d~e",
            b"%41",
            b"127.0.0.1:8000",
            b"[::1]",
            b"[::1]:8000",
            b"[v1.x:y]",
            b"x!$&'()*+,;=",
        )
    ),
    *(
        Case(f"Host {host!r}", get(fields=b"Host: " + host + b"\r\n"), 400, R.HOST_MALFORMED)
        for host in (
            b"a b",
            b"a/b",
            b"a?b",
            b"user@h",
            b"h:x",
            b"h:80:80",
            b"h:65536",
            b"::1",
            b"[::1",
            b"[::1]x",
            b"h\\",
            b"%4",
            b"a#b",
            b'"h"',
            b"<h>",
            b"h\xfc",
        )
    ),
    Case("Host in a list", get(fields=b"Host: a, b\r\n"), 400, R.HOST_MALFORMED),
    Case("no Host", get(fields=b""), 400, R.HOST_MISSING),
    Case("no Host beside absolute form", get(b"http://h/", fields=b""), 400, R.HOST_MISSING),
    Case("two Hosts", get(fields=H + H), 400, R.HOST_REPEATED),
    Case("two Hosts in HTTP/1.0", get(fields=H + H, version=b"HTTP/1.0"), 400, R.HOST_REPEATED),
    Case(
        "bad Host beside absolute form",
        get(b"http://h/", fields=b"Host: a b\r\n"),
        400,
        R.HOST_MALFORMED,
    ),
]

TARGETS = [
    Case("authority form", get(b"h:80"), 400, R.TARGET_FORM),
    Case("asterisk with GET", get(b"*"), 400, R.TARGET_FORM),
    Case("relative", get(b"hello.txt"), 400, R.TARGET_FORM),
    Case("another scheme", get(b"ftp://h/hello.txt"), 400, R.TARGET_FORM),
    Case("absolute without host", get(b"http:///hello.txt"), 400, R.TARGET_FORM),
    Case("absolute with port alone", get(b"http://:80/hello.txt"), 400, R.TARGET_FORM),
    Case("user information", get(b"http://u:p@h/hello.txt"), 400, R.TARGET_FORM),
    Case("fragment", get(b"/hello.txt#x"), 400, R.BAD_TARGET),
    Case("raw UTF-8", get("/ü".encode()), 400, R.BAD_TARGET),
    Case("DEL", get(b"/\x7f"), 400, R.BAD_TARGET),
    Case("NUL", get(b"/\0"), 400, R.BAD_TARGET),
    Case("tab in the target", get(b"/a\tb"), 400, R.BAD_TARGET),
    Case("%00", get(b"/%00"), 400, R.PATH_ENCODING),
    Case("%zz", get(b"/%zz"), 400, R.PATH_ENCODING),
    Case("% at the end", get(b"/a%"), 400, R.PATH_ENCODING),
    Case("%2F in a segment", get(b"/sub%2Fone.txt"), 404, R.NOT_FOUND),
    Case("encoded letters", get(b"/%68ello.txt"), 200),
    Case("hidden", get(b"/.hidden"), 404, R.HIDDEN),
    Case("hidden, encoded", get(b"/%2ehidden"), 404, R.HIDDEN),
    Case("well-known", get(b"/.well-known/security.txt"), 200),
    Case("beyond the root", get(b"/../etc/passwd"), 404, R.OUTSIDE_ROOT),
    Case("beyond the root, encoded", get(b"/%2e%2e/%2e%2e/etc/passwd"), 404, R.OUTSIDE_ROOT),
    Case("dots inside", get(b"/sub/../hello.txt"), 200),
    Case("empty segments", get(b"//sub///one.txt"), 200),
    Case("slash behind a file", get(b"/hello.txt/"), 404, R.NOT_FOUND),
    Case("long name", get(b"/" + b"a" * 300), 404, R.NOT_FOUND),
    Case("long path", get(b"/" + b"a/" * 3000), 404, R.NOT_FOUND),
]

METHODS = [
    *(
        Case(
            f"{m.decode()} on a file",
            m + b" /hello.txt HTTP/1.1\r\n" + H + b"\r\n",
            405,
            R.METHOD_NOT_ALLOWED,
            closes=m == b"CONNECT",
        )
        for m in (b"POST", b"PUT", b"PATCH", b"DELETE", b"TRACE", b"CONNECT")
    ),
    Case(
        "CONNECT host",
        b"CONNECT h:443 HTTP/1.1\r\n" + H + b"\r\n",
        405,
        R.METHOD_NOT_ALLOWED,
        closes=True,
    ),
    *(
        Case(
            f"method {m.decode()}",
            m + b" /hello.txt HTTP/1.1\r\n" + H + b"\r\n",
            501,
            R.METHOD_UNKNOWN,
        )
        for m in (b"get", b"BREW", b"G!", b"PRI", b"X" * 100)
    ),
]

LINES = [
    Case("HTTP/0.9", b"GET /\r\n", 400, R.BAD_TARGET),
    Case("HTTP/2.0", get(version=b"HTTP/2.0"), 505, R.VERSION_UNKNOWN),
    Case("HTTP/0.9 with a version", get(version=b"HTTP/0.9"), 505, R.VERSION_UNKNOWN),
    Case("http in small letters", get(version=b"http/1.1"), 400, R.BAD_VERSION),
    Case("HTTP/1.10", get(version=b"HTTP/1.10"), 400, R.BAD_VERSION),
    Case("HTTP/11", get(version=b"HTTP/11"), 400, R.BAD_VERSION),
    Case("HTTP/1.", get(version=b"HTTP/1."), 400, R.BAD_VERSION),
    Case("two spaces before the target", b"GET  / HTTP/1.1\r\n" + H + b"\r\n", 400, R.BAD_TARGET),
    Case("two spaces before the version", b"GET /  HTTP/1.1\r\n" + H + b"\r\n", 400, R.BAD_VERSION),
    Case("space behind the version", get(version=b"HTTP/1.1 "), 400, R.BAD_VERSION),
    Case("tab for a space", b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n", 400, R.BAD_METHOD),
    Case("space first", b" " + get(), 400, R.BAD_METHOD),
    Case("two empty lines first", b"\r\n\r\n" + get(), 400, R.BAD_METHOD),
    Case("LF first", b"\n" + get(), 400, R.BARE_LF),
    Case("CR first", b"\r" + get(), 400, R.BARE_CR),
    Case("TLS hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, R.BAD_METHOD),
    Case("no method", b"/ HTTP/1.1\r\n" + H + b"\r\n", 400, R.BAD_METHOD),
    Case("bracket in a method", b"G[T / HTTP/1.1\r\n" + H + b"\r\n", 400, R.BAD_METHOD),
    Case("bare LF behind the request line", b"GET / HTTP/1.1\n" + H + b"\r\n", 400, R.BARE_LF),
    Case("bare LF behind a field", get(fields=b"Host: h\n"), 400, R.BARE_LF),
    Case("bare LF for the empty line", b"GET / HTTP/1.1\r\n" + H + b"\n", 400, R.BARE_LF),
    Case("bare CR in a value", get(fields=H + b"X: a\rb\r\n"), 400, R.BARE_CR),
    Case("CR CR LF", get(fields=b"Host: h\r\r\n"), 400, R.BARE_CR),
    Case("bare CR for the empty line", b"GET / HTTP/1.1\r\n" + H + b"\rX", 400, R.BARE_CR),
    Case("obs-fold", get(fields=H + b"X: a\r\n b\r\n"), 400, R.OBS_FOLD),
    Case("obs-fold with a tab", get(fields=H + b"X: a\r\n\tb\r\n"), 400, R.OBS_FOLD),
    Case("white space before the first field", get(fields=b" Host: h\r\n"), 400, R.OBS_FOLD),
    Case("space before the colon", get(fields=b"Host : h\r\n"), 400, R.BAD_FIELD_NAME),
    Case("tab before the colon", get(fields=b"Host\t: h\r\n"), 400, R.BAD_FIELD_NAME),
    Case("no colon", get(fields=H + b"X\r\n"), 400, R.BAD_FIELD_NAME),
    Case("empty name", get(fields=H + b": x\r\n"), 400, R.BAD_FIELD_NAME),
    Case("name in quotes", get(fields=H + b'"X": x\r\n'), 400, R.BAD_FIELD_NAME),
    Case("obs-text in a name", get(fields=H + b"J\xfc: x\r\n"), 400, R.BAD_FIELD_NAME),
    *(
        Case(
            f"control character {c:#x} in a value",
            get(fields=H + b"X: a%cb\r\n" % c),
            400,
            R.BAD_FIELD_VALUE,
        )
        for c in (0, 1, 8, 11, 12, 27, 31, 127)
    ),
]

SIZES = [
    Case("longest line", get(b"/" + b"a" * (8190 - 14)), 404, R.NOT_FOUND),
    Case("line too long", get(b"/" + b"a" * (8190 - 13)), 414, R.LINE_TOO_LONG),
    Case("line much too long", get(b"/" + b"a" * 20000), 414, R.LINE_TOO_LONG),
    Case("method too long", b"A" * 9000, 414, R.LINE_TOO_LONG),
    Case("hundred fields", get(fields=H + b"X: y\r\n" * 99), 200),
    Case("too many fields", get(fields=H + b"X: y\r\n" * 100), 431, R.TOO_MANY_FIELDS),
    Case("head too large", get(fields=H + b"X: " + b"y" * 66000 + b"\r\n"), 431, R.HEAD_TOO_LARGE),
]

LENGTHS = [
    Case("body of a GET", get(fields=H + b"Content-Length: 5\r\n") + b"hello" + get(), (200, 200)),
    Case(
        "body that looks like a request",
        get(fields=H + b"Content-Length: 38\r\n") + get(b"/nothing-at-all")[:38] + get(),
        (200, 200),
    ),
    Case("leading zeros", post(b"Content-Length: 005\r\n", b"hello"), 405, R.METHOD_NOT_ALLOWED),
    Case("length 0", post(b"Content-Length: 0\r\n") + get(), (405, 200)),
    Case(
        "body too long to drain",
        post(b"Content-Length: 70000\r\n", b"x" * 70000),
        405,
        R.METHOD_NOT_ALLOWED,
        closes=True,
    ),
    *(
        Case(
            f"Content-Length {v!r}",
            post(b"Content-Length: " + v + b"\r\n"),
            400,
            R.LENGTH_MALFORMED,
        )
        for v in (
            b"",
            b"+5",
            b"-5",
            b"5 5",
            b"5,5",
            b"0x5",
            b"5.0",
            b"five",
            b'"5"',
            b"1_0",
            b"\xb2",
        )
    ),
    Case("two lengths alike", post(b"Content-Length: 5\r\n" * 2, b"hello"), 400, R.LENGTH_REPEATED),
    Case(
        "two lengths", post(b"Content-Length: 5\r\nContent-Length: 6\r\n"), 400, R.LENGTH_REPEATED
    ),
    Case("beyond max-body", post(b"Content-Length: 1073741825\r\n"), 413, R.BODY_TOO_LARGE),
    Case(
        "beyond all numbers",
        post(b"Content-Length: " + b"9" * 5000 + b"\r\n"),
        413,
        R.BODY_TOO_LARGE,
    ),
    Case(
        "length beside coding", post(b"Content-Length: 5\r\n" + CHUNKED), 400, R.LENGTH_AND_CODING
    ),
    Case(
        "coding beside length", post(CHUNKED + b"Content-Length: 5\r\n"), 400, R.LENGTH_AND_CODING
    ),
    Case(
        "coding in HTTP/1.0",
        b"POST / HTTP/1.0\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
        400,
        R.CODING_IN_HTTP10,
    ),
    Case("unknown coding", post(b"Transfer-Encoding: gzip, chunked\r\n"), 501, R.CODING_UNKNOWN),
    Case(
        "unknown coding on a line of its own",
        post(b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"),
        501,
        R.CODING_UNKNOWN,
    ),
    *(
        Case(f"coding {v!r}", post(b"Transfer-Encoding: " + v + b"\r\n"), 400, R.CODING_MALFORMED)
        for v in (
            b"",
            b"gzip",
            b"identity",
            b"chunked, gzip",
            b"chunked, chunked",
            b"chunked,",
            b",chunked",
            b"chunked;q=1",
            b"xchunked",
            b"chunkedx",
            b'"chunked"',
        )
    ),
]

CHUNKS = [
    Case("chunked", post(CHUNKED, b"5\r\nhello\r\n0\r\n\r\n") + get(), (405, 200)),
    Case(
        "coding in capitals",
        post(b"Transfer-Encoding: CHUNKED\r\n", b"1\r\nx\r\n0\r\n\r\n") + get(),
        (405, 200),
    ),
    Case("no chunk", post(CHUNKED, b"0\r\n\r\n") + get(), (405, 200)),
    Case(
        "leading zeros in a size", post(CHUNKED, b"005\r\nhello\r\n000\r\n\r\n") + get(), (405, 200)
    ),
    Case("size in capitals", post(CHUNKED, b"A\r\n0123456789\r\n0\r\n\r\n") + get(), (405, 200)),
    Case(
        "extensions",
        post(CHUNKED, b'5;a;b=c;d="e;\\"f"\r\nhello\r\n0;x\r\n\r\n') + get(),
        (405, 200),
    ),
    Case(
        "bad white space around an extension",
        post(CHUNKED, b"5 ; a = b\r\nhello\r\n0\r\n\r\n") + get(),
        (405, 200),
    ),
    Case(
        "trailers", post(CHUNKED, b"0\r\nX-Sum: 1\r\nContent-Length: 9\r\n\r\n") + get(), (405, 200)
    ),
    *(
        Case(f"chunk {c!r}", post(CHUNKED, c), 400, R.BAD_CHUNK)
        for c in (
            b"5\nhello\r\n",
            b"x\r\n",
            b"-5\r\n",
            b"+5\r\n",
            b" 5\r\n",
            b"5 \r\n",
            b"0x5\r\n",
            b"5;\r\n",
            b"5;=a\r\n",
            b'5;a="b\r\n',
            b"5;a=b c\r\n",
            b"5\r\nhelloX\r\n",
            b"5\r\nhello\n0\r\n\r\n",
            b"5\r\nhello\r0\r\n\r\n",
            b"11111111111111111\r\n",
            b"5;a\rb\r\n",
            b"5;" + b"a" * 2000,
            b"\r\n",
            b"g\r\n",
            b"5\rx",
        )
    ),
    Case("chunk beyond max-body", post(CHUNKED, b"fffffffff\r\n"), 413, R.BODY_TOO_LARGE),
    Case("size near 2^64", post(CHUNKED, b"ffffffffffffffff\r\n"), 413, R.BODY_TOO_LARGE),
    Case("folded trailer", post(CHUNKED, b"0\r\nX: a\r\n b\r\n\r\n"), 400, R.OBS_FOLD),
    Case("bare LF in the trailers", post(CHUNKED, b"0\r\nX: a\n\r\n"), 400, R.BARE_LF),
    Case("too many trailers", post(CHUNKED, b"0\r\n" + b"X: y\r\n" * 101), 431, R.TOO_MANY_FIELDS),
]

EXPECT = [
    Case(
        "100-continue and nobody reads",
        post(b"Expect: 100-continue\r\nContent-Length: 5\r\n"),
        405,
        R.METHOD_NOT_ALLOWED,
        closes=True,
    ),
    Case("100-continue in capitals", get(fields=H + b"Expect: 100-CONTINUE\r\n"), 200),
    Case("another expectation", get(fields=H + b"Expect: x\r\n"), 417, R.EXPECTATION_UNKNOWN),
    Case(
        "two expectations",
        get(fields=H + b"Expect: 100-continue, x\r\n"),
        417,
        R.EXPECTATION_UNKNOWN,
    ),
    Case(
        "100-continue in HTTP/1.0",
        b"POST /hello.txt HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
        405,
        R.METHOD_NOT_ALLOWED,
        closes=True,
    ),
]

CASES = [*GOOD, *HOSTS, *TARGETS, *METHODS, *LINES, *SIZES, *LENGTHS, *CHUNKS, *EXPECT]
