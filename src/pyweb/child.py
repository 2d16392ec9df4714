"""A child, from fork to exit: it serves one connection and is gone.

It leaves by os._exit, never through the interpreter's finalisation, and before it reads a byte it
has closed every descriptor that isn't its own. Its exit code is 0 unless pyweb itself failed.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback
from types import FrameType
from typing import NoReturn

from .connection import Connection, Service
from .errors import Disconnected, Reason
from .scoreboard import Slot
from .transport import Transport

EXIT_DEFECT = 70
# The master's word to leave now: what is being answered is logged as broken off, with ENDED.
END = signal.SIGUSR1

# The terminal's signals are for the master, which tells its children in its own way.
_IGNORED = (signal.SIGINT, signal.SIGQUIT)


class Child:
    """What a child must know beside its connection. `keep`: descriptors that all children share
    (log, stderr, document root, lifeline)."""

    def __init__(self, service: Service, keep: tuple[int, ...], lifeline: int) -> None:
        self._service = service
        self._keep = keep
        self._lifeline = lifeline

    def run(self, sock: socket.socket, peer: str, slot: Slot) -> NoReturn:
        """In the forked process, all signals blocked."""
        code = EXIT_DEFECT
        try:
            self._become_a_child(sock)
            sock.setblocking(False)
            transport = Transport(sock, self._lifeline, self._service.config.engine)
            Connection(self._service, transport, peer, slot).serve()
            code = 0
        except Disconnected:
            code = 0  # END came before or after all that matters
        except BaseException:
            for line in traceback.format_exc().splitlines():
                self._service.journal.say(f"{Reason.INTERNAL:d} {line}")
        finally:
            os._exit(code)

    def _become_a_child(self, sock: socket.socket) -> None:
        signal.set_wakeup_fd(-1)
        for number in _IGNORED:
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, self._drain)
        signal.signal(END, _end)
        close_all_but({0, 1, 2, sock.fileno(), *self._keep})
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def _drain(self, _number: int, _frame: FrameType | None) -> None:
        """SIGTERM for this process alone, or for all of a process group or a systemd unit: leave
        after the answer that is being sent, as if the master had hung up."""
        try:
            ours, theirs = os.pipe()
            os.close(theirs)
            os.dup2(ours, self._lifeline)
            os.close(ours)
        except OSError:
            pass


def _end(_number: int, _frame: FrameType | None) -> None:
    signal.signal(END, signal.SIG_IGN)
    raise Disconnected(Reason.ENDED)


def close_all_but(kept: set[int]) -> None:
    """Close every other descriptor, gap by gap: os.closerange is one close_range(2) where the
    kernel has it."""
    low = 0
    for fd in sorted(kept):
        if fd > low:
            os.closerange(low, fd)
        low = max(low, fd + 1)
    os.closerange(low, _highest() + 1)


def _highest() -> int:
    """The last descriptor that can be open."""
    try:
        return max(map(int, os.listdir("/proc/self/fd")))
    except OSError:
        return int(os.sysconf("SC_OPEN_MAX"))
