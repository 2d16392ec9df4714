#!/usr/bin/env python3
"""Write src/pyweb/_mimetable.py from Debian's media-types, or check that it is current.

    python tools/mimetable.py            write the table
    python tools/mimetable.py --check    exit 1 if the table isn't what would be written
    python tools/mimetable.py --source PATH    read PATH instead of /etc/mime.types

Exit 2: there is no source to read. What lives here: how one type is chosen for each extension,
and the few places where we know better than the source. It imports nothing of pyweb: the table
must be makeable before pyweb can be imported.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = "media-types"
SOURCE = Path("/etc/mime.types")
TARGET = Path(__file__).resolve().parent.parent / "src" / "pyweb" / "_mimetable.py"

# Extension -> (type, why the source doesn't have the last word). Looked up in media-types 10.0.0;
# js, mjs, css, wasm, webmanifest, avif, jxl, woff2 and their like it has right; so not here.
OVERRIDES = {
    # The source has another type, and it harms.
    "rs": ("text/plain", "Rust, far likelier on a disk than the SIP lists of RFC 4826"),
    "rss": ("application/rss+xml", "what feed readers and browsers know; the source says x-rss"),
    "svgz": ("application/gzip", "as image/svg+xml it would need a Content-Encoding; we send none"),
    "ts": ("video/mp2t", "segments of HLS, as in nginx and Apache; the source has Qt Linguist"),
    # The source has the type, but no extension for it or not this one.
    "cur": ("image/vnd.microsoft.icon", "cursors of CSS; the format is that of .ico"),
    "mathml": ("application/mathml+xml", "the source knows only mml"),
    # Registered or in wide use, and lacking in the source.
    "bz2": ("application/x-bzip2", "the source leaves out compressions that an Apache would name"),
    "cjs": ("text/javascript", "a script; with nosniff no browser runs it under another type"),
    "jsonl": ("application/x-ndjson", "the name in use; none is registered"),
    "m4b": ("audio/mp4", "audio books; the source knows only m4a"),
    "map": ("application/json", "source maps are JSON (ECMA-426)"),
    "ndjson": ("application/x-ndjson", "the name in use; none is registered"),
    "parquet": ("application/vnd.apache.parquet", "registered in 2024"),
    "toml": ("application/toml", "registered in 2024"),
    "weba": ("audio/webm", "the audio half of webm"),
    "yaml": ("application/yaml", "RFC 9512"),
    "yml": ("application/yaml", "RFC 9512"),
    # Text that nobody registered a type for: a browser should show it, not download it.
    "cfg": ("text/plain", "shown, not downloaded"),
    "conf": ("text/plain", "shown, not downloaded"),
    "go": ("text/plain", "shown, not downloaded"),
    "ini": ("text/plain", "shown, not downloaded"),
    "log": ("text/plain", "shown, not downloaded"),
    "lua": ("text/plain", "shown, not downloaded"),
    "pyi": ("text/x-python", "as py"),
}

HEAD = '''\
"""Extension -> media type. Generated, do not edit: python tools/mimetable.py

Source: {version}, {source} (in the public domain), and the tool's OVERRIDES.
How one type is chosen where the source has two, and what is left out, is said there.
"""

from __future__ import annotations

TYPES: dict[bytes, bytes] = {{
'''


def pairs(text: str) -> Iterator[tuple[str, str]]:
    """Each (extension, type), in the order of the source: "type ext ext ... # comment"."""
    for line in text.splitlines():
        media_type, *extensions = line.partition("#")[0].split() or [""]
        for extension in extensions:
            yield extension.lower(), media_type


def rank(media_type: str) -> tuple[bool, bool]:
    """Of two types the lower rank wins, and in a tie the one that stands first in the source.

    A registered type before an x- one; then text before the rest, since a browser shows it.
    """
    main, _, sub = media_type.partition("/")
    return sub.startswith("x-"), main != "text"


def choose(found: Iterable[tuple[str, str]]) -> dict[str, str]:
    """One type for each extension. Left out: "gpkg.tar" and the like, since pyweb looks at what
    follows the last dot only, and the source has a type for "tar" that isn't wrong."""
    table: dict[str, str] = {}
    for extension, media_type in found:
        if "." in extension:
            continue
        known = table.get(extension)
        if known is None or rank(media_type) < rank(known):
            table[extension] = media_type
    return table | {extension: media_type for extension, (media_type, _) in OVERRIDES.items()}


def version(source: Path) -> str:
    """The package's version if dpkg knows it; a digest as the name of any other file."""
    if source == SOURCE:
        query = ["dpkg-query", "-W", "-f", "${Package} ${Version}", PACKAGE]
        try:
            return subprocess.run(query, check=True, capture_output=True, text=True).stdout
        except (OSError, subprocess.CalledProcessError):
            pass  # not a Debian
    return "sha256:" + hashlib.sha256(source.read_bytes()).hexdigest()[:16]


def render(source: Path) -> str:
    table = choose(pairs(source.read_text(encoding="utf-8")))
    head = HEAD.format(version=version(source), source=source)
    lines = [f'    b"{extension}": b"{table[extension]}",\n' for extension in sorted(table)]
    return head + "".join(lines) + "}\n"


def arguments() -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if it differs")
    parser.add_argument("--source", type=Path, default=SOURCE, help="default: %(default)s")
    return parser.parse_args()


def main() -> int:
    args = arguments()
    try:
        wanted = render(args.source)
    except OSError as error:
        print(f"mimetable: {args.source}: {error.strerror}; install {PACKAGE}", file=sys.stderr)
        return 2
    if not args.check:
        TARGET.write_text(wanted, encoding="utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text(encoding="utf-8") == wanted:
        return 0
    print(f"mimetable: {TARGET.name} is stale; run python tools/mimetable.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
