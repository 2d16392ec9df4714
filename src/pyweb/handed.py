"""A connection that leaves a worker's compiled half (_fastlane.pyx), and why.

Not here: what is done with it (worker.py).
"""

from __future__ import annotations

from .past import Owing

# It has come, and its address may have too many. It has a request for Python, or an answer that
# leaves too slowly. It has its last answer, and has sent what nobody will read. It has idled
# for too long.
NEW, GO_ON, LINGER, LATE = range(4)

# Why, descriptor, family, peer, requests so far, bytes that were taken from the socket (None: there
# was no memory for them), what Owed is made of, whether it is polled. One that goes on or is late
# is counted as open and among those of its address.
Handed = tuple[int, int, int, str, int, bytes | None, Owing | None, bool]
