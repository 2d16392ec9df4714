"""pyweb-lab compare: two files that --json wrote, read, compared and shown. Nothing is measured.

Not here: what a comparison is (compare.py), and its words (tell_compare.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NoReturn

from . import compare, tell_compare
from .figures import Data, NotAnAnswer
from .session import Answer, Session, Unusable

_STDIN = "-"


def arguments(parser: argparse.ArgumentParser) -> None:
    for name, what in (("a", "an answer, as --json wrote it"), ("b", "another of that command")):
        parser.add_argument(name, metavar=f"{name.upper()}.json", help=f"{what}; -: standard input")


def run(session: Session) -> Answer:
    """Unusable: they can't be read, or are no two answers of one command."""
    options = session.options
    if options.a == options.b == _STDIN:
        raise Unusable("standard input can be one of the two: name a file for the other")
    answers = [_read(path) for path in (options.a, options.b)]
    try:
        found = compare.compare(*answers)
    except NotAnAnswer as why:
        raise Unusable(f"{options.a} and {options.b}: {why}") from None
    tell_compare.tell(session.console, found)
    return compare.as_data(found)


def _read(path: str) -> Data:
    """Unusable."""
    try:
        text = sys.stdin.read() if path == _STDIN else Path(path).read_text("utf-8")
        answer = json.loads(text, parse_constant=_no_number)
    except OSError as error:
        raise Unusable(f"{path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # what is no UTF-8 is a ValueError, too
        raise Unusable(f"{path}: not JSON: {error}") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("command"), str):
        raise Unusable(f"{path}: not an answer of pyweb-lab, as its --json PATH writes it")
    return answer


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")
