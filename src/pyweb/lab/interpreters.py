"""Other interpreters: found by version or by path, asked what they are, and given this pyweb.

One that has not this pyweb (the same modules, the same engines) gets it: in a venv in the scratch
directory, from where ours came from. A source tree is copied first: a build writes into it, and
the developer's must stay as it is. Not here: what is measured with them.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .. import __version__

# What pyproject.toml says; an older one is told so by us, and not by pip.
_OLDEST = (3, 11)
_VERSION = re.compile(r"\d+\.\d+(\.\d+)?", re.ASCII)
_SECONDS_TO_ANSWER, _SECONDS_TO_INSTALL = 30, 900
_PACKAGE = Path(__file__).parent.parent.parent
# Of a source tree, what no build needs; a build of another interpreter least of all.
_LEFT_OUT = shutil.ignore_patterns("*.so", "*.egg-info", "__pycache__", "build")

# What each is asked. It must be understood by interpreters that are too old. The modules of pyweb
# are compared by what is in them: two of one version need not be the same.
_QUESTION = """
import json, sys
found = {"python": list(sys.version_info[:2])}
if sys.version_info >= (3, 11):
    import hashlib, importlib.machinery, os, platform, sysconfig
    found["version"] = platform.python_version()
    found["implementation"] = platform.python_implementation()
    found["executable"] = sys.executable
    found["include"] = sysconfig.get_path("include")
    found["suffix"] = importlib.machinery.EXTENSION_SUFFIXES[0]
    try:
        import pyweb.parse
    except ImportError:
        pass
    else:
        where = os.path.dirname(os.path.abspath(pyweb.parse.__file__))
        digest = hashlib.sha256()
        for place, folders, files in sorted(os.walk(where)):
            for name in sorted(files):
                if name.endswith(".py"):
                    with open(os.path.join(place, name), "rb") as file:
                        digest.update(name.encode() + file.read())
        found["package"] = os.path.dirname(where)
        found["pyweb"] = [digest.hexdigest(), list(pyweb.parse.ENGINES)]
print(json.dumps(found))
"""

Say = Callable[[str], None]


class NoInterpreter(Exception):
    """There is none of that name, or it can't be used: a line that says why, and what to do."""


@dataclass(frozen=True)
class Interpreter:
    """`package`: the directory that its pyweb is in; empty: it has none. `pyweb`: which one that
    is, to be compared with another's. `include`, `suffix`: for its extension modules."""

    path: str
    version: str
    implementation: str
    include: str
    suffix: str
    package: str
    pyweb: object

    @property
    def title(self) -> str:
        return f"{self.implementation} {self.version}"


def find(name: str) -> Interpreter:
    """By version (3.12, 3.12.1), by a name on PATH, or by path. Of a version: this interpreter if
    it is of that, else one on PATH, else the newest of pyenv's. NoInterpreter."""
    if not _VERSION.fullmatch(name):
        path = shutil.which(name)
        if path is None:
            raise NoInterpreter(f"{name}: no such program; name a version, as 3.12, or a path")
        return ask(path)
    for path in _candidates(name):
        # One of pyenv's shims is on PATH, and can't be run, for each version that is not chosen.
        with contextlib.suppress(NoInterpreter):
            found = ask(path)
            if _is(found.version, name):
                return found
    raise NoInterpreter(
        f"no Python {name} on PATH or of pyenv (pyenv install {name}); or name one by its path"
    )


def _is(version: str, name: str) -> bool:
    return version == name or version.startswith(name + ".")


def _candidates(name: str) -> Iterator[str]:
    yield sys.executable
    minor = ".".join(name.split(".")[:2])
    if path := shutil.which(f"python{minor}"):
        yield path
    if root := _pyenv_root():
        known = [one for one in (root / "versions").glob("*") if _VERSION.fullmatch(one.name)]
        of_it = [one for one in known if _is(one.name, name)]
        newest_first = sorted(of_it, key=lambda one: _numbers(one.name), reverse=True)
        yield from (str(one / "bin" / f"python{minor}") for one in newest_first)


def _numbers(version: str) -> list[int]:
    return [int(word) for word in version.split(".")]


def _pyenv_root() -> Path | None:
    if root := os.environ.get("PYENV_ROOT"):
        return Path(root)
    with contextlib.suppress(NoInterpreter):
        if path := shutil.which("pyenv"):
            return Path(_output([path, "root"], _SECONDS_TO_ANSWER).strip())
    return None


def ask(path: str) -> Interpreter:
    """NoInterpreter: it is none, can't be run, or is too old."""
    try:
        said = json.loads(_output([path, "-c", _QUESTION], _SECONDS_TO_ANSWER))
        too_old = tuple(said["python"]) < _OLDEST
    except (ValueError, LookupError, TypeError):
        raise NoInterpreter(f"{path}: not a Python") from None
    if too_old:
        version, oldest = (".".join(map(str, one)) for one in (said["python"], _OLDEST))
        raise NoInterpreter(f"{path} is Python {version}; pyweb needs {oldest}")
    return Interpreter(
        path=said["executable"] or path,
        version=said["version"],
        implementation=said["implementation"],
        include=said["include"],
        suffix=said["suffix"],
        package=said.get("package", ""),
        pyweb=said.get("pyweb"),
    )


def equipped(one: Interpreter, scratch: Path, say: Say) -> Interpreter:
    """One that has this pyweb: itself, or in a venv in `scratch`, which must not be there yet.
    `say` hears what takes long. NoInterpreter: pip's last words."""
    ours = ask(sys.executable)
    if one.pyweb == ours.pyweb:
        return one
    say(f"{one.title} has not this pyweb: it is installed for it, in a venv of its own")
    venv, temporary = scratch / "venv", scratch / "tmp"
    temporary.mkdir(parents=True)

    def run(*words: str) -> None:
        # A pip that is broken off leaves what it has there; it goes with the scratch directory.
        environ = os.environ | {"TMPDIR": str(temporary)}
        _output(words, _SECONDS_TO_INSTALL, about=one.title, environ=environ)

    run(one.path, "-m", "venv", str(venv))
    python = str(venv / "bin" / "python")
    pip = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check")
    run(*pip, _source(scratch))
    found = ask(python)
    if found.pyweb != ours.pyweb:
        raise NoInterpreter(
            f"{one.title}: the pyweb in {found.package or 'it'} is another than this, or is without"
            " its compiled engine; install this pyweb for it yourself"
        )
    return found


def _source(scratch: Path) -> str:
    """What pip is to install: this pyweb."""
    told: dict[str, object] = {}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        text = importlib.metadata.distribution("pyweb").read_text("direct_url.json")
        told = json.loads(text) if text else {}
    url = str(told.get("url", ""))
    tree = Path(unquote(urlsplit(url).path)) if "dir_info" in told else _PACKAGE.parent
    if (tree / "pyproject.toml").exists() and (tree / "src" / "pyweb").exists():
        return str(_copy(tree, scratch / "source"))
    return url if "archive_info" in told else f"pyweb=={__version__}"


def _copy(tree: Path, target: Path) -> Path:
    """What a build needs of it: the package, and the files beside it."""
    shutil.copytree(tree / "src", target / "src", ignore=_LEFT_OUT)
    for path in tree.iterdir():
        if path.is_file():
            shutil.copy(path, target)
    return target


def _output(
    words: Sequence[str],
    seconds: float,
    *,
    about: str = "",
    environ: Mapping[str, str] | None = None,
) -> str:
    """NoInterpreter: its last words. Nothing that it has started is left, also after ^C."""
    name = about or words[0]
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, errors="replace", start_new_session=True, env=environ,
        )  # fmt: skip
    except OSError as error:
        raise NoInterpreter(f"{name}: {error.strerror}") from None
    with process:
        try:
            said, complained = process.communicate(timeout=seconds)
        except BaseException as why:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(why, subprocess.TimeoutExpired):
                raise NoInterpreter(f"{name}: not done in {seconds:g} s") from None
            raise
    if process.returncode:
        raise NoInterpreter(f"{name}: {_last_words(complained or said)}")
    return said


def _last_words(text: str) -> str:
    """What pip calls an error; notes follow it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error")]
    return (errors or lines or ["failed without a word"])[-1]
