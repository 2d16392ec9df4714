from collections.abc import Sequence
from mmap import mmap

from ._fastserve import Repeater
from ._fastshares import Row
from .handed import Handed

class Lane:
    def __init__(
        self,
        repeater: Repeater,
        slot_at: int,
        poll: int,
        doors: Sequence[int],
        orders: Sequence[int],
        words: memoryview[int],
        notes: mmap,
        row: Row | None,
        *,
        limit: int,
        first: float,
        idle: float,
        requests: int,
        connections: int,
    ) -> None: ...
    def __len__(self) -> int: ...
    def poll(self, patience: float) -> tuple[list[tuple[int, int]], list[Handed]]: ...
    def add(
        self,
        fd: int,
        family: int,
        peer: str,
        requests: int,
        is_watched: bool,
        is_shared: bool,
    ) -> bool: ...
    def late(self) -> list[Handed]: ...
    def release(self) -> list[Handed]: ...
