"""A header and a slice of a file into a non-blocking socket, by the interpreter alone.

The twin of `_fastsend.pyx`: the same two functions, the same results. Neither waits, neither
knows a deadline or the meaning of what it sends: transport.py does. A small body leaves in one
segment with its header; a large one follows its header by sendfile(2).
"""

from __future__ import annotations

import errno
import os
import socket

from .errors import Disconnected, Reason

# Below this a copy through our memory is cheaper than a sendfile of its own, and the header
# travels in the same segment. (lighttpd draws its line at 32 KiB too.)
SMALL = 32768
_CHUNK = 1 << 30
_MSG_MORE = getattr(socket, "MSG_MORE", 0)
# Some file systems can't; then the bytes go through our memory.
_NO_SENDFILE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSOCK)


def push_bytes(sock: socket.socket, data: bytes, done: int) -> int:
    """Send data[done:] as far as the socket takes it. Gives the new `done`; OSError as send(2)."""
    return done + _send(sock, memoryview(data)[done:], 0)


def push_file(
    sock: socket.socket, header: bytes, file: int, offset: int, count: int, done: int
) -> int:
    """Send `header`, then file[offset:offset+count], from the `done`th byte of the two on.

    Gives the new `done`: larger by what left in one go, unchanged when the socket is full.
    Disconnected(FILE_SHRANK): the file ends before the slice does. OSError as send(2).
    """
    if count <= SMALL:
        return done + _send(sock, memoryview(header + _read(file, offset, count))[done:], 0)
    if done < len(header):
        return done + _send(sock, memoryview(header)[done:], _MSG_MORE)
    done_of_file = done - len(header)
    return done + _send_slice(sock, file, offset + done_of_file, count - done_of_file)


def _read(file: int, offset: int, count: int) -> bytes:
    body = os.pread(file, count, offset)
    while len(body) < count:
        more = os.pread(file, count - len(body), offset + len(body))
        if not more:
            raise Disconnected(Reason.FILE_SHRANK)
        body += more
    return body


def _send_slice(sock: socket.socket, file: int, offset: int, count: int) -> int:
    """sendfile(2); 0: the socket is full."""
    try:
        sent = os.sendfile(sock.fileno(), file, offset, min(count, _CHUNK))
    except BlockingIOError:
        return 0
    except OSError as error:
        if error.errno not in _NO_SENDFILE:
            raise
        return _send(sock, memoryview(_read(file, offset, min(count, SMALL))), 0)
    if sent == 0:
        raise Disconnected(Reason.FILE_SHRANK)
    return sent


def _send(sock: socket.socket, data: memoryview, flags: int) -> int:
    """send(2); 0: the socket is full (or there is nothing to send)."""
    if not data:
        return 0
    try:
        return sock.send(data, flags)
    except BlockingIOError:
        return 0
