"""The compiled modules are in one library, `_fast`, and this finds them there.

Each library is five mappings, and a fork copies mappings: a library for each would cost a
connection tens of us. An extension module may be in any library that has its PyInit function
(PEP 489), but the import system looks for one of its own name. Not here: what is compiled
(setup.py).
"""

from __future__ import annotations

# What importlib.machinery is made of; that itself would be more for each fork to copy.
from _frozen_importlib import ModuleSpec
from _frozen_importlib_external import ExtensionFileLoader, PathFinder

NAMES = (
    "_fastanswer", "_fastcache", "_fastclock", "_fastexchange", "_fastfork", "_fastlane",
    "_fastlog", "_fastlook", "_fastopen", "_fastparse", "_fastporter", "_fastsend", "_fastserve",
    "_fastshares", "_faststamps", "_fastzygote",
)  # fmt: skip


class Finder:
    """Of the modules of `package`, in the library that stands in `path`."""

    def __init__(self, package: str, path: list[str]) -> None:
        self._names = {f"{package}.{name}" for name in NAMES}
        self._library = f"{package}._fast"
        self._path = path

    def find_spec(
        self, name: str, _path: object = None, _target: object = None
    ) -> ModuleSpec | None:
        if name not in self._names:
            return None
        library = PathFinder.find_spec(self._library, self._path)
        if library is None or library.origin is None:
            return None  # not built
        loader = ExtensionFileLoader(name, library.origin)
        return ModuleSpec(name, loader, origin=library.origin)
