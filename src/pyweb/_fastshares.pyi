from collections.abc import Callable, Iterable

class Row:
    def __init__(
        self,
        counters: memoryview[int],
        used: memoryview[int],
        places: Callable[[str], Iterable[int]],
        *,
        row: int,
        row_size: int,
        most: int,
        limit: int,
    ) -> None: ...
