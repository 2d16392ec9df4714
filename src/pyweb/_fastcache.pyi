from collections.abc import Iterable, Sequence
from mmap import mmap

class Cache:
    def __init__(
        self,
        memory: mmap | bytearray,
        names: Iterable[bytes],
        limits: tuple[int, int, int],
        *,
        writable: bool,
    ) -> None: ...
    def key(self, head: bytes) -> bytes | None: ...
    def decided(self, head: bytes) -> int: ...
    def put(
        self,
        head: bytes,
        decided: int,
        status: int,
        reason: int,
        keeps: bool,
        header: bytes,
        date_at: int,
        offset: int,
        count: int,
        guards: Sequence[tuple[bytes, int, int, int, int, int]],
        body: bytes | None = None,
        directories: Sequence[tuple[bytes, int, int, int, int, int]] = (),
        lasts: bool = False,
    ) -> bool: ...
    def put_kind(
        self,
        head: bytes,
        decided: int,
        keeps: bool,
        header: bytes,
        holes: Sequence[tuple[int, int]],
        directory: bytes,
        absent: Sequence[bytes],
        sends: bool,
    ) -> bool: ...

LARGEST_BODY: int

def size_of(entries: int) -> int: ...
