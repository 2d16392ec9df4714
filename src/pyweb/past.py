"""What a connection brings along when it changes hands: between processes, or from C to Python.

Not here: who hands it over, and how (parking.py, handed.py, repeating.py).
"""

from __future__ import annotations

import os

from .message import FileBody, Part


class Past:
    """What a connection brings along when it changes hands.

    requests   answered so far
    began      of a head that has begun: when its first byte was there (monotonic); else 0
    seen       of such a head: how many bytes were there, and were not enough
    owed       they are more than an empty line, and are owed an answer
    tries      how many have looked at it
    """

    __slots__ = ("began", "owed", "requests", "seen", "tries")

    def __init__(
        self,
        requests: int = 0,
        began: float = 0.0,
        seen: int = 0,
        owed: bool = False,
        tries: int = 0,
    ) -> None:
        self.requests = requests
        self.began = began
        self.seen = seen
        self.owed = owed
        self.tries = tries


NEW = Past()


class Owed:
    """An answer that has been begun by others: its head and header, of what it is a slice, and how
    many bytes of header and slice have left. The file (-1: none) is ours to close; or it is the
    slice itself."""

    __slots__ = (
        "began", "count", "file", "head", "header", "keeps", "offset", "sent", "status",
    )  # fmt: skip

    def __init__(
        self,
        head: bytes,
        header: bytes,
        status: int,
        keeps: bool,
        file: int | bytes,
        offset: int,
        count: int,
        sent: int,
        began: float,
    ) -> None:
        self.head = head
        self.header = header
        self.status = status
        self.keeps = keeps
        self.file = file
        self.offset = offset
        self.count = count
        self.sent = sent
        self.began = began

    def parts(self) -> tuple[Part, ...]:
        if not self.count:
            return ()
        file = self.file
        return (file if isinstance(file, bytes) else FileBody(file, self.offset, self.count),)

    def files(self) -> tuple[int, ...]:
        return (self.file,) if isinstance(self.file, int) and self.file >= 0 else ()

    def close(self) -> None:
        for fd in self.files():
            os.close(fd)


# What Owed is made of.
Owing = tuple[bytes, bytes, int, bool, int | bytes, int, int, int, float]
# What was done in C: requests answered, and what is owed.
Progress = tuple[int, Owing | None]
