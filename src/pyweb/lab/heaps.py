"""Processes to hold the fork model against: interpreters that tell their size and what forks cost.

A script (python -S -m pyweb.lab.heaps), run in a small interpreter with what it shall be: `small`,
nothing more; `master`, as pyweb's master is when it forks; `large-master`, with 50 MB more;
`open-master`, with 200 descriptors more; or a number, so many MB of Python objects. On stdout, as
c/forks.c: a line with its mappings, private pages and descriptors, and for each fork a line, here
with the word `raw` (c/cycles.c) or `python` (os.fork, the child's os._exit, os.waitpid) before the
two times in ns. The two sorts take turns (raw, python, python, raw).

Not here: who runs it, and what is made of the figures (model.py). What is imported here is a part
of what is measured: only what a master imports too.
"""

from __future__ import annotations

import gc
import os
import sys
from time import monotonic_ns
from typing import Any

from .. import procfs

SMALL, MASTER, LARGE, OPEN = "small", "master", "large-master", "open-master"
# What the last two have more.
PLANTED_MB, PLANTED_DESCRIPTORS = 50, 200
# As many as a master in mode fork with one listener holds; a test looks whether it still does.
MASTER_DESCRIPTORS = 20
_MB = 1 << 20
_WARM_UP = 3
# Objects that are made between two looks at how large the heap is: about 0.5 MB.
_STEP = 2500

Cycle = tuple[int, int]


def size() -> tuple[int, int, int]:
    """Mappings, private pages and descriptors of this process.

    The pages that a fork copies the table of: Anonymous in smaps_rollup. Tried too: all resident
    pages of the mappings that have such (a fork copies their tables whole: in every interpreter 3
    pages more), and VmPTE (goes by the table of 512 pages: too coarse below 10 MB).
    """
    pid = os.getpid()
    pages = procfs.memory(pid)[1] // os.sysconf("SC_PAGESIZE")
    return procfs.mappings(pid), pages, len(procfs.descriptors(pid))


def _can_be(what: str) -> bool:
    return what in (SMALL, MASTER, LARGE, OPEN) or (what.isdigit() and int(what) > 0)


def become(what: str) -> object:
    """What must live on while forks are measured."""
    if what == SMALL:
        return None
    if what == MASTER:
        return _become_a_master()
    if what == LARGE:
        return [_become_a_master(), b"x" * (PLANTED_MB * _MB)]
    if what == OPEN:
        return [*_become_a_master(), *(os.dup(2) for _ in range(PLANTED_DESCRIPTORS))]
    return _heap(int(what) * _MB)


def _become_a_master() -> list[int]:
    from .. import generation

    assert generation
    held = []
    while size()[2] < MASTER_DESCRIPTORS:
        held.append(os.dup(2))
    gc.collect()
    gc.freeze()  # as generation does; it matters only to a collection in a child
    return held


def _heap(wanted: int) -> list[object]:
    """Grown until so many bytes more are private."""
    gc.disable()
    end = procfs.memory(os.getpid())[1] + wanted
    heap: list[object] = []
    # A look walks all pages that there are: of a large heap there are fewer looks.
    step = max(_STEP, _STEP * (wanted // (50 * _MB)))
    while procfs.memory(os.getpid())[1] < end:
        first = len(heap)
        heap += [(i, f"object {i}", {i: float(i)}) for i in range(first, first + step)]
    return heap


def python_cycles(count: int) -> list[Cycle]:
    """As cycles.cycles, with os.fork."""
    found = []
    for _ in range(count):
        begin = monotonic_ns()
        pid = os.fork()
        if not pid:
            os._exit(0)
        forked = monotonic_ns()
        os.waitpid(pid, 0)
        found.append((forked - begin, monotonic_ns() - begin))
    return found


def main(words: list[str]) -> None:
    """Directory of the extension `cycles`, what to be, and how many forks of each sort."""
    if len(words) != 3 or not (words[2].isdigit() and int(words[2])) or not _can_be(words[1]):
        sys.exit("usage: heaps DIRECTORY small|master|large-master|open-master|MB COUNT")
    where, what, count = words[0], words[1], int(words[2])
    sys.path.insert(0, where)
    cycles: Any = __import__("cycles")
    del sys.path[0]
    cycles.small_pages()  # as the pages that the model knows (c/forks.c)
    held = become(what)
    cycles.cycles(_WARM_UP)
    python_cycles(_WARM_UP)
    print(*size(), flush=True)
    half = (count + 1) // 2
    found = [("raw", cycles.cycles(half)), ("python", python_cycles(half))]
    found += [("python", python_cycles(half)), ("raw", cycles.cycles(half))]
    del held
    for name, pairs in found:
        for forked, waited in pairs:
            print(name, forked, waited)


if __name__ == "__main__":
    main(sys.argv[1:])
