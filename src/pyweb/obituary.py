"""What is said of a process that has died: of what, by whom as far as can be known, and what it
had used.

The system tells the signal, not who sent it (the siginfo of a death names the dead; the sender is
told to a handler alone, and SIGKILL has none). So the sender is a conclusion: faults and abort()
come from the process itself, two signals from its limits; behind a SIGKILL stands the limit for
CPU time when it was used up, or the kernel's memory killer when its counter has gone up. The
master's own kills are not asked about here: it knows them (watchdog.py). Not here: what is done
about it.
"""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Iterator
from resource import struct_rusage

from .child import how_it_ended, signal_name

_ITSELF = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL", "SIGABRT", "SIGSYS", "SIGTRAP")
_LIMITS = ("SIGXCPU", "SIGXFSZ")
# The kernel holds the limit against ticks that found the process running, and tells the time that
# was measured: on a busy machine the two differ by so much.
_SAMPLED = 0.8

# Where a control group counts its dead, in version 2 and in version 1.
_COUNTERS = ("/sys/fs/cgroup{}/memory.events", "/sys/fs/cgroup/memory{}/memory.oom_control")
# Of what was being served, a line for people has room for so much; the death stands behind it.
_CLIP = 100

# Inside a container the path that /proc tells may be the outside's, and the root is ours.
_GROUPS = "/proc/self/cgroup"


class Obituaries:
    """Made before the first fork: what the memory killer has done until then is not ours."""

    def __init__(self) -> None:
        self._counter = next(_counters(), "")
        self._killed = _kills(self._counter)

    def tell(self, code: int, usage: struct_rusage) -> str:
        """Completes "worker 7 ..."; for an exit code that is not 0 (below 0: the signal)."""
        by_whom = f", {self._by_whom(-code, usage)}" if code < 0 else ""
        return f"{how_it_ended(code)}{by_whom}; {what_it_used(usage)}"

    def _by_whom(self, number: int, usage: struct_rusage) -> str:
        name = signal_name(number)
        if name in _LIMITS:
            return "by a limit"
        if name in _ITSELF:
            return "by itself"
        if number == signal.SIGKILL and _had_no_time_left(usage):
            return "by a limit"
        if number == signal.SIGKILL and self._memory_killer_struck():
            return "by the kernel's memory killer"
        return "by a signal from elsewhere"

    def _memory_killer_struck(self) -> bool:
        """Since the last time; one of its victims each time, for several may lie there."""
        struck = _kills(self._counter) > self._killed
        self._killed += struck
        return struck


def _had_no_time_left(usage: struct_rusage) -> bool:
    """Of the hard limit, which it had from us: `ulimit -t` sets both, and that one kills."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    return hard != resource.RLIM_INFINITY and _cpu_seconds(usage) >= _SAMPLED * hard


def _cpu_seconds(usage: struct_rusage) -> float:
    return usage.ru_utime + usage.ru_stime


def what_it_used(usage: struct_rusage) -> str:
    """In all its life."""
    return f"it used {_cpu_seconds(usage):.1f} s of CPU, {usage.ru_maxrss / 1024:.0f} MB at most"


def what_it_did(peer: str, request: bytes) -> str:
    """As its slot tells: "serving 127.0.0.1 'GET /x'"."""
    shown = repr(request.decode("latin-1"))
    if len(shown) > _CLIP:
        shown = shown[:_CLIP] + "..."
    return f"serving {peer}" + (f" {shown}" if request else "")


def _counters() -> Iterator[str]:
    """Files that count; our group's own first."""
    try:
        with open(_GROUPS, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return
    for number, pattern in enumerate(_COUNTERS):
        for line in lines:
            mine = line[1] == "" if number == 0 else "memory" in line[1].split(",")
            for group in (line[2].rstrip("/"), "") if mine else ():
                path = pattern.format(group)
                if os.path.exists(path):
                    yield path


def _kills(path: str) -> int:
    """0 where nobody counts."""
    try:
        with open(path, encoding="ascii") as file:
            words = [line.split() for line in file]
    except (OSError, ValueError):
        return 0
    return sum(int(word[1]) for word in words if len(word) == 2 and word[0] == "oom_kill")
