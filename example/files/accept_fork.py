#!/usr/bin/env python3
"""The oldest kind of server: accept, fork, answer, exit. For reading, not for service.

    python accept_fork.py           then open http://localhost:8001/

It has what a first attempt forgets: dead children are reaped, a refused fork doesn't end the
loop, and a child leaves without tidying up what belongs to its parent. It still lacks nearly
everything that a network asks for: deadlines, limits, a parser, a log, a way to stop.
"""

import os
import signal
import socket
import time

ANSWER = b"A process was made for this answer. It had the number %d and is gone by now.\n"


def answer(client: socket.socket) -> None:
    client.recv(65536)  # blocks until the client has spoken; its words are ignored
    body = ANSWER % os.getpid()
    head = b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
    client.sendall(head + body)


def child(client: socket.socket) -> None:
    code = 1
    try:
        answer(client)
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps: no zombies, no exit codes
    with socket.create_server(("127.0.0.1", 8001)) as listener:
        while True:
            client, _ = listener.accept()
            with client:
                try:
                    if os.fork() == 0:
                        child(client)
                except BlockingIOError:  # EAGAIN: as many processes as we may have
                    time.sleep(0.05)


if __name__ == "__main__":
    main()
