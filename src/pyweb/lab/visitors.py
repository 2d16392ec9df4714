"""Many clients at once who take their time: each has sent half of its request before any of them
sends the rest. So as many connections are open as there are clients, whatever the server's speed.

Not here: loads that ask how fast a server is (load.py).
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from dataclasses import dataclass

ANSWERED = "200"
REFUSED, BROKEN, SILENT = "refused", "broken off", "no answer in time"


@dataclass(frozen=True)
class Visit:
    """What became of `count` clients. `hold`: seconds between the two halves of their requests, in
    which the server has all of them; `patience`: seconds from then on."""

    count: int
    hold: float
    patience: float


def visit(port: int, path: str, size: int, plan: Visit) -> Counter[str]:
    """How many had which end: a status, or one of the words above. `size`: bytes of content that
    are expected; a 200 with other content was broken off."""
    return asyncio.run(_all(port, path, size, plan))


async def _all(port: int, path: str, size: int, plan: Visit) -> Counter[str]:
    together = asyncio.Event()
    clients = [
        asyncio.create_task(_one(port, path, size, plan, together)) for _ in range(plan.count)
    ]
    await asyncio.sleep(plan.hold)
    together.set()
    return Counter(await asyncio.gather(*clients))


async def _one(port: int, path: str, size: int, plan: Visit, together: asyncio.Event) -> str:
    try:
        async with asyncio.timeout(plan.hold + plan.patience):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                return await _ask(reader, writer, path, size, together)
            finally:
                writer.close()
    except ConnectionRefusedError:
        return REFUSED
    except TimeoutError:
        return SILENT
    except OSError:
        return BROKEN


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    path: str,
    size: int,
    together: asyncio.Event,
) -> str:
    writer.write(f"GET {path} HTTP/1.1\r\n".encode("ascii"))
    await together.wait()
    writer.write(b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n")
    return _end(await reader.read(), size)


def _end(answer: bytes, size: int) -> str:
    head, ended, content = answer.partition(b"\r\n\r\n")
    status = re.match(rb"HTTP/1\.[01] (\d{3}) ", head)
    if not ended or not status or (status[1] == b"200" and len(content) != size):
        return BROKEN
    return status[1].decode("ascii")
