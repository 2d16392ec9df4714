"""Tables of the peers, and of the article's experiment, from the data that is also kept as JSON.

Not here: a figure that isn't given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from .statistics import estimate
from .tell import times, us

Data = Mapping[str, Any]


def _us(found: Sequence[float | None] | None) -> str:
    return us(estimate(found))


def _times(found: Sequence[float | None] | None) -> str:
    one = estimate(found)
    return times(one) if one else "-"


def contest_tables(data: Data) -> Iterator[Table]:
    """One for each load."""
    for load, found in data["loads"].items():
        table = Table("server", title=f"{load}: {found['about']}")
        for name in ("requests/s", f"x {found['reference']}", "CPU us a request", "memory kB"):
            table.add_column(name, justify="right")
        table.add_column("failed runs")
        for server, row in found["rows"].items():
            table.add_row(server, _us(row["rate"]), _times(row["ratio"]), _us(row["cpu_us"]),
                          _us(row["memory_kb"]), _failed(row))  # fmt: skip
        yield table


def _failed(row: Data) -> str:
    return str(len(row["failures"])) if row["failures"] else ""


def failure_lines(data: Data) -> Iterator[str]:
    """Who failed at what, and with which numbers; the first of each."""
    pool = {"a pool of connections": data["pool"]} if "pool" in data else {}
    for load, found in (data["loads"] | pool).items():
        for server, row in found["rows"].items():
            if row["failures"]:
                yield f"failed: {server}, {load}, {len(row['failures'])} runs: {row['failures'][0]}"


def waits_table(data: Data) -> Table:
    table = Table("server", title="Latency in an open loop, at half of what it carries (ms)")
    for name in ("p50", "p75", "p90", "p99"):
        table.add_column(name, justify="right")
    for row in data["latencies"]:
        found = (estimate(row[name]) for name in ("p50", "p75", "p90", "p99"))
        table.add_row(row["server"], *(us(one.scaled(1e3) if one else None) for one in found))
    return table


def article_tables(data: Data) -> Iterator[Table]:
    for load, found in data["loads"].items():
        table = Table("server", title=load)
        for name in ("requests/s", "x the article's kind", "mean ms", "longest ms"):
            table.add_column(name, justify="right")
        table.add_column("failed runs")
        for server, row in found["rows"].items():
            table.add_row(server, _us(row["rate"]), _times(row["ratio"]), _us(row["mean_ms"]),
                          _us(row["max_ms"]), _failed(row))  # fmt: skip
        yield table
    yield _limit_table(data["limit"])
    yield _pool_table(data["pool"])


def published_lines(data: Data) -> Iterator[str]:
    for name, row in data["published"].items():
        yield (
            f"as published in 2009, {name}: {row['about']}: {row['rate']} requests/s, mean"
            f" {row['mean_ms']} ms, longest {row['max_ms']} ms"
        )


def _limit_table(limit: Data) -> Table:
    title = f"{limit['processes']} processes more, and no others, for twice as many clients"
    table = Table("server", "clients", "alive", "serves again", "its last line", title=title)
    for server, row in limit["rows"].items():
        ends = ", ".join(f"{count} {end}" for end, count in sorted(row["ends"].items()))
        alive, again = ("yes" if row[name] else "NO" for name in ("alive", "again"))
        table.add_row(server, ends, alive, again, row["said"])
    return table


def _pool_table(pool: Data) -> Table:
    table = Table("server", title="A pool of connections: us a request")
    for name in ("kept", "new", "new / kept"):
        table.add_column(name, justify="right")
    for server, row in pool["rows"].items():
        table.add_row(server, _us(row["kept"]), _us(row["new"]), _times(row["ratio"]))
    return table
