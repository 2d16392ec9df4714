"""A browser's request head, and who parses it: both engines and two peers.

"Finished" means the same for all: method, target and every field as bytes.
"""

from __future__ import annotations

from collections.abc import Callable

import h11
import httptools

from pyweb import _pyparse
from pyweb.parse import ENGINES

# A request as Chromium sends it: 15 fields, about 700 bytes.
BROWSER = (
    b"GET /docs/library/socket.html?highlight=accept HTTP/1.1\r\n"
    b"Host: www.example.org\r\n"
    b"Connection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="140", "Not=A?Brand";v="24"\r\n'
    b"sec-ch-ua-mobile: ?0\r\n"
    b'sec-ch-ua-platform: "Linux"\r\n'
    b"Upgrade-Insecure-Requests: 1\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    b" Chrome/140.0.0.0 Safari/537.36\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
    b"*/*;q=0.8\r\n"
    b"Sec-Fetch-Site: same-origin\r\n"
    b"Sec-Fetch-Mode: navigate\r\n"
    b"Sec-Fetch-User: ?1\r\n"
    b"Sec-Fetch-Dest: document\r\n"
    b"Referer: https://www.example.org/docs/\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Accept-Language: en-GB,en;q=0.9\r\n"
    b"\r\n"
)
LIMITS = 8190, 65536, 100


def with_python() -> object:
    return _pyparse.parse_head(BROWSER, *LIMITS)


def with_h11() -> object:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(BROWSER)
    event = connection.next_event()
    return event.method, event.target, event.headers.raw_items()


class _Collector:
    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name.lower(), value))


def with_httptools() -> object:
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    parser.feed_data(BROWSER)
    return parser.get_method(), collector.url, collector.fields


SIDES: dict[str, Callable[[], object]] = {
    "python": with_python, "h11": with_h11, "httptools": with_httptools,
}  # fmt: skip

if "cython" in ENGINES:
    from pyweb import _fastparse

    def with_cython() -> object:
        return _fastparse.parse_head(BROWSER, *LIMITS)

    SIDES["cython"] = with_cython

BEST = SIDES[ENGINES[0]]
