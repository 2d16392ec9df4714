"""pyweb-lab peers and pyweb-lab article: other servers beside pyweb, measured, shown and kept.

Not here: how they are measured (contest.py, article.py), and what a table looks like.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager

from . import article, contest, guests, peers, tell, tell_peers, tools
from .guests import Guest
from .load import Missing
from .session import Answer, Session
from .statistics import Estimate


def arguments(parser: argparse.ArgumentParser) -> None:
    names = ", ".join(one.name for one in peers.OTHERS)
    parser.add_argument("--only", metavar="NAME,NAME", type=_names, default=(),
                        help=f"these beside pyweb's own modes; there are {names}")  # fmt: skip


def _names(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    known = [one.name for one in peers.OTHERS]
    if unknown := [word for word in words if word not in known]:
        raise argparse.ArgumentTypeError(
            f"there is no server {', '.join(unknown)}; there are {', '.join(known)}"
        )
    return words


def run_contest(session: Session) -> Answer:
    """Missing: no ab."""
    _need_ab()
    only: Sequence[str] = getattr(session.options, "only", ())
    wanted = only or (peers.AT_A_GLANCE if session.quick else [one.name for one in peers.OTHERS])
    chosen = [*peers.OWN, *(one for one in peers.OTHERS if one.name in wanted)]
    blocks = session.plan().blocks
    with session.progress(contest.steps(chosen, blocks)) as tick:
        found = contest.measure(session.place, chosen, blocks, quick=session.quick, tick=tick)
    answer = found.as_data()
    answer["setting"] = contest.setting(len(os.sched_getaffinity(0)))
    if without := [one.name for one in peers.OTHERS if one.name not in wanted and not only]:
        answer["setting"].append(f"a quick run, so without {', '.join(without)}")
    _on_top(session, found.same, found.void, found.missing)
    session.say(*answer["setting"])
    for table in tell_peers.contest_tables(answer):
        session.console.print(table)
    session.say(*tell_peers.failure_lines(answer))
    if answer["latencies"]:
        session.console.print(tell_peers.waits_table(answer))
    return answer


def run_article(session: Session) -> Answer:
    """Missing: no ab."""
    _need_ab()
    workers = len(os.sched_getaffinity(0))

    def start(name: str, uid: int | None) -> AbstractContextManager[Guest]:
        return guests.running(peers.BY_NAME[name], session.place, workers, uid)

    blocks = session.plan().blocks
    with session.progress(article.steps(blocks)) as tick:
        found = article.measure(start, blocks, quick=session.quick, tick=tick)
    answer = found.as_data()
    _on_top(session, found.same, found.void, found.missing)
    for table in tell_peers.article_tables(answer):
        session.console.print(table)
    session.say(*tell_peers.published_lines(answer), *tell_peers.failure_lines(answer))
    return answer


def _need_ab() -> None:
    if missing := tools.missing(["ab"]):
        raise Missing(*missing)


def _on_top(
    session: Session, same: Estimate | None, void: Sequence[str], missing: Sequence[str]
) -> None:
    tell.on_top(session.console, session.facts(), same, void, missing)
