from collections.abc import Collection

from ._fastserve import Repeater, Rest

def clone_sharing_files() -> int: ...

class Forker:
    def __init__(self, repeater: Repeater, keep: Collection[int]) -> None: ...
    def fork(
        self, sock: int, peer: bytes, slot_at: int, record_at: int, number: int, requests: int
    ) -> int | Rest: ...
