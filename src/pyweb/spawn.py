"""Fresh interpreters: a master for a generation, and a supervisor that replaces this one.

A master gets what it needs over a pipe (handover.py); a supervisor is started as this one was, and
inherits the listeners. Not here: when, and what is done about those that were there before.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator

from . import channel as channels
from .channel import Channel
from .errors import StartError
from .handover import Handover
from .inherited import Held, passed_on
from .signals import FOR_THE_SUPERVISOR

# What the fresh interpreter of a master runs. No `site` (-S): it would double what each fork
# copies. So it must be told where the package is; last on the path, for nothing beside it may hide
# a module.
BOOT = (
    "import sys; sys.path.append(sys.argv[1]); from pyweb.generation import main;"
    " sys.exit(main(int(sys.argv[2])))"
)
_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# In the environment of a supervisor that replaces another: where it says that it serves.
READY_FD = "PYWEB_READY_FD"


class Master:
    """A process that was started to serve. `access_log`: the file that it was given."""

    def __init__(self, pid: int, channel: Channel, given: Handover) -> None:
        self.pid = pid
        self.channel = channel
        self.generation = given.generation
        self.access_log = given.config.access_log
        self.started = time.monotonic()


def start_master(handover: Callable[[int, int], Handover], generation: int) -> Master:
    """`handover`: (descriptor of the channel, generation) -> what it needs. StartError."""
    try:
        channel, theirs = channels.pair()
        with theirs:
            given = handover(theirs.fileno(), generation)
            pid = _spawn_master(given, theirs)
    except OSError as error:
        raise _cant(error) from None
    return Master(pid, channel, given)


def _spawn_master(handover: Handover, channel: socket.socket) -> int:
    source, sink = os.pipe()
    inherited = [source, channel.fileno(), *handover.listeners]
    if handover.log >= 0:
        inherited.append(handover.log)
    try:
        with _left_to_heirs(inherited):
            # They would end one that can't ignore them yet, SIGINT with a traceback.
            pid = os.posix_spawn(
                sys.executable, _command(source), os.environ, setsigmask=FOR_THE_SUPERVISOR
            )
    except BaseException:
        os.close(sink)
        raise
    finally:
        os.close(source)
    _write_all(sink, handover.to_bytes())
    return pid


def start_supervisor(held: Held, more: dict[str, str]) -> tuple[int, int]:
    """Its pid, and the descriptor where it says a byte when it serves, or hangs up. StartError."""
    try:
        ready, theirs = os.pipe()
        environ = os.environ | more | passed_on(held) | {READY_FD: str(theirs)}
        command = [sys.executable, *sys.orig_argv[1:]]
        try:
            with _left_to_heirs([theirs, *(one.sock.fileno() for _, one in held)]):
                pid = os.posix_spawn(sys.executable, command, environ, setsigmask=())
        except BaseException:
            os.close(ready)
            raise
        finally:
            os.close(theirs)
    except OSError as error:
        raise _cant(error) from None
    os.set_blocking(ready, False)
    return pid, ready


@contextlib.contextmanager
def _left_to_heirs(fds: list[int]) -> Iterator[None]:
    """Each process inherits what is its own, and nothing that was another's."""
    try:
        for fd in fds:
            os.set_inheritable(fd, True)
        yield
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)


def _cant(error: OSError) -> StartError:
    return StartError(f"can't start a process: {error.strerror}; raise the limit (ulimit)")


def _command(source: int) -> list[str]:
    """As this interpreter was started, as far as it matters."""
    flags = sys.flags
    options = ["-P", "-S", *(["-" + "O" * flags.optimize] if flags.optimize else [])]
    options += ["-E"] * bool(flags.ignore_environment) + ["-s"] * bool(flags.no_user_site)
    options += [f"-W{one}" for one in sys.warnoptions]
    return [sys.executable, *options, "-c", BOOT, _PACKAGE, str(source)]


def _write_all(sink: int, data: bytes) -> None:
    """Into a pipe; a master that has died already is heard of otherwise."""
    try:
        with os.fdopen(sink, "wb") as file:
            file.write(data)
    except BrokenPipeError:
        pass
