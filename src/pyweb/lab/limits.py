"""A running server gets a limit of processes (RLIMIT_NPROC, getrlimit(2)), and loses it again.

The kernel counts all processes and threads of a user, and spares root: so where we are root the
server has to be another user's, one that nobody else is. Not here: what is done to it meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from .run import Failed

# Nobody's, of those that Debian gives to no user (above 65536, below systemd's of 2^19).
_SPARE = range(70_000, 500_000)


def spare_user() -> int:
    """Whose the server is to be: of one who has no process now; or we, if we are not root."""
    if os.geteuid() != 0:
        return os.geteuid()
    taken = set()
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has gone meanwhile
            taken.add(path.stat().st_uid)
    return next(uid for uid in random.sample(_SPARE, len(taken) + 1) if uid not in taken)


@contextlib.contextmanager
def limited(pids: Iterable[int], uid: int, more: int) -> Iterator[None]:
    """Until the end of the block these processes, and what they start, may start `more` than the
    user has now. Only the soft limit is set: the user may lift that again. Failed."""
    room = str(tasks(uid) + more)
    before: dict[int, str] = {}
    for pid in pids:
        with contextlib.suppress(Failed):  # it has ended meanwhile
            before[pid] = _prlimit(uid, pid, "--output=SOFT", "--noheadings", "--nproc")
    if not before:
        raise Failed("the server has ended before it could get a limit")
    for pid in before:
        _prlimit(uid, pid, f"--nproc={room}:")
    try:
        yield
    finally:
        for pid, limit in before.items():
            with contextlib.suppress(Failed):
                _prlimit(uid, pid, f"--nproc={limit}:")


def _prlimit(uid: int, pid: int, *words: str) -> str:
    """prlimit(1), as the process's own user: root may not everywhere."""
    program = shutil.which("prlimit")
    if program is None:
        raise Failed("prlimit is not installed: apt install util-linux")
    other = {} if uid == os.geteuid() else {"user": uid, "group": uid, "extra_groups": []}
    done = subprocess.run(
        [program, f"--pid={pid}", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False, cwd="/", **other,  # type: ignore[call-overload]
    )  # fmt: skip
    if done.returncode:
        raise Failed((done.stderr.strip().splitlines() or ["prlimit failed"])[-1])
    return str(done.stdout).strip()


def tasks(uid: int) -> int:
    """Processes and threads, zombies too: what the limit counts."""
    return sum(_threads(path) for path in Path("/proc").glob("[0-9]*/status") if _is_of(path, uid))


def _is_of(path: Path, uid: int) -> bool:
    return bool(re.search(rf"^Uid:\t{uid}\t", _text(path), re.MULTILINE))


def _threads(path: Path) -> int:
    found = re.search(r"^Threads:\t(\d+)$", _text(path), re.MULTILINE)
    return int(found[1]) if found else 0


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace")
    except OSError:
        return ""  # it has gone meanwhile
