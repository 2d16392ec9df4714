"""A crawler gets back what lies in the directory, byte for byte."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ServeFixture, need

ROOT = Path(__file__).parent.parent
DOC_TREE = Path(os.environ.get("PYWEB_DOC_TREE", "/usr/share/doc/python3.11/html"))


def mirror(url: str, into: Path) -> Path:
    """wget --mirror; gives the directory that it made. Fails on any answer but 200."""
    command = [need("wget"), "--mirror", "--no-host-directories", "--no-verbose",
               "--execute", "robots=off", "--directory-prefix", str(into), url]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return into


def files_below(root: Path) -> set[Path]:
    return {p.relative_to(root) for p in root.rglob("*") if p.is_file()}


def assert_same(root: Path, copy: Path, least: int) -> None:
    """Each file that was fetched is the file of that name; directories' pages are index.html."""
    same = 0
    for path in files_below(copy):
        # wget keeps a query in the name of the file.
        original = root / str(path).split("?", maxsplit=1)[0]
        if original.is_file():
            assert original.read_bytes() == (copy / path).read_bytes(), path
            same += 1
        else:  # a listing, or one of its orders
            assert path.name.startswith("index.html")
    assert same >= least


def test_the_example_site(serve: ServeFixture, engine: str, tmp_path: Path) -> None:
    example = tmp_path / "example"
    shutil.copytree(ROOT / "example", example)
    subprocess.run([sys.executable, ROOT / "tools" / "make_example.py", example], check=True)
    server = serve("--engine", engine, directory=example)
    copy = mirror(server.url, tmp_path / "copy")
    assert_same(example, copy, least=25)
    assert (copy / "large.bin").stat().st_size == 64 << 20


def test_a_real_documentation_tree(serve: ServeFixture, engine: str, tmp_path: Path) -> None:
    if not DOC_TREE.is_dir():
        assert "CI" not in os.environ, f"{DOC_TREE} is missing"
        pytest.skip(f"{DOC_TREE} is missing (Debian's python3.11-doc)")
    tree = tmp_path / "doc"
    # The package's links point at other packages' files; those that are missing are left out.
    shutil.copytree(DOC_TREE, tree, symlinks=False, ignore_dangling_symlinks=True)
    server = serve("--engine", engine, directory=tree)
    copy = tmp_path / "copy"
    command = [need("wget"), "--mirror", "--no-host-directories", "--no-verbose",
               "--directory-prefix", str(copy), server.url]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode in (0, 8), done.stderr[-3000:]  # 8: a link of the tree is broken
    assert_same(tree, copy, least=400)
    refused = {line.split('"')[2].split()[0] for line in server.log()} - {"200", "301", "304"}
    assert refused <= {"404"}
    missing = [line.split('"')[1].split()[1] for line in server.log() if '" 404 ' in line]
    assert [m for m in missing if (tree / m.lstrip("/").split("?")[0]).exists()] == []
