"""What Linux tells of a process in /proc: its descriptors, its memory, its time.

A process may end, or be somebody else's, between any two looks: then OSError. Not here: which
process is wanted, and why.
"""

from __future__ import annotations

import os
import re


def pids() -> list[int]:
    """Of all processes. OSError: there is no /proc."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def exists(pid: int) -> bool:
    """Also when it is a zombie, or somebody else's."""
    return pid > 0 and os.path.isdir(f"/proc/{pid}")


def descriptors(pid: int) -> dict[int, str]:
    """What each open descriptor leads to."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/{pid}/fd/{name}")
        except FileNotFoundError:
            pass  # closed meanwhile
    return found


def open_descriptor(pid: int, fd: int) -> int:
    """The same file, for reading, as a descriptor of ours. It may be a FIFO: that doesn't wait."""
    return os.open(f"/proc/{pid}/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def mappings(pid: int) -> int:
    """How many there are."""
    return _read(pid, "maps").count("\n")


def memory(pid: int) -> tuple[int, int]:
    """Resident bytes, and those of them that are no file's: private to it, or to a fork of it."""
    sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", _read(pid, "smaps_rollup"), re.MULTILINE))
    # Not Private_*: what a fork has not yet torn apart counts as shared there, and each fork copies
    # the table of it all the same.
    private = int(sizes.get("Anonymous", 0))
    return int(sizes.get("Rss", 0)) * 1024, private * 1024


def cpu_seconds(pid: int, thread: int = 0) -> float:
    """Its own, or that of one of its threads, in user and system mode."""
    # The name, in parentheses, may hold anything.
    name = f"task/{thread}/stat" if thread else "stat"
    fields = _read(pid, name).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _read(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/{name}", encoding="utf-8", errors="replace") as file:
        return file.read()
