"""An answer of `pyweb-lab report` as it could be, in round numbers: tests know what must be on the
page. A connection takes 4,000 us: 100 in a C server, 400 for the fork, 3,500 for Python.
"""

from __future__ import annotations

from typing import Any

from pyweb.lab.phases import NAMES
from pyweb.lab.rungs import LADDER, STEPS

PEERS = ("pyweb fork", "pyweb prefork", "nginx", "apache", "gunicorn")
RATES = {"pyweb fork": 250.0, "pyweb prefork": 2000.0, "nginx": 10_000.0, "apache": 8000.0}
FAILED = "12 of 1,000 requests failed: Connect 12"


def about(value: float, width: float = 0.05) -> list[float | None]:
    """An estimate whose interval goes so far to both sides."""
    far = abs(value) * width
    return [value, value - far, value + far]


WALLS = {
    "c-close": 80.0, "c-fork-exit": 250.0, "c-serve": 100.0, "c-fork-serve": 300.0,
    "c-loop-excluded": 350.0, "c-loop": 500.0, "raw-fork": 700.0, "os-fork": 900.0,
    "python-child": 1500.0, "finalised": 12_000.0, "pyweb": 4000.0, "pyweb again": 4010.0,
    "fork-python": 4500.0, "prefork": 200.0, "prefork-python": 300.0, "thread": 210.0,
}  # fmt: skip
# Of pyweb: 4,000 us in all, and 20 more than the wall time without stamps.
PHASES = {
    "wake": 0.0, "accept": 150.0, "admit": 70.0, "fork": 600.0, "books": 400.0, "start": 500.0,
    "prepare": 900.0, "parse": 250.0, "open": 350.0, "decide": 100.0, "send": 200.0, "log": 100.0,
    "leave": 50.0, "exit": 250.0, "reap": 60.0, "round": 40.0, "client": 0.0,
}  # fmt: skip


def _stretches() -> list[dict[str, Any]]:
    rows = [
        ("client", "connect", "connect(2), until the kernel has shaken hands", 0, 50),
        ("master", "wake", "loopback handshake, and the sleeping server wakes", 0, 100),
        ("client", "send", "the request into the socket", 50, 60),
        ("client", "wait", "until the first byte of the answer is there", 60, 3800),
        ("master", "accept", "from poll to the end of accept", 100, 250),
        ("master", "admit", "limits, waiting room, a slot", 250, 320),
        ("master", "fork", "fork, until it returns in the parent", 320, 1000),
        ("child", "start", "until the child's first instruction", 320, 1400),
        ("master", "books", "the parent's books, until it polls again", 1000, 1200),
        ("child", "prepare", "signals, descriptors, and the request is there", 1400, 2400),
        ("child", "parse", "receive, parse, understand", 2400, 2700),
        ("child", "open", "decode the path and open the file", 2700, 3200),
        ("child", "decide", "conditions, fields: the response", 3200, 3400),
        ("child", "send", "header and what fits beside it into the socket", 3400, 3800),
        ("client", "read", "until the end of the connection is seen", 3800, 4000),
        ("child", "log", "the slot's numbers and the log line", 3800, 3900),
        ("child", "leave", "close the connection", 3900, 4020),
        ("child", "exit", "the process is taken down, and its parent learns of it", 4020, 4500),
        ("master", "reap", "wait4", 4500, 4600),
        ("master", "round", "what else the parent does before it polls again", 4600, 4700),
    ]
    names = ("who", "phase", "what", "begin", "end")
    return [dict(zip(names, row, strict=True)) for row in rows]


def _tax(ladder: float, stamps: float, hidden: float) -> dict[str, Any]:
    return {"ladder": about(ladder), "stamps": about(stamps), "hidden": about(hidden),
            "agrees": True}  # fmt: skip


def ladder() -> dict[str, Any]:
    share = sum(PHASES.values())
    phases = {
        rung: [{name: PHASES[name] * wall / share for name in NAMES}] * 8
        for rung, wall in WALLS.items()
        if rung != "pyweb again"
    }
    phases["pyweb"] = [PHASES] * 8
    return {
        "command": "ladder", "quick": False, "aa": [1.003, 0.995, 1.011], "void": [],
        "titles": {rung.name: rung.title for rung in LADDER},
        "rungs": {rung: about(wall) for rung, wall in WALLS.items()},
        "connection": {"wall": 4000.0, "stretches": _stretches()},
        "steps": [
            {"item": step.item, "from": step.a, "to": step.b,
             "ladder": about(WALLS[step.b] - WALLS[step.a]),
             "stamps": about(1.1 * (WALLS[step.b] - WALLS[step.a])), "elsewhere": about(-10),
             "agrees": step.item != "finalisation"}
            for step in STEPS
        ],
        "blocks": {"walls": {rung: [wall] * 8 for rung, wall in WALLS.items()}, "phases": phases,
                   "elapsed": {}, "counts": {}},
        "taxes": {
            "wall": about(4000.0, 0.01), "base": about(100.0), "fork": _tax(400.0, 420.0, -30.0),
            "fork_inside": about(200.0), "interpreter": _tax(3500.0, 3450.0, 20.0),
            "process": _tax(3800.0, 3850.0, -60.0), "residual": about(-20.0),
            "residual_share": about(-0.005),
            "phases": {name: about(us) for name, us in PHASES.items()}, "fault": about(4.0),
            "from_parts": about(3000.0), "minor_faults": 600.0, "context_switches": 2.5,
        },
    }  # fmt: skip


def _line(a: float, b: float, c: float, d: float) -> dict[str, Any]:
    names = zip("abcd", (a, b, c, d), strict=True)
    return {name: about(one) for name, one in names} | {"error": 0.03, "r2": 0.998, "points": []}


_PROCESSES = (
    ("a small interpreter", 50, 1200, 3), ("pyweb's master", 120, 2500, 17),
    ("a heap of 100 MB", 60, 27_000, 3), ("a heap of 1 GB", 60, 260_000, 3),
)  # fmt: skip


def model() -> dict[str, Any]:
    """ns. fork = 50 us + 800 a mapping + 100 a page + 10 a descriptor; cycle: twice as much."""
    cases = []
    for name, mappings, pages, descriptors in _PROCESSES:
        for what, by in (("fork", 1), ("cycle", 2)):
            ns = by * (50_000.0 + 800 * mappings + 100 * pages + 10 * descriptors)
            cases.append({"name": name, "what": what, "mappings": mappings, "pages": pages,
                          "descriptors": descriptors, "predicted": about(ns),
                          "measured": about(1.1 * ns), "ratio": about(1.1),
                          "ok": True})  # fmt: skip
    return {
        "command": "model", "quick": False, "aa": [0.999, 0.99, 1.008], "unit": "ns",
        "fork": _line(50_000, 800, 100, 10), "cycle": _line(100_000, 1600, 200, 20),
        "cases": cases, "changes": [], "skipped": [], "at_work": [],
        "hooks": {"pyweb's master": {"fork": about(40_000.0), "cycle": about(300_000.0)}},
    }  # fmt: skip


def _latency(server: str, share: float, p50: float) -> dict[str, Any]:
    tail = {"p50": 1.0, "p75": 1.5, "p90": 2.5, "p99": 8.0}
    return {"server": server, "of_saturation": share} | {
        name: about(p50 * times) for name, times in tail.items()
    }


# Seconds.
_MEDIANS = {"fork": 0.004, "prefork": 0.0005, "thread": 0.0006}


def load() -> dict[str, Any]:
    rates = {"fork": 250.0, "fork again": 251.0, "prefork": 2000.0, "thread": 1800.0}
    return {
        "command": "load", "quick": False, "aa": [1.004, 0.996, 1.012], "void": [],
        "rates": {name: {server: about(rate * by) for server, rate in rates.items()}
                  for name, by in (("ab", 1.0), ("wrk", 1.2))},
        "latencies": [_latency(server, share, p50 * (1 + share))
                      for share in (0.5, 0.7)
                      for server, p50 in _MEDIANS.items()],
        "blocks": {},
    }  # fmt: skip


def peers() -> dict[str, Any]:
    def row(name: str, reference: str) -> dict[str, Any]:
        if name not in RATES:
            return {"rate": None, "ratio": None, "cpu_us": None, "memory_kb": None, "runs": 0,
                    "failures": [FAILED]}  # fmt: skip
        return {"rate": about(RATES[name]), "ratio": about(RATES[name] / RATES[reference]),
                "cpu_us": about(1e6 / RATES[name]), "memory_kb": about(20_480.0), "runs": 8,
                "failures": []}  # fmt: skip

    return {
        "command": "peers", "quick": False, "aa": [1.002, 0.99, 1.013], "void": [], "missing": [],
        "setting": ["all processes of a server on CPU 1, its client on CPU 0",
                    "the same file of 1,320 bytes"],
        "peers": [{"name": name, "title": f"{name}, 2 workers", "version": f"{name} 1.2.3",
                   "process": "a pool", "command": f"{name} -c its.conf",
                   "configuration": "workers 2;\n" if name == "nginx" else "", "notes": []}
                  for name in PEERS],
        "loads": {
            "ab": {"about": "a connection for each request, 50 at a time",
                   "reference": "pyweb fork",
                   "rows": {one: row(one, "pyweb fork") for one in PEERS}},
            "wrk": {"about": "kept connections, 50 at a time", "reference": "pyweb prefork",
                    "rows": {one: row(one, "pyweb prefork") for one in PEERS}},
        },
        "latencies": [_latency("nginx", 0.5, 0.0001)],
        "blocks": {load: {one: {str(n): {"rate": RATES[one]} for n in range(6)} for one in RATES}
                   for load in ("ab", "wrk")},
    }  # fmt: skip


_SERVERS = {"plainfork": "the article's kind", "pyweb fork": "pyweb, mode fork",
            "apache": "Apache, event"}  # fmt: skip


def article() -> dict[str, Any]:
    def row(rate: float) -> dict[str, Any]:
        return {"rate": about(rate), "ratio": about(rate / 200), "mean_ms": about(1e5 / rate),
                "max_ms": about(1e6 / rate), "runs": 6, "failures": []}  # fmt: skip

    rows = {"plainfork": row(200.0), "pyweb fork": row(300.0), "apache": row(5000.0)}
    died: dict[str, Any] = {"rate": None, "ratio": None, "mean_ms": None, "max_ms": None, "runs": 0,
                            "failures": ["it died of BlockingIOError: [Errno 11]"]}  # fmt: skip
    return {
        "command": "article", "quick": False, "aa": [0.998, 0.985, 1.012], "void": [],
        "missing": [], "titles": _SERVERS,
        "published": {"server": {"rate": 70.48, "mean_ms": 127, "max_ms": 12_395},
                      "apache": {"rate": 1263.56}},
        "loads": {
            "ab -n 1000 -c 100": {"about": "1,000 requests, 100 at a time", "rows": rows},
            "ab -n 10000 -c 100": {"about": "10,000 requests, 100 at a time",
                                   "rows": rows | {"plainfork": died}},
        },
        "limit": {"about": "200 clients hold a connection each", "processes": 100,
                  "rows": {"plainfork": {"answered": 90, "asked": 200, "alive": False,
                                         "said": "BlockingIOError: [Errno 11]", "again": False},
                           "pyweb fork": {"answered": 200, "asked": 200, "alive": True, "said": "",
                                          "again": True}}},
        "pool": {"about": "10 connections that are kept, against a new one for each request.",
                 "rows": {"pyweb fork": {"kept": about(400.0), "new": about(4000.0),
                                         "ratio": about(10.0), "failures": [FAILED]},
                          "apache": {"kept": about(50.0), "new": about(150.0),
                                     "ratio": about(3.0), "failures": []}}},
    }  # fmt: skip


def report() -> dict[str, Any]:
    """Quiet, and nothing is missing; but runs have failed."""
    machine = {
        "cpu": "a CPU", "cpus": 2, "memory_mb": 16_000, "kernel": "6.1.0",
        "python": "CPython 3.11.2",
        "compiler": "cc 12.2.0", "libc": "glibc 2.36", "clocksource": "tsc",
        "huge_pages": "madvise", "ticks_for_cpu_accounting": "yes", "pyweb": "0.1.0",
        "engines": ["cython", "python"], "pinned": "servers on CPU 1, client on CPU 0",
    }  # fmt: skip
    parts = {"ladder": ladder(), "model": model(), "load": load(), "peers": peers(),
             "article": article()}  # fmt: skip
    return {"command": "report", "quick": False, "machine": machine, "missing": [], "parts": parts}
