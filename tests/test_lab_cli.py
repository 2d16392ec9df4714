"""`python -m pyweb.lab` as a user calls it: answers, and one line for whatever is wrong."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import PATIENCE, need, until

LAB = (sys.executable, "-m", "pyweb.lab")
# The least that can be measured.
LEAST = ("--quick", "--blocks", "2")
# For a whole run, should the machine be busy.
LONG = 300
Done = subprocess.CompletedProcess[str]


def lab(*words: str, command: tuple[str, ...] = LAB, path: str | None = None) -> Done:
    environ = os.environ | ({} if path is None else {"PATH": path})
    return subprocess.run(
        [*command, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
        timeout=LONG, env=environ,
    )  # fmt: skip


def measured(*words: str) -> Done:
    """Without Python.h: skipped here, failed under CI."""
    need("cc")
    done = lab(*words)
    if "no Python.h" in done.stderr and not os.environ.get("CI"):
        pytest.skip(done.stderr)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def taxes() -> Done:
    return measured("taxes", *LEAST, "--json", "-")


def test_taxes_as_json(taxes: Done) -> None:
    """And nothing else on standard output."""
    answer = json.loads(taxes.stdout)
    assert (answer["command"], answer["quick"]) == ("taxes", True)
    machine = answer["machine"]
    assert machine["kernel"] == os.uname().release
    assert machine["python"].endswith(".".join(map(str, sys.version_info[:3])))
    assert machine["cpus"] == len(os.sched_getaffinity(0))
    assert machine["pinned"]
    assert answer["taxes"]["wall"][0] > answer["taxes"]["base"][0] > 0
    assert set(answer["taxes"]["fork"]) == {"ladder", "stamps", "hidden", "agrees"}
    assert_blocks(answer, 2)


def assert_blocks(answer: dict[str, Any], blocks: int) -> None:
    walls = answer["blocks"]["walls"]
    assert set(walls) == set(answer["rungs"])
    assert all(len(one) == blocks for one in walls.values())
    assert all(len(one) == blocks for one in answer["blocks"]["phases"].values())


def test_taxes_as_text(taxes: Done) -> None:
    """On standard error when JSON has the other."""
    lines = taxes.stderr.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("wall time"))
    assert len(lines[first:]) == 10
    assert lines[-1].startswith("residual ")
    assert any(line.startswith("A/A ") for line in lines[:first])
    assert any(os.uname().release in line for line in lines[:first])


def test_json_is_json(taxes: Done) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    json.loads(taxes.stdout, parse_constant=refuse)


def test_a_ladder_into_a_file(tmp_path: Path) -> None:
    """Text is on standard output then."""
    path = tmp_path / "answer.json"
    done = measured("ladder", *LEAST, "--no-pin", "--json", str(path))
    answer = json.loads(path.read_text("utf-8"))
    assert answer["command"] == "ladder"
    assert answer["machine"]["pinned"] == "not pinned"
    assert_blocks(answer, 2)
    assert answer["taxes"]["wall"][0] > 0
    for step in answer["steps"]:
        assert {step["from"], step["to"]} <= set(answer["rungs"])
    assert "One connection at a time" in done.stdout
    assert "residual" in done.stdout
    assert done.stderr == ""


# What is no question.


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ((), "COMMAND"),
        (("nonsense",), "'nonsense'"),
        (("taxes", "--blocks", "x"), "'x' is not a number from 2 to 10000"),
        (("taxes", "--blocks", "1"), "'1' is not a number from 2 to 10000"),
        (("taxes", "--blocks", "-3"), "--blocks"),
        (("taxes", "--blocks", "10001"), "'10001' is not a number from 2 to 10000"),
        (("taxes", "--no-such-option"), "--no-such-option"),
        (("taxes", "--json"), "--json"),
    ],
)
def test_wrong_words(words: tuple[str, ...], what: str) -> None:
    done = lab(*words)
    assert (done.returncode, done.stdout) == (2, "")
    usage, *_, error = done.stderr.splitlines()
    assert usage.startswith("usage: pyweb-lab")
    assert error.startswith("pyweb-lab")
    assert what in error
    assert "Traceback" not in done.stderr


def test_a_digit_that_is_no_number() -> None:
    done = lab("taxes", "--blocks", "²")
    assert done.returncode == 2
    assert "'²' is not a number from 2 to 10000" in done.stderr


def test_help() -> None:
    done = lab("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in ("ladder", "model", "load", "taxes"))


# What is not there.


@pytest.mark.parametrize("command", ["taxes", "ladder", "model"])
def test_no_compiler(command: str, tmp_path: Path) -> None:
    done = lab(command, *LEAST, path=str(tmp_path))
    assert done.returncode == 1
    assert_one_line(done, "pyweb-lab: no C compiler: apt install gcc")


def assert_one_line(done: Done, text: str) -> None:
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1
    assert text in lines[0]


@pytest.mark.parametrize("missing", [("numpy",), ("rich",), ("numpy", "rich")])
def test_packages_that_are_missing(missing: tuple[str, ...]) -> None:
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({missing!r}));"
        " runpy.run_module('pyweb.lab', run_name='__main__')"
    )
    done = lab("taxes", *LEAST, command=(sys.executable, "-c", code))
    assert (done.returncode, done.stdout) == (2, "")
    assert_one_line(done, f"pyweb-lab needs {' and '.join(missing)}: pip install 'pyweb[lab]'")


def test_json_to_nowhere(tmp_path: Path) -> None:
    """Said before anything is measured: a full run takes long. There is no compiler here, so
    that it ends at once if it did not look."""
    path = tmp_path / "missing" / "answer.json"
    done = lab("taxes", *LEAST, "--json", str(path), path=str(tmp_path))
    assert done.returncode in (1, 2)
    assert_one_line(done, str(path))


# Broken off.


def programs_of(scratch: Path) -> dict[int, str]:
    """By pid, of all that run and have it in their command line. What has ended has none."""
    found = {}
    for one in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if os.fsencode(scratch) in (one / "cmdline").read_bytes():
                found[int(one.name)] = Path(os.readlink(one / "exe")).name
    return found


@pytest.mark.usefixtures("interruptible")
def test_broken_off(tmp_path: Path) -> None:
    """While a server in Python has a client (while one starts: test_lab_servers.py).

    One line, and nothing is left."""
    need("cc")
    process = subprocess.Popen(
        [*LAB, "taxes"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip

    def at_work() -> bool:
        names = programs_of(tmp_path).values()
        return "client" in names and any(name.startswith("python") for name in names)

    try:
        until(at_work, "a client of a server in Python")
        assert programs_of(tmp_path)
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert error == "pyweb-lab: broken off; nothing is kept\n"
        until(lambda: not programs_of(tmp_path), "all that it started to end")
        assert list(tmp_path.iterdir()) == []
    finally:
        process.kill()
        process.communicate()
        for pid in programs_of(tmp_path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
