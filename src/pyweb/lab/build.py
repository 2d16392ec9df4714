"""The reference programs in C are built by the laboratory, on the machine that it measures.

They know the words of a stamps record from stamps.py: a header with their numbers is generated,
so that nobody numbers them twice. Not here: what the programs do (c/*.c), who runs them.
"""

from __future__ import annotations

import importlib.machinery
import shutil
import subprocess
import sysconfig
from pathlib import Path

from .. import stamps

SOURCES = Path(__file__).parent / "c"
_SHARED = SOURCES.parent.parent  # heap.h, which the server has too
# As setup.py builds the extensions; -z now: a child must not pay for lazy binding.
_FLAGS = ["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
_LINK = ["-Wl,-z,now,-z,relro"]


class CannotBuild(Exception):
    """One line that says what is missing, or what the compiler said."""


class Programs:
    """Built when they are first wanted, into `directory`; extension modules for the interpreter
    whose headers are in `include`, with its `suffix`: this one."""

    def __init__(self, directory: Path, *, include: str = "", suffix: str = "") -> None:
        self._directory = directory
        self._include = include or sysconfig.get_path("include")
        self._suffix = suffix or importlib.machinery.EXTENSION_SUFFIXES[0]
        self._built: dict[str, Path] = {}

    def program(self, name: str, *, static: bool = False) -> Path:
        """c/NAME.c as a program. CannotBuild."""
        flags = ["-static"] if static else []
        return self._once(name + "-static" * static, name, flags)

    def extension(self, name: str) -> Path:
        """c/NAME.c as an extension module of the interpreter. CannotBuild."""
        if not (Path(self._include) / "Python.h").exists():
            raise CannotBuild(f"no Python.h in {self._include}: apt install python3-dev")
        flags = ["-shared", "-fPIC", f"-I{self._include}"]
        return self._once(name + self._suffix, name, flags)

    def _once(self, target: str, name: str, flags: list[str]) -> Path:
        if target not in self._built:
            self._built[target] = self._build(target, name, flags)
        return self._built[target]

    def _build(self, target: str, name: str, flags: list[str]) -> Path:
        compiler = compiler_command()
        header = self._directory / "words.h"
        if not header.exists():
            header.write_text(words_header(), "ascii")
        path = self._directory / target
        command = [*compiler, *_FLAGS, *flags, f"-I{self._directory}", f"-I{SOURCES}"]
        command += [f"-I{_SHARED}"]
        command += [str(SOURCES / f"{name}.c"), "-o", str(path), *_LINK]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotBuild(f"{name}.c: {_first_error(done.stderr)}")
        return path


def compiler_command() -> list[str]:
    """CannotBuild."""
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    raise CannotBuild("no C compiler: apt install gcc libc6-dev")


def words_header() -> str:
    """The numbers of the words, and the size of a record."""
    lines = [f"#define W_{name} {number}" for number, name in enumerate(stamps.WORDS)]
    lines += [f"#define RECORD_WORDS {stamps.SIZE // 8}", f"#define RECORD_SIZE {stamps.SIZE}"]
    lines.append(f"#define STAMPS_MAGIC {stamps.MAGIC}LL")
    return "\n".join(lines) + "\n"


def _first_error(text: str) -> str:
    errors = [line for line in text.splitlines() if "error" in line]
    return (errors or text.splitlines() or ["the compiler failed"])[0]
