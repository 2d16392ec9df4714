from collections.abc import Iterable, Sequence
from mmap import mmap

from ._fastcache import Cache

Rest = tuple[int, tuple[bytes, bytes, int, bool, int, int, int, int, float] | None]

class Repeater:
    def __init__(
        self,
        cache: Cache,
        slots: mmap,
        records: mmap | None,
        *,
        root: int,
        log: int,
        log_is_socket: bool,
        lifeline: int,
        wishes: int,
        fresh: float,
        good: float,
        linger: float,
        first: float,
        idle: float,
        keepalive_requests: int,
        flags: int,
        path_flags: int,
        resolve: int,
        escapes: Sequence[bytes],
        silence: float,
        timeout_write: float,
        min_rate: int,
        not_sent: int,
        reasons: tuple[int, int, int, int],
        heard: Iterable[int],
        ends: int,
        parker: int,
        parked: bytes,
        parked_requests: int,
    ) -> None: ...
    def serve(
        self, sock: int, peer: bytes, slot_at: int, requests: int = 0, alone: bool = False
    ) -> Rest | None: ...
