"""What outlives a master: the configuration, the listeners, the access log's descriptor.

Taken over from who held it before (a supervisor that is being replaced, or the same one before a
reload) as far as it is wanted still; what is wanted besides is opened. What can fail for a reason
of the system fails here, before anything is given up. Not here: signals, processes.
"""

from __future__ import annotations

import os

from .config import Address, Config
from .errors import StartError
from .handover import Handover
from .inherited import Held
from .journal import Sink
from .listen import Listener, listen


class Holdings:
    """config     as it was read
    listeners  in the order of --bind
    unwanted   inherited ones for which no --bind asks any more
    """

    def __init__(self, config: Config, held: Held, log: int, unwanted: Held | None = None) -> None:
        self.config = config
        self._held = held
        self._log = log
        self._unwanted = unwanted or []

    @property
    def listeners(self) -> list[Listener]:
        return [listener for _, listener in self._held]

    @property
    def held(self) -> Held:
        return self._held

    def handover(self, channel: int, generation: int) -> Handover:
        fds = tuple(one.sock.fileno() for one in self.listeners)
        return Handover(self.config, fds, self._log, channel, generation, os.getpid())

    # Reloading.

    def changed(self, config: Config) -> Holdings:
        """For another configuration. Nothing is taken from this one. StartError."""
        held = listen_on_all(config, self._held)
        try:
            same = config.access_log == self.config.access_log
            log = self._log if same else open_log(config)
        except StartError:
            _close_all_but(held, self._held)
            raise
        return Holdings(config, held, log)

    def close_all_but(self, other: Holdings) -> None:
        _close_all_but(self._held, other._held)
        if self._log not in (other._log, -1):
            os.close(self._log)

    def apply_backlog(self) -> None:
        """Also to what was held before; what systemd has passed has systemd's."""
        for where, listener in self._held:
            if where is not None:
                listener.sock.listen(self.config.backlog)

    def reopen_log(self) -> int:
        """Its descriptor, which keeps its number; -1: there is no file. StartError."""
        if self._log >= 0:
            fd = open_log(self.config)
            os.dup2(fd, self._log, inheritable=False)
            os.close(fd)
        return self._log

    # Being replaced, and replacing.

    def disown(self) -> None:
        """The names of unix sockets are another's now to take away."""
        for listener in self.listeners:
            listener.is_ours = False

    def take_over(self) -> None:
        """What was inherited is ours; before, the one from whom it is might have served on."""
        for _, listener in (*self._held, *self._unwanted):
            listener.is_ours = True
        self.apply_backlog()
        _close_all_but(self._unwanted, [])
        self._unwanted = []

    # Ending.

    def stop_listening(self) -> None:
        for listener in self.listeners:
            listener.close()


def hold(config: Config, inherited: Held) -> Holdings:
    """StartError."""
    log = open_log(config)
    held = listen_on_all(config, inherited)
    return Holdings(config, held, log, [one for one in inherited if one not in held])


def listen_on_all(config: Config, held: Held) -> Held:
    """All or none. What is held already stays as it is, and where systemd has passed listeners,
    those alone. StartError."""
    if any(where is None for where, _ in held):
        return held
    left = list(held)
    found: Held = []
    try:
        for address in config.bind:
            here = next((one for one in left if one[0] == address), None)
            if here:
                left.remove(here)
            found.append(here or (address, _listen(address, config)))
    except StartError:
        _close_all_but(found, held)
        raise
    return found


def _listen(address: Address, config: Config) -> Listener:
    return listen(address, config.backlog, config.socket_mode, config.socket_owner)


def _close_all_but(some: Held, others: Held) -> None:
    kept = [listener for _, listener in others]
    for _, listener in some:
        if listener not in kept:
            listener.close()


def open_log(config: Config) -> int:
    """The descriptor of --access-log's file; -1: there is none. StartError."""
    if config.access_log in ("-", "off"):
        return -1
    try:
        return Sink.open(config.access_log).fd
    except OSError as error:
        raise StartError(
            f"access-log: {config.access_log!r}: {error.strerror}; name a file that can be written"
        ) from None
