"""The fork model: it finds what is known, predicts what is new, and its processes are what they
say. No figure of this machine is judged here."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ServeFixture, need, until

from pyweb import procfs
from pyweb.lab import fit, heaps, machine, model
from pyweb.lab.build import Programs
from pyweb.lab.fit import Point
from pyweb.lab.run import Failed, output
from pyweb.lab.statistics import Estimate

PAGE = os.sysconf("SC_PAGESIZE")
# What a fork, a mapping, a page and a descriptor cost, in ns.
TRUTH = (50_000.0, 500.0, 65.0, 40.0)
NEW = (120, 2600, 17)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Programs:
    need("cc")
    return Programs(tmp_path_factory.mktemp("lab"))


def cost(size: tuple[int, int, int]) -> float:
    return TRUTH[0] + sum(price * count for price, count in zip(TRUTH[1:], size, strict=True))


def points(seed: int, *, noise: float = 0.03, blocks: int = 10, bend: float = 0.0) -> list[Point]:
    """What the full design would measure if the truth were TRUTH; large ones take `bend` longer."""
    dice = random.Random(seed)
    found = []
    for size in model.design(False):
        true = cost(size) * (1 + bend * (size[1] > 100_000))
        found.append(Point(*size, tuple(true * dice.gauss(1, noise) for _ in range(blocks))))
    return found


# The fit.


@pytest.fixture(scope="module")
def ten_fits() -> list[fit.Model]:
    """Of the same truth, with other noise."""
    return [fit.fit(points(seed)) for seed in range(10)]


def test_the_fit_finds_what_is_known(ten_fits: list[fit.Model]) -> None:
    """Of 40 intervals of 95 % a few may miss; they are to be narrow, too."""
    hits = 0
    for found in ten_fits:
        coefficients = found.a, found.b, found.c, found.d
        hits += sum(one.has(true) for one, true in zip(coefficients, TRUTH, strict=True))
        assert all(
            one.high - one.low < true / 2 for one, true in zip(coefficients, TRUTH, strict=True)
        )
        assert found.r2 > 0.99
        assert found.error < 0.03
    assert 32 <= hits <= 40


def test_without_noise_it_is_exact() -> None:
    found = fit.fit(points(1, noise=0))
    for one, true in zip((found.a, found.b, found.c, found.d), TRUTH, strict=True):
        assert one.value == pytest.approx(true, rel=1e-6)
        assert one.low == pytest.approx(one.high, rel=1e-6)
    assert found.predict(*NEW).value == pytest.approx(cost(NEW))
    assert found.predict_by_block(*NEW) == pytest.approx([cost(NEW)] * 10)
    assert found.predict_change(pages=1000, descriptors=2).value == pytest.approx(65_080)
    assert found.predict_change(mappings=3).value == pytest.approx(1500)


def test_what_it_predicts_comes_true(ten_fits: list[fit.Model]) -> None:
    """Also for one that misses the line as the others do: not only the line has an interval."""
    predicted = [found.predict(*NEW) for found in ten_fits]
    assert sum(one.has(cost(NEW)) for one in predicted) >= 9
    bent = fit.fit(points(0, bend=0.3))
    assert bent.error > 2 * ten_fits[0].error
    wide = bent.predict(*NEW)
    assert wide.high - wide.low > 2 * (predicted[0].high - predicted[0].low)


def test_large_processes_don_t_decide_alone() -> None:
    """10 % of the largest are forty times what the smallest costs. Without weights that would be
    the smallest's."""
    found = fit.fit(points(1, noise=0.001, bend=0.1))
    assert found.a.value == pytest.approx(TRUTH[0], rel=0.1)
    assert found.b.value == pytest.approx(TRUTH[1], rel=0.1)


def test_errors_count_alike_in_both_directions() -> None:
    """Of each size one takes a fifth longer, and one a fifth less. Weights that were the times' own
    would pull the line down by 8 %."""
    found = fit.fit(
        [
            Point(*size, (cost(size) * luck,) * 2)
            for size in model.design(False)
            for luck in (0.8, 1.2)
        ]
    )
    assert found.predict(*NEW).value == pytest.approx(cost(NEW), rel=0.001)


def test_the_fit_says_what_it_lacks() -> None:
    with pytest.raises(ValueError, match="4 points for 4"):
        fit.fit(points(1)[:4])
    with pytest.raises(ValueError, match="two blocks"):
        fit.fit(points(1, blocks=1))


# The design.


@pytest.mark.parametrize("quick", [True, False])
def test_each_pair_of_levels_comes_once(quick: bool) -> None:
    sizes = model.design(quick)
    levels = 3 if quick else 4
    square = sizes[: levels**2]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert len({(size[one], size[other]) for size in square}) == levels**2
    assert len(set(sizes)) == len(sizes)
    # Where there are no more pages, descriptors don't grow as mappings do.
    mappings, descriptors = zip(*(size[::2] for size in square if not size[1]), strict=True)
    assert sorted(descriptors) != [d for _, d in sorted(zip(mappings, descriptors, strict=True))]


def test_no_more_descriptors_than_allowed() -> None:
    code = "from pyweb.lab import model; print(max(size[2] for size in model.design(False)))"
    done = limited("ulimit -n 300", sys.executable, "-c", code)
    assert int(done.stdout) == 300 - 32


def test_without_memory_no_gigabyte(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be taken from everybody else."""
    monkeypatch.setattr(machine, "available_memory", lambda: 2000 << 20)
    assert max(size[1] for size in model.design(False)) == 50_000
    assert not [job for job in model._jobs(False) if job.heap == "1000"]
    assert model._skipped(False) == ["a heap of 1 GB: 2500 MB must be available, 2000 MB are"]
    monkeypatch.setattr(machine, "available_memory", lambda: 4000 << 20)
    assert [job for job in model._jobs(False) if job.heap == "1000"]
    assert model._skipped(False) == []


# The processes.


def limited(limit: str, *command: str) -> subprocess.CompletedProcess[str]:
    """Under a limit of the shell's."""
    shell = ["sh", "-c", f'{limit}; exec "$0" "$@"', *command]
    return subprocess.run(shell, capture_output=True, text=True, timeout=60, check=False)


def told_and_seen(command: list[str]) -> tuple[list[int], tuple[int, int, int]]:
    """What a process says it is, and what it looks like from outside while it forks."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            told = [int(word) for word in process.stdout.readline().split()]
            pid = process.pid
            return told, (procfs.mappings(pid), procfs.memory(pid)[1] // PAGE,
                          len(procfs.descriptors(pid)))  # fmt: skip
        finally:
            process.kill()


def same_size(told: list[int], seen: tuple[int, int, int]) -> bool:
    """A fork gives the child pages of its own, and the parent for a moment others."""
    return told[0] == seen[0] and abs(told[1] - seen[1]) < 40 and told[2] == seen[2]


def test_forks_is_what_it_says(programs: Programs) -> None:
    forks = str(programs.program("forks"))
    plain, seen = told_and_seen([forks, "0", "0", "0", "50000"])
    assert same_size(plain, seen)
    large, seen = told_and_seen([forks, "100", "5000", "60", "50000"])
    assert same_size(large, seen)
    assert 0 < large[0] - plain[0] - 100 <= 2  # that of the pages; and one may have a new neighbour
    assert 5000 + 30 <= large[1] - plain[1] < 5000 + 60  # two of five mappings have one
    assert large[2] - plain[2] == 60


def test_forks_tells_of_each_fork(programs: Programs) -> None:
    command = [str(programs.program("forks")), "3", "10", "2", "7"]
    out = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    cycles = [[int(word) for word in line.split()] for line in out.splitlines()[1:]]
    assert len(cycles) == 7
    assert all(0 < forked < waited for forked, waited in cycles)


@pytest.mark.parametrize(
    ("limit", "words", "complaint"),
    [
        (":", "", "usage: forks MAPPINGS PAGES DESCRIPTORS COUNT"),
        (":", "1 2 3", "usage:"),
        (":", "x 0 0 1", "MAPPINGS: a number from 0 to 1000000, not x"),
        (":", "0 -1 0 1", "PAGES: a number from 0"),
        (":", "0 0 1e3 1", "DESCRIPTORS: a number"),
        (":", "0 0 0 0", "COUNT: a number from 1 "),
        (":", "0 99999999999999999999 0 1", "PAGES: a number"),
        ("ulimit -v 100000", f"0 {(1200 << 20) // PAGE} 0 1", "(1200 MB): Cannot allocate memory"),
        ("ulimit -v 100000", "900000 0 0 1", "no room for 900000 mappings"),
        ("ulimit -n 20", "0 0 21 1", "can't open 21 descriptors: Too many open files; raise"),
    ],
)
def test_forks_refuses_in_one_line(
    programs: Programs, limit: str, words: str, complaint: str
) -> None:
    done = limited(limit, str(programs.program("forks")), *words.split())
    assert done.returncode == 2
    assert not done.stdout
    assert done.stderr.startswith("forks: ")
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1


def interpreter(programs: Programs, what: str, count: int) -> list[str]:
    return model._Job("", count, heap=what).command(programs)


def test_heaps_are_what_they_say(programs: Programs) -> None:
    small, seen = told_and_seen(interpreter(programs, heaps.SMALL, 50000))
    assert same_size(small, seen)
    large, seen = told_and_seen(interpreter(programs, "30", 50000))
    assert same_size(large, seen)
    wanted = (30 << 20) // PAGE
    assert wanted * 0.95 < large[1] - small[1] < wanted * 1.1


def test_the_master_is_like_a_master(programs: Programs, serve: ServeFixture) -> None:
    """What this interpreter was given by whoever started it is beside the point: some more."""
    server = serve("--mode", "fork")
    assert server.ask("/hello.txt").status == 200
    until(lambda: not server.children(), "the child to be gone")
    told, seen = told_and_seen(interpreter(programs, heaps.MASTER, 50000))
    assert same_size(told, seen)
    real = server.master
    assert told[0] == pytest.approx(procfs.mappings(real), rel=0.15)
    assert told[1] == pytest.approx(procfs.memory(real)[1] // PAGE, rel=0.15)
    assert told[2] == pytest.approx(len(procfs.descriptors(real)), abs=3)


def test_both_sorts_of_forks_are_told(programs: Programs) -> None:
    run = model._read(output(interpreter(programs, heaps.SMALL, 4), cpu=None, seconds=60))
    assert sorted(run.means) == ["python", "raw"]
    assert all(0 < forked < waited for forked, waited in run.means.values())


def test_heaps_refuses_in_one_line(programs: Programs) -> None:
    for words in ("0", "x"), ("small", "0"), ("small", "-1"), ("big", "5"), ("", "5"):
        command = [*interpreter(programs, heaps.SMALL, 1)[:-2], *words]
        with pytest.raises(Failed, match=r"^usage: heaps DIRECTORY "):
            output(command, cpu=None, seconds=60)


# The experiment.


def test_a_quick_run_from_end_to_end(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(model._BLOCKS, True, 3)
    ticks: list[str] = []
    found = model.measure(programs, quick=True, tick=ticks.append, cpu=None)
    assert len(ticks) == model.steps(quick=True) == 3 * len(set(ticks))
    for one in found.fork, found.cycle:
        assert one.b.value > 0
        assert one.c.value > 0
        assert [len(point.ns) for point in one.points] == [3] * len(model.design(True))
    names = [(case.name, case.what) for case in found.cases]
    assert names == [
        (name, what)
        for name in ("a small interpreter", "pyweb's master", "a heap of 100 MB")
        for what in ("fork", "cycle")
    ]
    assert [case.pages for case in found.cases] == sorted(case.pages for case in found.cases)
    assert set(found.hooks) == {"a small interpreter", "pyweb's master"}
    data = json.loads(json.dumps(found.as_data(), allow_nan=False))
    assert data["fork"]["c"] == found.fork.c.as_list()
    assert [case["ok"] for case in data["cases"]] == [case.ok for case in found.cases]


def test_a_case_is_well_when_the_intervals_meet() -> None:
    one = Estimate(1, 0.9, 1.1)

    def case(measured: Estimate) -> model.Case:
        return model.Case("", "fork", 1, 1, 1, predicted=one, measured=measured, ratio=one)

    assert case(Estimate(1.2, 1.1, 1.3)).ok
    assert not case(Estimate(1.3, 1.2, 1.4)).ok


def test_what_a_process_complains_of_is_told() -> None:
    with pytest.raises(Failed, match=r"^too much$"):
        output(["sh", "-c", "echo oh; echo too much >&2; exit 2"], cpu=None, seconds=60)
    with pytest.raises(Failed, match=r"^sh ended: -9$"):
        output(["sh", "-c", "kill -9 $$"], cpu=None, seconds=60)


def test_nothing_lives_on_that_takes_too_long(tmp_path: Path) -> None:
    late = tmp_path / "late"
    code = f"import time; time.sleep(5); open({str(late)!r}, 'w')"
    with pytest.raises(Failed, match=r"^python.*: not done in 0\.1 s$"):
        output([sys.executable, "-c", code], cpu=None, seconds=0.1)
    assert not late.exists()


# The machine.


def test_pinned_and_back() -> None:
    before = os.sched_getaffinity(0)
    cpu = max(before)
    code = "import os; print(*os.sched_getaffinity(0))"
    assert output([sys.executable, "-c", code], cpu=cpu, seconds=60).split() == [str(cpu)]
    assert os.sched_getaffinity(0) == before
    with machine.pinned(None):
        assert os.sched_getaffinity(0) == before
    with pytest.raises(OSError, match="Invalid argument"), machine.pinned(100_000):
        pass
    assert os.sched_getaffinity(0) == before


def test_two_cpus_or_none() -> None:
    usable = os.sched_getaffinity(0)
    server, client = machine.server_cpu_and_client_cpu()
    if len(usable) > 1:
        assert server != client
        assert {server, client} <= usable
    with machine.pinned(min(usable)):
        assert machine.server_cpu_and_client_cpu() == (None, None)


def test_sets_of_cpus() -> None:
    assert machine._numbers("0-3,8") == {0, 1, 2, 3, 8}
    assert machine._numbers("") == set()


@pytest.mark.parametrize(
    ("config", "nohz_full", "ticks"),
    [
        ("CONFIG_TICK_CPU_ACCOUNTING=y\n", "", "yes"),
        ("# CONFIG_TICK_CPU_ACCOUNTING is not set\nCONFIG_VIRT_CPU_ACCOUNTING_GEN=y\n", "(null)",
         "yes"),
        ("CONFIG_VIRT_CPU_ACCOUNTING_GEN=y\n", "1-3", "no"),
        ("CONFIG_VIRT_CPU_ACCOUNTING_NATIVE=y\n", "", "no"),
        ("unknown", "", "unknown"),
    ],
)  # fmt: skip
def test_does_the_kernel_tick(config: str, nohz_full: str, ticks: str) -> None:
    assert machine._ticks(config, nohz_full) == ticks


def test_facts() -> None:
    found = json.loads(json.dumps(machine.facts()))
    assert found["cpus"] == len(os.sched_getaffinity(0))
    assert found["kernel"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
    assert found["memory_mb"] > machine.available_memory() >> 20 > 0
    assert found["engines"]
    assert all(found[name] for name in found)
