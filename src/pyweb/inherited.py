"""Listeners that somebody else has bound: systemd, or the supervisor whose place we take.

systemd passes them from descriptor 3 on, and says how many, and to whom, in $LISTEN_FDS and
$LISTEN_PID (sd_listen_fds(3)); the pid is ours also where a wrapper came to us by exec, and one
that forked is not meant. A supervisor doesn't know the pid of its successor before it is there,
and names the descriptors themselves, with the address that each was asked for: $PYWEB_LISTEN_FDS.
All of these are taken out of the environment: nobody who comes after us is meant. Not here: what
we bind ourselves (listen.py).
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import MutableMapping

from .config import Address, address
from .errors import StartError
from .listen import Listener, tune

# With the address of --bind, which may name port 0 or a host; None: systemd has passed it.
Held = list[tuple[Address | None, Listener]]

# A list in JSON: descriptor, address ("": None), whether a unix socket's name is ours to remove.
OWN = "PYWEB_LISTEN_FDS"
_PID, _COUNT, _NAMES = "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"
_SYSTEMD = (_PID, _COUNT, _NAMES, "LISTEN_PIDFDID")
_FIRST = 3
_MOST = 1000
_PROTOCOLS = {
    socket.AF_INET: socket.IPPROTO_TCP,
    socket.AF_INET6: socket.IPPROTO_TCP,
    socket.AF_UNIX: 0,
}


def inherited_listeners(environ: MutableMapping[str, str], pid: int) -> Held:
    """Those that were passed to the process `pid`, which is this one. StartError."""
    own = environ.pop(OWN, "")
    given = {name: environ.pop(name, "") for name in _SYSTEMD}
    if own:
        return _from_supervisor(own)
    if given[_PID] != str(pid):
        return []
    return _from_systemd(given[_COUNT], given[_NAMES].split(":"))


def passed_on(held: Held) -> dict[str, str]:
    """The variable for a successor, who must inherit the descriptors under their numbers."""
    words = [[one.sock.fileno(), str(where or ""), one.has_name] for where, one in held]
    return {OWN: json.dumps(words)}


def _from_systemd(count: str, names: list[str]) -> Held:
    """Their names are systemd's: a Listener without a path removes none."""
    if not re.fullmatch("[0-9]{1,4}", count) or int(count) > _MOST:
        raise StartError(f"{_COUNT}: {count!r} is not a number of sockets, at most {_MOST}")
    fds = range(_FIRST, _FIRST + int(count))
    for fd, name in zip(fds, [*names, *[""] * len(fds)], strict=False):
        called = f" ({name})" if name and name != "unknown" else ""
        _check(fd, f"{_COUNT}: descriptor {fd}{called}")
    return [(None, _adopt(fd)) for fd in fds]


def _from_supervisor(text: str) -> Held:
    try:
        words = [
            (int(fd), address(where) if where else None, bool(named))
            for fd, where, named in json.loads(text)
        ]
    except (ValueError, TypeError):
        raise StartError(
            f"{OWN}: {text!r} is what only a pyweb says to another; unset the variable"
        ) from None
    for fd, _, _ in words:
        _check(fd, f"{OWN}: descriptor {fd}")
    return [(where, _adopt(fd, named)) for fd, where, named in words]


def _check(fd: int, what: str) -> None:
    """StartError, unless connections can be accepted from it."""
    try:
        sock = socket.socket(fileno=fd)
    except OSError as error:
        why = f"{error.strerror}; pass sockets, or leave the variable out"
        raise StartError(f"{what}: {why}") from None
    try:
        is_good = (
            sock.type == socket.SOCK_STREAM
            and _PROTOCOLS.get(sock.family) == sock.proto
            and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
    finally:
        sock.detach()
    if not is_good:
        raise StartError(
            f"{what} is not a TCP or unix socket that listens; say ListenStream= and Accept=no"
        )


def _adopt(fd: int, has_name: bool = False) -> Listener:
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    sock.setblocking(False)
    tune(sock)
    path = os.fsdecode(sock.getsockname()) if has_name else ""
    return Listener(sock, path, is_ours=False)
