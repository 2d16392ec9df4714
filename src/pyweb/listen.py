"""Listening sockets: bound, announced, and taken away again.

StartError names the address and the cure. Not here: accepting.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable

from .config import Address
from .errors import StartError

_CURES = {
    errno.EADDRINUSE: "something listens there already (ss -ltnp tells what): stop it,"
    " or choose another port, or 0 for any",
    errno.EACCES: "ports below 1024 need the right CAP_NET_BIND_SERVICE; choose another",
    errno.EADDRNOTAVAIL: "this machine has no such address; see `ip addr`",
    errno.EAFNOSUPPORT: "this machine has no such kind of address",
}
_CURES_UNIX = {
    errno.EADDRINUSE: "a server listens there, or it is no socket; choose another path",
    errno.EACCES: "choose a directory in which you may write",
    errno.EPERM: "only root can give it to another user (--socket-owner)",
    errno.EROFS: "choose a directory in which you may write",
    errno.ENOENT: "make the directory first",
    errno.ENOTDIR: "make the directory first",
}

# Bytes; see tune.
NOT_SENT = 131072


class Listener:
    """A listening, non-blocking socket. `path`: of a unix socket, removed at the end if it
    `is_ours`: not as long as another serves there, too. Empty where the name is somebody
    else's."""

    def __init__(self, sock: socket.socket, path: str = "", *, is_ours: bool = True) -> None:
        self.sock = sock
        self.is_ours = is_ours
        self._path = path
        self._kind = (int(sock.family), int(sock.type), sock.proto)
        self._identity = _identity(path) if path else None

    def accept(self) -> tuple[socket.socket, object]:
        """As socket.accept; what the new one is, is known. (socket.accept makes an enum member of
        family and kind each time: with them it takes twice as long as the system call.)"""
        fd, address = self.sock._accept()  # type: ignore[attr-defined]  # socket.accept calls it
        return self.accepted(fd), address

    def accepted(self, fd: int) -> socket.socket:
        """For who has accepted it already."""
        return socket.socket(*self._kind, fd)

    @property
    def url(self) -> str:
        if self.sock.family == socket.AF_UNIX:
            # Only an abstract name (unix(7)) is bytes; its NUL is written as ss does.
            name = os.fsdecode(self.sock.getsockname())
            return "unix:" + name.replace("\0", "@")
        host, port = self.sock.getsockname()[:2]
        return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"

    @property
    def has_name(self) -> bool:
        """A unix socket's, which is still its own."""
        return self._identity is not None and _identity(self._path) == self._identity

    def remove(self) -> None:
        """Take the unix socket's name away, if it still is ours.

        Before close(): as long as the socket is open, no other file can have its inode number.
        """
        try:
            if self.is_ours and self.has_name:
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


def listen(address: Address, backlog: int, mode: int | None = None, owner: str = "off") -> Listener:
    """mode, owner: of a unix socket (--socket-mode, --socket-owner). StartError."""
    cures = _CURES_UNIX if address.path else _CURES
    try:
        if address.path:
            return _listen_unix(address.path, backlog, mode, _ids(owner))
        return _listen_tcp(address, backlog)
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
        tune(sock)
        sock.bind(where)
        sock.setblocking(False)
        sock.listen(backlog)
        return Listener(sock)
    except BaseException:
        sock.close()
        raise


def tune(sock: socket.socket) -> None:
    """What the connections of a TCP listener inherit."""
    if sock.family == socket.AF_UNIX:
        return
    # A small answer must never wait for an acknowledgement.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):
        # Or a client that reads slowly but steadily looks as if it stalled: without it a
        # socket with megabytes to send has room again only when a third of them has left.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)


def _listen_unix(path: str, backlog: int, mode: int | None, owner: tuple[int, int]) -> Listener:
    """Nobody can connect before listen(2), and then mode and owner are what they should be."""
    _remove_stale(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _bind(sock, path, mode)
    except BaseException:
        sock.close()
        raise
    listener = Listener(sock, path)
    try:
        if owner != (-1, -1):
            os.chown(path, *owner, follow_symlinks=False)
        sock.setblocking(False)
        sock.listen(backlog)
    except BaseException:
        listener.close()
        raise
    return listener


def _bind(sock: socket.socket, path: str, mode: int | None) -> None:
    """The umask makes the mode: a chmod would come later, and would follow a name that another
    may have put there since."""
    if mode is None:
        sock.bind(path)
        return
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
    finally:
        os.umask(before)


def _ids(owner: str) -> tuple[int, int]:
    """uid and gid; -1: as they are. StartError."""
    if owner == "off":
        return -1, -1
    import grp
    import pwd

    user, _, group = owner.partition(":")
    uid = _id(user, "user", lambda name: pwd.getpwnam(name).pw_uid)
    return uid, _id(group, "group", lambda name: grp.getgrnam(name).gr_gid)


def _id(name: str, what: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    try:
        if not (name.isascii() and name.isdigit()):
            return look_up(name)
        if int(name) < 1 << 32:
            return int(name)
    except KeyError:
        pass
    raise StartError(f"socket-owner: there is no {what} {name!r}; name one, or give its number")


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
