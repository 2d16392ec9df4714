"""Those whom the porter has let in (_fastporter.pyx), and how they become their mode's own.

The porter does in C what the master does for each connection where nothing is to be decided. Who
is not like the others, or stays, is its mode's: then he is one of those that the mode knows by
their pids. Where there is no porter, there are no guests. Not here: who may come in, and what
becomes of those who are the mode's.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from resource import struct_rusage
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from .child import ended_children
from .mode import Routine
from .scoreboard import Slot
from .stamps import NOTHING, Record

if TYPE_CHECKING:
    from ._fastporter import Given, Porter
    from ._fastzygote import Zygote

Child_co = TypeVar("Child_co", covariant=True)


class Own(Protocol[Child_co]):
    """A guest who is the mode's from here on; `began`: monotonic."""

    def __call__(
        self, slot: Slot, peer: str, sock: socket.socket, record: Record, began: float
    ) -> Child_co: ...


class Guests(Generic[Child_co]):
    """`porter`: None: there is none."""

    def __init__(self, porter: Porter | None, own: Own[Child_co]) -> None:
        self._porter = porter
        self._own = own

    # For the mode.

    @property
    def count(self) -> int:
        return self._porter.count if self._porter else 0

    @property
    def served(self) -> int:
        return self._porter.served if self._porter else 0

    @property
    def failed(self) -> int:
        """Those for whom there was no child."""
        return self._porter.failed if self._porter else 0

    @property
    def seen_off(self) -> int:
        """Those whose children have ended well."""
        return self._porter.seen_off if self._porter else 0

    def routine(self, doors: list[int], most: int, *, also_silent: bool) -> Routine | None:
        """Of the porter."""
        if not self._porter or not self._porter.zygote:
            return None
        self._porter.open(doors, most, also_silent)
        return self._porter.do

    def take_in(self, sock: socket.socket, peer: str) -> bool:
        """One that has spoken. True: it is the porter's."""
        if self._porter is None or not self._porter.take_in(sock.fileno(), peer):
            return False
        sock.detach()
        return True

    def came(self) -> list[tuple[int, int, str]]:
        """Whom the porter has accepted, and they need more."""
        return self._porter.take_came() if self._porter else []

    @property
    def reap(self) -> Callable[[], Iterable[tuple[int, int, struct_rusage]]]:
        """Those that have ended and are not seen off."""
        return self._porter.reap if self._porter else ended_children

    def give_up(self, pid: int) -> Child_co | None:
        """The one whose child this is."""
        if self._porter and self._porter.has(pid):
            return self._become(self._porter.give_up(pid))
        return None

    def give_up_failed(self) -> list[Child_co]:
        if not self._porter or not self._porter.failed:
            return []
        return [self._become(one) for one in self._porter.give_up_failed()]

    def give_up_known(self, before: float) -> list[tuple[int, Child_co]]:
        """Those who came before that moment (monotonic), by their pids."""
        if not self._porter:
            return []
        return [(one[1], self._become(one)) for one in self._porter.give_up_known(before)]

    def _become(self, given: Given) -> Child_co:
        _, _, slot, peer, sock, record, began = given
        return self._own(slot, peer, socket.socket(fileno=sock), record or NOTHING, began)

    # For the nursery.

    @property
    def untold(self) -> int:
        return self._porter.untold if self._porter else 0

    def turn_to(self, zygote: Zygote | None) -> None:
        """It forks from here on; None: nobody does."""
        if self._porter:
            self._porter.zygote = zygote

    def told(self, zygote: Zygote, most: int) -> list[tuple[int, int]]:
        """As Zygote.told, of those who are no guests; with spares, of all."""
        return self._porter.told(most) if self._porter else zygote.told(most)

    def give_up_untold(self) -> list[tuple[int, Child_co, float]]:
        """Those whose pids are not known: their tickets, and when they came."""
        if not self._porter or not self._porter.untold:
            return []
        return [(one[0], self._become(one), one[-1]) for one in self._porter.give_up_untold()]
