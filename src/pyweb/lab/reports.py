"""What ab, wrk and openloop say, as figures: pure functions of their texts.

Not here: whether a report can be believed (guards.py), and how a tool is run (load.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Void(Exception):
    """A run that says nothing; the text says which guard it broke, and how."""


class Disturbed(Void):
    """Not the server's doing as far as is known: somebody else was at work, or we were late."""


class Request(NamedTuple):
    """A line of openloop: ns of CLOCK_MONOTONIC, 0: it never came to that."""

    scheduled: int
    started: int
    connected: int
    first_byte: int
    end: int
    status: int
    bytes: int


@dataclass(frozen=True)
class Report:
    """What ab or wrk say. failures: each kind with its number; unknown numbers are None.

    length    of the first answer's body
    body      bytes of bodies
    mean      seconds of a connection, from connect to its end; None: the tool does not say
    read      bytes in all, as far as two decimals tell
    """

    requests: int
    seconds: float
    rate: float
    failures: Mapping[str, int]
    latency: Mapping[float, float]
    kept: int | None = None
    length: int | None = None
    body: int | None = None
    read: float | None = None
    mean: float | None = None


def parse_ab(text: str) -> Report:
    """Void: it is no whole report."""
    found = dict(re.findall(r"^([A-Z][^:\n]*):\s+([\d.]+)", text, re.MULTILINE))
    failures = {"Failed requests": int(_need(found, "Failed requests", "ab"))}
    # Only there when they are not 0.
    for name in ("Non-2xx responses", "Write errors"):
        failures[name] = int(found.get(name, 0))
    kinds = re.search(r"^ +\((Connect: .*)\)$", text, re.MULTILINE)
    for kind, number in re.findall(r"(\w+): (\d+)", kinds[1] if kinds else ""):
        failures[kind] = int(number)
    percentiles = re.findall(r"^ +(\d+)% +(\d+)(?: |$)", text, re.MULTILINE)
    total = re.search(r"^Total: +\d+ +(\d+) ", text, re.MULTILINE)
    return Report(
        requests=int(_need(found, "Complete requests", "ab")),
        seconds=float(_need(found, "Time taken for tests", "ab")),
        rate=float(_need(found, "Requests per second", "ab")),
        failures=failures,
        latency={int(share) / 100: int(ms) / 1e3 for share, ms in percentiles},
        kept=int(found["Keep-Alive requests"]) if "Keep-Alive requests" in found else None,
        length=int(_need(found, "Document Length", "ab")),
        body=int(_need(found, "HTML transferred", "ab")),
        mean=int(total[1]) / 1e3 if total else None,
    )


_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"B": 1.0, "KB": 2.0**10, "MB": 2.0**20, "GB": 2.0**30, "TB": 2.0**40}
_WRK_TOTAL = re.compile(r"(\d+) requests in ([\d.]+)(us|ms|s|m|h), ([\d.]+)([KMGT]?B) read")


def parse_wrk(text: str) -> Report:
    """Void: it is no whole report."""
    total = _WRK_TOTAL.search(text)
    rate = re.search(r"Requests/sec: +([\d.]+)", text)
    if not total or not rate:
        raise Void(f"wrk ended without a whole report: {last_line(text)}")
    failures = {}
    if odd := re.search(r"Non-2xx or 3xx responses: (\d+)", text):
        failures["Non-2xx or 3xx responses"] = int(odd[1])
    errors = re.search(r"Socket errors: (.*)", text)
    for kind, number in re.findall(r"(\w+) (\d+)", errors[1] if errors else ""):
        failures[kind] = int(number)
    percentiles = re.findall(r"^ +(\d+)% +([\d.]+)(us|ms|s|m|h)$", text, re.MULTILINE)
    return Report(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS[total[3]],
        rate=float(rate[1]),
        failures=failures,
        latency={int(share) / 100: float(t) * _UNITS[unit] for share, t, unit in percentiles},
        read=float(total[4]) * _SIZES[total[5]],
    )


def parse_openloop(text: str) -> tuple[Request, ...]:
    """Void: something else is in it."""
    try:
        return tuple(Request(*map(int, line.split())) for line in text.splitlines())
    except (ValueError, TypeError):
        raise Void(f"openloop's output has a line that is none: {last_line(text)}") from None


def _need(found: Mapping[str, str], name: str, tool: str) -> str:
    if name not in found:
        raise Void(f"{tool} ended without a whole report: no {name!r} in it")
    return found[name]


def last_line(text: str) -> str:
    return (text.strip().splitlines() or ["nothing"])[-1]
