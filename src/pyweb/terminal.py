"""Was that SIGHUP the operator's, or has the terminal that we were started in gone away?

The kernel and the shell send the same signal for both. A process that had a controlling terminal
and has none any more has lost it (tty(4)): then nobody is left who would want the server. Under
nohup SIGHUP is ignored from the start, and a daemon never had a terminal. Not here: signals.
"""

from __future__ import annotations

import errno
import os


class Terminal:
    """Made at the start."""

    def __init__(self) -> None:
        self._had_one = _there_is_one()

    def has_gone(self) -> bool:
        return self._had_one and not _there_is_one()


def _there_is_one() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError as error:  # ENXIO: none; EIO: it is just going; all else says nothing
        return error.errno not in (errno.ENXIO, errno.EIO)
    return True
