"""What processes have used, from /proc: CPU time, and memory that is shared counted by its share.

A process may end at any moment, between two looks too. Not here: whose processes they are.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

_TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of these, and of children of theirs that they have waited for. A child
    that nobody waits for is not in it."""
    return sum(_own_cpu(pid) + sum(_times(pid)[2:]) / _TICK for pid in pids)


def _own_cpu(pid: int) -> float:
    """Seconds. By the scheduler, to the ns, of the threads that live; or, with those that have
    ended, in hundredths rounded down (proc_pid_stat(5)), which of a hundred processes that have
    hardly worked would make nothing."""
    exact = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):
                path = Path(f"/proc/{pid}/task/{thread}/schedstat")
                exact += int(path.read_text("ascii").split()[0])
    return max(exact / 1e9, sum(_times(pid)[:2]) / _TICK)


def _times(pid: int) -> list[int]:
    """utime, stime, cutime, cstime, in ticks; all 0: it is gone."""
    fields = _stat(pid)
    return [int(word) for word in fields[11:15]] if fields else [0] * 4


def lives(pid: int) -> bool:
    """A zombie doesn't."""
    fields = _stat(pid)
    return bool(fields) and fields[0] != "Z"


def _stat(pid: int) -> list[str]:
    """From the state on; none: it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def memory(pids: Iterable[int]) -> int | None:
    """Bytes: their shares of all pages (PSS), together. None: one of them lives and may not be
    looked at (root without CAP_SYS_PTRACE may not look at another user's)."""
    found = 0
    for pid in pids:
        try:
            found += _pss(Path(f"/proc/{pid}/smaps_rollup").read_text("ascii"))
        except PermissionError:
            return None
        except OSError:
            continue  # it is gone
    return found


def _pss(text: str) -> int:
    return next(
        (int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0
    )
