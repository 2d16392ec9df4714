"""Other people's servers while they are measured: started on a free port, waited for until they
answer, counted, and ended, with all that they have started.

Not here: which there are and what they are told (peers.py).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import servers
from .load import Target, answer_head
from .peers import Peer, Setting, Start, configuration
from .reports import Void
from .run import Failed, output
from .rungs import NAME, SIZE, Place

# For a server to answer.
_PATIENCE = 30.0
# For its workers to follow it.
_LEAVING = 10.0
_TICK = os.sysconf("SC_CLK_TCK")
# For root's servers that will not serve as root.
_NOBODY = ("www-data", "nobody")


class Guest:
    """A running one. `port`: on 127.0.0.1. `head`: of its answer. `configuration`: as it was told.
    `command`: as it was started."""

    def __init__(self, server: servers.Server, setting: Setting, start: Start) -> None:
        self._server = server
        self._directory, self._site = setting.directory, setting.site
        self.port = setting.port
        self.command = self.as_told(" ".join(start.words))
        self.configuration = self.as_told(start.configuration)
        self.log = setting.directory / start.log
        self.head = b""

    def family(self) -> list[int]:
        """It, first, and all below it that live."""
        return self._server.family()

    def cpu_seconds(self) -> float:
        """User and system time of all its processes that live, and of those that they have waited
        for. A child that nobody waits for is not in it."""
        return sum(_own_cpu(pid) + _childrens_cpu(pid) for pid in self.family())

    def memory(self) -> int:
        """Bytes: its share of all pages (PSS), all processes together."""
        return sum(_pss(pid) for pid in self.family())

    def said(self) -> list[str]:
        """All lines of complaint so far."""
        found = []
        for name in ("stderr.log", "error.log"):
            with contextlib.suppress(OSError):
                found += (self._directory / name).read_text("utf-8", "replace").splitlines()
        return [line.strip() for line in found if line.strip()]

    def as_told(self, text: str) -> str:
        """Without what is only of this run, and of this machine."""
        for path, word in (
            (self._directory, "DIR"),
            (self._site, "SITE"),
            (sys.executable, "python"),
        ):
            text = text.replace(str(path), word)
        return text


def _own_cpu(pid: int) -> float:
    """Seconds. By the scheduler, to the ns, of the threads that live; or, with those that have
    ended, in hundredths rounded down (proc_pid_stat(5)), which of a hundred processes that have
    hardly worked would make nothing."""
    exact = 0
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            exact += int(path.read_text("ascii").split()[0])
    return max(exact / 1e9, sum(_times(pid)[:2]) / _TICK)


def _childrens_cpu(pid: int) -> float:
    return sum(_times(pid)[2:]) / _TICK


def _times(pid: int) -> list[int]:
    """utime, stime, cutime, cstime, in ticks; all 0: it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return [0] * 4
    return [int(word) for word in text.rpartition(")")[2].split()[11:15]]


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


@contextlib.contextmanager
def running(peer: Peer, place: Place, workers: int, uid: int | None = None) -> Iterator[Guest]:
    """Until the end of the block. `uid`: whose its processes are. Failed: it is not installed, does
    not start, or has ended by itself; what it said last."""
    program = peer.find()
    if program is None:
        raise Failed(f"{peer.name} is not installed: {peer.get}")
    # Beside the site, and for any user: a server may have to be another's.
    with tempfile.TemporaryDirectory(prefix="guest-", dir=place.directory) as path:
        directory = Path(path)
        open_to_all(place.directory, place.file.parent)
        directory.chmod(0o777)
        setting = Setting(_free_port(), directory, place.file, workers, _user(uid))
        start = peer.start(program, setting)
        configuration(setting).write_text(start.configuration, "utf-8")
        words = (*_as_user(uid), *start.words)
        process = _spawn(words, dict(start.environ), directory)
        server = servers.Server(process, None)
        server.port = setting.port
        guest = Guest(server, setting, start)
        try:
            guest.head = _wait_until_it_answers(guest, process, peer.name)
            yield guest
        except BaseException:
            server.kill()
            raise
        _stop(server, peer.name)


def _stop(server: servers.Server, name: str) -> None:
    """All of it: a server may end before its workers, which have logs to write. Failed."""
    family = server.family()
    try:
        server.stop()
    except Failed as why:
        raise Failed(f"{name}: {why}") from None
    finally:
        _see_off(family)


def _see_off(pids: list[int]) -> None:
    """Who is still there when patience is over is killed."""
    end = time.monotonic() + _LEAVING
    while left := [pid for pid in pids if lives(pid)]:
        if time.monotonic() > end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)


def lives(pid: int) -> bool:
    """A zombie doesn't."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"


def open_to_all(*directories: Path) -> None:
    """To be read and passed through: a temporary directory is its owner's alone."""
    for directory in directories:
        directory.chmod(0o755)


def _user(uid: int | None) -> str | None:
    """Under root, whom it should become by itself."""
    if uid is not None or os.geteuid() != 0:
        return None
    import pwd

    known = {one.pw_name for one in pwd.getpwall()}
    return next((name for name in _NOBODY if name in known), None)


def _as_user(uid: int | None) -> tuple[str, ...]:
    if uid is None or uid == os.geteuid():
        return ()
    program = shutil.which("setpriv")
    if program is None:
        raise Failed("setpriv is not installed: apt install util-linux")
    # That may do nothing but find the interpreter, which may be root's: the limit of processes
    # spares who has CAP_SYS_ADMIN or CAP_SYS_RESOURCE (capabilities(7)).
    keep = "-all,+dac_override"
    return (program, f"--reuid={uid}", f"--regid={uid}", "--clear-groups", f"--inh-caps={keep}",
            f"--ambient-caps={keep}", f"--bounding-set={keep}", "--")  # fmt: skip


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


def _spawn(words: tuple[str, ...], environ: dict[str, str], directory: Path
           ) -> subprocess.Popen[str]:  # fmt: skip
    with open(directory / "stdout.log", "wb") as out, open(directory / "stderr.log", "wb") as said:
        try:
            return subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=said, text=True,
                env=os.environ | environ, cwd="/",
                process_group=0,  # Apache ends with a signal to its whole group
            )  # fmt: skip
        except OSError as error:
            raise Failed(f"did not start: {words[0]}: {error.strerror}") from None


def _wait_until_it_answers(guest: Guest, process: subprocess.Popen[str], name: str) -> bytes:
    target = Target(guest.port, f"/{NAME}", SIZE)
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            return answer_head(target)
        except Void as why:
            if process.poll() is not None or time.monotonic() > end:
                said = (guest.said() or [str(why)])[-1]
                raise Failed(f"{name} did not start: {said}") from None
        time.sleep(0.02)


def version(peer: Peer) -> str:
    """What it says of itself, in a line."""
    program = peer.find()
    if program is None:
        return "not installed"
    try:
        said = output([program, *peer.version], cpu=None, seconds=_PATIENCE, both=True)
    except Failed as why:
        return str(why)
    return (said.strip().splitlines() or ["unknown"])[0]


Running = contextlib.AbstractContextManager[Guest]
