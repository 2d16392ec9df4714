"""`pyweb status --watch`: the same text, each second anew, and what happened in that second.

The only place that knows rich, which draws it on a terminal; elsewhere one text follows the
other. Ends with Ctrl-C, or when no server is left.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

from .status import Facts, NotFound, look
from .statustext import human, text_of

_SECOND = 1.0


def watch(pid: int | None) -> None:
    """Until Ctrl-C. NotFound: at the start there is none, or rich is not installed."""
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.text import Text
    except ImportError:
        raise NotFound("--watch needs rich: pip install 'pyweb[watch]'") from None
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    frames = _frames(pid)
    first = next(frames)
    console = Console(highlight=False)
    if console.is_terminal:
        with Live(console=console, screen=True, auto_refresh=False) as live:
            _show_all(
                first,
                frames,
                lambda text: live.update(
                    Text(text, no_wrap=True, overflow="ellipsis"), refresh=True
                ),
            )
    else:
        _show_all(first, frames, lambda text: print(text, end="\n\n", flush=True))
    print("no server is left to watch")


def _show_all(first: str, frames: Iterator[str], show: Callable[[str], None]) -> None:
    show(first)
    for text in frames:
        show(text)


def _frames(pid: int | None) -> Iterator[str]:
    """A text each second, until no server is left. NotFound: before the first."""
    before: dict[int, Facts] = {}
    servers = look(pid)
    while servers:
        yield "\n\n".join(text_of(one, _pace(before, one)) for one in servers)
        before = {one["master"]["pid"]: one for one in servers}
        _wait()
        try:
            servers = look(pid)
        except NotFound:
            return


def _wait() -> None:
    """For the next second. KeyboardInterrupt comes from here alone: elsewhere an exception out of
    nothing may find itself where exceptions are ignored, and ^C would be lost."""
    if signal.sigtimedwait((signal.SIGINT,), _SECOND):
        raise KeyboardInterrupt


def _pace(before: dict[int, Facts], server: Facts) -> str:
    """What happened since the last look, for a second."""
    past = before.get(server["master"]["pid"])
    if "unreadable" in server:
        return ""
    if past is None or "unreadable" in past:
        return "now: ..."
    seconds = max(server["uptime_seconds"] - past["uptime_seconds"], 0.001)

    def rate(name: str) -> float:
        return float((server["totals"][name] - past["totals"][name]) / seconds)

    cpu = (server["master"]["cpu_seconds"] - past["master"]["cpu_seconds"]) / seconds
    return (
        f"now: {rate('served_connections'):.0f} connections/s, {rate('requests'):.0f} requests/s,"
        f" {human(round(rate('bytes')))}/s; the master computes {cpu:.0%} of the time"
    )
