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
    errno.EACCES: "ports below 1024 need the right CAP_NET_BIND_SERVICE; choose another",
    errno.EADDRNOTAVAIL: "this machine has no such address; see `ip addr`",
    errno.EAFNOSUPPORT: "this machine has no such kind of address",
}
_CURES_UNIX = {
    errno.EADDRINUSE: "a server listens there, or it is no socket; choose another path",
    errno.EACCES: "choose a directory in which you may write",
    errno.EROFS: "choose a directory in which you may write",
    errno.ENOENT: "make the directory first",
    errno.ENOTDIR: "make the directory first",
}

_NOT_SENT = 131072


class Listener:
    """A listening, non-blocking socket. `path`: of a unix socket, removed at the end if it
    `is_ours`: not as long as another serves there, too."""

    def __init__(self, sock: socket.socket, path: str = "", *, is_ours: bool = True) -> None:
        self.sock = sock
        self.is_ours = is_ours
        self._path = path
        self._identity = _identity(path) if path else None

    @property
    def url(self) -> str:
        if self.sock.family == socket.AF_UNIX:
            return f"unix:{self.sock.getsockname()}"
        host, port = self.sock.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    def remove(self) -> None:
        """Take the unix socket's name away, if it still is ours.

        Before close(): as long as the socket is open, no other file can have its inode number.
        """
        try:
            if self.is_ours and self._identity and _identity(self._path) == self._identity:
                os.unlink(self._path)
        except OSError:
            pass
        self._identity = None

    def close(self) -> None:
        """And remove()."""
        self.remove()
        self.sock.close()


def _identity(path: str) -> tuple[int, int] | None:
    """None: somebody has removed it."""
    try:
        info = os.lstat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def listen(address: Address, backlog: int) -> Listener:
    """StartError."""
    cures = _CURES_UNIX if address.path else _CURES
    try:
        return _listen_unix(address, backlog) if address.path else _listen_tcp(address, backlog)
    except socket.gaierror as error:
        raise StartError(f"{address}: {error.strerror}; name an address of this machine") from None
    except OSError as error:
        why = error.strerror or str(error)  # "AF_UNIX path too long" has no number
        cure = cures.get(error.errno or 0, "choose another")
        raise StartError(f"can't listen on {address}: {why}; {cure}") from None
    except ValueError:
        # Names that getaddrinfo never gets to see: IDNA can't spell them.
        raise StartError(f"{address}: no such name; name an address of this machine") from None


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
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            # Or a client that reads slowly but steadily looks as if it stalled: without it a
            # socket with megabytes to send has room again only when a third of them has left.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _NOT_SENT)
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
        # A server whose backlog is full would hold us: BlockingIOError, and it lives.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
        except OSError:
            pass  # bind will say what it is
