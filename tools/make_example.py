#!/usr/bin/env python3
"""Make those files of example/ that are too big or too derived to be committed.

    python tools/make_example.py [DIRECTORY]

large.bin      64 MiB for downloads and ranges. Every 4096-byte block begins with its own offset
               as 15 hexadecimal digits and a newline, and goes on with SHAKE-128 of those 16
               bytes: any slice can be checked without the file, and no coding makes it smaller.
NAME.gz        precompressed neighbours. They are made here and not committed: a committed one can
               be older than its original unnoticed, and another zlib may write other bytes. The
               original's modification time is theirs too. No .br: the standard library has none.

Rules: what is right already is left alone; everything else is written under a temporary name and
renamed, so that a server that is running never sees half a file. Nothing else in example/ is
touched. It imports nothing of pyweb and nothing beyond the standard library.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

SITE = Path(__file__).resolve().parent.parent / "example"
BLOCK = 4096
BLOCKS = 64 * 1024 * 1024 // BLOCK
PRECOMPRESSED = ("style.css", "article.html")


def block(number: int) -> bytes:
    """Block `number` of large.bin, a function of nothing else."""
    label = b"%015x\n" % (number * BLOCK)
    return label + hashlib.shake_128(label).digest(BLOCK - len(label))


def large() -> Iterator[bytes]:
    return map(block, range(BLOCKS))


def is_large(path: Path) -> bool:
    """The right size, and a last block of today's recipe: a rename is all or nothing."""
    if not path.is_file() or path.stat().st_size != BLOCKS * BLOCK:
        return False
    with path.open("rb") as file:
        file.seek(-BLOCK, os.SEEK_END)
        return file.read() == block(BLOCKS - 1)


def write(path: Path, chunks: Iterable[bytes], mtime_ns: int | None = None) -> None:
    """All of it under its name, or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.writelines(chunks)
        if mtime_ns is not None:
            os.utime(temporary, ns=(mtime_ns, mtime_ns))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_large(path: Path) -> bool:
    """Whether it had to be made."""
    if is_large(path):
        return False
    write(path, large())
    return True


def make_neighbour(original: Path) -> bool:
    """Whether it had to be made."""
    neighbour = original.with_name(original.name + ".gz")
    wanted = gzip.compress(original.read_bytes(), mtime=0)
    mtime_ns = original.stat().st_mtime_ns
    if (
        neighbour.is_file()
        and neighbour.stat().st_mtime_ns == mtime_ns
        and neighbour.read_bytes() == wanted
    ):
        return False
    write(neighbour, [wanted], mtime_ns)
    return True


def main(site: Path) -> int:
    made = [name + ".gz" for name in PRECOMPRESSED if make_neighbour(site / name)]
    if make_large(site / "large.bin"):
        made.append(f"large.bin ({BLOCKS * BLOCK:,} bytes)")
    print("make_example:", "made " + ", ".join(made) if made else "nothing to do")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else SITE))
