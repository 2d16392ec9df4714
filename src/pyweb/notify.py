"""What systemd is told: sd_notify(3), spoken here, for it is a datagram of a few words.

Whoever is started by a service manager finds a socket's address in $NOTIFY_SOCKET. The variables
are taken out of the environment: a master, or what it forks, must not speak for the service.
Nothing here fails: a manager that is gone or deaf must not end a server that serves. Not here:
when there is something to tell (supervisor.py).
"""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping

from .journal import printable

_SOCKET, _USEC, _PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
# For a manager whose queue is full. Its own clients wait for ever.
_PATIENCE = 1.0


class Notifier:
    """Does nothing where no manager listens. `watch_at`: when (monotonic) is_time() next; None:
    there is no watchdog (sd_watchdog_enabled(3): $WATCHDOG_USEC, if $WATCHDOG_PID is our pid).
    """

    def __init__(self, environ: MutableMapping[str, str], pid: int) -> None:
        given = {name: environ.pop(name, "") for name in (_SOCKET, _USEC, _PID)}
        self._given = given
        self._address = _address(given[_SOCKET])
        self._pause = 0.0
        self.watch_at: float | None = None
        usec = given[_USEC]
        if usec.isascii() and usec.isdigit() and given[_PID] in ("", str(pid)):
            self._pause = int(usec[:18]) / 2e6  # half of it, as the manual advises
        if self._pause and self._address:
            self.watch_at = time.monotonic() + self._pause

    def ready(self, status: str) -> None:
        """The service serves, for the first time or again after reloading()."""
        self._tell("READY=1", _status(status))

    def reloading(self) -> None:
        """ready() must follow. Type=notify-reload wants the time: CLOCK_MONOTONIC, in us."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        self._tell("STOPPING=1", _status(status))

    def status(self, text: str) -> None:
        """The line that `systemctl status` shows."""
        self._tell(_status(text))

    def watchdog(self) -> None:
        """All is well, for another $WATCHDOG_USEC."""
        self._tell("WATCHDOG=1")

    def is_time(self) -> bool:
        """Whether watchdog() is due; once for each half of the watchdog's time."""
        now = time.monotonic()
        if self.watch_at is None or now < self.watch_at:
            return False
        self.watch_at = now + self._pause
        return True

    def main_pid(self, pid: int) -> None:
        """Another process is the service from now on. This one says no more: what it had to tell
        would be taken for the other's."""
        self._tell(f"MAINPID={pid}")
        self._address = None
        self.watch_at = None

    def environ(self) -> dict[str, str]:
        """The variables for that other process. WATCHDOG_PID would name this one, so not that."""
        return {name: self._given[name] for name in (_SOCKET, _USEC) if self._given[name]}

    def _tell(self, *words: str) -> None:
        if self._address is None:
            return
        try:
            # A socket for each message: they are rare, and the manager may be another by then.
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.settimeout(_PATIENCE)
                sock.sendto("\n".join(words).encode("utf-8", "backslashreplace"), self._address)
        except OSError:
            pass


def _address(text: str) -> bytes | None:
    """A path, or a name that is no file's. None: neither (a virtual machine's vsock, say)."""
    if text[:1] not in ("/", "@"):
        return None
    raw = text.encode("utf-8", "surrogateescape")
    return b"\0" + raw[1:] if raw[:1] == b"@" else raw


def _status(text: str) -> str:
    return f"STATUS={printable(text)}"
