"""When a run says nothing: requests that failed, answers of another size, connections that were not
opened or not kept, a generator that was late. Each guard is pure, and raises Void.

Not here: what tools say (reports.py), and how they are run (load.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .reports import Disturbed, Report, Request, Void

# Of all that is told of latencies.
SHARES = 0.5, 0.75, 0.9, 0.99
# openloop's lateness may be so much of any percentile that is told.
_LATE = 0.05
# ns: as long as it takes openloop to start one request; while it does, the next is late.
_UNSEEN = 30_000
# wrk rounds what it has read to two decimals of its unit.
ROUNDED = 0.005


def check_failures(report: Report) -> None:
    """ab counts an answer of another length than the first as failed, wrk one that took 2 s."""
    bad = [f"{name} {number}" for name, number in report.failures.items() if number]
    if bad:
        raise Void(f"requests failed: {', '.join(bad)} (of {report.requests})")


def check_requests(report: Report, wanted: int) -> None:
    if report.requests != wanted:
        raise Void(f"{report.requests} requests were answered of {wanted}")


def check_bodies(report: Report, size: int, concurrency: int) -> None:
    """Of ab: what was under way when the last was counted may be in it."""
    if report.length != size:
        raise Void(f"the answer has {report.length} bytes, and not {size}")
    low, high = report.requests * size, (report.requests + concurrency) * size
    if report.body is None or not low <= report.body <= high:
        raise Void(f"{report.body} bytes of content came, and not {low}")


def check_read(report: Report, answer: int, concurrency: int) -> None:
    """Of wrk, which knows nothing of lengths, and takes a 304 for an answer. `answer`: bytes of a
    whole one."""
    low = report.requests * answer * (1 - ROUNDED)
    high = (report.requests + concurrency) * answer * (1 + ROUNDED)
    if report.read is None or not low <= report.read <= high:
        raise Void(f"{report.read} bytes came, and not about {report.requests * answer}")


def check_opened(opened: int, requests: int) -> None:
    """Of a load with a connection for each request. There may be others on the machine."""
    if opened < requests:
        raise Void(f"{opened} connections were opened for {requests} requests: some were kept")


def check_kept(report: Report, opened: int, concurrency: int, stray: int) -> None:
    """Of a load with few connections, and all requests on them."""
    if report.kept is not None and report.kept < report.requests:
        raise Void(f"keep-alive was used for {report.kept} of {report.requests} requests")
    most = concurrency + report.requests // 100 + stray
    if opened > most:
        raise Disturbed(
            f"{opened} connections were opened for {report.requests} requests of {concurrency}"
            " clients: keep-alive was not used, or somebody else is at work here"
        )


def check_each(each: Sequence[Request], size: int) -> None:
    """Of openloop: nobody may be left out, whatever befell him."""
    kinds = {
        "not started, too many were open": [r for r in each if not r.started],
        "refused, broken off or out of time": [r for r in each if r.started and not r.status],
        "with a status other than 200": [r for r in each if r.status not in (0, 200)],
        f"with other than {size} bytes": [r for r in each if r.status == 200 and r.bytes != size],
    }
    bad = [f"{len(found)} {kind}" for kind, found in kinds.items() if found]
    if bad:
        raise Void(f"requests failed: {'; '.join(bad)} (of {len(each)})")


def check_lateness(each: Sequence[Request]) -> None:
    """What openloop's own lateness does to a percentile must not matter.

    The percentile of the lateness itself is no measure: a generator on a busy machine is late by a
    time slice now and then, beside answers that take longer than that."""
    for share in SHARES:
        seen = percentile([r.end - r.scheduled for r in each], share)
        own = percentile([r.end - r.started for r in each], share)
        if seen - own > max(own * _LATE, _UNSEEN):
            raise Disturbed(
                f"openloop could not keep to its schedule: of the latency at {share:.0%},"
                f" {seen / 1e6:.2f} ms, {(seen - own) / 1e6:.2f} ms are its own lateness"
            )


def percentile(values: Sequence[int], share: float) -> float:
    return float(np.quantile(values, share))
