"""Races and connections that are held: each server really runs, and what fails has no figure."""

from __future__ import annotations

import pytest
import test_lab_peers
from conftest import need
from test_lab_cli import lab

from pyweb.lab import hold, race
from pyweb.lab import load as loads
from pyweb.lab.peers import BY_NAME
from pyweb.lab.race import Load
from pyweb.lab.run import Failed
from pyweb.lab.rungs import Place

place = test_lab_peers.place


@pytest.mark.parametrize(
    ("load", "names"),
    [
        (Load("ab", 4, 0.1), ("c-serve", "pyweb --mode prefork")),
        (Load("wrk", 4, 0.2), ("c-fork-keep", "pyweb")),
        (Load("wrk", 2, 0.2, piece=(100, 199)), ("prefork", "pyweb")),
        (Load("close", 2, 0.2), ("prefork", "pyweb")),
        (Load("open", 2, 0.2), ("prefork", "pyweb")),
        (Load("wrk", 2, 0.2, logs=False), ("nginx", "pyweb --mode prefork")),
        (Load("wrk", 2, 0.2, logs=False), ("apache", "pyweb")),
    ],
)
def test_a_race(
    place: Place, load: Load, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loads, "_TIME_WAIT", 0)  # other tests have left many; it may be late
    for name in set(names) & set(BY_NAME):
        if not BY_NAME[name].find():
            need(name)
    for path in place.directory.glob("access*.log"):
        path.unlink()
    need({"close": "wrk", "open": "wrk"}.get(load.tool, load.tool))
    told: list[str] = []
    found = race.measure(race.entrants(place, names), load, 2, told.append)
    assert sorted(told) == sorted(names * 2)
    answer = found.as_data(load)
    assert answer["size"] == (100 if load.piece else place.size)
    for name in names:
        row, rates = answer["rows"][name], found.rates[name]
        assert len(rates) + len(row["failures"]) == 2  # no turn is lost; a busy machine voids some
        assert all(rate > 0 for rate in rates.values())
        assert row["first_s"] > 0
        if rates:
            assert row["p99_ms"] is not None or load.tool == "ab"
            assert all(wait > 0 for wait in found.waits.get(name, {}).values())
            assert row["bytes"][0] == pytest.approx(row["rate"][0] * answer["size"])
    # Where others have the CPUs, too, an open loop may be late in each of its runs: that is said.
    void = [text for row in answer["rows"].values() for text in row["failures"]]
    late = [text for text in void if "could not keep to its schedule" in text]
    assert any(found.rates.values()) or (load.tool == "open" and late == void)
    assert any(place.directory.glob("access*.log")) == load.logs
    if found.rates[names[0]]:
        assert answer["rows"][names[0]]["ratio"][0] == 1


def test_who_answers_otherwise_has_no_rate(place: Place) -> None:
    need("ab")
    one = race.entrants(place, ("pyweb --per-client 1",))
    found = race.measure(one, Load("ab", 4, 0.1), 1, lambda _: None)
    answer = found.as_data(Load("ab", 4, 0.1))
    [row] = answer["rows"].values()
    assert row["rate"] is None
    assert len(row["failures"]) == 1


def test_a_race_of_roots(place: Place) -> None:
    """Each of the files is asked for by its name."""
    need("wrk")
    load, asked = Load("wrk", 4, 0.3), race.entrants(place, ("pyweb",), (3, 1001))
    found = race.measure(asked, load, 1, lambda _: None)
    assert set(found.as_data(load)["rows"]) == {"pyweb, 3 files", "pyweb, 1001 files"}
    assert any(found.rates.values()), found.failures
    lines = (asked[0].place.log).read_text("utf-8").splitlines()
    assert {line.split()[6] for line in lines} == {
        "/page.txt", *(f"/d000/{number:06}.txt" for number in range(3))
    }  # fmt: skip


def test_who_can_not_be_silent(place: Place) -> None:
    load, asked = Load("wrk", 2, 0.2, logs=False), race.entrants(place, ("http.server",))
    with pytest.raises(Failed, match="leave it out"):
        race.measure(asked, load, 1, lambda _: None)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("pyweb,none",), "there is no server none"),
        (("pyweb,pyweb",), "each once"),
        (("pyweb", "--size", "many"), "a number of bytes"),
        (("pyweb", "--range", "5"), "two positions"),
        (("pyweb", "--range", "5-4", "--quick"), "--range: 5 to 4"),
        (
            ("pyweb", "--range", "5-9", "--load", "open", "--quick"),
            "an open loop asks for whole files",
        ),
        (("pyweb", "--files", "0"), "numbers of files"),
        (("pyweb", "--files", "10", "--quick"), "only wrk asks for many"),
    ],
)
def test_what_can_not_be_raced(words: tuple[str, ...], error: str) -> None:
    done = lab("race", *words)
    assert done.returncode != 0
    assert error in done.stderr


def test_connections_that_are_held(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """In mode fork each has its process; parked, or in a pool, none."""
    monkeypatch.setattr(hold, "_SETTLES", 0.3)
    found = hold.measure(place, 40, 1, lambda _: None)
    assert found.void == []
    rows = found.as_data()["rows"]
    assert set(rows) == set(hold.SERVERS)
    processes = {name: row["processes"] for name, row in rows.items()}
    assert processes["pyweb fork, a process each"] >= 40
    assert processes["pyweb fork, parked"] < 10
    assert processes["pyweb prefork"] < 10
    assert all(row["kb"] for row in rows.values())
