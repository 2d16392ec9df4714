"""What a supervisor hands to a master: options as text, and the numbers of inherited descriptors.

Text, so that a fresh interpreter (of newer code, perhaps) checks it as it would check a file. It
travels over a pipe, not in the arguments: `ps` shows those to everybody. Not here: who starts
whom.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from .config import Config, Source, as_texts, build

# An option may say "", so names and values take turns and each ends with a NUL: none has one.
_END = "\0"


class Handover:
    """listeners   descriptors, in the order of --bind
    log         descriptor of --access-log's file; -1: standard output, or none
    channel     descriptor: the other end is the supervisor's (channel.py)
    generation  1, 2, ...: the masters that this supervisor has started
    supervisor  its pid
    """

    __slots__ = ("channel", "config", "generation", "listeners", "log", "supervisor")

    def __init__(
        self,
        config: Config,
        listeners: tuple[int, ...],
        log: int,
        channel: int,
        generation: int,
        supervisor: int,
    ) -> None:
        self.config = config
        self.listeners = listeners
        self.log = log
        self.channel = channel
        self.generation = generation
        self.supervisor = supervisor

    def to_bytes(self) -> bytes:
        return "".join(word + _END for pair in self._pairs() for word in pair).encode(
            "utf-8", "surrogateescape"
        )

    def _pairs(self) -> Iterator[tuple[str, str]]:
        for fd in self.listeners:
            yield "=listener", str(fd)
        for name in ("log", "channel", "generation", "supervisor"):
            yield "=" + name, str(getattr(self, name))
        for option, value in as_texts(self.config).items():
            for item in value if isinstance(value, list) else [value]:
                yield option, str(item)

    @classmethod
    def from_bytes(cls, data: bytes, engines: tuple[str, ...]) -> Handover:
        """UsageError, if this code takes other options than that of the supervisor."""
        words = data.decode("utf-8", "surrogateescape").split(_END)[:-1]
        values: dict[str, list[str]] = {}
        for name, value in zip(words[::2], words[1::2], strict=True):
            values.setdefault(name, []).append(value)
        number = {
            n[1:]: int(v[0]) for n, v in values.items() if n[0] == "=" and n[1:] != "listener"
        }
        given = {n: v if len(v) > 1 else v[0] for n, v in values.items() if n[0] != "="}
        config = build([Source("the supervisor", given)], engines)
        return cls(config, tuple(map(int, values.get("=listener", ()))), **number)


def read_all(fd: int) -> bytes:
    """To the end; closes it."""
    with os.fdopen(fd, "rb") as file:
        return file.read()
