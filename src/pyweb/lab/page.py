"""A report's answer becomes one HTML file that needs nothing else: no file, no address, no network.

Templates by jinja2, which escapes all that is not markup of ours. Whatever is not in the answer is
said in its place. Not here: what the parts mean (of_*.py), how figures are written (forms.py) and
drawn (canvas.py).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import jinja2
from markupsafe import Markup

from . import of_ladder
from .doubts import doubts

_LOADER = jinja2.PackageLoader("pyweb.lab", "templates")


def render(answer: Mapping[str, Any]) -> str:
    """`answer`: of the command report. ValueError, TypeError: it is not of that shape."""
    parts: Mapping[str, Any] = answer.get("parts") or {}
    environment = jinja2.Environment(
        loader=_LOADER, autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
    script = _text(environment, "report.js")
    return environment.get_template("report.html").render(
        style=Markup(_text(environment, "report.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        headline=of_ladder.headline(parts.get("ladder")),
        doubts=doubts(answer),
        sections=of_ladder.sections(parts.get("ladder")),
        answer=answer,
    )


def _text(environment: jinja2.Environment, name: str) -> str:
    return _LOADER.get_source(environment, name)[0]
