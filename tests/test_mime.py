"""The table is what its source makes, and a name gets the type that browsers need."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyweb import _mimetable
from pyweb.mime import CODINGS, content_type

ROOT = Path(__file__).resolve().parent.parent
TOOL = ROOT / "tools" / "mimetable.py"
SOURCE = Path("/etc/mime.types")


def tool(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *args], capture_output=True, text=True, check=False
    )


def installed_version() -> str:
    query = ["dpkg-query", "-W", "-f", "${Package} ${Version}", "media-types"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def test_the_table_is_current() -> None:
    """Another machine may have no source or another version of it; ours for CI must have it."""
    named = re.search(r"Source: (media-types \S+),", _mimetable.__doc__ or "")
    assert named, "the table doesn't say what it was made from"
    here = installed_version() if SOURCE.is_file() else ""
    if here != named[1] and not os.environ.get("CI"):
        pytest.skip(f"the table is from {named[1]}, here is {here or 'no media-types'}")
    result = tool("--check")
    assert (result.returncode, result.stderr) == (0, "")


def test_another_source_is_not_current(tmp_path: Path) -> None:
    other = tmp_path / "mime.types"
    other.write_text("text/html html\n")
    result = tool("--check", "--source", str(other))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1


def test_a_missing_source_is_said_in_one_line(tmp_path: Path) -> None:
    result = tool("--check", "--source", str(tmp_path / "none"))
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "none" in result.stderr


def test_each_entry_of_the_table_can_be_found_and_sent() -> None:
    assert list(_mimetable.TYPES) == sorted(_mimetable.TYPES)
    for extension, media_type in _mimetable.TYPES.items():
        assert extension == extension.lower()
        assert b"." not in extension
        assert re.fullmatch(rb"[a-z]+/[A-Za-z0-9.+_-]+", media_type)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"index.html", b"text/html; charset=utf-8"),
        (b"notes.txt", b"text/plain; charset=utf-8"),
        (b"site.css", b"text/css; charset=utf-8"),
        (b"app.js", b"text/javascript; charset=utf-8"),
        (b"app.mjs", b"text/javascript; charset=utf-8"),
        (b"app.cjs", b"text/javascript; charset=utf-8"),
        (b"app.js.map", b"application/json"),
        (b"data.json", b"application/json"),
        (b"app.webmanifest", b"application/manifest+json"),
        (b"app.wasm", b"application/wasm"),
        (b"logo.svg", b"image/svg+xml"),
        (b"logo.svgz", b"application/gzip"),
        (b"feed.xml", b"application/xml"),
        (b"feed.rss", b"application/rss+xml"),
        (b"photo.avif", b"image/avif"),
        (b"photo.webp", b"image/webp"),
        (b"photo.jpg", b"image/jpeg"),
        (b"favicon.ico", b"image/vnd.microsoft.icon"),
        (b"font.woff2", b"font/woff2"),
        (b"film.mp4", b"video/mp4"),
        (b"film.ts", b"video/mp2t"),
        (b"config.yaml", b"application/yaml"),
        (b"main.rs", b"text/plain; charset=utf-8"),
        (b"run.sh", b"text/x-sh; charset=utf-8"),
        (b"paper.pdf", b"application/pdf"),
        (b"all.tar.gz", b"application/gzip"),
    ],
)
def test_well_known(name: bytes, expected: bytes) -> None:
    assert content_type(name) == expected


def test_case_does_not_count() -> None:
    assert content_type(b"INDEX.HTM") == content_type(b"index.htm") == b"text/html; charset=utf-8"


@pytest.mark.parametrize(
    "name",
    [b"", b".", b"html", b".html", b"README", b"x.", b"x.no-such", b"\xff.\xff", b"index.html~"],
)
def test_what_nobody_knows_is_only_bytes(name: bytes) -> None:
    assert content_type(name) == b"application/octet-stream"


def test_charset_for_text_and_for_nothing_else() -> None:
    for extension, media_type in _mimetable.TYPES.items():
        has = content_type(b"x." + extension).endswith(b"; charset=utf-8")
        assert has == media_type.startswith(b"text/")


def test_a_neighbour_without_its_coding_is_a_download() -> None:
    """Fetched under its own name, a precompressed file must not look like what is in it."""
    for _, suffix in CODINGS:
        assert not content_type(b"index.html" + suffix).startswith(b"text/")
