"""Counts of addresses in rows of counters: exact for those that share no place, never too low."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from conftest import until
from hypothesis import given
from hypothesis import strategies as st

from pyweb.accesslog import AccessLog
from pyweb.cli import _arguments as arguments
from pyweb.cli import configure
from pyweb.errors import HTTPError, Reason
from pyweb.journal import Journal, Sink
from pyweb.pool_mode import PoolMode
from pyweb.route import refusal
from pyweb.scoreboard import Scoreboard
from pyweb.service import Service
from pyweb.shares import Shares

PEERS = [f"192.0.2.{number}" for number in range(40)] + ["::1", "2001:db8::7"]


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(PEERS)), max_size=100))
def test_as_a_list_would(events: list[tuple[int, str]]) -> None:
    shares = Shares(4)
    for row in range(4):
        shares.begin(row)
    for row, peer in events:
        shares.add(row, peer, 1)
    for peer in PEERS:
        assert shares.of(peer) == sum(one == peer for _, one in events)
    for row, peer in events:
        shares.add(row, peer, -1)
    assert [shares.of(peer) for peer in PEERS] == [0] * len(PEERS)


def test_a_new_worker_begins_with_nothing() -> None:
    shares = Shares(2)
    for row in (0, 1):
        shares.begin(row)
        shares.add(row, "::1", 1)
    shares.begin(0)
    assert shares.of("::1") == 1


def test_never_too_low_when_places_are_shared() -> None:
    """Thousands of addresses: a count may be too high, by few, for few."""
    shares = Shares(1)
    shares.begin(0)
    peers = [f"10.0.{number >> 8}.{number & 255}" for number in range(4000)]
    for peer in peers:
        shares.add(0, peer, 1)
    counts = [shares.of(peer) for peer in peers]
    assert min(counts) == 1
    assert max(counts) < 10


def test_few_are_taken_for_another() -> None:
    """Of 4,000 newcomers beside 1,000 addresses about ten; of two larger tables it would be 50."""
    shares = Shares(1)
    shares.begin(0)
    for number in range(1000):
        shares.add(0, f"10.1.{number >> 8}.{number & 255}", 1)
    taken = sum(shares.of(f"10.2.{n >> 8}.{n & 255}") > 0 for n in range(4000))
    assert taken < 30


def test_a_row_holds_no_nonsense() -> None:
    shares = Shares(1)
    shares.begin(0)
    shares.add(0, "::1", -5)
    assert shares.of("::1") == 0
    shares.add(0, "::1", 100_000)
    assert shares.of("::1") == 65535


def test_what_a_dead_worker_counted_is_nobody_s(site: Path) -> None:
    """Though no other takes its place: its connections have ended, or are another's now."""
    config = configure(
        arguments().parse_args(["-d", str(site), "--mode", "prefork", "--per-client", "9"]), {}
    )
    journal = Journal(Sink(os.open(os.devnull, os.O_WRONLY)))
    service = Service(
        config, lambda _: refusal(HTTPError(Reason.NOT_FOUND)), AccessLog(None, ""), journal
    )
    board = Scoreboard(2)
    lifeline, master = os.pipe()
    mode = PoolMode(
        config, service,
        listeners=[], lifeline=lifeline, keep=(), scoreboard=board, journal=journal,
    )  # fmt: skip
    try:
        assert mode._spawn()
        (pid,) = mode._processes
        assert mode._shares
        mode._shares.add(mode._processes[pid].slots[0].number, "192.0.2.1", 3)
        os.kill(pid, signal.SIGKILL)
        until(lambda: mode.reap() or not mode._processes, "it to be buried")
        assert mode._shares.of("192.0.2.1") == 0
    finally:
        mode.drain()
        until(lambda: not mode.count(), "its keeper to leave")
        mode.reap()
        board.close()
        for fd in (lifeline, master, journal.sink.fd):
            os.close(fd)
