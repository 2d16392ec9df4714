"""pyweb-lab report: every other command, one after the other, and one page of all their answers.

A part that can't be measured is told, and the others go on. With --json the answers are kept after
each part, so that a run that is broken off is not lost. Not here: how the page looks (page.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from .data import as_json
from .session import FAILURES, Answer, Measure, Session, Unusable, check_writable

NEEDED = ("jinja2", "matplotlib")
PAGE = "pyweb-report.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="PATH", default=PAGE, help=f"the page [{PAGE}]")
    about = "draw what others have kept with --json, of a report or of a part; measure nothing"
    parser.add_argument("--from", metavar="PATH", dest="sources", nargs="+", help=about)


def report(session: Session, parts: Mapping[str, Measure]) -> Answer:
    """Unusable, OSError. The page is written to --output."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise Unusable(f"the page needs {' and '.join(missing)}: pip install 'pyweb[lab]'")
    from .page import render

    output = session.options.output
    check_writable("--output", output)
    sources = session.options.sources
    answer = _together(sources, parts) if sources else _measured(session, parts)
    try:
        page = render(answer)
    except (TypeError, AttributeError, LookupError, ValueError):
        if not sources:
            raise  # a defect of ours
        raise Unusable("--from: the answers are not as pyweb-lab writes them") from None
    Path(output).write_text(page, "utf-8")
    session.say(f"{output}: open it in a browser")
    return answer


def _together(paths: Sequence[str], parts: Collection[str]) -> Answer:
    """The first tells of the machine; of a part that several have, the last is taken."""
    kept = [_kept(path, parts) for path in paths]
    found = {name: part for one in kept for name, part in one["parts"].items()}
    known = {name: found[name] for name in parts if name in found}
    missing = [line for line in kept[0].get("missing", ()) if line.split(":")[0] not in known]
    return kept[0] | {"parts": known, "missing": missing}


def _kept(path: str, parts: Collection[str]) -> Answer:
    """A report; one of a single part if that is what it is."""
    try:
        answer = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise Unusable(f"--from {path}: {error.strerror}") from None
    except ValueError:
        raise Unusable(f"--from {path}: no JSON; name what --json has written") from None
    command = answer.get("command") if isinstance(answer, dict) else None
    if command in parts and "interpreters" in answer:
        raise Unusable(f"--from {path}: a ladder of several interpreters, which has no page")
    if command in parts:
        head = {name: answer[name] for name in ("quick", "date", "machine") if name in answer}
        return {"command": "report", "parts": {command: answer}, "missing": [], **head}
    if command != "report" or not isinstance(answer.get("parts"), dict):
        raise Unusable(f"--from {path}: neither a report nor a part of one ({', '.join(parts)})")
    return answer  # type: ignore[no-any-return]


def _measured(session: Session, parts: Mapping[str, Measure]) -> Answer:
    found: Answer = {}
    missing: list[str] = []
    answer = session.headed({"parts": found, "missing": missing})
    for name, measure in parts.items():
        one = replace(session, command=name)
        session.say("", f"{name} ({len(found) + 1} of {len(parts)})")
        try:
            found[name] = one.headed(measure(one))
        except FAILURES as failure:
            missing.append(f"{name}: {failure}")
            session.say(f"{name} could not be measured: {failure}")
        _keep(session, answer)
    return answer


def _keep(session: Session, answer: Answer) -> None:
    if (path := session.options.json) and path != "-":
        # Whole, or as it was: a disk may be full, and a run broken off.
        beside = Path(f"{path}.new")
        beside.write_text(as_json(answer), "utf-8")
        beside.replace(path)
