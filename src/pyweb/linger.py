"""How a connection ends whose client may still be sending (RFC 9112 9.6).

Closing a socket with unread bytes, and bytes that come after the close, draw a reset, and it takes
what the client has not yet received of its answer: so what it sends is received and thrown away
for a while. Not here: who needs it, and the half close before it; what the master does for those
whom it refuses (refuse.py), and C for its own (_fastserve.pyx).
"""

from __future__ import annotations

import time

from .clock import Deadline
from .transport import Transport
from .wait import LINGER, READ, Steps, TimedOut, until

# How long, and for how much; and how long for a client that sends nothing.
_SECONDS = 5.0
SILENCE = 2.0
_BYTES = 64 << 20
# Where what nobody will read is received, by all at once: there from the start, for who has no
# memory for an answer has none for this, and would draw a reset.
_DISCARDED = bytearray(65536)


def linger(transport: Transport, timeout_write: float) -> Steps[None]:
    """Until the client has ended, is silent, or has had its time; longer while it still takes of
    its answer, a step in each `timeout_write` (s)."""
    left, end = _BYTES, time.monotonic() + _SECONDS
    unsent, patience = transport.unsent(), Deadline(timeout_write)
    while left > 0 and (time.monotonic() < end or unsent):
        count = transport.discard(_DISCARDED)
        if count == 0:
            return
        left -= count or 0
        if count is None:
            try:
                yield from until(READ, Deadline(SILENCE), LINGER)
            except TimedOut:
                before, unsent = unsent, transport.unsent()
                if unsent < before:
                    patience = Deadline(timeout_write)
                if not unsent or not patience.left():
                    return
