"""h11 and httptools (llhttp) judge the same heads; each difference is listed and justified.

Where both let a head through they must read the same method, target and fields. A head that we
let through and one of them refuses, or the other way, must be in a list below with the reason.
"""

from __future__ import annotations

import h11
import httptools
import pytest
from cases import CASES, Case

from pyweb import _pyparse
from pyweb.errors import HTTPError
from pyweb.parse import ENGINES, Limits, Parser

Seen = tuple[bytes, bytes, list[tuple[bytes, bytes]]]

# We refuse, h11 lets through. What justifies us:
STRICTER_THAN_H11 = {
    "bad Host beside absolute form": "9112 3.2: Host must be valid all the same",
    "head too large": "limits are ours",
    "bare LF behind the request line": "9112 2.2: MAY recognise; two parsers may differ",
    "bare LF behind a field": "9112 2.2, as above",
    "bare LF for the empty line": "9112 2.2, as above",
    "obs-fold": "9112 5.2: a server MUST reject or replace; we reject",
    "obs-fold with a tab": "9112 5.2",
    "fragment": "9112 3.2: no fragment in a target",
    "HTTP/2.0": "505 is ours to say: h11 reads the digits and goes on",
    "HTTP/0.9 with a version": "505",
    "authority form": "9112 3.2.3: CONNECT alone",
    "asterisk with GET": "9112 3.2.4: OPTIONS alone",
    "relative": "9112 3.2",
    "another scheme": "no resource of ours",
    "absolute without host": "9110 4.2.1: MUST reject an empty host",
    "absolute with port alone": "9110 4.2.1",
    "user information": "9110 4.2.4: SHOULD be treated as an error",
    "line too long": "limits are ours",
    "line much too long": "limits are ours",
    "too many fields": "limits are ours",
    "two lengths alike": "9110 8.6: MAY reject; one length is enough",
    "beyond max-body": "limits are ours",
    "length beside coding": "9112 6.1: ought to be treated as an error (smuggling)",
    "coding beside length": "9112 6.1",
    "coding in HTTP/1.0": "9112 6.1: MUST be treated as faulty framing",
    "another expectation": "9110 10.1.1: MAY respond 417",
    "two expectations": "9110 10.1.1",
}
# We let through, h11 refuses.
LAXER_THAN_H11 = {
    "empty line first": "9112 2.2: a server SHOULD ignore at least one",
}

# We refuse, llhttp lets through.
STRICTER_THAN_LLHTTP = {
    "no Host": "9112 3.2: llhttp leaves Host to its user",
    "no Host beside absolute form": "as above",
    "two Hosts": "as above",
    "two Hosts in HTTP/1.0": "as above",
    "bad Host beside absolute form": "as above",
    "Host in a list": "as above",
    "asterisk with GET": "9112 3.2.4",
    "another scheme": "no resource of ours",
    "absolute without host": "9110 4.2.1",
    "absolute with port alone": "9110 4.2.1",
    "user information": "9110 4.2.4",
    "fragment": "llhttp reads it as a part of the URL",
    "two empty lines first": "9112 2.2: at least one should be ignored; we ignore one",
    "LF first": "9112 2.2",
    "CR first": "9112 2.2",
    "HTTP/0.9 with a version": "505",
    "line too long": "limits are ours",
    "line much too long": "limits are ours",
    "too many fields": "limits are ours",
    "head too large": "limits are ours",
    "beyond max-body": "limits are ours",
    "another expectation": "417 is ours to say",
    "two expectations": "417 is ours to say",
    "coding in HTTP/1.0": "9112 6.1",
    "unknown coding": "501 is ours to say",
    "unknown coding on a line of its own": "501 is ours to say",
    "HTTP/2.0": "505",
    "two spaces before the target": "9112 3: single SP",
    "two spaces before the version": "9112 3: single SP",
    "coding b',chunked'": "an empty member: a proxy may not see the rest as one list",
}
LAXER_THAN_LLHTTP = {
    "HTTP/1.2 is 1.1": "9110 2.5: a higher minor version is understood as the highest we know",
    "HTTP/1.9 is 1.1": "as above",
}


def one_head(case: Case) -> bytes:
    """The first head of the case, without a body."""
    start = 2 if case.data.startswith(b"\r\n") else 0
    end = case.data.find(b"\r\n\r\n", start)
    return case.data if end < 0 else case.data[: end + 4]


def ours(data: bytes) -> Seen | None:
    """None: refused, or not a whole head."""
    try:
        found = Parser(ENGINES[0], Limits(8190, 65536, 100, 1 << 30)).parse(data)
    except HTTPError:
        return None
    if found is None:
        return None
    raw = _pyparse.parse_head(data, 8190, 65536, 100)
    assert raw is not None
    return raw[1], raw[2], [(n, _coding(n, v)) for n, v in raw[5]]


def h11_reads(data: bytes) -> Seen | None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=100_000)
    try:
        connection.receive_data(data)
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    if not isinstance(event, h11.Request):
        return None
    # h11 gives the coding in lower case.
    return event.method, event.target, [(n, _coding(n, v)) for n, v in event.headers]


def _coding(name: bytes, value: bytes) -> bytes:
    return value.lower() if name == b"transfer-encoding" else value


class _Collector:
    def __init__(self) -> None:
        self.url = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.whole = False

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), _coding(name.lower(), value.rstrip(b" \t"))))

    def on_headers_complete(self) -> None:
        self.whole = True


def llhttp_reads(data: bytes) -> Seen | None:
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    if not collector.whole:
        return None
    return parser.get_method(), collector.url, collector.fields


ORACLES = [
    ("h11", h11_reads, STRICTER_THAN_H11, LAXER_THAN_H11),
    ("llhttp", llhttp_reads, STRICTER_THAN_LLHTTP, LAXER_THAN_LLHTTP),
]
FAMILIES = {
    # A whole family of cases differs for one reason.
    # h11 checks Host's characters only in part; lets some controls into values ("as deployed
    # software does"); joins equal lengths of a list; knows only token methods, as we do.
    "h11": ("Host ", "control character ", "Content-Length b'5,5'"),
    # llhttp leaves Host to its user, and knows a fixed list of methods.
    "llhttp": ("Host ", "method "),
}


@pytest.mark.parametrize("case", CASES, ids=repr)
@pytest.mark.parametrize(("name", "read", "stricter", "laxer"), ORACLES, ids=["h11", "llhttp"])
def test_verdict(name, read, stricter, laxer, case: Case) -> None:  # type: ignore[no-untyped-def]
    data = one_head(case)
    we, they = ours(data), read(data)
    if we and they:
        assert we == they
        assert case.name not in stricter
        assert case.name not in laxer
    elif they and not we:
        assert case.name in stricter or case.name.startswith(FAMILIES[name])
    elif we and not they:
        assert case.name in laxer or case.name.startswith(FAMILIES[name])


@pytest.mark.parametrize(("_name", "read", "stricter", "laxer"), ORACLES, ids=["h11", "llhttp"])
def test_lists_are_current(_name, read, stricter, laxer) -> None:  # type: ignore[no-untyped-def]
    """Nothing is excused that no longer differs."""
    by_name = {case.name: one_head(case) for case in CASES}
    idle = [n for n in stricter if not read(by_name[n]) or ours(by_name[n])]
    idle += [n for n in laxer if read(by_name[n]) or not ours(by_name[n])]
    assert idle == []
