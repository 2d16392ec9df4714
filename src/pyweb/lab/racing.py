"""pyweb-lab race: some servers under one load, shown and kept.

Not here: how they are measured (race.py).
"""

from __future__ import annotations

import argparse
import re

from rich.table import Table

from . import race
from .session import Answer, Session, Unusable
from .statistics import estimate
from .tell import times, us

_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "servers", metavar="NAME,NAME", type=_servers,
        help="the first is what the others are compared to; 'pyweb OPTIONS', or one of: "
        + ", ".join(race.known()),
    )  # fmt: skip
    told = "; ".join(f"{name}: {about}" for name, about in race.LOADS.items())
    parser.add_argument("--load", choices=tuple(race.LOADS), default="ab", help=f"{told} [ab]")
    parser.add_argument("--concurrency", type=int, default=50, metavar="N", help="clients [50]")
    parser.add_argument("--seconds", type=float, default=2.0, metavar="S",
                        help="of a run [2]; ab knows whole ones only")  # fmt: skip
    parser.add_argument("--size", type=_bytes, default=0, metavar="BYTES",
                        help="of the file, as 10M [1320]")  # fmt: skip
    parser.add_argument("--range", type=_piece, dest="piece", metavar="FIRST-LAST",
                        help="bytes that are asked for [the whole]")  # fmt: skip
    parser.add_argument("--no-logs", action="store_true", help="no server writes a line")
    parser.add_argument("--files", type=_counts, default=(), metavar="N,N",
                        help="each server with each of these numbers of files, which are asked for"
                        " by chance; --load wrk or close")  # fmt: skip


def _servers(text: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in text.split(","))
    if unknown := [name for name in names if not race.is_known(name)]:
        raise argparse.ArgumentTypeError(
            f"there is no server {', '.join(unknown)}; there are 'pyweb OPTIONS',"
            f" {', '.join(race.known())}"
        )
    if len(set(names)) < len(names):
        raise argparse.ArgumentTypeError("each once; for A/A there are two names for one server")
    return names


def _bytes(text: str) -> int:
    found = re.fullmatch(r"(\d+)([KMG]?)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text}: a number of bytes, with K, M or G behind")
    return int(found[1]) * _UNITS[found[2]]


def _piece(text: str) -> tuple[int, int]:
    first, minus, last = text.partition("-")
    if not minus:
        raise argparse.ArgumentTypeError(f"{text}: two positions, as 1M-2M")
    return _bytes(first), _bytes(last)


def _counts(text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d{0,5}(,[1-9]\d{0,5})*", text):
        raise argparse.ArgumentTypeError(f"{text}: numbers of files, as 10,1000")
    return tuple(dict.fromkeys(map(int, text.split(","))))


def run(session: Session) -> Answer:
    options = session.options
    place = session.place.of_size(options.size) if options.size else session.place
    piece = options.piece
    if piece and not piece[0] <= piece[1] < place.size:
        raise Unusable(f"--range: {piece[0]} to {piece[1]} of {place.size} bytes; see --size")
    if options.files and options.load not in race.BY_WRK:
        raise Unusable("--files: only wrk asks for many; see --load")
    if piece and options.load == "open":
        raise Unusable("--range: an open loop asks for whole files; see --load")
    load = race.Load(options.load, options.concurrency, options.seconds, piece, not options.no_logs)
    blocks = session.plan().blocks
    all_of_them = race.entrants(place, options.servers, options.files)
    with session.progress(blocks * len(all_of_them)) as tick:
        found = race.measure(all_of_them, load, blocks, tick)
    answer = found.as_data(load)
    session.console.print(_table(answer))
    for name, row in answer["rows"].items():
        if row["failures"]:
            count = len(row["failures"])
            session.say(f"failed: {name}, {count} runs: {row['failures'][0]}")
    return answer


def _table(answer: Answer) -> Table:
    table = Table("server", title=answer["about"])
    first = next(iter(answer["rows"]))
    columns = ("requests/s", f"x {first}", "MB/s", "CPU us a request", f"x {first}", "p99 ms",
               f"x {first}", "first answer s")  # fmt: skip
    for name in columns:
        table.add_column(name, justify="right")
    for name, row in answer["rows"].items():
        ratio, used, sent, waits = (
            estimate(row[key]) for key in ("ratio", "cpu_ratio", "bytes", "p99_ratio")
        )
        first_answer = row["first_s"]
        table.add_row(
            name,
            us(estimate(row["rate"])),
            times(ratio) if ratio else "-",
            us(sent.scaled(1e-6) if sent else None),
            us(estimate(row["cpu_us"])),
            times(used) if used else "-",
            us(estimate(row["p99_ms"])),
            times(waits) if waits else "-",
            f"{first_answer:.2f}" if first_answer is not None else "-",
        )
    return table
