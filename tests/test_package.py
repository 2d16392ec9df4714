"""What a user installs: the sdist, the wheel made from it, the pure wheel, and `pip install .`."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyweb.parse import ENGINES

ROOT = Path(__file__).parent.parent
compiles = pytest.mark.skipif(
    "cython" not in ENGINES and "CI" not in os.environ, reason="no C extension could be built here"
)


def run(*command: object, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as git would clone it: nothing that a build left behind."""
    copy = tmp_path_factory.mktemp("source")
    listed = run("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z")
    for name in listed.split("\0"):
        if name and (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    return copy


@pytest.fixture(scope="module")
def sdist(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "build", "--sdist", "--outdir", out, source)
    return next(out.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    into = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        # Debian's 3.11.2 has no filters yet; the archive is our own.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(into, **safe)
    return next(into.iterdir())


def build_wheel(unpacked: Path, out: Path, **environment: str) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, unpacked, **environment)
    return next(out.glob("*.whl"))


# Reference programs, built where they are run.
LAB = {path.name for path in (ROOT / "src" / "pyweb" / "lab" / "c").iterdir()}


def names_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {Path(n).name for n in archive.namelist() if n.startswith("pyweb/")}


def try_out(wheel: Path, where: Path) -> Iterator[str]:
    """Install it into an empty environment with nothing else; then `pyweb --version`."""
    venv.create(where, with_pip=True)
    python = where / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-index", wheel)
    yield run(where / "bin" / "pyweb", "--version", cwd=where)
    yield run(python, "-W", "error", "-m", "pyweb", "--check-config", cwd=where)


def test_sdist_holds_what_a_build_needs(unpacked: Path) -> None:
    for name in ("src/pyweb/_fastparse.pyx", "src/pyweb/_fastparse.pxd", "LICENSE", "README.md",
                 "tests/cases.py", "example/index.html", "src/pyweb/py.typed",
                 "systemd/pyweb.service", "systemd/pyweb.socket"):  # fmt: skip
        assert (unpacked / name).is_file(), name
    # What is generated is not in it.
    ours = [one for one in unpacked.rglob("*.c") if one.parent.name != "c"]  # the laboratory's
    assert [one.name for one in ours] == ["octets.c"]
    assert not (unpacked / "example" / "large.bin").exists()


@compiles
def test_wheel_from_the_sdist(unpacked: Path, tmp_path: Path) -> None:
    wheel = build_wheel(unpacked, tmp_path / "wheel")
    names = names_in(wheel)
    assert {"py.typed", "_fastparse.pyi", "cli.py"} <= names
    assert sum(n.endswith(".so") for n in names) == 1
    assert not [n for n in names - LAB if n.endswith((".c", ".pyx", ".pxd"))]
    assert names > LAB
    version, check = try_out(wheel, tmp_path / "venv")
    assert "engine cython" in version
    assert check == "the configuration is good\n"


def test_pure_wheel(unpacked: Path, tmp_path: Path) -> None:
    wheel = build_wheel(unpacked, tmp_path / "wheel", PYWEB_PURE="1")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert {"report.html", "report.css", "report.js"} <= names_in(wheel)
    assert not [n for n in names_in(wheel) - LAB if n.endswith((".so", ".c", ".pyx", ".pxd"))]
    version, check = try_out(wheel, tmp_path / "venv")
    assert "engine python" in version
    assert check == "the configuration is good\n"
    refused = subprocess.run(
        [tmp_path / "venv" / "bin" / "pyweb", "--engine", "cython"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert refused.returncode == 2
    assert "C compiler" in refused.stderr


@compiles
def test_pip_install_dot(source: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    run(tmp_path / "venv" / "bin" / "pip", "install", "--quiet", ".", cwd=source)
    version = run(tmp_path / "venv" / "bin" / "pyweb", "--version", cwd=tmp_path)
    assert "engine cython" in version
