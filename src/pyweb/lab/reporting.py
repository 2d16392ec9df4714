"""pyweb-lab report: every other command, one after the other, and one page of all their answers.

A part that can't be measured is told, and the others go on. With --json the answers are kept after
each part, so that a run that is broken off is not lost. Not here: how the page looks (page.py).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .data import as_json
from .session import FAILURES, Answer, Measure, Session, Unusable, check_writable

NEEDED = ("jinja2", "matplotlib")
PAGE = "pyweb-report.html"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="PATH", default=PAGE, help=f"the page [{PAGE}]")
    about = "draw what another run has kept with --json; measure nothing"
    parser.add_argument("--from", metavar="PATH", dest="source", help=about)


def report(session: Session, parts: Mapping[str, Measure]) -> Answer:
    """Unusable, OSError. The page is written to --output."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise Unusable(f"the page needs {' and '.join(missing)}: pip install 'pyweb[lab]'")
    from .page import render

    output = session.options.output
    check_writable("--output", output)
    source = session.options.source
    answer = _kept(source) if source else _measured(session, parts)
    Path(output).write_text(render(answer), "utf-8")
    session.say(f"{output}: open it in a browser")
    return answer


def _kept(path: str) -> Answer:
    try:
        answer = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise Unusable(f"--from {path}: {error.strerror}") from None
    except ValueError:
        raise Unusable(f"--from {path}: no JSON; name what report --json has written") from None
    if not isinstance(answer, dict) or answer.get("command") != "report":
        raise Unusable(f"--from {path}: no report; name what report --json has written")
    return answer


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
        Path(path).write_text(as_json(answer), "utf-8")
