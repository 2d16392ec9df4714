"""A program that measures, from start to end: what it says, or what it complains of.

Not here: servers, which are ended by somebody else (servers.py); other people's tools (load.py).
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from .machine import pinned


class Failed(Exception):
    """What was measured did not do what it should: a line that says what."""


def output(words: Sequence[str], *, cpu: int | None, seconds: float, both: bool = False) -> str:
    """All that it wrote to stdout, and to stderr if `both`. Failed: its last words, or that it took
    longer than that."""
    try:
        with pinned(cpu):
            done = subprocess.run(
                words,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
    except subprocess.TimeoutExpired:
        raise Failed(f"{_name(words)}: not done in {seconds:g} s") from None
    if done.returncode:
        ended = f"{_name(words)} ended: {done.returncode}"
        raise Failed((done.stderr.strip().splitlines() or [ended])[-1])
    return done.stdout + done.stderr if both else done.stdout


def _name(words: Sequence[str]) -> str:
    return os.path.basename(words[0])
