"""Pages: nothing in a name acts or hides, every link leads back to the bytes, order is order."""

from __future__ import annotations

import json
import os
import re
from html.parser import HTMLParser
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import pytest

from pyweb.pages import (
    Entry,
    error_page,
    human_size,
    iso_time,
    listing_json,
    listing_page,
    sort_entries,
)

NASTY = [
    b"<script>alert(1)</script>",
    b"\"'><img src=x onerror=alert(1)>",
    b"a&amp;b",
    b"javascript:alert(1)",
    b"//evil.example",
    b"?sort=x#y",
    b"100%25",
    b"line\nbreak\r\x00\x1b[31m",
    b"latin-1 \xe9\xff",
    b"\xed\xa0\x80 a surrogate",
    "\u202egpj.exe".encode(),
    "zero\u200bwidth\ufeff".encode(),
    "café ☕".encode(),
    b"  spaces   kept ",
    b"back\\slash",
    bytes(c for c in range(1, 256) if c != ord("/")),
]


class Page(HTMLParser):
    """Every tag with its attributes, and the text between."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[str] = []
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append("")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.rows:
            self.rows[-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]

    def links(self) -> list[str]:
        return [attrs["href"] or "" for attrs in self.of("a")]


def file(name: bytes, size: int = 1, mtime: float = 0.0) -> Entry:
    return Entry(name, False, size, mtime)


def directory(name: bytes, size: int = 4096, mtime: float = 0.0) -> Entry:
    return Entry(name, True, size, mtime)


def listing(
    entries: list[Entry], path: bytes = b"/", sort: str = "name", descending: bool = False
) -> Page:
    return Page(listing_page(path, entries, sort, descending))


def names(entries: list[Entry]) -> list[bytes]:
    return [entry.name for entry in entries]


# ---- names may be anything -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NASTY)
@pytest.mark.parametrize("is_dir", [False, True])
def test_a_link_leads_back_to_the_bytes(name: bytes, is_dir: bool) -> None:
    href = listing([Entry(name, is_dir, 1, 0)]).links()[-1]
    url = urlsplit(urljoin("http://host.example/dir/", href))
    assert (url.scheme, url.netloc, url.query, url.fragment) == ("http", "host.example", "", "")
    assert unquote_to_bytes(url.path) == b"/dir/" + name + (b"/" if is_dir else b"")


@pytest.mark.parametrize("name", NASTY)
def test_a_name_adds_no_markup(name: bytes) -> None:
    """The tags are those of a harmless name, save the <i> around what can't be seen."""

    def tags(text: bytes) -> list[str]:
        page = listing([file(text), directory(text)], path=b"/" + text + b"/")
        return [tag for tag, _ in page.tags if tag != "i"]

    harmless = tags(b"x")
    # No name has a "/"; those of NASTY that have one would only be more crumbs.
    assert tags(name.replace(b"/", b"")) == harmless


@pytest.mark.parametrize("name", NASTY)
def test_nothing_hides(name: bytes) -> None:
    page = listing_page(b"/" + name + b"/", [file(name)], "name", False).decode("utf-8")
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\ufeff]", page)
    # Each line feed is ours, at the end of an element or of the style's lines.
    assert "line\nbreak" not in page


@pytest.mark.parametrize(
    "name", [b"<b>", b"a&amp;b", b"&lt;", b"\"'", "café ☕".encode(), b"  a   b "]
)
def test_a_name_reads_as_it_is(name: bytes) -> None:
    assert name.decode() in listing([file(name)]).texts


def test_what_is_hidden_is_marked() -> None:
    page = listing_page(b"/", [file("a\u202eb\x1b".encode())], "name", False).decode("utf-8")
    assert r"a<i>\u202e</i>b<i>\x1b</i>" in page


def test_not_utf8_shows_as_the_replacement_character() -> None:
    assert "caf\ufffd" in listing([file(b"caf\xe9")]).texts


# ---- the page ------------------------------------------------------------------------------------


def test_nothing_is_fetched_and_nothing_runs() -> None:
    """What `default-src 'none'; style-src 'unsafe-inline'` would block isn't there."""
    pages = (listing_page(b"/a/", [file(b"f")], "name", False), error_page(404, "Not Found", "x"))
    for raw in pages:
        page = Page(raw)
        assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "base"}
        assert all(not key.startswith(("on", "src")) for _, a in page.tags for key in a)
        assert b"url(" not in raw
        assert b"@import" not in raw
        assert len(page.of("style")) == 1


def test_crumbs_lead_to_each_ancestor() -> None:
    page = listing([], path="/docs/café/x/".encode())
    crumbs = page.links()[:3]
    base = "http://h/docs/caf%C3%A9/x/"
    assert [urljoin(base, href) for href in crumbs] == [
        "http://h/",
        "http://h/docs/",
        "http://h/docs/caf%C3%A9/",
    ]
    assert [t for t in page.texts if t in {"Index", "docs", "café", "x"}] == [
        "Index",
        "docs",
        "café",
        "x",
    ]


def test_the_root_has_no_parent() -> None:
    assert "../" in listing([], path=b"/a/").links()
    assert "../" not in listing([], path=b"/").links()


def test_heads_show_the_order_and_lead_to_the_others() -> None:
    page = listing([file(b"f")], sort="size", descending=True)
    assert [th.get("aria-sort") for th in page.of("th")] == [None, "descending", None]
    assert page.links()[:3] == [
        "?sort=name&order=asc",
        "?sort=size&order=asc",
        "?sort=date&order=desc",
    ]
    assert b'href="?sort=name&amp;order=desc"' in listing_page(b"/", [], "name", False)


def test_an_unknown_order_is_by_name_and_says_so() -> None:
    page = listing([file(b"b"), file(b"a")], sort="<x>")
    assert [th.get("aria-sort") for th in page.of("th")] == ["ascending", None, None]
    assert page.links()[-2:] == ["./a", "./b"]


def test_the_page_is_in_the_order_that_it_claims() -> None:
    entries = [file(b"a", size=1), file(b"b", size=3), file(b"c", size=2)]
    page = listing(entries, sort="size", descending=True)
    assert page.links()[-3:] == ["./b", "./c", "./a"]


def test_sizes_and_dates() -> None:
    page = listing([file(b"f", size=1234567, mtime=1795514400.9), directory(b"d")])
    assert [td["title"] for td in page.of("td") if "title" in td] == ["1,234,567 bytes"]
    assert page.of("time")[-1]["datetime"] == "2026-11-24T10:00:00Z"
    assert page.rows[1].split() == ["d/1970-01-01", "00:00"]
    assert "1.2 MB" in page.texts
    assert "2026-11-24 10:00" in page.texts


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([], "This directory is empty."),
        ([file(b"f", size=5)], "0 directories, 1 file, 5 B"),
        (
            [directory(b"d"), file(b"f", size=1000), file(b"g", size=500)],
            "1 directory, 2 files, 1.5 kB",
        ),
    ],
)
def test_the_foot_counts(entries: list[Entry], expected: str) -> None:
    assert expected in listing(entries).texts


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9950, "10 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_234_567_890, "1.2 GB"),
        (2**63, "9.2 EB"),
        (10**22, "10000 EB"),
    ],
)
def test_human_size(size: int, expected: str) -> None:
    assert human_size(size) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-0.5, "1969-12-31T23:59:59Z"),
        (2.0**62, "9999-12-31T23:59:59Z"),
        (-(2.0**62), "0001-01-01T00:00:00Z"),
    ],
)
def test_any_date_that_a_file_system_holds(seconds: float, expected: str) -> None:
    assert iso_time(seconds) == expected


# ---- order ---------------------------------------------------------------------------------------

MIXED = [
    file(b"part 10", size=30, mtime=1),
    file(b"Part 2", size=10, mtime=3),
    directory(b"zoo", size=4, mtime=9),
    file(b"apple", size=10, mtime=2),
    directory(b"Bar", size=8, mtime=8),
]


@pytest.mark.parametrize(
    ("sort", "descending", "expected"),
    [
        ("name", False, [b"Bar", b"zoo", b"apple", b"Part 2", b"part 10"]),
        ("name", True, [b"zoo", b"Bar", b"part 10", b"Part 2", b"apple"]),
        ("size", False, [b"Bar", b"zoo", b"apple", b"Part 2", b"part 10"]),
        ("size", True, [b"Bar", b"zoo", b"part 10", b"apple", b"Part 2"]),
        ("date", False, [b"Bar", b"zoo", b"part 10", b"apple", b"Part 2"]),
        ("date", True, [b"zoo", b"Bar", b"Part 2", b"apple", b"part 10"]),
        ("", False, [b"Bar", b"zoo", b"apple", b"Part 2", b"part 10"]),
    ],
)
def test_order(sort: str, descending: bool, expected: list[bytes]) -> None:
    assert names(sort_entries(MIXED, sort, descending)) == expected
    assert names(sort_entries(MIXED[::-1], sort, descending)) == expected


def test_names_that_differ_only_in_case_or_in_bad_bytes_have_one_order() -> None:
    entries = [file(b"a"), file(b"A"), file(b"\xff"), file(b"\xfe")]
    assert names(sort_entries(entries, "name", False)) == [b"A", b"a", b"\xfe", b"\xff"]
    assert names(sort_entries(entries[::-1], "name", False)) == [b"A", b"a", b"\xfe", b"\xff"]


# ---- JSON ----------------------------------------------------------------------------------------


def test_json_is_ascii_and_gives_the_bytes_back() -> None:
    raw = listing_json([file(name) for name in NASTY])
    assert raw.isascii()
    assert [os.fsencode(item["name"]) for item in json.loads(raw)] == NASTY


def test_json_fields() -> None:
    entries = [directory(b"d", mtime=1), file(b"f", size=7, mtime=1795514400)]
    assert json.loads(listing_json(entries)) == [
        {"name": "d", "type": "directory", "size": None, "mtime": "1970-01-01T00:00:01Z"},
        {"name": "f", "type": "file", "size": 7, "mtime": "2026-11-24T10:00:00Z"},
    ]
    assert listing_json([]) == b"[]"


# ---- errors --------------------------------------------------------------------------------------


def test_error_page_says_it_all() -> None:
    page = Page(error_page(404, "Not Found", "no such file"))
    assert {"404", "Not Found", "No such file.", "404 Not Found"} <= set(page.texts)


def test_error_page_may_keep_the_reason_to_itself() -> None:
    page = Page(error_page(404, "Not Found", ""))
    assert page.of("p") == []
    assert "." not in page.texts


def test_error_page_escapes() -> None:
    nasty = "<script>\"'&\x1b\ud800"
    raw = error_page(400, nasty, nasty)
    assert b"<script" not in raw
    assert b"\x1b" not in raw
    assert "script" not in {tag for tag, _ in Page(raw).tags}
