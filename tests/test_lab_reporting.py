"""pyweb-lab report: what is kept, what is drawn of it, and one line for whatever is wrong."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path

import lab_known
import pytest
from rich.console import Console
from test_lab_cli import lab
from test_lab_report import fonts  # noqa: F401 - of every module that draws

from pyweb.lab import reporting
from pyweb.lab.build import Programs
from pyweb.lab.run import Failed
from pyweb.lab.rungs import Place
from pyweb.lab.session import Answer, Session, Unusable


def kept(path: Path, answer: Answer) -> str:
    path.write_text(json.dumps(answer), "utf-8")
    return str(path)


def drawn(tmp_path: Path, *words: str) -> str:
    output = tmp_path / "page.html"
    done = lab("report", "--output", str(output), *words)
    assert done.returncode == 0, done.stderr
    assert f"{output}: open it in a browser" in done.stdout.replace("\n", "")
    return output.read_text("utf-8")


def test_a_kept_report_is_drawn(tmp_path: Path) -> None:
    page = drawn(tmp_path, "--from", kept(tmp_path / "kept.json", lab_known.report()))
    assert "What a connection costs" in page
    assert "Not measured" not in page


def test_parts_are_put_together(tmp_path: Path) -> None:
    """Of a part that several have, the last; what was missing is so no more."""
    whole = lab_known.report()
    article = whole["parts"].pop("article") | {"quick": True}
    whole["missing"] = ["article: broken off"]
    ladder = lab_known.ladder() | {"command": "ladder", "aa": [0.91, 0.9, 0.92]}
    files = [kept(tmp_path / "whole.json", whole),
             kept(tmp_path / "article.json", article | {"command": "article"}),
             kept(tmp_path / "ladder.json", ladder)]  # fmt: skip
    page = drawn(tmp_path, "--from", *files, "--json", str(tmp_path / "all.json"))
    assert "Not measured" not in page
    assert "article: a quick run" in page
    assert "ladder: A/A 0.910" in page
    answer = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert list(answer["parts"]) == ["ladder", "model", "load", "peers", "article"]
    assert answer["missing"] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "no JSON; name what --json has written"),
        ("[]", "neither a report nor a part of one (ladder, model, load, peers, article)"),
        ('{"command": "compare"}', "neither a report nor a part of one"),
        ('{"command": "report", "parts": 3}', "neither a report nor a part of one"),
        (None, "No such file or directory"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "kept.json"
    if text is not None:
        path.write_text(text, "utf-8")
    done = lab("report", "--output", str(tmp_path / "page.html"), "--from", str(path))
    assert done.returncode == 2
    assert f"--from {path}: {said}" in done.stderr.replace("\n", "")
    assert not (tmp_path / "page.html").exists()


def test_a_page_that_can_not_be_written_is_told_first(tmp_path: Path) -> None:
    done = lab("report", "--output", str(tmp_path / "none" / "page.html"))
    assert done.returncode == 2
    assert "name a file that can be written" in done.stderr


def session(tmp_path: Path) -> Session:
    options = argparse.Namespace(
        quick=True, blocks=2, no_pin=True, sources=None, output=str(tmp_path / "page.html"),
        json=str(tmp_path / "kept.json"),
    )  # fmt: skip
    place = Place(tmp_path, Programs(tmp_path))
    return Session("report", options, place, Console(file=io.StringIO(), width=200))


def test_a_part_that_fails_costs_no_other(tmp_path: Path) -> None:
    """And what there is is kept after each part."""
    one = session(tmp_path)
    seen = []

    def ladder(inner: Session) -> Answer:
        assert inner.command == "ladder"
        return lab_known.ladder()

    def model(_inner: Session) -> Answer:
        seen.append(json.loads((tmp_path / "kept.json").read_text("utf-8"))["parts"].keys())
        raise Failed("no room")

    answer = reporting.report(one, {"ladder": ladder, "model": model})
    assert seen == [{"ladder": 0}.keys()]
    assert answer["missing"] == ["model: no room"]
    assert "model could not be measured: no room" in one.console.file.getvalue()  # type: ignore[attr-defined]
    assert "Not measured: model: no room" in (tmp_path / "page.html").read_text("utf-8")


def test_what_the_page_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = session(tmp_path)
    monkeypatch.setattr(reporting, "NEEDED", ("jinja2", "no_such_package"))
    with pytest.raises(
        Unusable, match=r"the page needs no_such_package: pip install 'pyweb\[lab\]'"
    ):
        reporting.report(one, {})
