"""README and ARCHITECTURE say what the code says: options, reasons, modules, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pyweb
from pyweb.config import OPTIONS, Option
from pyweb.errors import Reason

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()


@pytest.mark.parametrize("reason", Reason, ids=lambda r: r.name)
def test_each_reason_is_documented(reason: Reason) -> None:
    row = f"| {reason:d} | {reason.status or '-'} | {reason.meaning} |"
    assert row in (ROOT / "docs" / "reasons.md").read_text()


@pytest.mark.parametrize("option", OPTIONS, ids=lambda o: o.name)
def test_each_option_is_documented(option: Option) -> None:
    assert re.search(rf"`(-\w, )?--{option.name}\b.*` \| ", README)
    if option.default not in (None, "false"):
        assert re.search(rf"--{option.name}\b.*` \| {re.escape(option.default)} \|", README)


def test_architecture_names_every_module() -> None:
    for path in Path(pyweb.__file__).parent.iterdir():
        if path.suffix in (".py", ".pyx") and not path.name.startswith("__"):
            assert path.name in ARCHITECTURE, path.name


def test_architecture_names_every_module_of_the_laboratory() -> None:
    for path in (Path(pyweb.__file__).parent / "lab").rglob("*"):
        if path.suffix in (".py", ".c", ".h") and not path.name.startswith("__"):
            assert path.name in ARCHITECTURE, path.name


def test_commands_of_the_readme_are_in_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in set(re.findall(r"make ([a-z]+(?:-[a-z]+)?)\b", README)) - {"it", "connections"}:
        assert f"\n{command}:" in makefile, command


def test_links_lead_somewhere() -> None:
    for text in (README, ARCHITECTURE):
        for target in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / target).exists(), target
