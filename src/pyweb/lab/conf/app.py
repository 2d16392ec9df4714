"""The file as a WSGI application (PEP 3333), for servers that have no files of their own: found
anew for each request, sent by the server's own wsgi.file_wrapper where it has one (but not by
bjoern's: `_logged`).

    PYWEB_LAB_FILE   the file

As a program it is what bjoern has no command for: PORT WORKERS LOG.
"""

import email.utils
import os
import sys
import time

FILE = os.environ["PYWEB_LAB_FILE"]
_PIECE = 65536


def application(environ, start_response):
    if environ["PATH_INFO"] != "/" + os.path.basename(FILE):
        start_response("404 Not Found", [("Content-Length", "0")])
        return []
    file = open(FILE, "rb")  # noqa: SIM115 - the server closes it
    status = os.fstat(file.fileno())
    start_response("200 OK", [
        ("Content-Type", "text/plain"),
        ("Content-Length", str(status.st_size)),
        ("Last-Modified", email.utils.formatdate(status.st_mtime, usegmt=True)),
        ("ETag", f'"{status.st_mtime_ns:x}-{status.st_size:x}"'),
    ])  # fmt: skip
    wrapper = environ.get("wsgi.file_wrapper")
    return wrapper(file, _PIECE) if wrapper else _pieces(file)


def _pieces(file):
    with file:
        while piece := file.read(_PIECE):
            yield piece


def _logged(log):
    """bjoern keeps no log. Its file_wrapper sends the head and the file apart, without TCP_NODELAY:
    on a kept connection each answer then waits 40 ms for the client to acknowledge the head."""

    def logged(environ, start_response):
        now = time.strftime("%d/%b/%Y:%H:%M:%S %z")
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} {environ['SERVER_PROTOCOL']}"
        size = os.stat(FILE).st_size
        log.write(f'{environ["REMOTE_ADDR"]} - - [{now}] "{line}" 200 {size} "-" "-"\n')
        environ.pop("wsgi.file_wrapper", None)
        return application(environ, start_response)

    return logged


def main(port, workers, path):
    import signal

    import bjoern

    with open(path, "a", buffering=1, encoding="utf-8") as log:
        bjoern.listen(_logged(log), "127.0.0.1", int(port), listen_backlog=2048)
        children = []
        for _ in range(int(workers)):
            if (pid := os.fork()) == 0:
                bjoern.run()
                os._exit(0)
            children.append(pid)
        signal.signal(signal.SIGTERM, lambda *_: [os.kill(pid, signal.SIGTERM) for pid in children])
        for pid in children:
            os.waitpid(pid, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
