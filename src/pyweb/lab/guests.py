"""Other people's servers while they are measured: started on a free port, waited for until they
answer, counted, and ended, with all that they have started.

Not here: which there are and what they are told (peers.py).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from . import servers, usage
from .load import Target, answer
from .peers import FILES, Peer, Setting, Start, configuration
from .reports import Void
from .run import Failed, output
from .rungs import NAME, Place

# For a server to answer.
_PATIENCE = 30.0
# For its workers to follow it.
_LEAVING = 10.0
# At rest: so long nothing is worked; and for how long that is waited for.
_REST, _RESTLESS = 0.1, 5.0
# Nothing: CPU seconds of so long a rest that a server may take who only looks at his timers.
_IDLE = 0.001
# For root's servers that will not serve as root.
_NOBODY = ("www-data", "nobody")


class Guest:
    """A running one. `port`: on 127.0.0.1. `head`: of its answer. `configuration`: as it was told.
    `command`: as it was started."""

    def __init__(self, server: servers.Server, setting: Setting, start: Start) -> None:
        self._server = server
        self._directory, self._file = setting.directory, setting.file
        self.port = setting.port
        self.command = self.as_told(" ".join(start.words))
        self.configuration = self.as_told(start.configuration)
        self.log = setting.directory / start.log
        self.head = b""

    def family(self) -> list[int]:
        """It, first, and all below it that live."""
        return self._server.family()

    def cpu_seconds(self) -> float:
        """See usage.cpu_seconds."""
        return usage.cpu_seconds(self.family())

    def memory(self) -> int | None:
        """Bytes; see usage.memory."""
        return usage.memory(self.family())

    def wait_until_it_answers(self) -> None:
        """And until it has done what it does when it starts. Failed: in time it doesn't, or not
        with the file."""
        target = Target(self.port, f"/{NAME}", self._file.stat().st_size)
        end = time.monotonic() + _PATIENCE
        while not self.head:
            try:
                self.head, content = answer(target)
            except Void as why:
                if not usage.lives(self._server.pid) or time.monotonic() > end:
                    raise Failed(f"did not start: {(self.said() or [str(why)])[-1]}") from None
                time.sleep(0.02)
            else:
                if content != self._file.read_bytes():
                    raise Failed("answers with other bytes than those of the file")
        end = time.monotonic() + _RESTLESS
        before, now = -1.0, self.cpu_seconds()
        while now - before > _IDLE and time.monotonic() < end:
            time.sleep(_REST)
            before, now = now, self.cpu_seconds()

    def stop(self) -> None:
        """All of it: a server may end before its workers, which have logs to write. Failed: it had
        ended by itself, or had to be killed."""
        family = self.family()
        try:
            self._server.stop()
        finally:
            self._see_off(family)

    def kill(self) -> None:
        self._server.kill()
        self._see_off([])

    def _see_off(self, pids: list[int]) -> None:
        """Who is still there when patience is over is killed; so is who is left of its group."""
        end = time.monotonic() + _LEAVING
        while any(usage.lives(pid) for pid in pids) and time.monotonic() < end:
            time.sleep(0.01)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._server.pid, signal.SIGKILL)

    def said(self) -> list[str]:
        """All lines of complaint so far."""
        found = []
        for name in ("stderr.log", "error.log"):
            with contextlib.suppress(OSError):
                found += (self._directory / name).read_text("utf-8", "replace").splitlines()
        return [line.strip() for line in found if line.strip()]

    def as_told(self, text: str) -> str:
        """Without what is only of this run, and of this machine."""
        ours = {
            str(self._directory): "DIR",
            str(self._file.parent): "SITE",
            str(FILES): "CONF",
            sys.executable: "python",
            str(Path(sys.executable).parent) + "/": "",
            sys.prefix: "PREFIX",
            str(self.port): "PORT",
        }
        for path in sorted(ours, key=len, reverse=True):
            text = text.replace(path, ours[path])
        return text


@contextlib.contextmanager
def running(
    peer: Peer, place: Place, workers: int, uid: int | None = None, *, logs: bool = True
) -> Iterator[Guest]:
    """Until the end of the block. `uid`: whose its processes are. `logs`: see peers.Setting.
    Failed: it is not installed, does not start, or has ended by itself; what it said last."""
    program = peer.find()
    if program is None:
        raise Failed(peer.missing)
    if not logs and not peer.may_be_silent:
        raise Failed(f"{peer.name}: how its log is turned off is not known here; leave it out")
    with tempfile.TemporaryDirectory(prefix="guest-", dir=place.directory) as path:
        # Its processes may be another user's.
        for directory in (place.directory, place.file.parent):
            directory.chmod(0o755)
        port = _free_port()
        setting = Setting(port, Path(path), place.file, workers, _user(uid), logs=logs)
        _give(setting, uid)
        guest = _start(peer, program, setting, uid)
        try:
            guest.wait_until_it_answers()
            yield guest
        except BaseException as error:
            guest.kill()
            if isinstance(error, Failed):
                raise Failed(f"{peer.name}: {guest.as_told(str(error))}") from None
            raise
        try:
            guest.stop()
        except Failed as why:
            raise Failed(f"{peer.name}: {guest.as_told(str(why))}") from None


def _give(setting: Setting, uid: int | None) -> None:
    """Its directory to whoever it will be; to nobody else."""
    owner = uid
    if setting.user is not None:
        owner = pwd.getpwnam(setting.user).pw_uid
    setting.directory.chmod(0o755)
    if owner is not None and os.geteuid() == 0:
        os.chown(setting.directory, owner, -1)


def _start(peer: Peer, program: str, setting: Setting, uid: int | None) -> Guest:
    start = peer.start(program, setting)
    configuration(setting).write_text(start.configuration, "utf-8")
    words = (*_as_user(uid), *start.words)
    server = None
    try:
        with servers.undisturbed():
            server = servers.Server(_spawn(words, dict(start.environ), setting.directory), None)
        server.port = setting.port
        return Guest(server, setting, start)
    except BaseException:  # ^C is raised when the block has ended, and nobody else knows of it yet
        if server:
            server.kill()
        raise


def _user(uid: int | None) -> str | None:
    """Under root, whom it should become by itself."""
    if uid is not None or os.geteuid() != 0:
        return None
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
