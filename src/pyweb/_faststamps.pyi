from ._fastserve import Repeater
from .stamps import NoStamps, Stamps

class Stamper:
    measures: bool
    def __init__(self, repeater: Repeater, clock: Stamps | NoStamps) -> None: ...
    def waits(self) -> None: ...
