"""A browser's request head (parsers.py), from bytes to fields that can be read.

Each comparison runs its two sides in turn inside one call (pairs.py); the ratio and its interval
are in extra_info.
"""

from __future__ import annotations

from typing import Any

import pytest
from conftest import tell
from pairs import compare
from parsers import BEST, BROWSER, SIDES

from pyweb.parse import ENGINES, Limits, Parser


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
