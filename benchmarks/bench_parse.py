"""A browser's request head, from bytes to fields that can be read: both engines and two peers.

Each comparison runs its two sides in turn inside one call (pairs.py); the ratio and its interval
are in extra_info. "Finished" means the same for all: method, target and every field as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import h11
import httptools
import pytest
from conftest import BROWSER, tell
from pairs import compare

from pyweb import _pyparse
from pyweb.parse import ENGINES, Limits, Parser

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


@pytest.mark.benchmark(group="parse")
@pytest.mark.parametrize("name", SIDES)
def test_parse(benchmark: Any, name: str) -> None:
    benchmark.extra_info["bytes"] = len(BROWSER)
    assert benchmark(SIDES[name]) is not None


@pytest.mark.benchmark(group="parse and understand")
@pytest.mark.parametrize("engine", ENGINES)
def test_policy(benchmark: Any, engine: str) -> None:
    """With the policy above the parser: framing, Host, keep-alive."""
    parser = Parser(engine, Limits(8190, 65536, 100, 1 << 30))
    assert benchmark(parser.parse, BROWSER) is not None


@pytest.mark.benchmark(group="parse, ratio to the best engine")
@pytest.mark.parametrize("name", [n for n in SIDES if SIDES[n] is not BEST])
def test_ratio(benchmark: Any, name: str) -> None:
    found = benchmark.pedantic(compare, args=(BEST, SIDES[name], 500), rounds=1)
    tell(benchmark, f"parse: {name} / {ENGINES[0]}", found)
