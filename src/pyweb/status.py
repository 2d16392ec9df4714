"""What goes on in the servers that run: found and read from outside, without their doing.

A master holds its scoreboard open as a memfd, so it is found in /proc and read like a file: a
server that is stuck, or whose every process is busy, tells as much as another. The result is
plain data, which is the --json document. What a process can write is copied, never trusted:
numbers are numbers, texts have nothing that a terminal would obey, and a pid that is nobody's
is marked. Not here: how it looks (statustext.py).
"""

from __future__ import annotations

import mmap
import os
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import procfs, scoreboard
from .errors import StartError
from .journal import printable
from .scoreboard import KIND_NAMES, STATE_NAMES, Reader, Record

# A server, or a process of it, as --json shows it.
Facts = dict[str, Any]

_LINK = f"/memfd:{scoreboard.MEMFD_NAME} (deleted)"
_TOTALS = {
    "served_connections": scoreboard.SERVED,
    "refused_connections": scoreboard.REFUSED,
    "cut": scoreboard.CUT,
    "requests": scoreboard.ENDED_REQUESTS,
    "bytes": scoreboard.ENDED_BYTES,
    "repeated": scoreboard.ENDED_REPEATED,
    "lost_log_lines": scoreboard.LOST,
    "waiting_connections": scoreboard.WAITING,
    "parked_connections": scoreboard.PARKED,
}


class NotFound(StartError):
    """No server that could be looked into. The text says why."""


def look(pid: int | None = None) -> list[Facts]:
    """All servers that this user may look into, or that whose supervisor or master `pid` is."""
    try:
        found = list(_servers(_candidates(pid)))
    except FileNotFoundError:
        raise NotFound("no /proc here: only Linux shows one process to another this way") from None
    if pid is not None:
        found = [one for one in found if pid in (one["master"]["pid"], one["supervisor_pid"])]
    if not found:
        raise NotFound(_why_not(pid))
    return sorted(found, key=lambda one: (one["supervisor_pid"], one["master"]["pid"]))


def _candidates(pid: int | None) -> list[int]:
    """A master's pid is enough to look at; a supervisor's is not."""
    pids = procfs.pids()
    return [pid] if pid in pids and _scoreboards(pid) else pids


def _why_not(pid: int | None) -> str:
    if pid is None:
        everybody = "" if os.geteuid() == 0 else " that this user may look into"
        return f"no pyweb is running{everybody}"
    if not procfs.exists(pid):
        return f"there is no process {pid}"
    try:
        procfs.descriptors(pid)
    except OSError as error:
        return f"process {pid}: {error.strerror}; ask as its user, or as root"
    return f"process {pid} is neither the supervisor nor the master of a pyweb"


def _servers(pids: list[int]) -> Iterator[Facts]:
    for pid in pids:
        for fd in _scoreboards(pid):
            try:
                facts = _server(pid, fd)
            except OSError:
                continue  # it ended while we looked
            if facts is not None:
                yield facts


def _scoreboards(pid: int) -> list[int]:
    try:
        return [fd for fd, to in procfs.descriptors(pid).items() if to == _LINK]
    except OSError:
        return []


def _server(pid: int, fd: int) -> Facts | None:
    """None: this process is not the master that the scoreboard names, only inherited it."""
    ours = procfs.open_descriptor(pid, fd)
    try:
        reader = Reader(ours)
    except ValueError as error:
        return {"master": _process(pid), "supervisor_pid": 0, "unreadable": str(error)}
    finally:
        os.close(ours)
    if reader.get(scoreboard.MASTER) != pid:
        return None
    return _facts(reader, _process(pid))


def _process(pid: int) -> Facts:
    """What the kernel says of it. OSError."""
    resident, private = procfs.memory(pid)
    return {
        "pid": pid,
        "mappings": procfs.mappings(pid),
        "private_pages": private // mmap.PAGESIZE,
        "private_bytes": private,
        "resident_bytes": resident,
        "descriptors": len(procfs.descriptors(pid)),
        "cpu_seconds": procfs.cpu_seconds(pid),
    }


def _facts(reader: Reader, master: Facts) -> Facts:
    now = time.time()
    processes = sorted(
        (_slot(record, now) for record in reader.records()),
        key=lambda one: (one["pid"], one["slot"]),
    )
    about = {key: printable(value) for key, value in reader.about()}
    began = reader.get(scoreboard.BEGAN_MS) / 1000
    return {
        "urls": [printable(value) for key, value in reader.about() if key == "url"],
        "directory": about.get("directory", ""),
        "mode": about.get("mode", ""),
        "engine": about.get("engine", ""),
        "version": about.get("version", ""),
        **{key: about.get(key, "") for key in ("limits", "protections")},
        "served_by": about.get("processes", ""),
        "max_connections": _number(about.get("max-connections", "")),
        "started_unix_seconds": began,
        "uptime_seconds": round(now - began, 3),
        "generation": reader.get(scoreboard.GENERATION),
        "supervisor_pid": reader.get(scoreboard.SUPERVISOR),
        "master": master,
        "totals": _totals(reader, processes),
        "slots": reader.get(scoreboard.SLOTS),
        "states": dict(Counter(one["state"] for one in processes)),
        "processes": processes,
    }


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _totals(reader: Reader, processes: list[Facts]) -> Facts:
    """The master counts what is over; what lives tells itself. (Lost lines the master counts
    while their process lives.)"""
    totals = {name: reader.get(word) for name, word in _TOTALS.items()}
    for one in processes:
        totals["requests"] += one["requests"]
        totals["bytes"] += one["bytes"] + one["sending_bytes"]
        totals["repeated"] += one["repeated"]
        totals["served_connections"] += one["connections"] - one["turned_away"]
        totals["refused_connections"] += one["turned_away"]
        if one["kind"] == KIND_NAMES[scoreboard.DISPATCHER]:
            totals["parked_connections"] += one["open_connections"]
    return totals


def _slot(record: Record, now: float) -> Facts:
    """Ages are null where nothing has happened yet; a `state` of "?9" is a number without name."""
    pid = record.get(scoreboard.PID)
    return {
        "slot": record.number,
        "pid": pid,
        "exists": procfs.exists(pid),
        "kind": _name(KIND_NAMES, record.get(scoreboard.KIND)),
        "generation": record.get(scoreboard.GENERATION_OF),
        "state": _name(STATE_NAMES, record.get(scoreboard.STATE)),
        "age_seconds": _since(record.get(scoreboard.STARTED_MS), now),
        "last_request_seconds_ago": _since(record.get(scoreboard.ACTIVE_MS), now),
        "connections": record.get(scoreboard.CONNECTIONS),
        "turned_away": record.get(scoreboard.TURNED_AWAY),
        "open_connections": record.get(scoreboard.OPEN),
        "requests": record.get(scoreboard.REQUESTS),
        "bytes": record.get(scoreboard.BYTES),
        "repeated": record.get(scoreboard.REPEATED),
        "sending_bytes": record.get(scoreboard.SENT),
        "lost_log_lines": record.get(scoreboard.LOST_LINES),
        "peer": printable(record.peer.decode("utf-8", "backslashreplace")),
        "reason": record.get(scoreboard.REASON),
        "request": printable(record.text.decode("utf-8", "backslashreplace")),
    }


def _name(names: tuple[str, ...], number: int) -> str:
    return names[number] if 0 <= number < len(names) else f"?{number}"


def _since(milliseconds: int, now: float) -> float | None:
    return round(now - milliseconds / 1000, 3) if milliseconds else None
