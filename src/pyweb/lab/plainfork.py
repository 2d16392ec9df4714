"""The article's kind of server, in as few lines as its text describes: accept, fork, and the child
receives, answers and exits.

    python -m pyweb.lab.plainfork PORT FILE LOG

On 127.0.0.1, PORT 0: any that is free; says it on its first line. A reference, to be compared with:
nothing of pyweb is in it. It answers every GET with FILE and closes, writes a line to LOG for each,
and reaps its children. It does not handle an error of os.fork, and that is the point: at the
process limit the article's server died of `[Errno 11] Resource temporarily unavailable`, and so
does this one.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import NoReturn, TextIO

# A client that sends more is none of the article's.
_HEAD = 65536


def main(port: str, file: str, log: str) -> NoReturn:
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    with open(log, "a", encoding="latin-1") as lines:
        while True:
            connection, (peer, _) = listener.accept()
            if os.fork() == 0:
                listener.close()
                _serve(connection, peer, file, lines)
            connection.close()
            _reap()


def _reap() -> None:
    """All that have ended by now."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _serve(connection: socket.socket, peer: str, file: str, lines: TextIO) -> NoReturn:
    """In the child."""
    request = b""
    while b"\r\n\r\n" not in request and len(request) < _HEAD:
        piece = connection.recv(8192)
        if not piece:
            os._exit(0)
        request += piece
    line = request.partition(b"\r\n")[0].decode("latin-1")
    with open(file, "rb") as opened:
        content = opened.read()
    connection.sendall(_head(content) + content)
    connection.close()
    now = time.strftime("%d/%b/%Y:%H:%M:%S %z")
    lines.write(f'{peer} - - [{now}] "{line}" 200 {len(content)} "-" "-"\n')
    lines.flush()
    os._exit(0)


def _head(content: bytes) -> bytes:
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    return (
        f"HTTP/1.0 200 OK\r\nDate: {date}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


if __name__ == "__main__":
    main(*sys.argv[1:])
