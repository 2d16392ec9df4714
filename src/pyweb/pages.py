"""What pyweb itself says: error pages and directory listings, as HTML and as JSON.

Pure functions from values to bytes. This file opens nothing, knows no request and no response,
and decides nothing: what may be listed, and which reason a client may read, is settled before.

Rules. No script, no reference to anything outside the page, one inline style: it all works under
`default-src 'none'; style-src 'unsafe-inline'`. Every text passes _text() or _visible(), every
href _href(). A link is relative, so a listing also works behind a proxy that adds a prefix.
"""

from __future__ import annotations

import re
import time


class Entry:
    """One name in a directory. `size` of a directory means nothing and is never shown."""

    __slots__ = ("is_dir", "mtime", "name", "size")

    def __init__(self, name: bytes, is_dir: bool, size: int, mtime: float) -> None:
        self.name = name
        self.is_dir = is_dir
        self.size = size
        self.mtime = mtime


# ---- text: nothing that a name contains may act, or hide -----------------------------------------

_MARKUP = {ord(c): f"&#{ord(c)};" for c in "&<>\"'"}

# Control characters (C0, DEL, C1), the bidi controls that make "gpj.exe" look like "exe.jpg", line
# and paragraph separators, and what has no width at all. Not ZWNJ and ZWJ (200C, 200D): Persian,
# Indic scripts and emoji need them.
_UNSEEN = (
    *range(0x20), *range(0x7F, 0xA0), 0xAD, 0x61C, 0x180E, 0x200B, 0x200E, 0x200F,
    *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC),
)  # fmt: skip


def _escape(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


_AS_TEXT = _MARKUP | {code: _escape(code) for code in _UNSEEN}
# Set apart, so that it can't be mistaken for a name that really has a backslash in it.
_AS_MARKED = _MARKUP | {code: f"<i>{_escape(code)}</i>" for code in _UNSEEN}


def _text(text: str) -> str:
    """For attributes and titles, where no element can stand."""
    return text.translate(_AS_TEXT)


def _visible(name: bytes) -> str:
    """A file name for people: bytes that are not UTF-8 show as the replacement character."""
    return name.decode("utf-8", "replace").translate(_AS_MARKED)


_RESERVED = re.compile(rb"[^A-Za-z0-9\-._~]")  # RFC 3986 2.3, the complement of unreserved


def _href(name: bytes) -> str:
    """The raw bytes, encoded. "./" because "a:b" alone would be a URL with the scheme "a"."""
    return "./" + _RESERVED.sub(_percent, name).decode("ascii")


def _percent(match: re.Match[bytes]) -> bytes:
    return b"%%%02X" % ord(match[0])


# ---- numbers -------------------------------------------------------------------------------------

_UNITS = ("kB", "MB", "GB", "TB", "PB", "EB")


def human_size(size: int) -> str:
    """Decimal units, as disks and browsers count: 1 kB is 1000 bytes. Two digits or three."""
    if size < 1000:
        return f"{size} B"
    number, unit = size / 1000, 0
    while number >= 999.5 and unit < len(_UNITS) - 1:  # what rounds to 1000 takes the next unit
        number, unit = number / 1000, unit + 1
    places = 1 if number < 9.95 else 0  # 9.95 would round to 10.0, a digit wider than its kind
    return f"{number:.{places}f} {_UNITS[unit]}"


# Years 1 to 9999, which is all that ISO 8601 writes with four digits. File systems can hold more,
# always by mistake; a wrong date on a wrong file is better than no listing at all.
_FIRST, _LAST = -62135596800, 253402300799


def iso_time(seconds: float) -> str:
    t = time.gmtime(min(max(seconds, _FIRST), _LAST))
    return "{:04d}-{:02d}-{:02d}T{:02d}:{:02d}:{:02d}Z".format(*t[:6])


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


# ---- order ---------------------------------------------------------------------------------------

_DIGITS = re.compile("[0-9]+")


def _pad(match: re.Match[str]) -> str:
    return match[0].zfill(20)


def _by_name(entry: Entry) -> tuple[str, bytes]:
    """Case doesn't count and numbers count as numbers: "Part 2" before "part 10". Raw bytes last,
    so that the order is the same each time."""
    folded = entry.name.decode("utf-8", "replace").casefold()
    return _DIGITS.sub(_pad, folded), entry.name


def _by_size(entry: Entry) -> int:
    return 0 if entry.is_dir else entry.size


def _by_date(entry: Entry) -> float:
    return entry.mtime


_KEYS = {"size": _by_size, "date": _by_date}


def sort_entries(entries: list[Entry], sort: str, descending: bool) -> list[Entry]:
    """Directories first, whatever the order; what is equal by `sort` stands by name, A to Z."""
    key = _KEYS.get(sort)
    ordered = sorted(entries, key=_by_name, reverse=descending and key is None)
    if key is not None:
        ordered.sort(key=key, reverse=descending)
    return [e for e in ordered if e.is_dir] + [e for e in ordered if not e.is_dir]


# ---- the page around it --------------------------------------------------------------------------

# The colours are named once and swapped for the dark; contrast of each text is 4.5:1 or more.
_STYLE = """\
:root{color-scheme:light dark;--back:#fff;--text:#1c2024;--soft:#60656d;--line:#e4e6ea;\
--link:#0b5cad;--hover:#f2f6fb;--folder:#5b9bd9;--file:#c3c9d1;--mark:#b3261e}
@media(prefers-color-scheme:dark){:root{--back:#14171a;--text:#e3e6ea;--soft:#9aa1aa;\
--line:#2a2f36;--link:#84bbf5;--hover:#1c232b;--folder:#4f8ac4;--file:#555d68;--mark:#ff9d94}}
*{box-sizing:border-box}
body{margin:0 auto;padding:0 1.5rem;background:var(--back);color:var(--text);\
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;-webkit-text-size-adjust:100%}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
:focus-visible{outline:2px solid var(--link);outline-offset:2px;border-radius:3px}
"""


def _page(title: str, style: str, body: str) -> bytes:
    # "replace": a lone surrogate in a title must not turn an answer into a traceback.
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>
{_STYLE}{style}</style>
</head>
<body>
{body}</body>
</html>
""".encode("utf-8", "replace")


# ---- errors --------------------------------------------------------------------------------------

_ERROR_STYLE = """\
body{max-width:40rem;min-height:100vh;min-height:100svh;display:flex;flex-direction:column;\
justify-content:center;padding-bottom:18vh}
b{display:block;font-size:clamp(4.5rem,22vw,8rem);font-weight:200;line-height:1;\
letter-spacing:-.04em;color:var(--soft);font-variant-numeric:tabular-nums;margin-left:-.05em}
h1{margin:1rem 0 .25rem;font-size:1.5rem;font-weight:600;line-height:1.25}
p{margin:0;color:var(--soft);overflow-wrap:anywhere}
"""


def error_page(status: int, phrase: str, meaning: str) -> bytes:
    """`meaning` may be empty: then the status is all that the client is told."""
    why = f"<p>{_text(_sentence(meaning))}</p>\n" if meaning else ""
    body = f"<main>\n<b>{status}</b>\n<h1>{_text(phrase)}</h1>\n{why}</main>\n"
    return _page(f"{status} {phrase}", _ERROR_STYLE, body)


def _sentence(meaning: str) -> str:
    """Meanings are written for log lines: "no such file". Here one stands alone."""
    end = "" if meaning.endswith((".", "!", "?")) else "."
    return meaning[:1].upper() + meaning[1:] + end


# ---- listings ------------------------------------------------------------------------------------

# Icons are boxes with a cut shape: no font has to have them, and nothing is fetched. On a phone a
# row becomes two lines: the name, and below it size and date.
_LISTING_STYLE = """\
body{max-width:66rem}
h1{margin:2rem .75rem 1.25rem;font-size:1.375rem;font-weight:400;line-height:1.4;\
overflow-wrap:anywhere;white-space:pre-wrap}
h1 span{color:var(--soft);margin:0 .35em}
h1 b{font-weight:600}
table{width:100%;border-collapse:collapse;font-variant-numeric:tabular-nums}
th{position:sticky;top:0;z-index:1;background:var(--back);box-shadow:inset 0 -1px var(--line);\
padding:0;text-align:left;font-size:.8125rem;font-weight:500;white-space:nowrap}
th a{display:flex;align-items:center;gap:.4em;padding:.625rem .75rem;color:var(--soft)}
th:nth-child(2) a{flex-direction:row-reverse}
th[aria-sort] a{color:var(--text)}
th a::after{content:"";border:.28em solid transparent}
th[aria-sort=ascending] a::after{border-top:0;border-bottom:.4em solid}
th[aria-sort=descending] a::after{border-bottom:0;border-top:.4em solid}
td{padding:0;border-bottom:1px solid var(--line);color:var(--soft);font-size:.875rem;\
white-space:nowrap}
td+td{padding:0 .75rem}
td+td,th+th{width:1%}
td:nth-child(2){text-align:right}
td a{display:block;position:relative;padding:.5rem .75rem .5rem 2.625rem;font-size:1rem;\
color:var(--text);white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate}
td a::before{content:"";position:absolute;left:.875rem;top:.75rem;width:.875rem;height:1.0625rem;\
background:var(--file);clip-path:polygon(0 0,62% 0,100% 31%,100% 100%,0 100%)}
.d a{color:var(--link)}
.d a::before{left:.75rem;top:.8125rem;width:1.125rem;height:.9375rem;background:var(--folder);\
border-radius:.125rem;clip-path:polygon(0 0,38% 0,50% 17%,100% 17%,100% 100%,0 100%)}
.u a::before{background:var(--soft);\
clip-path:polygon(50% 0,95% 52%,60% 52%,60% 100%,40% 100%,40% 52%,5% 52%)}
tr:hover td{background:var(--hover)}
i{font:.8em ui-monospace,monospace;color:var(--mark);border:1px solid;border-radius:3px;\
padding:0 .2em;margin:0 .1em}
p{margin:0;padding:1rem .75rem 3rem;color:var(--soft);font-size:.875rem}
@media(max-width:40rem){
body{padding:0 .5rem}
h1{margin:1.25rem .75rem .5rem;font-size:1.1875rem}
thead{position:sticky;top:0;z-index:1;display:block;background:var(--back);\
box-shadow:inset 0 -1px var(--line)}
thead tr,tbody tr{display:flex}
th,th+th{position:static;width:auto;background:none;box-shadow:none}
tbody{display:block}
tbody tr{position:relative;flex-wrap:wrap;padding-bottom:.5rem;border-bottom:1px solid var(--line)}
tr:hover{background:var(--hover)}
tr:hover td{background:none}
td,td+td{width:auto;padding:0;border:0;font-size:.8125rem}
td:empty{display:none}
td:first-child{flex:0 0 100%}
td:nth-child(2){order:1;padding-left:.75rem}
td:nth-child(3){padding-left:2.625rem}
td a{position:static;padding-bottom:0}
td a::after{content:"";position:absolute;inset:0}
}
"""

# Column -> its head, and the order that it begins with: A to Z, but the largest and the newest
# first, since that is what people look for when they click there.
_COLUMNS = (("name", "Name", "asc"), ("size", "Size", "desc"), ("date", "Modified (UTC)", "desc"))


def listing_page(path: bytes, entries: list[Entry], sort: str, descending: bool) -> bytes:
    """`path`: decoded, absolute, with its trailing slash. The entries may come in any order."""
    sort = sort if sort in _KEYS else "name"
    rows = [] if path == b"/" else [_PARENT]
    rows.extend(map(_row, sort_entries(entries, sort, descending)))
    body = (
        f"<h1>{_crumbs(path)}</h1>\n"
        f"<table>\n<thead>\n<tr>{_heads(sort, descending)}</tr>\n</thead>\n"
        f"<tbody>\n{''.join(rows)}</tbody>\n</table>\n"
        f"<p>{_summary(entries)}</p>\n"
    )
    return _page("Index of " + path.decode("utf-8", "replace"), _LISTING_STYLE, body)


_PARENT = '<tr class="d u"><td><a href="../">Parent directory</a></td><td></td><td></td></tr>\n'


def _row(entry: Entry) -> str:
    """Written out for each of perhaps 100,000 entries: short, and nothing said twice."""
    href, name, date = _href(entry.name), _visible(entry.name), iso_time(entry.mtime)
    when = f'<td><time datetime="{date}">{date[:10]} {date[11:16]}</time></td>'
    if entry.is_dir:
        return f'<tr class="d"><td><a href="{href}/">{name}/</a></td><td></td>{when}</tr>\n'
    size = f'<td title="{entry.size:,} bytes">{human_size(entry.size)}</td>'
    return f'<tr><td><a href="{href}">{name}</a></td>{size}{when}</tr>\n'


def _heads(sort: str, descending: bool) -> str:
    return "".join(_head(*column, column[0] == sort, descending) for column in _COLUMNS)


def _head(key: str, label: str, first: str, current: bool, descending: bool) -> str:
    """A column's link: the other order of the current column, the usual one of any other."""
    order, state = first, ""
    if current:
        order = "asc" if descending else "desc"
        state = f' aria-sort="{"descending" if descending else "ascending"}"'
    return f'<th scope="col"{state}><a href="?sort={key}&amp;order={order}">{label}</a></th>'


_CRUMBS = 32


def _crumbs(path: bytes) -> str:
    """Each ancestor as a link, by as many "../" as it is away; the directory itself as text."""
    names = ["Index", *map(_visible, filter(None, path.split(b"/")))]
    # A path of thousands of segments ("a/../a/../") must not make a page of millions of "../".
    names = names[:1] + names[-_CRUMBS:] if len(names) > _CRUMBS else names
    last = len(names) - 1
    links = [f'<a href="{"../" * (last - i)}">{name}</a>' for i, name in enumerate(names[:-1])]
    if last == _CRUMBS:
        links[0] = '<a href="/">Index</a><span>/…</span>'
    return "<span>/</span>".join([*links, f'<b aria-current="page">{names[-1]}</b>'])


def _summary(entries: list[Entry]) -> str:
    if not entries:
        return "This directory is empty."
    sizes = [entry.size for entry in entries if not entry.is_dir]
    directories = _count(len(entries) - len(sizes), "directory", "directories")
    return f"{directories}, {_count(len(sizes), 'file', 'files')}, {human_size(sum(sizes))}"


def listing_json(entries: list[Entry]) -> bytes:
    """In the order given. ASCII: a byte that is not UTF-8 becomes a lone surrogate's escape, which
    is valid JSON, and Python's os.fsencode() makes the byte of it again."""
    import json

    return json.dumps([_as_json(entry) for entry in entries], separators=(",", ":")).encode("ascii")


def _as_json(entry: Entry) -> dict[str, str | int | None]:
    return {
        "name": entry.name.decode("utf-8", "surrogateescape"),
        "type": "directory" if entry.is_dir else "file",
        "size": None if entry.is_dir else entry.size,
        "mtime": iso_time(entry.mtime),
    }
