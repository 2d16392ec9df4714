"""What a server says of itself when it starts, and `pyweb status` repeats: what is served where,
by whom, within which limits, with which protections. For people; a line each.

No name of a user is looked up: that would load libraries into the master, which each fork copies.
Not here: where the lines go.
"""

from __future__ import annotations

import os
import resource

from .config import Config
from .docroot import DocRoot
from .pool_mode import keeps

_SYSTEM = (
    ("descriptors", resource.RLIMIT_NOFILE),
    ("processes", getattr(resource, "RLIMIT_NPROC", None)),
    ("bytes of memory", resource.RLIMIT_AS),
)


def introduction(config: Config, root: DocRoot, directory: str, urls: list[str]) -> dict[str, str]:
    """Keys as `pyweb status --json` has them, in their order."""
    return {
        "serving": f"{directory} on {' '.join(urls)}",
        "processes": _processes(config),
        "limits": _limits(config),
        "protections": _protections(config, root),
    }


def _processes(config: Config) -> str:
    how = f"mode {config.mode}, engine {config.engine}, up to {config.max_connections}"
    if config.mode == "prefork":
        how = f"mode prefork, engine {config.engine}, {config.workers} workers"
        if config.min_spare or config.max_spare:
            how += f", up to {config.max_connections}"
    elif config.mode == "thread":
        how = f"mode thread, engine {config.engine}, 1 worker, {config.threads} threads"
    elif config.spares:
        how += f", and {config.spares} spares"
    return f"{how}, as {_user()}; the system allows {_allowed()}"


def _user() -> str:
    uid = os.geteuid()
    return "root" if uid == 0 else f"user {uid}"


def _allowed() -> str:
    """By the limits that bind, ulimit(1)."""
    allowed = []
    for name, number in _SYSTEM:
        soft = resource.RLIM_INFINITY if number is None else resource.getrlimit(number)[0]
        if soft != resource.RLIM_INFINITY:
            allowed.append(f"{soft} {name}")
    return ", ".join(allowed) or "what there is"


def _limits(config: Config) -> str:
    body = _size(config.max_body) if config.max_body else "of any size"
    queue = f"{config.timeout_queue:g}"
    return (
        f"head {_size(config.limit_head)} in {config.timeout_header:g} s,"
        f" body {body} in {config.timeout_body:g} s, answer in {config.timeout_write:g} s,"
        f" more at {config.min_rate} bytes/s; idle {config.timeout_idle:g} s,"
        f" a process within {queue} s, the end within {config.grace:g} s"
    )


def _protections(config: Config, root: DocRoot) -> str:
    walk = "the kernel (openat2)" if root.by_kernel else "steps (no openat2 here)"
    is_kept = config.mode == "fork" or keeps(config)
    crash = "answers 500" if is_kept else "costs its client the answer"
    limit = config.timeout_request
    watchdog = f"ends what hangs over a request for {limit:g} s" if limit else "off"
    share = f"{config.per_client} connections an address" if config.per_client else "none"
    return (
        f"paths stay inside by {walk}, dot files hidden, a crash {crash};"
        f" idle connections {'keep a process' if config.no_parking else 'hold no process'};"
        f" watchdog {watchdog}; share of a client: {share}"
    )


def _size(size: int) -> str:
    """As the option takes it."""
    for unit, factor in (("G", 1 << 30), ("M", 1 << 20), ("K", 1 << 10)):
        if size >= factor and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)
