"""Planted costs are found where they belong. Timed, so not of `make test`: `make lab-test`.

Each plant is at least ten times what the laboratory's figures vary by here: 1 ms of sleep while a
head is parsed, 50 MB more that each fork copies page tables for, 200 descriptors more.
"""

from __future__ import annotations

SLEEP = "import time; from pyweb import parse; _f = parse.Parser.parse; " \
        "parse.Parser.parse = lambda *a: (time.sleep(0.001), _f(*a))[1]"  # fmt: skip
HEAP = "_planted = b'x' * (50 << 20)"
DESCRIPTORS = "import os; _planted = [os.dup(2) for _ in range(200)]"
