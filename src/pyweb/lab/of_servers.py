"""Servers under load as sections: pyweb's modes, its peers, the article's experiment, latencies.

A server of which no run was sound has no figure; what went wrong is said in its place. Not here:
how it is drawn and written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from . import curves, forms
from .canvas import short
from .curves import Dots, Line
from .forms import Cell, words
from .layout import Section, Table
from .peers import AGAIN
from .statistics import estimate

Part = Mapping[str, Any]
# Letters for ids: names of loads are not fit for them.
_AB = "abcdefghijklmnopqrstuvwxyz"
_SHARES = ("p50", "p75", "p90", "p99")


def sections(load: Part | None, peers: Part | None, article: Part | None) -> list[Section]:
    return [*_peers(peers or {}), *_peers_latencies(peers or {}), *_article(article or {}),
            _modes(load or {}), _latencies(load or {})]  # fmt: skip


def _peers(peers: Part) -> list[Section]:
    """A section for each load."""
    loads = peers.get("loads") or {}
    if not loads:
        return [Section("peers", "pyweb and its peers", absent="Peers were not measured.")]
    titles = {one["name"]: one.get("title") or one["name"] for one in peers.get("peers") or ()
              if "name" in one}  # fmt: skip
    return [
        _peers_under(f"peers-{_AB[place % 26]}", load, found, titles)
        for place, (load, found) in enumerate(loads.items())
    ]


def _peers_under(name: str, load: str, found: Part, titles: Mapping[str, str]) -> Section:
    rows = found.get("rows") or {}
    title = f"pyweb and its peers: {load}"
    if not rows:
        return Section(name, title, absent=f"No server was measured under {load}.")
    reference = found.get("reference") or ""
    dots = [
        Dots(titles.get(peer, peer), (estimate(one.get("ratio")),), _no_figure(one, "ratio"))
        for peer, one in rows.items()
    ]
    cells = tuple(
        (forms.text(titles.get(peer, peer)), forms.figure(one.get("rate")),
         forms.figure(one.get("ratio")), forms.figure(one.get("cpu_us")),
         forms.figure(one.get("memory_kb"), 1 / 1024), forms.plain(one.get("runs")),
         _failures(one))
        for peer, one in rows.items()
    )  # fmt: skip
    heads = ("server", "requests/s", f"times {reference}", "CPU, us a request", "memory, MB",
             "sound runs", "failures")  # fmt: skip
    return Section(
        name, title,
        lead=f"{load}: {found.get('about') or 'a load'}. Requests/s, times those of {reference}"
        " (dashed), paired block by block, with intervals of 95 %; the axis is logarithmic.",
        picture=curves.dots(name, f"Ratios of requests per second under {load}", dots,
                            scale="log", line=1.0, unit="×"),
        tables=(Table(f"{load}: rates, CPU time and memory of all processes of a server", heads,
                      cells),),
    )  # fmt: skip


def _failures(row: Part) -> Cell:
    lines = row.get("failures") or ()
    return forms.text("; ".join(lines) or "none", bad=bool(lines))


def _no_figure(row: Part, what: str) -> str:
    if estimate(row.get(what)):
        return ""
    lines = row.get("failures") or ()
    return f"no sound run: {lines[0]}" if lines else "no figure"


def _article(article: Part) -> list[Section]:
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
    # What was published of its server is of this load; its Apache had another, which is said.
    said = published if load.endswith("-n 1000 -c 100") else {}
    dots = [Dots(titles.get(one, one), (estimate(row.get("rate")), None), _no_figure(row, "rate"))
            for one, row in rows.items()]  # fmt: skip
    dots += [Dots(_as_published(one, row), (None, estimate([row.get("rate")])))
             for one, row in said.items()]  # fmt: skip
    cells = [
        (forms.text(titles.get(one, one)), *(forms.figure(row.get(what)) for what in _ARTICLE),
         forms.plain(row.get("runs")), _failures(row))
        for one, row in rows.items()
    ]  # fmt: skip
    cells += [
        (forms.text(_as_published(one, row)),
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


def _as_published(one: str, row: Part) -> str:
    about = f" ({row['about']})" if row.get("about") else ""
    return f"{_PUBLISHED.get(one, one)}{about}"


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
                 "" if estimate(row.get("kept")) else _no_figure(row, "new"))
            for one, row in rows.items()]  # fmt: skip
    cells = tuple(
        (forms.text(titles.get(one, one)),
         *(forms.figure(row.get(what)) for what in ("kept", "new", "ratio")), _failures(row))
        for one, row in rows.items()
    )  # fmt: skip
    return Section(
        "pool", "A pool of connections, as the article ends with", lead=pool.get("about") or "",
        picture=curves.dots("pool", "Time of a request, kept and new connections", dots,
                            scale="log", unit=" us"),
        legend=curves.keys(["kept connections", "a connection for each request"]),
        tables=(Table("us a request", ("server", "kept, us", "new, us", "new / kept",
                                     "failures"), cells),),
    )  # fmt: skip


def _modes(load: Part) -> Section:
    name, title = "modes", "pyweb's modes under load"
    rates = {one: each for one, each in (load.get("rates") or {}).items() if each}
    if not rates:
        return Section(name, title, absent="pyweb's modes were not measured under load.")
    servers = list(dict.fromkeys(server for each in rates.values() for server in each))
    rows = [Dots(one, tuple(estimate(each.get(server)) for server in servers))
            for one, each in rates.items()]  # fmt: skip
    cells = tuple((forms.text(one), *(forms.figure(each.get(server)) for server in servers))
                  for one, each in rates.items())  # fmt: skip
    return Section(
        name, title,
        lead=f"Requests/s; {(load.get('machine') or {}).get('pinned') or 'CPUs as they came'}.",
        picture=curves.dots(name, "Requests per second by load and mode", rows, scale="log"),
        legend=curves.keys(servers),
        tables=(Table("Requests/s", ("load", *servers), cells),),
    )  # fmt: skip


def _peers_latencies(peers: Part) -> list[Section]:
    """So many servers that lines would be a tangle: a row each."""
    name, found = "peers-latencies", peers.get("latencies") or ()
    if not found:
        return []
    shown = ("p50", "p90", "p99")
    rows = [Dots(str(one.get("server")),
                 tuple(known.scaled(1e3) if (known := estimate(one.get(share))) else None
                       for share in shown))
            for one in found]  # fmt: skip
    return [Section(
        name, "pyweb and its peers: latencies in an open loop", lead=_OPEN_LOOP,
        picture=curves.dots(name, "Latency percentiles of pyweb and its peers, ms", rows,
                            scale="log", unit=" ms"),
        legend=curves.keys([f"{share[1:]} % were faster" for share in shown]),
        tables=(_latency_table(found),),
    )]  # fmt: skip


_OPEN_LOOP = (
    "Requests come when they come, whether or not the last one was answered; each is counted from"
    " its scheduled start, so waiting in a queue counts."
)


def _latency_table(found: Sequence[Part]) -> Table:
    cells = tuple(
        (forms.text(one.get("server")), forms.share(one.get("of_saturation")),
         *(forms.figure(one.get(share), 1e3) for share in _SHARES))
        for one in found
    )  # fmt: skip
    heads = ("server", "of saturation", *(f"{share}, ms" for share in _SHARES))
    return Table("Latency percentiles, ms", heads, cells)


def _latencies(load: Part) -> Section:
    name, title = "latencies", "Latencies of pyweb's modes in an open loop"
    found = load.get("latencies") or ()
    if not found:
        return Section(name, title, absent="Latencies were not measured.")
    servers = list(dict.fromkeys(str(one.get("server")) for one in found))
    panels = []
    for share in sorted({one.get("of_saturation") or 0.0 for one in found}):
        each = [one for one in found if (one.get("of_saturation") or 0.0) == share]
        at = f"at {forms.percent(share)} of what saturates the server"
        panels.append((at, _by_server(each, servers)))
    return Section(
        name, title, lead=_OPEN_LOOP,
        picture=curves.lines(name, "Latency percentiles of each server", panels,
                             x_name="of all requests so many were faster", y_name="ms",
                             x_ticks=[f"{share[1:]} %" for share in _SHARES]),
        legend=curves.keys(servers),
        tables=(_latency_table(found),),
    )  # fmt: skip


def _by_server(found: Sequence[Part], servers: Sequence[str]) -> list[Line]:
    lines = []
    for one in found:
        points = [(float(x), known.scaled(1e3)) for x, share in enumerate(_SHARES)
                  if (known := estimate(one.get(share)))]  # fmt: skip
        if points:
            server = str(one.get("server"))
            lines.append(Line(server, servers.index(server), tuple(x for x, _ in points),
                              tuple(one.value for _, one in points), tuple(points)))  # fmt: skip
    return lines


def finding(peers: Part | None) -> str:
    """The fastest peers and the slowest in a sentence; empty: there are none."""
    for load, found in ((peers or {}).get("loads") or {}).items():
        reference = found.get("reference")
        rows = found.get("rows") or {}
        ratios = {peer: known for peer in rows.keys() - {reference, AGAIN}
                  if (known := estimate(rows[peer].get("ratio")))}  # fmt: skip
        ranked = sorted(ratios, key=lambda peer: (-ratios[peer].value, peer))
        said = [f"{short(peer)} {words(ratios[peer])}" for peer in ranked]
        if len(said) > _TOLD + 1:
            between = f"{len(said) - _TOLD - 1} others between"
            said = [*said[:_TOLD], between, said[-1]]
        if said:
            return f"Requests/s under {load}, times {reference}: {', '.join(said)}."
    return ""


# Of the fastest.
_TOLD = 3
