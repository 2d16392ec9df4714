"""The machine that is measured on: its facts for the report, and which of its CPUs do what.

Not here: what is measured, and how the facts are shown.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from .. import __version__
from ..parse import ENGINES
from . import build

UNKNOWN = "unknown"
_CPUS = Path("/sys/devices/system/cpu")


@contextlib.contextmanager
def pinned(cpu: int | None) -> Iterator[None]:
    """What this thread starts meanwhile runs on that CPU alone; None: where it may now.
    OSError: there is no such CPU for us."""
    before = os.sched_getaffinity(0)
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def server_cpu_and_client_cpu() -> tuple[int | None, int | None]:
    """Of two cores if that can be; (None, None) where we may use only one CPU.

    The server has the last: interrupts come first to the first.
    """
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        return None, None
    server = usable[-1]
    same_core = _numbers(_text(_CPUS / f"cpu{server}/topology/thread_siblings_list"))
    return server, next((cpu for cpu in usable if cpu not in same_core), usable[0])


def launcher(cpu: int | None) -> tuple[str, ...]:
    """What a program is started by that is to have that CPU; None, or no taskset: nothing."""
    program = shutil.which("taskset")
    return (program, "-c", str(cpu)) if program and cpu is not None else ()


def available_memory() -> int:
    """Bytes that can be had without swapping: MemAvailable (proc_meminfo(5))."""
    return _meminfo("MemAvailable")


def facts() -> dict[str, object]:
    """For the report; what the system does not tell is `unknown`."""
    return {
        "cpu": _cpu_model(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory_mb": _meminfo("MemTotal") >> 20,
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "compiler": _compiler(),
        "libc": " ".join(platform.libc_ver()).strip() or UNKNOWN,
        "clocksource": _text(
            Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        ),
        "huge_pages": _huge_pages(),
        "ticks_for_cpu_accounting": _ticks(_kernel_config(), _text(_CPUS / "nohz_full")),
        "pyweb": __version__,
        "engines": list(ENGINES),
    }


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8", "replace").strip() or UNKNOWN
    except OSError:
        return UNKNOWN


def _numbers(ranges: str) -> set[int]:
    """As the kernel writes sets of CPUs: 0-3,8."""
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?:-(\d+))?", ranges):
        found.update(range(int(first), int(last or first) + 1))
    return found


def _meminfo(name: str) -> int:
    found = re.search(rf"^{name}: +(\d+) kB$", _text(Path("/proc/meminfo")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _cpu_model() -> str:
    found = re.search(r"^model name\s*: (.+)$", _text(Path("/proc/cpuinfo")), re.MULTILINE)
    return found[1] if found else platform.machine()


def _compiler() -> str:
    try:
        command = [*build.compiler_command(), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except (build.CannotBuild, OSError):
        return "none"
    return (done.stdout.splitlines() or [UNKNOWN])[0]


def _huge_pages() -> str:
    """The word in brackets: always, madvise or never."""
    found = re.search(r"\[(\w+)\]", _text(Path("/sys/kernel/mm/transparent_hugepage/enabled")))
    return found[1] if found else UNKNOWN


def _kernel_config() -> str:
    with contextlib.suppress(OSError):
        return gzip.decompress(Path("/proc/config.gz").read_bytes()).decode("ascii", "replace")
    return _text(Path(f"/boot/config-{platform.release()}"))


def _ticks(config: str, nohz_full: str) -> str:
    """Is CPU time sampled by ticks (yes, no, unknown)? Then how it is split into user and system
    is an estimate. A kernel that could do without (VIRT_CPU_ACCOUNTING_GEN) does so only on the
    CPUs of nohz_full=."""
    if "CONFIG_TICK_CPU_ACCOUNTING=y" in config:
        return "yes"
    if "CONFIG_VIRT_CPU_ACCOUNTING_NATIVE=y" in config:
        return "no"
    if "CONFIG_VIRT_CPU_ACCOUNTING_GEN=y" in config:
        return "no" if _numbers(nohz_full) else "yes"
    return UNKNOWN
