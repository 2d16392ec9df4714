"""Counts of addresses in rows of counters: exact for those that share no place, never too low."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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


def test_a_row_holds_no_nonsense() -> None:
    shares = Shares(1)
    shares.begin(0)
    shares.add(0, "::1", -5)
    assert shares.of("::1") == 0
    shares.add(0, "::1", 100_000)
    assert shares.of("::1") == 65535
