"""The numbered reasons: each means one thing, is used, and has a status that HTTP knows."""

from __future__ import annotations

import re
from http import HTTPStatus
from pathlib import Path

import pytest

from pyweb.errors import Reason
from pyweb.message import PHRASES

PACKAGE = Path(__file__).parent.parent / "src" / "pyweb"
USE = re.compile(r"\bReason\.([A-Z][A-Z0-9_]*)\b")
# _fastparse.pxd names the flaws of a head again; _fastparse.pyx must then use the name.
FLAW = re.compile(r"\b([A-Z][A-Z0-9_]*)\b")


def used() -> set[str]:
    names: set[str] = set()
    for path in PACKAGE.glob("*.py*"):
        if path.name == "errors.py" or path.suffix not in (".py", ".pyx"):
            continue
        text = path.read_text("utf-8")
        names |= set((FLAW if path.name == "_fastparse.pyx" else USE).findall(text))
    return names


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_is_used(reason: Reason) -> None:
    assert reason.name in used()


def test_numbers_are_unique() -> None:
    """An alias would vanish from list(Reason); so what is written is counted."""
    text = (PACKAGE / "errors.py").read_text("utf-8")
    written = re.findall(r"^    ([A-Z][A-Z0-9_]*) = (\d+), (\d+), \"", text, re.MULTILINE)
    assert len(written) == len(Reason) > 50
    assert len({number for _, number, _ in written}) == len(written)
    for name, number, status in written:
        assert (Reason[name], Reason[name].status) == (int(number), int(status))


def test_nothing_unknown_is_used() -> None:
    known = set(Reason.__members__)
    for path in PACKAGE.glob("*.py"):
        assert set(USE.findall(path.read_text("utf-8"))) <= known, path.name


def test_statuses() -> None:
    """0, 200, or an error's that has a phrase."""
    for reason in Reason:
        if reason.status:
            assert HTTPStatus(reason.status)
            assert reason.status in PHRASES
        assert reason.status in (0, 200) or 400 <= reason.status < 600


def test_meanings() -> None:
    """They complete a sentence: no capital, no full stop, one line, each its own."""
    meanings = [reason.meaning for reason in Reason]
    assert len(set(meanings)) == len(meanings)
    for meaning in meanings:
        assert meaning.isprintable()
        assert meaning == meaning.strip(" .")
        assert len(meaning) <= 90
