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


def lab_order() -> list[str]:
    """Of the laboratory's own map, whose layers have no numbers."""
    from pyweb import lab

    assert lab.__doc__
    lines = re.findall(r"^ \w+  +(\w+(?:  \w+)*)$", lab.__doc__, re.MULTILINE)
    return [module for line in lines for module in line.split()]


def lab_modules() -> dict[str, Path]:
    found = {path.stem: path for path in (PACKAGE / "lab").glob("*.py")}
    return {name: path for name, path in found.items() if name != "__init__"}


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


def lab_imports(path: Path) -> set[str]:
    """Of its own modules."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {str(node.module)} if node.module else {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level in (0, 2)
            assert not str(node.module).startswith("pyweb.lab")
    return found


def imports(path: Path) -> set[str]:
    found = set(pyx_imports(path) if path.suffix == ".pyx" else python_imports(path))
    return found - {"__version__"}


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_only_from_below(name: str) -> None:
    """From a lower layer, or from an earlier one of the same: so, from an earlier one."""
    known = order()
    below = set(known[: known.index(name)])
    assert imports(modules()[name]) <= below


def test_the_map_of_the_laboratory_is_whole() -> None:
    assert sorted(lab_order()) == sorted(lab_modules())


@pytest.mark.parametrize("name", sorted(lab_modules()))
def test_the_laboratory_imports_from_below(name: str) -> None:
    """From pyweb, and from what stands before it in its own map."""
    known = lab_order()
    below = set(known[: known.index(name)])
    assert lab_imports(lab_modules()[name]) <= below


@pytest.mark.parametrize("name", sorted(modules()))
def test_nobody_imports_the_laboratory(name: str) -> None:
    assert "lab" not in {one.split(".")[0] for one in imports(modules()[name])}


def test_the_import_finders_find() -> None:
    """A test that finds nothing would never fail."""
    found = {name: imports(path) for name, path in modules().items()}
    assert {"errors", "clock", "message"} <= found["connection"]
    assert {"render", "scoreboard"} <= found["connection"]  # from . import ...
    assert "_fastopen" in found["docroot"]  # inside a function
    assert found["_fastsend"] == {"errors", "_pysend"}
    assert {"errors", "grammar"} <= found["_fastparse"]
    assert found["errors"] == set()
