"""Many connections, in each mode: memory, processes and descriptors stay what they were.

PYWEB_SOAK connections (3,000 unless it says otherwise; `make soak`: 200,000) in eight parts: most
with a request each, some kept alive, some reset, silent or cut off. After the first part what the
lasting processes have is noted, and it must be the same after the last.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import struct
import subprocess
from pathlib import Path

import pytest
from conftest import ServeFixture, Server, children_of, name_of, need, state_of, until

from pyweb.config import MODES

CONNECTIONS = int(os.environ.get("PYWEB_SOAK", "3000"))
PARTS = 8
RUDE = 20
# An interpreter's memory grows by whole arenas now and then; a leak of 20 bytes a connection in
# the long soak would be far beyond.
MORE = 1 << 20


def lasting(server: Server) -> dict[str, int]:
    """The processes that no connection starts, by name."""
    found = {"supervisor": server.pid, "master": server.master}
    for pid in children_of(server.master):
        if name_of(pid) in ("pyweb-dispatch", "pyweb-worker", "pyweb-keeper"):
            found[f"{name_of(pid)} {pid}"] = pid
    return found


def private_bytes(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Anonymous: +(\d+) kB", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def ab(server: Server, count: int, *options: str) -> None:
    command = [need("ab"), "-q", *options, "-n", str(count), "-c", "20", f"{server.url}hello.txt"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Failed requests: +0\n", done.stdout), done.stdout


def be_rude(server: Server) -> None:
    for data in (b"", b"GET", b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n", b"\0") * (RUDE // 4):
        client = server.connect()
        client.send(data)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()


def settle(server: Server, mode: str) -> None:
    if mode == "fork":
        until(lambda: not server.children(), "the children to leave")
    else:
        until(lambda: not [p for p in server.children() if state_of(p) == "Z"], "no zombie")
    until(lambda: is_idle(server), "all connections to end")


def is_idle(server: Server) -> bool:
    """No process has a connection: its sockets are as many as before the first of them."""
    ports = f":{server.port:04X} "
    with contextlib.suppress(OSError):
        lines = Path("/proc/net/tcp").read_text().splitlines()
        return not [one for one in lines if ports in one[:24] and one.split()[3] in ("01", "08")]
    return True


@pytest.mark.parametrize("mode", MODES)
def test_nothing_grows(serve: ServeFixture, mode: str) -> None:
    server = serve("--mode", mode, "--workers", "2", "--access-log", "off")
    part = max(100, CONNECTIONS // PARTS)
    seen: list[dict[str, tuple[int, int]]] = []
    for number in range(PARTS):
        be_rude(server)
        ab(server, part - RUDE - 40)
        ab(server, 400, "-k")
        settle(server, mode)
        processes = lasting(server)
        seen.append({n: (private_bytes(p), descriptors(p)) for n, p in processes.items()})
        if CONNECTIONS > 10_000:
            print(f"{mode}: {(number + 1) * part} connections: {seen[-1]}", flush=True)
    first, last = seen[0], seen[-1]
    assert first.keys() == last.keys(), "somebody died, or there is one more"
    for name, (memory, held) in last.items():
        assert held == first[name][1], f"descriptors of {name}: {seen}"
        assert memory < first[name][0] + MORE, f"memory of {name}: {seen}"
