"""Two answers laid beside each other: known data in, known numbers and words out."""

from __future__ import annotations

import copy
import io
import json
import math
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
from rich.console import Console

from pyweb.lab import compare, statistics, tell_compare
from pyweb.lab.compare import CHANGED, SAME, UNKNOWN, WITHIN_AA, Change, Comparison
from pyweb.lab.figures import NotAnAnswer, sections

LAB = (sys.executable, "-m", "pyweb.lab", "compare")
Answer = dict[str, Any]
MACHINE = {
    "cpu": "A CPU", "cpus": 2, "memory_mb": 8000, "kernel": "6.1", "python": "CPython 3.11.7",
    "libc": "glibc 2.36", "pyweb": "0.1.0", "engines": ["cython", "python"], "pinned": "yes",
}  # fmt: skip
QUIET = [1.001, 0.995, 1.007]


def ladder(**rungs: Any) -> Answer:
    """Of rungs alone; `_` stands for `-`."""
    walls = {name.replace("_", "-"): one for name, one in rungs.items()}
    return {
        "command": "ladder", "quick": False, "machine": dict(MACHINE), "aa": QUIET, "void": [],
        "rungs": walls, "steps": [], "blocks": {},
    }  # fmt: skip


def step(item: str, value: list[float | None], a: str = "c-serve", b: str = "pyweb") -> Answer:
    return {"item": item, "from": a, "to": b, "ladder": value, "stamps": None}


def one_change(a: Answer, b: Answer) -> Change:
    (found,) = compare.compare(a, b).changes
    return found


def by_name(found: Comparison) -> dict[tuple[str, str], Change]:
    return {one.a.key: one for one in found.changes}


def shown(found: Comparison) -> str:
    console = Console(file=io.StringIO(), width=160)
    tell_compare.tell(console, found)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


# Numbers.


def test_a_change() -> None:
    """Half-widths of 3 % and 2.5 % are one of 3.9 %, in the logarithm."""
    found = one_change(ladder(pyweb=[4000, 3900, 4100]), ladder(pyweb=[5000, 4850, 5150]))
    assert found.is_ratio
    assert found.by.value == pytest.approx(1.25)
    down = math.hypot(math.log(5000 / 4850), math.log(4100 / 4000))
    up = math.hypot(math.log(5150 / 5000), math.log(4000 / 3900))
    assert found.by.low == pytest.approx(1.25 * math.exp(-down))
    assert found.by.high == pytest.approx(1.25 * math.exp(up))
    assert found.by.low == pytest.approx(1.2025, abs=1e-3)
    assert found.by.high == pytest.approx(1.3000, abs=1e-3)
    assert found.verdict == CHANGED
    assert tell_compare.words(found) == "changed: 25 % more"


def test_the_other_way_round() -> None:
    """1 / ratio, also its interval: neither side is preferred."""
    a, b = ladder(pyweb=[4000, 3900, 4300]), ladder(pyweb=[5000, 4850, 5050])
    there, back = one_change(a, b), one_change(b, a)
    assert back.by.value == pytest.approx(1 / there.by.value)
    assert (back.by.low, back.by.high) == pytest.approx((1 / there.by.high, 1 / there.by.low))
    assert back.size == pytest.approx(there.size)
    assert tell_compare.words(back) == "changed: 20 % less"


def test_the_same() -> None:
    found = one_change(ladder(pyweb=[4000, 3900, 4100]), ladder(pyweb=[4040, 3960, 4120]))
    assert found.verdict == SAME
    assert found.by.high == pytest.approx(1.01 * math.exp(0.03214), abs=1e-3)
    assert tell_compare.words(found) == "same within 4.3 %"


def test_of_few_blocks_nothing_can_be_told() -> None:
    found = one_change(ladder(pyweb=[4000, None, None]), ladder(pyweb=[8000, 7900, 8100]))
    assert found.by.value == 2
    assert found.verdict == tell_compare.words(found) == UNKNOWN
    assert "2.000 [?]" in shown(compare.compare(ladder(pyweb=[4, None, None]),
                                                ladder(pyweb=[8, 7.9, 8.1])))  # fmt: skip


def test_what_can_be_below_zero_is_compared_by_difference() -> None:
    a, b = ladder(pyweb=[4000, 3900, 4100], c_serve=[80, 78, 82]), None
    b = copy.deepcopy(a)
    a["steps"] = [step("turns", [-30, -60, 0]), step("stays", [5, -20, 30])]
    b["steps"] = [step("turns", [170, 130, 210]), step("stays", [15, -15, 45])]
    found = by_name(compare.compare(a, b))
    turns, stays = found["steps", "turns"], found["steps", "stays"]
    assert not turns.is_ratio
    assert (turns.by.value, turns.by.low, turns.by.high) == (200, 150, 250)
    assert tell_compare.words(turns) == "changed: 200 us more"
    assert (stays.by.value, stays.verdict) == (10, SAME)
    assert tell_compare.words(stays) == f"same within {10 + math.hypot(30, 25):.1f} us"


def test_a_change_smaller_than_the_noise_is_none() -> None:
    """8 % and exactly known, but the A/A of one run is off by 10 %; 12 % are more than that."""
    a, b = ladder(pyweb=[1000, 999, 1001]), ladder(pyweb=[1080, 1079, 1081])
    assert one_change(a, b).verdict == CHANGED
    for noisy in (a, b):
        before, noisy["aa"] = noisy["aa"], [1 / 1.1, 0.9, 0.92]
        assert one_change(a, b).verdict == WITHIN_AA
        assert tell_compare.words(one_change(a, b)) == "within what A/A differs"
        assert one_change(a, ladder(pyweb=[1120, 1119, 1121])).verdict == (CHANGED)
        assert "NOISY" in shown(compare.compare(a, b))
        noisy["aa"] = before
    assert "NOISY" not in shown(compare.compare(a, b))


def test_the_noise_of_a_difference_is_that_of_its_parts() -> None:
    """10 us more are twice as many, and known to 1 us; but they are of walls of 1000 us, and these
    differ by 2 % when nothing does."""
    a, b = (ladder(pyweb=[1000, 990, 1010], c_serve=[80, 78, 82]) for _ in "ab")
    a["steps"], b["steps"] = [step("it", [10, 9, 11])], [step("it", [20, 19, 21])]
    assert by_name(compare.compare(a, b))["steps", "it"].verdict == CHANGED
    a["aa"] = [1.02, 1.0, 1.04]
    assert by_name(compare.compare(a, b))["steps", "it"].verdict == WITHIN_AA


def test_how_many_by_chance() -> None:
    a = ladder(**{f"r{n}": [100, 99, 101] for n in range(60)}, few=[1, None, None])
    b = copy.deepcopy(a)
    b["rungs"]["r3"] = [120, 119, 121]
    found = compare.compare(a, b)
    assert (found.count(CHANGED), found.told, found.by_chance) == (1, 60, pytest.approx(3.0))
    assert "1 of 60 figures changed; at 95 % about 3.0 would by chance alone" in shown(found)
    assert "of 1 it can't be told" in shown(found)


@pytest.mark.parametrize("truth", [1.0, 1.3])
def test_the_interval_has_the_truth_in_it(truth: float) -> None:
    """Of 400 pairs of runs with a known ratio, and of other numbers of blocks and other noise."""
    dice = random.Random(11)

    def run(median: float, blocks: int, spread: float) -> statistics.Estimate:
        drawn = [dice.lognormvariate(math.log(median), spread) for _ in range(blocks)]
        return statistics.median(drawn)

    inside = sum(
        compare.ratio(run(100, 12, 0.1), run(100 * truth, 20, 0.2)).has(truth) for _ in range(400)
    )
    assert 0.93 <= inside / 400 <= 0.98


def test_the_interval_of_a_difference_has_the_truth_in_it() -> None:
    dice = random.Random(12)

    def run(mean: float) -> statistics.Estimate:
        return statistics.median([dice.gauss(mean, 10) for _ in range(12)])

    inside = sum(compare.minus(run(-5), run(15)).has(20) for _ in range(400))
    assert 0.93 <= inside / 400 <= 0.98


def test_no_ratio_of_nothing() -> None:
    with pytest.raises(ValueError, match="above 0"):
        compare.ratio(statistics.Estimate(0, 0, 0), statistics.Estimate(1, 1, 1))


# What differs.


def test_the_same_machine_twice() -> None:
    found = compare.compare(ladder(pyweb=[1, 0.9, 1.1]), ladder(pyweb=[1, 0.9, 1.1]))
    assert (found.differs, found.is_other_machine) == ({}, False)
    assert shown(found).startswith("the same machine twice")


def test_another_kernel_is_the_same_machine() -> None:
    """MemTotal differs by kernel."""
    a, b = ladder(pyweb=[1, 0.9, 1.1]), ladder(pyweb=[1, 0.9, 1.1])
    b["machine"] |= {"kernel": "6.18", "memory_mb": 7950, "engines": ["python"]}
    b["quick"] = True
    del b["machine"]["libc"]
    found = compare.compare(a, b)
    assert not found.is_other_machine
    assert found.differs == {
        "memory_mb": ("8000", "7950"), "kernel": ("6.1", "6.18"),
        "libc": ("glibc 2.36", "not told"), "engines": ("cython, python", "python"),
        "quick": ("no", "yes"),
    }  # fmt: skip
    lines = shown(found).splitlines()
    assert "kernel: 6.1 -> 6.18" in lines
    assert not any("two machines" in line for line in lines)


@pytest.mark.parametrize("other", [{"cpu": "Another"}, {"cpus": 4}, {"memory_mb": 16000}])
def test_two_machines(other: Answer) -> None:
    """One is twice as slow; what rungs are in units of pyweb is the same, and first."""
    a = ladder(pyweb=[1000, 990, 1010], thread=[100, 99, 101])
    a["blocks"] = {"walls": {"pyweb": [990, 1000, 1010] * 3, "thread": [99, 100, 101] * 3}}
    b = ladder(pyweb=[2000, 1980, 2020], thread=[200, 198, 202])
    b["blocks"] = {"walls": {"pyweb": [1980, 2000, 2020] * 3, "thread": [198, 200, 202] * 3}}
    b["machine"] |= other
    found = compare.compare(a, b)
    assert found.is_other_machine
    assert "two machines" in shown(found)
    first, *others = found.changes
    assert (first.a.group, first.a.name) == ("rungs, in units of pyweb", "thread")
    assert first.by.value == pytest.approx(1)
    assert first.verdict == SAME
    assert [one.by.value for one in others] == pytest.approx([2, 2])


def test_what_is_in_one_only() -> None:
    a = ladder(pyweb=[1, 0.9, 1.1], **{f"r{n}": [1, 0.9, 1.1] for n in range(14)})
    found = compare.compare(a, ladder(pyweb=[1, 0.9, 1.1], thread=[1, 0.9, 1.1]))
    assert found.only_in[0] == [f"rungs: r{n}" for n in range(14)]
    assert found.only_in[1] == ["rungs: thread"]
    assert len(found.changes) == 1
    assert "only in B: rungs: thread" in shown(found)
    assert "only in A: and 2 more" in shown(found)


def test_no_noise_is_known() -> None:
    a, b = ladder(pyweb=[1, 0.9, 1.1]), ladder(pyweb=[1, 0.9, 1.1])
    a["aa"], b["aa"] = None, [1.0, None, None]
    text = shown(compare.compare(a, b))
    assert "A: no A/A" in text
    assert "B: A/A 1.000 [?]: too few blocks to tell" in text


def test_the_table() -> None:
    """The largest change first; a change has a colour and a word."""
    a = ladder(pyweb=[4000, 3900, 4100], thread=[100, 99, 101], prefork=[110, 100, 120])
    b = ladder(pyweb=[5000, 4850, 5150], thread=[50, 49, 51], prefork=[111, 100, 120])
    text = shown(compare.compare(a, b))
    rows = [line for line in text.splitlines() if line.startswith("│")]
    assert [row.split()[1] for row in rows] == ["thread", "pyweb", "prefork"]
    assert "4000 [3900, 4100] │ 5000 [4850, 5150] │ 1.250 [1.202, 1.300]" in rows[1]
    assert "changed: 50 % less" in rows[0]
    console = Console(file=io.StringIO(), width=160, force_terminal=True, color_system="standard")
    tell_compare.tell(console, compare.compare(a, b))
    assert isinstance(console.file, io.StringIO)
    coloured = [line for line in console.file.getvalue().splitlines() if "\x1b[1;35m" in line]
    assert [("thread" in line, "pyweb" in line) for line in coloured] == [
        (True, False), (False, True)
    ]  # fmt: skip


# Of each command.

E = [10.0, 9.0, 11.0]
TAX = {"ladder": E, "stamps": E, "hidden": E, "agrees": True}
LINE = {"a": [50_000, 49_000, 51_000], "b": E, "c": E, "d": E, "error": 0.1, "r2": 0.9}
CASE = {"name": "p", "what": "fork", "predicted": E, "measured": [2000, 1900, 2100], "ratio": E}
LATENCY = [{"server": "fork", "of_saturation": 0.5, "p50": [0.001, 0.0009, 0.0011], "p99": E}]
PARTS: dict[str, Answer] = {
    "taxes": {
        "rungs": {"pyweb": E}, "steps": [],
        "taxes": {
            "wall": E, "base": E, "fork": TAX, "fork_inside": E, "interpreter": TAX, "process": TAX,
            "residual": [-1, -2, 1], "residual_share": E, "phases": {"fork": E}, "fault": E,
            "from_parts": E, "minor_faults": 600, "context_switches": 2.5,
        },
    },
    "model": {
        "fork": LINE, "cycle": LINE, "cases": [CASE], "changes": [],
        "hooks": {"p": {"fork": E, "cycle": E}}, "at_work": [CASE | {"name": "q"}],
    },
    "load": {
        "rates": {"ab": {"fork": E, "prefork": E}}, "latencies": LATENCY,
        "blocks": {"ab": {"fork": {"0": 10.0, "1": 20.0}, "prefork": {"1": 40.0, "2": 1.0}}},
    },
    "peers": {
        "loads": {"ab": {"reference": "pyweb fork", "rows": {
            "pyweb fork": {"rate": E, "ratio": E, "cpu_us": E, "memory_kb": E},
            "nginx": {"rate": E, "ratio": E, "cpu_us": None, "memory_kb": E}}}},
        "latencies": LATENCY,
    },
    "article": {
        "loads": {"ab -n 1000": {"rows": {"s": {"rate": E, "ratio": E, "mean_ms": E,
                                                 "max_ms": None}}}},
        "pool": {"rows": {"s": {"kept": E, "new": E, "ratio": E}}},
    },
}  # fmt: skip
NAMES = {
    "taxes": [
        ("rungs", "pyweb"), ("taxes", "fork tax, by ladder"), ("taxes", "residual"),
        ("taxes", "page faults"), ("phases of pyweb", "fork"),
    ],
    "model": [
        ("model of a fork", "at least"), ("model of a cycle", "a private page"),
        ("processes, measured", "p, fork"), ("measured / predicted", "q, fork"),
        ("os.fork beyond a raw fork", "p"),
    ],
    "load": [
        ("requests/s", "ab, prefork"), ("latency", "fork at 50%, p99"),
        ("requests/s, in units of fork", "ab, prefork"),
    ],
    "peers": [
        ("requests/s", "ab, nginx"), ("requests/s, in units of the reference", "ab, nginx"),
        ("CPU a request", "ab, pyweb fork"), ("memory", "ab, nginx"),
        ("latency", "fork at 50%, p50"),
    ],
    "article": [
        ("requests/s", "ab -n 1000, s"), ("a request, mean", "ab -n 1000, s"),
        ("pool, a request", "s, new"), ("pool, new / kept", "s"),
    ],
}  # fmt: skip


def answer_of(command: str) -> Answer:
    return {"command": command, "quick": False, "machine": dict(MACHINE), "aa": QUIET} | PARTS[
        command
    ]


@pytest.mark.parametrize("command", sorted(PARTS))
def test_figures_of_a_command(command: str) -> None:
    found = compare.compare(answer_of(command), answer_of(command))
    assert set(NAMES[command]) <= set(by_name(found))
    assert found.count(CHANGED) == 0
    assert found.only_in == ([], [])
    assert json.loads(json.dumps(compare.as_data(found), allow_nan=False))["of"] == command


def test_units() -> None:
    (model,) = sections(answer_of("model"))
    figures = {one.key: one for one in model.figures}
    assert figures["model of a fork", "at least"].estimate.value == pytest.approx(50)  # us of ns
    assert figures["processes, measured", "p, fork"].estimate.value == pytest.approx(2)
    (load,) = sections(answer_of("load"))
    figures = {one.key: one for one in load.figures}
    assert figures["latency", "fork at 50%, p50"].estimate.value == pytest.approx(1)  # ms of s
    inside = figures["requests/s, in units of fork", "ab, prefork"]
    assert inside.estimate.value == 2  # of the one block that both have


def test_the_noise_of_times_is_none_of_memory() -> None:
    a, b = answer_of("peers"), copy.deepcopy(answer_of("peers"))
    a["aa"] = [1.2, 1.1, 1.3]
    b["loads"]["ab"]["rows"]["nginx"] |= {
        "rate": [11.5, 11.4, 11.6],
        "memory_kb": [11.5, 11.4, 11.6],
    }
    a["loads"]["ab"]["rows"]["nginx"] |= {"rate": [10, 9.9, 10.1], "memory_kb": [10, 9.9, 10.1]}
    found = by_name(compare.compare(a, b))
    assert found["requests/s", "ab, nginx"].verdict == WITHIN_AA
    assert found["memory", "ab, nginx"].verdict == CHANGED


def test_a_report_is_compared_part_by_part() -> None:
    """And each part has its own noise."""
    parts = {"ladder": ladder(pyweb=[1000, 999, 1001]), "load": answer_of("load")}
    a = {"command": "report", "machine": dict(MACHINE), "parts": parts}
    b = copy.deepcopy(a)
    b["parts"]["ladder"]["rungs"]["pyweb"] = [1100, 1099, 1101]
    b["parts"]["load"]["aa"] = [1.5, 1.4, 1.6]
    b["parts"]["model"] = answer_of("model")
    found = compare.compare(a, b)
    assert [one.section for one in found.changes if one.verdict == CHANGED] == ["ladder"]
    assert found.only_in == ([], ["model, all of it"])
    text = shown(found)
    assert "ladder: rungs" in text
    assert "B: A/A of load 1.500 [1.400, 1.600], may be 0.98 to 1.02: NOISY" in text


def test_a_ladder_of_interpreters() -> None:
    """By version; what only one has seen is named."""
    one = ladder(pyweb=[1000, 999, 1001])
    a = {"command": "ladder", "machine": dict(MACHINE), "ratios": {},
         "interpreters": {"3.11.7": one, "3.12.1": one}}  # fmt: skip
    b = a | {"interpreters": {"3.12.1": ladder(pyweb=[500, 499, 501]), "3.13.0": one}}
    found = compare.compare(a, b)
    assert [(one.section, one.by.value) for one in found.changes] == [("3.12.1", 0.5)]
    assert found.only_in == (["3.11.7, all of it"], ["3.13.0, all of it"])


# What can't be compared.


def test_different_commands() -> None:
    with pytest.raises(NotAnAnswer, match="A is an answer of ladder, B of load"):
        compare.compare(ladder(), answer_of("load"))


@pytest.mark.parametrize("spoilt", [
    {"rungs": [1, 2]}, {"rungs": {"pyweb": 3}}, {"rungs": {"pyweb": [1, 2]}},
    {"rungs": {"pyweb": ["1", None, None]}}, {"rungs": {"pyweb": [None, None, None]}},
    {"rungs": {"pyweb": [1e300, 1, 2]}}, {"rungs": {"pyweb": [True, None, None]}},
    {"steps": [{"item": "x"}]}, {"steps": 3}, {"taxes": {"wall": None}}, {"aa": "quiet"},
    {"blocks": {"walls": {"pyweb": [0], "thread": [1]}}}, {"machine": [1]},
    {"interpreters": ["3.11"]}, {"command": "compare"}, {"command": "report"},
])  # fmt: skip
def test_another_shape(spoilt: Answer) -> None:
    broken = ladder(pyweb=[1, 0.9, 1.1]) | spoilt
    with pytest.raises(NotAnAnswer):
        compare.compare(broken, broken)


# As a command.


def lab(*words: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LAB, *words], input=given, capture_output=True, text=True, check=False,
                          env=os.environ | environ, timeout=60)  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    paths = tmp_path / "a.json", tmp_path / "b.json"
    walls = [4000, 3900, 4100], [5000, 4850, 5150]
    for path, wall in zip(paths, walls, strict=True):
        path.write_text(json.dumps(ladder(pyweb=wall)), "utf-8")
    return str(paths[0]), str(paths[1])


def test_the_command(files: tuple[str, str]) -> None:
    """It needs no compiler, and nothing else of the system."""
    done = lab(*files, PATH="/nowhere")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1.250 [1.202, 1.300]" in done.stdout
    assert "1 of 1 figures changed" in done.stdout


def test_the_command_as_json(files: tuple[str, str]) -> None:
    done = lab(*files, "--json", "-")
    answer = json.loads(done.stdout)
    assert (answer["command"], answer["of"], answer["changed"]) == ("compare", "ladder", 1)
    (figure,) = answer["figures"]
    assert figure["verdict"] == "changed"
    assert figure["change"] == pytest.approx([1.25, 1.2025, 1.3], abs=1e-3)
    assert "1.250" in done.stderr


def test_one_of_them_from_standard_input(files: tuple[str, str]) -> None:
    text = Path(files[1]).read_text("utf-8")
    assert lab(files[0], "-", given=text).stdout == lab(*files).stdout
    assert "changed: 20 % less" in lab("-", files[0], given=text).stdout


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"command": "ladder", "aa": NaN}', "NaN is no number"),
        ("[]", "not an answer of pyweb-lab"),
        ('{"command": 3}', "not an answer of pyweb-lab"),
        ('{"command": "load"}', "A is an answer of ladder, B of load"),
        ('{"command": "ladder"}', "not as pyweb-lab --json writes them"),
    ],
)
def test_one_line_for_what_is_no_answer(files: tuple[str, str], text: str, what: str) -> None:
    refused(lab(files[0], "-", given=text), what)


def refused(done: subprocess.CompletedProcess[str], what: str) -> None:
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("pyweb-lab: ")
    assert what in done.stderr


def test_files_that_are_none(files: tuple[str, str], tmp_path: Path) -> None:
    refused(lab(files[0], str(tmp_path / "missing.json")), "missing.json: No such file")
    refused(lab(files[0], str(tmp_path)), "Is a directory")
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    refused(lab(str(tmp_path / "binary"), files[0]), "not JSON")
    refused(lab("-", "-"), "standard input can be one of the two")
