"""Stamps become stretches of time: what a machine with one server process at a time did when.

At concurrency 1, all server processes on one CPU: the stamps of all processes, sorted, cut that
CPU's time into stretches, and each is named by the stamp that ends it. From one accept to the
next is one connection. Only where the server slept, the client's own stamps (on another CPU) tell
until when it was the client's turn. Not here: servers, and what follows from the figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .. import stamps
from . import statistics
from .run import Failed

# (word, the phase that it ends, what that is).
PHASES = (
    ("AWAKE", "wake", "loopback handshake, and the sleeping server wakes"),
    ("ACCEPTED", "accept", "from poll to the end of accept"),
    ("FORK_BEGIN", "admit", "limits, waiting room, a slot"),
    ("FORK_END", "fork", "fork, until it returns in the parent"),
    ("WAITS", "books", "the parent's books, until it polls again"),
    ("CHILD", "start", "until the child's first instruction"),
    ("FIRST_BYTE", "prepare", "signals, descriptors, and the request is there"),
    ("PARSED", "parse", "receive, parse, understand"),
    ("OPENED", "open", "decode the path and open the file"),
    ("DECIDED", "decide", "conditions, fields: the response"),
    ("HEADER_SENT", "send", "header and what fits beside it into the socket"),
    ("BODY_SENT", "send", ""),
    ("LOGGED", "log", "the slot's numbers and the log line"),
    ("EXIT", "leave", "close the connection"),
    ("NOTICED", "exit", "the process is taken down, and its parent learns of it"),
    ("REAPED", "reap", "wait4"),
    ("RESTS", "round", "what else the parent does before it polls again"),
)
_NUMBERS = [(stamps.WORDS.index(word), name) for word, name, _ in PHASES]
_END = "exit"
# The stretch before the client's next connect, while the server sleeps.
CLIENT = "client"
NAMES = tuple(dict.fromkeys([name for _, name, _ in PHASES] + [CLIENT]))
MEANINGS = {name: meaning for _, name, meaning in PHASES if meaning} | {
    CLIENT: "the client, from the end of an answer to its next connect"
}

# Which of them are there because the connection gets a process.
OF_THE_FORK = ("admit", "fork", "books", "start", "exit", "reap", "round")


@dataclass(frozen=True)
class Attempt:
    """One connection as its client saw it: CLOCK_MONOTONIC, ns."""

    begin: int
    connected: int
    sent: int
    first_byte: int
    end: int


@dataclass(frozen=True)
class Breakdown:
    """Of the connections in the middle half by their length: means, in us. `wall` is the sum of
    the phases. `elapsed`: by the same names, from one stamp of a process to its next (`exit`: from
    a child's last one until it has been waited for), whatever others did on the CPU meanwhile: so
    they overlap, and have no sum. `counts`: minor faults and context switches each, as far as they
    were reaped."""

    wall: float
    phases: dict[str, float]
    elapsed: dict[str, float]
    counts: dict[str, float]
    connections: int


def breakdown(records: Sequence[tuple[int, ...]], attempts: Sequence[Attempt]) -> Breakdown:
    """Failed: fewer than four connections are whole."""
    # One that was parked before its first byte has another record.
    known = [r for r in records if r[stamps.EXIT] and r[stamps.ACCEPTED] >= attempts[0].begin]
    periods = list(_periods(known, [one.begin for one in attempts]))
    if len(periods) < 4:
        raise Failed(f"stamps of {len(periods)} connections; 4 are the least")
    chosen = [periods[i] for i in statistics.middle([sum(one.values()) for one in periods])]
    means = {name: sum(one.get(name, 0) for one in chosen) / len(chosen) for name in NAMES}
    shown = {name: value / 1e3 for name, value in means.items()}
    return Breakdown(sum(shown.values()), shown, _elapsed(known), _counts(known), len(periods))


def _periods(records: Sequence[tuple[int, ...]], begins: Sequence[int]) -> Iterator[dict[str, int]]:
    """From accept to accept: phase -> ns."""
    events = sorted(
        (record[number], place, name, bool(record[stamps.CHILD]) and name == "leave")
        for record in records
        for place, (number, name) in enumerate(_NUMBERS)
        if record[number]
    )
    starts = iter(sorted(begins))
    begin = next(starts, None)
    period: dict[str, int] | None = None
    before, dies = 0, False
    for moment, _, ended_by, is_death in events:
        # What follows a child's last stamp is its end, whatever the parent has been woken for.
        name = _END if dies and ended_by == "wake" else ended_by
        dies = is_death
        if period is not None:
            while begin is not None and begin <= before:
                begin = next(starts, None)
            turn = before
            if name == "wake" and begin is not None and begin < moment:
                turn = begin
                period[CLIENT] = period.get(CLIENT, 0) + turn - before
            period[name] = period.get(name, 0) + moment - turn
        before = moment
        if name == "accept":
            if period is not None:
                yield period
            period = {}


# The stamps of one writer, in order.
_PARENT = ("AWAKE", "ACCEPTED", "FORK_BEGIN", "FORK_END", "WAITS")
_SERVER = ("FIRST_BYTE", "PARSED", "OPENED", "DECIDED", "HEADER_SENT", "BODY_SENT", "LOGGED",
           "EXIT")  # fmt: skip
_CHAINS = (_PARENT, ("CHILD", *_SERVER), ("ACCEPTED", *_SERVER), ("EXIT", "REAPED"))
_NAMES_OF = {word: name for word, name, _ in PHASES} | {"REAPED": _END}


def _elapsed(records: Sequence[tuple[int, ...]]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for record in records:
        times = dict(zip(stamps.WORDS, record, strict=True))
        one: dict[str, float] = {}
        for chain in _CHAINS:
            if chain[0] == "ACCEPTED" and times["CHILD"]:
                continue  # who accepted is not who serves
            for before, after in itertools.pairwise(chain):
                if times[before] and times[after]:
                    name = _NAMES_OF[after]
                    one[name] = one.get(name, 0) + (times[after] - times[before]) / 1e3
        for name, value in one.items():
            found.setdefault(name, []).append(value)
    return {name: statistics.midmean(values) for name, values in found.items()}


_COUNTED = ("MINOR_FAULTS", "VOLUNTARY", "INVOLUNTARY")


def _counts(records: Sequence[tuple[int, ...]]) -> dict[str, float]:
    reaped = [one for one in records if one[stamps.REAPED]]
    if not reaped:
        return {}
    found = {
        name: statistics.midmean([one[stamps.WORDS.index(name)] for one in reaped])
        for name in _COUNTED
    }
    cpu = [one[stamps.USER_US] + one[stamps.SYSTEM_US] for one in reaped]
    return found | {"CPU_US": statistics.midmean(cpu)}
