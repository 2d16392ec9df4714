"""What all connections of a server share: configuration, parser, who answers, log, journal.

Made once, before the first fork; nobody changes it. Not here: anything of one connection.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from .accesslog import AccessLog
from .config import Config
from .journal import Journal
from .message import Fields, Head, Response
from .parse import Limits, Parser
from .stamps import NO_STAMPS, NoStamps, Stamps

Answer = Callable[[Head], Response]


class Service:
    def __init__(
        self,
        config: Config,
        answer: Answer,
        log: AccessLog,
        journal: Journal,
        stamps: Stamps | NoStamps = NO_STAMPS,
    ) -> None:
        self.wishes: socket.socket | None = None  # where decisions are told that may be repeated
        self.config = config
        self.answer = answer
        self.log = log
        self.journal = journal
        self.stamps = stamps
        limits = Limits(config.limit_line, config.limit_head, config.limit_fields, config.max_body)
        self.parser = Parser(config.engine, limits)
        self.extra: Fields = config.header
