"""Loads on a running server, from outside: ab, wrk, and our own open loop; each run is guarded.

A run in which a request failed, an answer was not the one that is expected, connections were not
opened (or were, where they should have been kept) is no measurement: it raises `Void`, and there is
no figure that somebody could use. Comparisons of servers have been published in which half of the
requests had failed.

ab and wrk are closed loops: each of their clients waits for its answer before it asks again. They
say how much a server can do, at saturation. How long a client waits is asked by openloop, which
starts its requests by a schedule (c/openloop.c says why that matters).

Not here: what the tools say (reports.py), what makes a run void (guards.py), which servers run,
and how often a void run is tried again (the caller says so).
"""

from __future__ import annotations

import math
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from . import tools
from .guards import (
    ROUNDED,
    SHARES,
    check_bodies,
    check_each,
    check_failures,
    check_kept,
    check_lateness,
    check_opened,
    check_read,
    check_requests,
    percentile,
)
from .reports import Report, Request, Void, last_line, parse_ab, parse_openloop, parse_wrk

_SPREAD = Path(__file__).parent / "conf" / "spread.lua"
# A tool that does not end is ended.
_TOO_LONG = 120.0
# Connections that others open on this machine meanwhile, beyond a hundredth of the requests.
STRAY = 20
# TIME-WAIT, and the timers' grain (s); how many of their ends are no matter.
_TIME_WAIT, _FEW_WAITING = 70.0, 500
# Bytes/s of all clients together, where files are large.
_SLOW = 200e6
# Of requests, where time is the limit; ab has memory for each.
_NO_END = 1_000_000
# How often `insist` tries.
_TRIES = 3

R = TypeVar("R")


class Missing(Exception):
    """The tool is not installed; the text is that of tools.missing."""


@dataclass(frozen=True)
class Target:
    """Who is asked for what.

    port      on 127.0.0.1
    path      of a file
    size      bytes of its content: another length breaks a guard
    launcher  what the tools are started by (("taskset", "-c", "1")); it comes to them by exec
    piece     the content is these bytes of the file, first and last; None: all
    files     not `path`, but one of so many by chance, as rungs.Place has them; wrk alone can;
              0: `path`
    """

    port: int
    path: str
    size: int
    launcher: tuple[str, ...] = ()
    piece: tuple[int, int] | None = None
    files: int = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """Of a request."""
        return (f"Range: bytes={self.piece[0]}-{self.piece[1]}",) if self.piece else ()

    @property
    def status(self) -> str:
        """That is expected."""
        return "206" if self.piece else "200"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.path}"


@dataclass(frozen=True)
class Run:
    """A run that has passed its guards.

    name      of the load
    requests  answered, all of them well
    seconds   it took
    rate      requests/s
    failed    0: else it would be void
    opened    connections, as the kernel counted them for the whole machine
    kept      requests on connections that had been kept alive; None: the tool does not say
    latency   seconds by share (0.5: the median), where the tool tells
    mean      seconds, as ab has it in its row `Total`; None: the tool does not say
    """

    name: str
    requests: int
    seconds: float
    rate: float
    failed: int
    opened: int
    kept: int | None
    latency: Mapping[float, float]
    mean: float | None = field(default=None, kw_only=True)


@dataclass(frozen=True)
class OpenRun(Run):
    """latency is that from the scheduled start to the last byte.

    late      by how many seconds openloop was late to start: 99 of 100 by less
    latest    the worst
    each      request, in the order of the schedule
    """

    late: float
    latest: float
    each: tuple[Request, ...]


def passive_opens() -> int:
    """Connections that were opened to whoever listens in this network namespace, ever
    (RFC 4022: tcpPassiveOpens)."""
    names, values = [
        line.split() for line in Path("/proc/net/snmp").read_text("ascii").splitlines()
        if line.startswith("Tcp:")
    ]  # fmt: skip
    return int(values[names.index("PassiveOpens")])


def waiting() -> int:
    """Ends of connections in TIME-WAIT, in this network namespace (proc_net(5), sockstat)."""
    text = Path("/proc/net/sockstat").read_text("ascii")
    found = re.search(r"^TCP:.* tw (\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def await_rest() -> None:
    """Until they are few: those of seconds end at once, in a timer, for ms that an open loop
    would be late by. A minute at most, so long they last."""
    until = time.monotonic() + _TIME_WAIT
    while waiting() > _FEW_WAITING and time.monotonic() < until:
        time.sleep(1)


def _run(command: Sequence[str], target: Target) -> tuple[str, int]:
    """Its output, and how many connections were opened meanwhile."""
    before = passive_opens()
    try:
        done = subprocess.run(
            [*target.launcher, *command],
            capture_output=True, text=True, timeout=_TOO_LONG, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Void(f"{Path(command[0]).name} did not end within {_TOO_LONG:g} s") from None
    if done.returncode:
        name = Path(command[0]).name
        raise Void(f"{name} ended with {done.returncode}: {last_line(done.stderr or done.stdout)}")
    return done.stdout, passive_opens() - before


def _tool(name: str) -> str:
    if path := shutil.which(name):
        return path
    raise Missing(*tools.missing([name]))


def _fields(target: Target) -> list[str]:
    """As ab and wrk are told them, and then where."""
    return [word for one in target.fields for word in ("-H", one)] + [target.url]


def answer_size(target: Target, *, closing: bool) -> int:
    """Bytes of a whole answer, head and all, of which we have looked at one. Void: it is none that
    is expected."""
    return len(answer_head(target, closing=closing)) + 4 + target.size


def answer_head(target: Target, *, closing: bool = True) -> bytes:
    """Of one that was looked at, without the empty line. Void: as of `answer`."""
    return answer(target, closing=closing)[0]


def answer(target: Target, *, closing: bool = True) -> tuple[bytes, bytes]:
    """Head, without the empty line, and content. Void: it is none that is expected, or has less
    content than it says."""
    connection = "Connection: close\r\n" if closing else ""
    fields = "".join(f"{one}\r\n" for one in target.fields) + connection
    request = f"GET {target.path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}\r\n".encode()
    try:
        with socket.create_connection(("127.0.0.1", target.port), 10) as sock:
            sock.sendall(request)
            return _take_answer(sock, target)
    except OSError as error:
        raise Void(f"{target.url}: {error.strerror or error}") from None


def _take_answer(sock: socket.socket, target: Target) -> tuple[bytes, bytes]:
    data = bytearray()  # bytes that are added to are copied each time: of 1 GB that is terabytes
    while b"\r\n\r\n" not in data:
        _more(sock, target, data)
    head, _, content = data.partition(b"\r\n\r\n")
    status = bytes(head).split(b" ", 2)[1].decode("latin-1")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if status != target.status or length is None or int(length[1]) != target.size:
        told = length[1].decode() if length else "an unknown number of"
        raise Void(
            f"{target.url}: status {status}, {told} bytes, and not {target.status}, {target.size}"
        )
    while len(content) < target.size:
        _more(sock, target, content)
    return bytes(head), bytes(content)


def _more(sock: socket.socket, target: Target, data: bytearray) -> None:
    """One piece."""
    piece = sock.recv(1 << 20)
    if not piece:
        raise Void(f"{target.url}: no whole answer")
    data += piece


def _passed(name: str, report: Report, opened: int) -> Run:
    return Run(
        name, report.requests, report.seconds, report.rate, sum(report.failures.values()),
        opened, report.kept, report.latency, mean=report.mean,
    )  # fmt: skip


def _ab(target: Target, requests: int, concurrency: int, *options: str) -> tuple[Report, int]:
    numbers = ["-n", str(requests), "-c", str(concurrency)]
    text, opened = _run([_tool("ab"), "-q", *options, *numbers, *_fields(target)], target)
    report = parse_ab(text)
    check_failures(report)
    check_requests(report, requests)
    check_bodies(report, target.size, concurrency)
    return report, opened


def ab(target: Target, *, requests: int = 2000, concurrency: int = 50) -> Run:
    """A connection for each request. Void, Missing."""
    report, opened = _ab(target, requests, concurrency)
    check_opened(opened, requests)
    return _passed("ab", report, opened)


def ab_for(
    target: Target, *, seconds: float, concurrency: int = 50, rate: float | None = None
) -> Run:
    """As ab, for so long, however many that are. ab counts whole seconds: less than one needs the
    `rate` that is expected (requests/s), without which it is one. Void, Missing."""
    if seconds < 1 and rate is not None:
        requests = max(2 * concurrency, round(rate * seconds))
        return ab(target, requests=requests, concurrency=concurrency)
    limits = ["-t", str(math.ceil(seconds)), "-n", str(_NO_END), "-c", str(concurrency)]
    text, opened = _run([_tool("ab"), "-q", *limits, *_fields(target)], target)
    report = parse_ab(text)
    check_failures(report)
    check_bodies(report, target.size, concurrency)
    check_opened(opened, report.requests)
    return _passed("ab", report, opened)


def ab_kept(
    target: Target, *, requests: int = 10000, concurrency: int = 50, stray: int = STRAY
) -> Run:
    """Connections that are kept. `stray`: how many of other people's are put up with.
    Void, Missing."""
    report, opened = _ab(target, requests, concurrency, "-k")
    check_kept(report, opened, concurrency, stray)
    return _passed("ab -k", report, opened)


def patience(size: int, concurrency: int) -> int:
    """Seconds for an answer, beyond which it has failed: wrk's own 2, or what all of them take at
    a slow pace."""
    return max(2, math.ceil(size * concurrency / _SLOW))


def _wrk(
    target: Target, seconds: float, concurrency: int, *, closing: bool
) -> tuple[Report, int, int]:
    """What it says, how many connections were opened, and the bytes of an answer."""
    # One thread: with more, wrk takes CPUs that the server could use.
    command = [_tool("wrk"), "-t", "1", "-c", str(concurrency), "--latency"]
    command += ["--timeout", f"{patience(target.size, concurrency)}s"]
    command += ["-d", str(math.ceil(seconds))]
    if seconds < 1:  # of which it knows no part; at SIGINT it tells what it has
        command = [_tool("timeout"), "--preserve-status", "-s", "INT", str(seconds), *command]
    if closing:
        command += ["-H", "Connection: close"]
    answer = answer_size(target, closing=closing)
    spread = ["-s", str(_SPREAD)] if target.files else []
    files = ["--", str(target.files)] if target.files else []
    text, opened = _run([*command, *spread, *_fields(target), *files], target)
    report = parse_wrk(text)
    check_failures(report)
    if not report.requests:
        raise Void("no request was answered")
    return report, opened, answer


def with_what_is_under_way(report: Report, answer: int, concurrency: int) -> Report:
    """The rate of what has come, in answers: at the end each client has a part of one, which is
    much where they have few. Of many it is less than the two decimals that wrk gives."""
    if report.read is None or concurrency < report.requests * ROUNDED:
        return report
    return replace(report, rate=report.read / answer / report.seconds)


def wrk(target: Target, *, seconds: float = 1, concurrency: int = 50, stray: int = STRAY) -> Run:
    """Connections that are kept. Void, Missing."""
    report, opened, answer = _wrk(target, seconds, concurrency, closing=False)
    check_kept(report, opened, concurrency, stray)
    check_read(report, answer, concurrency)
    report = with_what_is_under_way(report, answer, concurrency)
    return _passed("wrk", report, opened)


def wrk_closing(target: Target, *, seconds: float = 1, concurrency: int = 50) -> Run:
    """A connection for each request. Void, Missing."""
    report, opened, answer = _wrk(target, seconds, concurrency, closing=True)
    check_opened(opened, report.requests)
    check_read(report, answer, concurrency)
    report = with_what_is_under_way(report, answer, concurrency)
    return _passed("wrk, closing", report, opened)


def openloop(
    target: Target,
    program: Path,
    *,
    rate: float,
    count: int,
    seed: int | None = 1,
    most_open: int = 1000,
) -> OpenRun:
    """`count` requests, `rate` of them a second, a connection for each. `program`: c/openloop.c,
    built. seed None: at even distances, else as of many independent clients. Void."""
    numbers = [str(target.size), f"{rate:.6g}", str(count), "even" if seed is None else str(seed)]
    command = [str(program), str(target.port), target.path, *numbers, str(most_open)]
    text, opened = _run(command, target)
    each = parse_openloop(text)
    if len(each) != count:
        raise Void(f"openloop tells of {len(each)} requests, and not of {count}")
    check_each(each, target.size)
    check_opened(opened, count)
    check_lateness(each)
    return open_run(each, opened)


def open_run(each: Sequence[Request], opened: int) -> OpenRun:
    """In figures."""
    seconds = (max(r.end for r in each) - each[0].scheduled) / 1e9
    late = [r.started - r.scheduled for r in each]
    took = [r.end - r.scheduled for r in each]
    return OpenRun(
        name="openloop",
        requests=len(each),
        seconds=seconds,
        rate=len(each) / seconds,
        failed=0,
        opened=opened,
        kept=0,
        latency={share: percentile(took, share) / 1e9 for share in SHARES},
        late=percentile(late, 0.99) / 1e9,
        latest=max(late) / 1e9,
        each=tuple(each),
    )


def saturation(target: Target, *, seconds: float = 2, concurrency: int = 50) -> Run:
    """As many requests as the server can answer, a connection for each: by wrk, and where there is
    none by ab. Void, Missing."""
    if shutil.which("wrk"):
        return wrk_closing(target, seconds=seconds, concurrency=concurrency)
    return ab(target, concurrency=concurrency)


def latency_at(
    fraction: float,
    saturated: Run,
    target: Target,
    program: Path,
    *,
    seconds: float = 5.0,
    seed: int = 1,
) -> OpenRun:
    """Of a server that has so much of the load to carry that it can. Beyond 0.9 the queue, and not
    the server, is measured: it grows for as long as the run lasts. Void.

    ValueError: a fraction that is none."""
    if not 0 < fraction < 1:
        raise ValueError(f"a fraction of the load that saturates: between 0 and 1, not {fraction}")
    rate = fraction * saturated.rate
    return openloop(target, program, rate=rate, count=max(1, round(rate * seconds)), seed=seed)


def insist(run: Callable[[], R], thrown_out: list[str]) -> R:
    """A run, and up to two more where it is void; why goes into `thrown_out`, for the report. The
    last Void is the caller's."""
    for _ in range(_TRIES - 1):
        try:
            return run()
        except Void as why:
            thrown_out.append(str(why))
    return run()
