"""Interpreters are found, or refused in a line; and one ladder over several of them."""

from __future__ import annotations

import io
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import need

pytest.importorskip("numpy")
from rich.console import Console

import pyweb
from pyweb.lab import across, climbing, interpreters, tell_across
from pyweb.lab.build import Programs
from pyweb.lab.interpreters import Interpreter, NoInterpreter
from pyweb.lab.ladder import Measured, Plan, Seat
from pyweb.lab.run import Failed
from pyweb.lab.rungs import AGAIN, LADDER, PYWEB, Place

LAB = (sys.executable, "-m", "pyweb.lab")
# For a whole run, should the machine be busy.
LONG = 300
VERSION = platform.python_version()
MINOR = "{}.{}".format(*sys.version_info)
PACKAGE = Path(pyweb.__file__).parent.parent


def script(path: Path, text: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n", "ascii")
    path.chmod(0o755)
    return str(path)


def python_of(version: str) -> str:
    """What one of that version would say."""
    major, minor, _ = version.split(".")
    said = {"python": [int(major), int(minor)], "version": version, "implementation": "CPython",
            "executable": "", "include": "", "suffix": ""}  # fmt: skip
    return f"echo '{json.dumps(said)}'"


def copy_of_this(directory: Path) -> str:
    """The same interpreter elsewhere, which imports this pyweb, without pip."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    (site,) = directory.glob("lib/python*/site-packages")
    (site / "pyweb.pth").write_text(f"{PACKAGE}\n", "utf-8")
    return str(directory / "bin" / "python")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return copy_of_this(tmp_path_factory.mktemp("copy") / "venv")


# Found.


@pytest.mark.parametrize("name", [MINOR, VERSION.partition("rc")[0]])
def test_this_interpreter_by_version(name: str) -> None:
    """And not another of that version on PATH, which may have no pyweb."""
    found = interpreters.find(name)
    assert os.path.samefile(found.path, sys.executable)
    assert (found.version, Path(found.package)) == (VERSION, PACKAGE)
    assert found.path.startswith(sys.prefix)


def test_by_path(copy: str) -> None:
    assert interpreters.find(copy).path == copy


def test_by_a_name_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "my-python", f'exec {sys.executable} "$@"')
    monkeypatch.setenv("PATH", str(tmp_path))
    assert interpreters.find("my-python").version == VERSION


def test_by_version_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    path = script(tmp_path / "python9.8", python_of("9.8.3"))
    assert interpreters.find("9.8").path == path


def test_the_newest_of_pyenvs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """10 is newer than 9. What is on PATH is a shim that can't be run, as pyenv's."""
    versions = tmp_path / "root" / "versions"
    for version in ("9.8.9", "9.8.10", "9.8.2", "9.80.1"):
        minor = version.rpartition(".")[0]
        script(versions / version / "bin" / f"python{minor}", python_of(version))
    script(versions / "9.8-dev" / "bin" / "python9.8", python_of("9.8.99"))
    script(tmp_path / "bin" / "python9.8", "echo not found >&2; exit 127")
    script(tmp_path / "bin" / "pyenv", f'[ "$1" = root ] && echo {tmp_path / "root"}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/bin:/usr/bin")
    monkeypatch.delenv("PYENV_ROOT", raising=False)
    newest = str(versions / "9.8.10" / "bin" / "python9.8")
    assert interpreters.find("9.8").path == newest
    assert interpreters.find("9.8.2").version == "9.8.2"
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "root"))
    (tmp_path / "bin" / "pyenv").unlink()
    assert interpreters.find("9.8").path == newest


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("9.9", "no Python 9.9 on PATH or of pyenv (pyenv install 9.9)"),
        ("/nowhere/python", "/nowhere/python: no such program"),
        ("no-such-python", "no-such-python: no such program"),
        ("/bin/true", "/bin/true: not a Python"),
        ("/bin/false", "/bin/false: failed without a word"),
    ],
)
def test_refused(name: str, what: str) -> None:
    with pytest.raises(NoInterpreter, match=r".") as why:
        interpreters.find(name)
    assert str(why.value).startswith(what)


@pytest.mark.parametrize("said", ['{"python": [3, 10]}', '{"python": [2, 7]}'])
def test_too_old(tmp_path: Path, said: str) -> None:
    path = script(tmp_path / "old", f"echo '{said}'")
    with pytest.raises(NoInterpreter, match=r"is Python .*; pyweb needs 3.11$"):
        interpreters.find(path)


# Given pyweb.


def no_say(_: str) -> None:
    raise AssertionError("nothing is to be installed")


def test_one_that_has_this_pyweb_is_left_alone(tmp_path: Path, copy: str) -> None:
    one = interpreters.find(copy)
    assert interpreters.equipped(one, tmp_path / "new", no_say) is one
    assert not (tmp_path / "new").exists()


def test_another_pyweb_is_not_this(tmp_path: Path) -> None:
    """Of the same version, and a line differs; or the same, without the compiled engine."""
    one = interpreters.find(copy_of_this(tmp_path / "venv"))
    ours = interpreters.ask(sys.executable)
    assert one.pyweb == ours.pyweb
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "pyweb.pth").unlink()
    shutil.copytree(PACKAGE / "pyweb", site / "pyweb")
    assert interpreters.ask(one.path).pyweb == ours.pyweb
    with (site / "pyweb" / "lab" / "fit.py").open("a") as file:
        file.write("# more\n")
    assert interpreters.ask(one.path).pyweb != ours.pyweb
    shutil.copy(PACKAGE / "pyweb" / "lab" / "fit.py", site / "pyweb" / "lab")
    assert interpreters.ask(one.path).pyweb == ours.pyweb
    for path in (site / "pyweb").glob("_fast*.so"):
        path.unlink()
        assert interpreters.ask(one.path).pyweb != ours.pyweb


def test_pip_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words, in a line. Here it may not ask anybody; and pip is not this one's."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    one = interpreters.find(str(tmp_path / "bare" / "bin" / "python"))
    assert (one.package, one.pyweb) == ("", None)
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    heard: list[str] = []
    with pytest.raises(NoInterpreter) as why:
        interpreters.equipped(one, tmp_path / "new", heard.append)
    assert heard == [f"CPython {VERSION} has not this pyweb: it is installed for it, in a venv of"
                     " its own"]  # fmt: skip
    assert str(why.value).startswith(f"CPython {VERSION}: ")
    assert len(str(why.value).splitlines()) == 1


def test_a_source_tree_is_copied_without_what_was_built(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    kept = ["pyproject.toml", "src/pyweb/a.py", "src/pyweb/a.pyx", "src/pyweb/lab/c/a.c"]
    left = [".git/config", ".venv/bin/python", "build/lib/a", "src/pyweb.egg-info/PKG-INFO",
            "src/pyweb/a.so", "src/pyweb/__pycache__/a.pyc"]  # fmt: skip
    for name in kept + left:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).touch()
    copied = interpreters._copy(tree, tmp_path / "copy")
    found = [str(one.relative_to(copied)) for one in copied.rglob("*") if one.is_file()]
    assert sorted(found) == sorted(kept)


def test_two_of_one_version_have_two_names() -> None:
    taken: dict[str, Interpreter] = {}
    for expected in ("3.11.7", "3.11.7 (2)", "3.11.7 (3)"):
        label = climbing._label("3.11.7", taken)
        assert label == expected
        taken[label] = interpreters.ask(sys.executable)
    assert climbing._label("3.11.70", taken) == "3.11.70"


# Known figures.


def measured(**walls: list[float]) -> Measured:
    return Measured({name.replace("_", "-"): one for name, one in walls.items()})


def test_ratios_are_of_the_same_block() -> None:
    """A block that was twice as slow was so for both; rungs without an interpreter have none."""
    found = {
        "3.11.7": measured(pyweb=[100, 200] * 4, c_serve=[10] * 8, thread=[1] * 8),
        "3.12.1": measured(pyweb=[150, 300] * 4, c_serve=[10] * 8),
    }
    ratios = across.ratios(found)
    assert ratios.keys() == {"pyweb", "thread"}
    assert ratios["thread"] == {}
    one = ratios["pyweb"]["3.12.1"]
    assert (one.value, one.low, one.high) == (1.5, 1.5, 1.5)
    console = Console(file=io.StringIO(), width=120)
    console.print(tell_across.table(found, ratios, LADDER))
    assert isinstance(console.file, io.StringIO)
    rows = [[cell.strip() for cell in line.split("│")[1:-1]]
            for line in console.file.getvalue().splitlines() if line.startswith("│")]  # fmt: skip
    assert rows == [
        ["C: accept, serve; no fork", "10.0 [10.0, 10.0]", ""],
        ["pyweb, mode fork", "150 [100, 200]", "225 [150, 300]"],
        ["", "", "x 1.500 [1.500, 1.500]"],
        ["pyweb, mode thread, 1 thread", "1.0 [1.0, 1.0]", ""],
    ]


# Measured.

LEAST = Plan(blocks=2, connections=20, warm=2, servers=None, client=None)
RUNGS = [rung for rung in LADDER if rung.name in ("c-serve", PYWEB, AGAIN, "prefork")]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    need("cc")
    made = Place(tmp_path, Programs(tmp_path))
    made.prepare()
    return made


def test_one_that_fails_is_given_up(place: Place) -> None:
    """The others go on, and are whole."""
    places = {"good": place, "bad": Place(place.directory, place.programs, python="/bin/false")}
    missing: list[str] = []
    taken = across.seats(places, place, RUNGS, missing)
    assert [(one.label, one.rung.name) for one in taken] == [
        ("", "c-serve"), ("good", PYWEB), ("bad", PYWEB), ("good", AGAIN), ("bad", AGAIN),
        ("good", "prefork"), ("bad", "prefork"),
    ]  # fmt: skip
    heard: list[str] = []
    found = across.measure(LEAST, taken, ["prefork"], heard.append)
    assert [across.has_pyweb(found[name]) for name in ("good", "bad")] == [True, False]
    assert {name: len(one) for name, one in found["good"].walls.items()} == {
        "c-serve": 2, PYWEB: 2, AGAIN: 2, "prefork": 2
    }  # fmt: skip
    assert "good pyweb, mode prefork, 1 worker, with stamps" in heard
    assert not any(line.startswith("bad") for line in heard)
    void = across.void(taken)
    assert "bad pyweb, mode fork: left out, for it failed 3 times" in void
    assert all(line.startswith("bad pyweb, mode fork") for line in void)


def test_each_rung_is_run_by_its_interpreter(place: Place) -> None:
    """With the pyweb that is there for it, and not with ours."""
    other = Place(place.directory, place.programs, python="/other/python", package="/other/site")
    for seat in across.seats({"other": other}, place, LADDER, []):
        command = seat.rung.command(seat.place)
        if seat.rung.is_bare:
            assert Path(command.words[0]).parent == place.directory
        else:
            assert command.words[0] == "/other/python"
        if seat.rung.is_inside:
            assert command.environ["PYTHONPATH"] == "/other/site"


def test_when_all_fail_it_has_failed(place: Place) -> None:
    bad = Place(place.directory, place.programs, python="/bin/false")
    with pytest.raises(Failed, match="did not start"):
        across.measure(LEAST, across.seats({"x": bad, "y": bad}, bad, RUNGS, []), [], no_tick)


def no_tick(_: str) -> None: ...


def test_no_headers_for_one(place: Place) -> None:
    """What needs none goes on."""
    bare = Programs(place.directory / "bare", include="/nowhere")
    places = {"a": place, "b": Place(place.directory, bare)}
    missing: list[str] = []
    rungs = [rung for rung in LADDER if rung.name in (PYWEB, "c-loop")]
    taken: list[Seat] = across.seats(places, place, rungs, missing)
    assert [(one.label, one.rung.name) for one in taken] == [
        ("a", "c-loop"), ("a", PYWEB), ("b", PYWEB)
    ]  # fmt: skip
    (line,) = missing
    assert line.startswith("b: no Python.h in /nowhere")


# As a command.


def lab(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LAB, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          check=False, timeout=LONG)  # fmt: skip


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--python", "9.9"), "--python no Python 9.9 on PATH"),
        (("--python", f"{MINOR},/bin/true"), "--python /bin/true: not a Python"),
        (("--python", ""), "names, none twice"),
        (("--python", "3.11,3.11"), "names, none twice"),
        (("--rungs", "pyweb,nonsense"), "there is no rung nonsense; there are c-close, "),
        (("--rungs", ","), "names, none twice"),
    ],
)
def test_wrong_words(words: tuple[str, ...], what: str) -> None:
    done = lab("ladder", "--quick", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert what in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


FEW = ("--quick", "--blocks", "2", "--no-pin")
Check = Callable[[dict[str, Any]], None]


def ladder(*words: str) -> tuple[dict[str, Any], str]:
    """The answer, and what is said."""
    need("cc")
    done = lab("ladder", *FEW, *words, "--json", "-")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


def test_a_ladder_over_two(copy: str) -> None:
    """The same interpreter by version and by path: so under CI too."""
    answer, said = ladder("--python", f"{MINOR},{copy}", "--rungs", "c-serve")
    both = [VERSION, f"{VERSION} (2)"]
    assert_whole(answer, both, {"c-serve", PYWEB, AGAIN})
    assert "not this pyweb" not in said
    for name in both:
        assert f"{name} A/A " in said
    assert answer["machine"]["python"] == f"CPython {VERSION}, CPython {VERSION}"


def assert_whole(answer: dict[str, Any], names: list[str], rungs: set[str]) -> None:
    assert list(answer["interpreters"]) == names
    assert (answer["missing"], answer["command"]) == ([], "ladder")
    first, second = answer["interpreters"].values()
    for one in (first, second):
        assert one["rungs"].keys() == one["blocks"]["walls"].keys() == rungs
        assert all(len(walls) == 2 for walls in one["blocks"]["walls"].values())
    walls = [one["blocks"]["walls"] for one in (first, second)]
    assert walls[0]["c-serve"] == walls[1]["c-serve"]  # it was run once
    assert walls[0][PYWEB] != walls[1][PYWEB]
    ratios = answer["ratios"]
    assert ratios.keys() == {name for name in rungs if not name.startswith("c-serve")}
    pairs = zip(walls[0][PYWEB], walls[1][PYWEB], strict=True)
    by_block = sorted(b / a for a, b in pairs)
    assert ratios[PYWEB][names[1]][0] == pytest.approx(sum(by_block) / 2)


def test_a_ladder_with_one_other(copy: str) -> None:
    """As without --python, but for who runs it."""
    answer, said = ladder("--python", copy, "--rungs", PYWEB)
    assert answer["rungs"].keys() == {PYWEB, AGAIN}
    assert answer["machine"]["python"] == f"CPython {VERSION}"
    assert "taxes" not in answer
    assert "residual" not in said


def another() -> str:
    """An interpreter of another version that pyweb can have."""
    for minor in range(11, 15):
        if minor != sys.version_info.minor:
            try:
                return interpreters.find(f"3.{minor}").path
            except NoInterpreter:
                pass
    pytest.skip("there is no second interpreter")


def test_a_ladder_over_two_versions() -> None:
    """The other gets pyweb, and no file of the source tree is another afterwards."""
    other = another()
    before = files_of(PACKAGE)
    answer, said = ladder("--python", f"{MINOR},{other}", "--rungs", "c-serve,c-loop")
    version = interpreters.find(other).version
    assert_whole(answer, [VERSION, version], {"c-serve", "c-loop", PYWEB, AGAIN})
    if interpreters.find(other).pyweb is None:
        assert f"CPython {version} has not this pyweb" in said
    assert files_of(PACKAGE) == before


def files_of(tree: Path) -> dict[str, int]:
    """But for what an interpreter keeps there of modules that it has read."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in tree.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
