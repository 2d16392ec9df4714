"""The article's experiment as sections: its loads, its process limit, its pool of connections.

What was published stands beside what was measured, and has no intervals. Not here: how it is drawn
and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import curves, forms
from .curves import Dots
from .forms import Cell
from .layout import Section, Table
from .of_servers import failures, no_figure
from .statistics import estimate

Part = Mapping[str, Any]
# Letters for ids: names of loads are not fit for them.
_AB = "abcdefghijklmnopqrstuvwxyz"


def sections(part: Part | None) -> list[Section]:
    article = part or {}
    name, title = "article", "The article's experiment"
    loads = article.get("loads") or {}
    titles = article.get("titles") or {}
    published = article.get("published") or {}
    found = [
        _article_under(
            f"{name}-{_AB[place % 26]}", f"{title}: {load}", load, one, titles, published
        )
        for place, (load, one) in enumerate(loads.items())
        if one.get("rows")
    ]
    if not found:
        why = "The article's loads were not measured."
        found.append(Section(name, title, absent=why))
    if limit := _limit(article.get("limit") or {}, titles):
        found.append(limit)
    if pool := _pool(article.get("pool") or {}, titles):
        found.append(pool)
    return found


_PUBLISHED = {"server": "the article's server, as published", "apache": "its Apache, as published"}


def _article_under(
    name: str, title: str, load: str, found: Part, titles: Mapping[str, str], published: Part
) -> Section:
    rows = found["rows"]
    # What was published is of the first load: under the second its server died.
    said = published if load.endswith("-n 1000 -c 100") else {}
    dots = [Dots(titles.get(one, one), (estimate(row.get("rate")), None), no_figure(row, "rate"))
            for one, row in rows.items()]  # fmt: skip
    dots += [Dots(_PUBLISHED.get(one, one), (None, estimate([row.get("rate")])))
             for one, row in said.items()]  # fmt: skip
    cells = [
        (forms.text(titles.get(one, one)), *(forms.figure(row.get(what)) for what in _ARTICLE),
         forms.plain(row.get("runs")), failures(row))
        for one, row in rows.items()
    ]  # fmt: skip
    cells += [
        (forms.text(_PUBLISHED.get(one, one)),
         *(forms.plain(row.get(what))
           for what in _ARTICLE), forms.plain(None), forms.text(""))
        for one, row in said.items()
    ]  # fmt: skip
    heads = ("server", "requests/s", "times the article's kind", "mean, ms", "longest, ms",
             "sound runs", "failures")  # fmt: skip
    beside = ", beside what was published" if said else ""
    return Section(
        name, title,
        lead=f"{found.get('about') or load}.{_OF_2009 if said else ''}",
        picture=curves.dots(name, f"Requests per second under {load}", dots, scale="log"),
        legend=curves.keys(["requests/s, here", *(["as published"] if said else [])]),
        tables=(Table(f"{load}{beside}", heads, tuple(cells)),),
    )  # fmt: skip


_OF_2009 = " Published figures are of another machine, in 2009, and have no intervals."
_ARTICLE = ("rate", "ratio", "mean_ms", "max_ms")


def _limit(limit: Part, titles: Mapping[str, str]) -> Section | None:
    rows = limit.get("rows") or {}
    if not rows:
        return None
    cells = tuple(
        (forms.text(titles.get(one, one)), forms.plain(row.get("answered")),
         forms.plain(row.get("asked")), _yes(row.get("alive")), _yes(row.get("again")),
         forms.text(row.get("said")))
        for one, row in rows.items()
    )  # fmt: skip
    heads = ("server", "answered", "asked", "still alive", "serves again", "its last words")
    allowed = limit.get("processes")
    how = f"; {allowed} more processes allowed" if allowed is not None else ""
    return Section(
        "limit", "At the process limit", lead=limit.get("about") or "",
        tables=(Table(f"What became of clients and servers{how}", heads, cells),),
    )  # fmt: skip


def _yes(value: bool | None) -> Cell:
    if value is None:
        return forms.text("")
    return forms.text("yes" if value else "no", bad=not value)


def _pool(pool: Part, titles: Mapping[str, str]) -> Section | None:
    rows = pool.get("rows") or {}
    if not rows:
        return None
    dots = [Dots(titles.get(one, one), (estimate(row.get("kept")), estimate(row.get("new"))),
                 "" if estimate(row.get("kept")) else no_figure(row, "new"))
            for one, row in rows.items()]  # fmt: skip
    cells = tuple(
        (forms.text(titles.get(one, one)),
         *(forms.figure(row.get(what)) for what in ("kept", "new", "ratio")), failures(row))
        for one, row in rows.items()
    )  # fmt: skip
    heads = ("server", "kept, us", "new, us", "new / kept", "failures")
    return Section(
        "pool", "A pool of connections, as the article ends with", lead=pool.get("about") or "",
        picture=curves.dots("pool", "Time of a request, kept and new connections", dots,
                            scale="log", unit=" us"),
        legend=curves.keys(["kept connections", "a connection for each request"]),
        tables=(Table("us a request", heads, cells),),
    )  # fmt: skip
