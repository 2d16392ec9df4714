"""How a conversation waits: it yields what for, and whoever drives it says what came of it.

So there is one conversation for all modes, and none of it knows whether a child polls one socket
or a worker has a thousand in its epoll. Not here: polling.
"""

from __future__ import annotations

import select
from collections.abc import Generator
from typing import TypeVar

from .clock import Deadline

READ, WRITE = select.POLLIN, select.POLLOUT

# Why it waits. At IDLE nothing is owed to the client; at IDLE and HEAD nothing of its request has
# been taken from the socket (if the transport peeks), so the connection can change hands.
# At TURN it waits for nothing: it has more to do, and lets others go first.
IDLE, HEAD, BODY, ANSWER, LINGER, TURN = range(6)

# What came of it.
READY, TIMED_OUT, DRAINED = range(3)


class Wait:
    """`events` on the socket, until `deadline`."""

    __slots__ = ("deadline", "events", "kind")

    def __init__(self, events: int, deadline: Deadline, kind: int) -> None:
        self.events = events
        self.deadline = deadline
        self.kind = kind


class TimedOut(Exception):
    """The deadline has passed."""


class Drained(Exception):
    """The server is draining, and the connection was idle."""


YOUR_TURN = Wait(0, Deadline(float("inf")), TURN)

T = TypeVar("T")
Steps = Generator[Wait, int, T]


def until(events: int, deadline: Deadline, kind: int) -> Steps[None]:
    """Wait once. TimedOut; Drained, at IDLE alone."""
    outcome = yield Wait(events, deadline, kind)
    if outcome == TIMED_OUT:
        raise TimedOut
    if outcome == DRAINED:
        raise Drained
