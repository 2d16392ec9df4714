"""os.fork, an exit at once, and the wait for it, in this process: by what the process holds."""

from __future__ import annotations

import contextlib
import mmap
import os
import resource
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import pytest
from conftest import fork_and_wait, note, tell
from pairs import Work, compare

MB = 1 << 20


@contextlib.contextmanager
def heap(megabytes: int) -> Iterator[None]:
    """Private pages that have been written, of 4 KB each, as those of an allocator are."""
    if not megabytes:
        yield
        return
    with mmap.mmap(-1, megabytes * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory[:: mmap.PAGESIZE] = b"x" * (len(memory) // mmap.PAGESIZE)
        yield


@contextlib.contextmanager
def sockets(count: int) -> Iterator[None]:
    with socket.socket() as sock:
        held = [os.dup(sock.fileno()) for _ in range(count)]
        yield
        for fd in held:
            os.close(fd)


def forks(holding: Callable[[], AbstractContextManager[None]], count: int) -> Work:
    """Seconds for a fork, of so many; to come to hold what it holds is not counted."""

    def measure() -> float:
        with holding():
            begin = time.perf_counter()
            for _ in range(count):
                fork_and_wait()
            return (time.perf_counter() - begin) / count

    return measure


@pytest.mark.benchmark(group="fork")
@pytest.mark.parametrize("megabytes", [0, 50, 100, 400])
def test_heap(benchmark: Any, megabytes: int) -> None:
    """0: an A/A."""
    sides = (forks(partial(heap, size), 10) for size in (0, megabytes))
    found = benchmark.pedantic(compare, args=(*sides, 1, 15), kwargs={"told": True}, rounds=1)
    tell(benchmark, f"fork with {megabytes} MB more / without", found)
    if megabytes:
        note(_each(found, megabytes * MB // mmap.PAGESIZE, "page"))


@pytest.mark.benchmark(group="fork")
@pytest.mark.parametrize("descriptors", [256, 2000])
def test_descriptors(benchmark: Any, descriptors: int) -> None:
    """What a master that parked for itself, or kept copies, would pay for each connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    sides = (forks(partial(sockets, count), 30) for count in (0, descriptors))
    found = benchmark.pedantic(compare, args=(*sides, 1, 31), kwargs={"told": True}, rounds=1)
    tell(benchmark, f"fork with {descriptors} sockets more / without", found)
    note(_each(found, descriptors, "socket"))


def _each(found: dict[str, float], count: int, what: str) -> str:
    more = (found["b_us"] - found["a_us"]) / count
    return f"   {found['a_us']:.0f} us, {found['b_us']:.0f} with them: {more:.3f} us a {what}"
