"""socketserver.ForkingMixIn over http.server, as the standard library's documentation composes
them: PORT DIRECTORY LOG.

The handler's log goes to standard error; here that is the file LOG. With HTTP/1.1 connections are
kept.
"""

import functools
import http.server
import socketserver
import sys


class Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and content are two writes, of which the second would wait for the first's ACK.
    disable_nagle_algorithm = True


class Server(socketserver.ForkingMixIn, http.server.HTTPServer):
    # The library's 40 and 5 would make 50 clients wait for each other.
    max_children = 1000
    request_queue_size = 2048


def main(port, directory, log):
    sys.stderr = open(log, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - to the end
    handler = functools.partial(Handler, directory=directory)
    with Server(("127.0.0.1", int(port)), handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
