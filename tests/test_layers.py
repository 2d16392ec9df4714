"""The map in pyweb's docstring is the truth: who may import whom, and that nobody is missing."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import pyweb

# The source, for an installed package has no .pyx.
PACKAGE = Path(__file__).parent.parent / "src" / "pyweb"
LAYER = re.compile(r"^ (\d) (\w+) +(\w+(?:(?:  |\n {17})\w+)*)$", re.MULTILINE)
# In a .pyx: imports of Python modules and of declarations alike.
PYX_IMPORT = re.compile(r"^\s*from\s+(pyweb(?:\.\w+)?|\.\w*)\s+c?import\s+\(?([\w, ]+)", re.M)
PYX_PLAIN = re.compile(r"^\s*c?import\s+(pyweb[\w.]*)", re.M)


def layers() -> list[tuple[int, str, list[str]]]:
    """Number, name and modules of each line of the map."""
    assert pyweb.__doc__
    return [(int(m[1]), m[2], m[3].split()) for m in LAYER.finditer(pyweb.__doc__)]


def order() -> list[str]:
    return [module for _, _, modules in layers() for module in modules]


def modules() -> dict[str, Path]:
    """Each module of the package, by name; __init__ is the map itself."""
    files = [*PACKAGE.glob("*.py"), *PACKAGE.glob("*.pyx")]
    return {path.stem: path for path in files if path.stem != "__init__"}


def test_every_module_is_in_the_map() -> None:
    assert sorted(order()) == sorted(modules())


def test_layers_are_numbered() -> None:
    assert [number for number, _, _ in layers()] == list(range(len(layers())))
    assert len(layers()) == 8


def python_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.level or node.module == "pyweb"):
            assert node.level < 2
            module = node.module if node.level else None
            yield from [module] if module else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("pyweb."):
            yield str(node.module).removeprefix("pyweb.")
        elif isinstance(node, ast.Import):
            assert not [a.name for a in node.names if a.name.split(".")[0] == "pyweb"]


def pyx_imports(path: Path) -> Iterator[str]:
    text = path.read_text("utf-8")
    pxd = path.with_suffix(".pxd")
    text += pxd.read_text("utf-8") if pxd.exists() else ""
    assert not PYX_PLAIN.search(text)
    for match in PYX_IMPORT.finditer(text):
        module = match[1].removeprefix("pyweb").removeprefix(".")
        yield from [module] if module else re.split(r"[,\s]+", match[2].strip(", "))


def imports(path: Path) -> set[str]:
    found = set(pyx_imports(path) if path.suffix == ".pyx" else python_imports(path))
    return found - {"__version__"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_only_from_below(name: str) -> None:
    """From a lower layer, or from an earlier one of the same: so, from an earlier one."""
    known = order()
    below = set(known[: known.index(name)])
    assert imports(modules()[name]) <= below


def test_the_import_finders_find() -> None:
    """A test that finds nothing would never fail."""
    found = {name: imports(path) for name, path in modules().items()}
    assert {"errors", "clock", "message"} <= found["connection"]
    assert {"render", "scoreboard"} <= found["connection"]  # from . import ...
    assert "_fastopen" in found["docroot"]  # inside a function
    assert found["_fastsend"] == {"errors", "_pysend"}
    assert {"errors", "grammar"} <= found["_fastparse"]
    assert found["errors"] == set()
