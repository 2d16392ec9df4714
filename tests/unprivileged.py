"""Work done without rights: what root may, a server should not have to."""

from __future__ import annotations

import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

NOBODY = 65534

T = TypeVar("T")


def as_nobody(work: Callable[[], T]) -> T:
    """What `work` gives in a child that has become nobody; here, where we are not root."""
    if os.geteuid():
        return work()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        _child(work, write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    os.waitpid(pid, 0)
    result, failure = pickle.loads(data)
    assert not failure, failure
    return result  # type: ignore[no-any-return]


def _child(work: Callable[[], object], write: int) -> None:
    try:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        data = pickle.dumps((work(), ""))
    except BaseException:
        data = pickle.dumps((None, traceback.format_exc()))
    with os.fdopen(write, "wb") as pipe:
        pipe.write(data)
    os._exit(0)
