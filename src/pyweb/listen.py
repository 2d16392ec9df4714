"""Listening sockets: bound, announced, and taken away again.

StartError names the address and the cure. Not here: accepting.
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from .config import Address
from .errors import StartError

_CURES = {
    errno.EADDRINUSE: "something listens there already; choose another port, or 0 for any",
    errno.EACCES: "not permitted; ports below 1024 need the right CAP_NET_BIND_SERVICE",
    errno.EADDRNOTAVAIL: "this machine has no such address; see `ip addr`",
    errno.EAFNOSUPPORT: "this machine has no such kind of address",
}


class Listener:
    """A listening, non-blocking socket. `path`: of a unix socket, removed at close."""

    def __init__(self, sock: socket.socket, path: str = "") -> None:
        self.sock = sock
        self._path = path
        self._inode = os.stat(path).st_ino if path else 0

    @property
    def url(self) -> str:
        if self._path:
            return f"unix:{self._path}"
        host, port = self.sock.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def close(self) -> None:
        self.sock.close()

    def remove(self) -> None:
        """Take the unix socket's name away, if it still is ours."""
        try:
            if self._path and os.stat(self._path).st_ino == self._inode:
                os.unlink(self._path)
        except OSError:
            pass


def listen(address: Address, backlog: int) -> Listener:
    """StartError."""
    try:
        return _listen_unix(address, backlog) if address.path else _listen_tcp(address, backlog)
    except socket.gaierror as error:
        raise StartError(f"{address}: {error.strerror}; name an address of this machine") from None
    except OSError as error:
        cure = _CURES.get(error.errno or 0)
        why = f"{error.strerror}{': ' + cure if cure else ''}"
        raise StartError(f"can't listen on {address}: {why}") from None


def _listen_tcp(address: Address, backlog: int) -> Listener:
    found = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, where = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # "::" is IPv6 alone, so that 0.0.0.0 can stand beside it and peers have one spelling.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Connections inherit it: a small answer must never wait for an acknowledgement.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.bind(where)
        return _listening(sock, backlog)
    except BaseException:
        sock.close()
        raise


def _listen_unix(address: Address, backlog: int) -> Listener:
    _remove_stale(address.path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(address.path)
        return _listening(sock, backlog, address.path)
    except BaseException:
        sock.close()
        raise


def _listening(sock: socket.socket, backlog: int, path: str = "") -> Listener:
    sock.setblocking(False)
    sock.listen(backlog)
    return Listener(sock, path)


def _remove_stale(path: str) -> None:
    """A socket that nobody listens on any more may be replaced; nothing else may."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
