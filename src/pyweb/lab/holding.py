"""pyweb-lab hold: connections that are open at once, what each costs, shown and kept.

Not here: how it is measured (hold.py).
"""

from __future__ import annotations

import argparse

from rich.table import Table

from . import hold
from .session import Answer, Session
from .statistics import estimate
from .tell import us


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--connections", type=_count, default=10_000, metavar="N",
                        help="that are open at once [10000]")  # fmt: skip


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 20_000:
        raise argparse.ArgumentTypeError(f"{text}: a number, up to 20000")
    return int(text)


def run(session: Session) -> Answer:
    blocks = session.plan().blocks
    count = session.options.connections
    with session.progress(blocks * len(hold.SERVERS)) as tick:
        found = hold.measure(session.place, count, blocks, tick)
    answer = found.as_data()
    table = Table("server", title=f"{count} connections: memory that the machine has less")
    for name in ("kB a connection", f"kB above {hold.BARE}", "processes"):
        table.add_column(name, justify="right")
    for name, row in answer["rows"].items():
        more = us(estimate(row["more_kb"])) if name != hold.BARE else ""
        table.add_row(name, us(estimate(row["kb"])), more, str(row["processes"]))
    session.console.print(table)
    session.say(*(f"void: {line}" for line in found.void))
    return answer
