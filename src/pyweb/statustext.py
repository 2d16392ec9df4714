"""The facts of status.py for people: who it is, what it did, a letter for each process, a table.

Pure text, as Apache's mod_status has it. Not here: where the facts come from, and colours.
"""

from __future__ import annotations

from .scoreboard import STATE_NAMES
from .status import Facts

# Where Apache has such a state, its letter.
LETTERS = dict(zip(STATE_NAMES, ".SRWKCB_G", strict=True))
_UNKNOWN = "?"
_A_LINE = 64

# What the server said of itself when it started.
_WORDS = (("processes", "served_by"), ("limits", "limits"), ("protections", "protections"))

# Heading, and whether numbers stand in it.
_COLUMNS = (
    ("PID", True), ("KIND", False), ("GEN", True), ("STATE", False), ("AGE", True),
    ("LAST", True), ("OPEN", True), ("REQS", True), ("BYTES", True), ("PEER", False),
    ("REASON", True), ("REQUEST", False),
)  # fmt: skip


def text_of(server: Facts, pace: str = "") -> str:
    """One server. `pace`: a line about what it does right now."""
    if "unreadable" in server:
        return f"process {server['master']['pid']} has {server['unreadable']}"
    lines = [*_who(server), *_what(server), *([pace] if pace else []), "", *_letters(server)]
    if server["processes"]:
        lines += ["", *_table(server["processes"])]
    return "\n".join(lines)


def _who(server: Facts) -> list[str]:
    master, supervisor = server["master"], server["supervisor_pid"]
    above = f"supervisor {supervisor}, " if supervisor else ""
    return [
        f"pyweb {server['version']} on {' '.join(server['urls'])}",
        f"serves {server['directory']}: mode {server['mode']}, engine {server['engine']},"
        f" generation {server['generation']}, for {span(server['uptime_seconds'])}",
        *(f"{name}: {server[key]}" for name, key in _WORDS if server[key]),
        f"{above}master {master['pid']}: {master['mappings']} mappings,"
        f" {master['private_pages']} private pages ({human(master['private_bytes'])} of"
        f" {human(master['resident_bytes'])} resident), {master['descriptors']} descriptors,"
        f" {master['cpu_seconds']:.2f} s of CPU time",
    ]


def _what(server: Facts) -> list[str]:
    totals = server["totals"]
    return [
        f"connections: {totals['served_connections']} served,"
        f" {totals['refused_connections']} refused, {totals['cut']} cut,"
        f" {totals['waiting_connections']} waiting, {totals['parked_connections']} parked",
        f"requests: {totals['requests']}, {totals['repeated']} of them repeated,"
        f" {human(totals['bytes'])} sent,"
        f" {totals['lost_log_lines']} log lines lost",
    ]


def _letters(server: Facts) -> list[str]:
    line = "".join(LETTERS.get(one["state"], _UNKNOWN) for one in server["processes"])
    counts = ", ".join(f"{count} {state}" for state, count in sorted(server["states"].items()))
    legend = [f"{LETTERS[name]} {name}" for name in STATE_NAMES[1:]]
    return [
        f"slots: {len(line)} of {server['slots']} taken" + (f": {counts}" if counts else ""),
        *(f"  {line[at : at + _A_LINE]}" for at in range(0, len(line), _A_LINE)),
        f"  ({', '.join(legend)})",
    ]


def _table(processes: list[Facts]) -> list[str]:
    rows = [[name for name, _ in _COLUMNS], *map(_row, processes)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if is_number else cell.ljust(width)
            for cell, width, (_, is_number) in zip(row, widths, _COLUMNS, strict=True)
        ).rstrip()
        for row in rows
    ]
    if any(_is_nobody(one) for one in processes):
        lines.append("(a pid with ? is no process that exists)")
    return lines


def _row(one: Facts) -> list[str]:
    return [
        f"{one['pid'] or '-'}{'?' if _is_nobody(one) else ''}",
        one["kind"],
        str(one["generation"]),
        one["state"],
        span(one["age_seconds"]),
        span(one["last_request_seconds_ago"]),
        str(one["open_connections"]),
        str(one["requests"]),
        human(one["bytes"] + one["sending_bytes"]),
        one["peer"] or "-",
        str(one["reason"]),
        one["request"] or "-",
    ]


def _is_nobody(one: Facts) -> bool:
    """A process that is being forked has no pid yet."""
    return bool(one["pid"]) and not one["exists"]


def human(size: int) -> str:
    """1536 -> 1.5K; exact below 1000."""
    if abs(size) < 1000:
        return str(size)
    value = float(size)
    units = iter("KMGTPE")
    unit = ""
    while abs(value) >= 1000:
        value, unit = value / 1024, next(units)
    return f"{value:.1f}{unit}" if abs(value) < 10 else f"{value:.0f}{unit}"


def span(seconds: float | None) -> str:
    """The two largest units, cut off: 4.2s, 3m07s, 2h05m, 9d23h; None: -"""
    if seconds is None:
        return "-"
    sign, seconds = "-" if seconds < 0 else "", abs(seconds)
    whole = int(seconds)
    if whole < 60:
        return f"{sign}{int(seconds * 10) / 10:.1f}s"
    if whole < 3600:
        return f"{sign}{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{sign}{whole // 3600}h{whole // 60 % 60:02d}m"
    return f"{sign}{whole // 86400}d{whole // 3600 % 24:02d}h"
