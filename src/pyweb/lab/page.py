"""A report's answer becomes one HTML file that needs nothing else: no file, no address, no network.

Templates by jinja2, which escapes all that is not markup of ours. Whatever is not in the answer is
said in its place. Not here: what the parts mean (of_*.py), how figures are written (forms.py) and
drawn (canvas.py).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jinja2
from markupsafe import Markup

from . import forms, of_ladder, of_model, of_servers
from .doubts import PARTS, doubts
from .layout import Section, Table

# What is told of each peer, as far as it is known.
_PEER = ("name", "title", "version", "process", "command", "configuration", "notes")
_LOADER = jinja2.PackageLoader("pyweb.lab", "templates")


def render(answer: Mapping[str, Any]) -> str:
    """`answer`: of the command report. ValueError, TypeError: it is not of that shape."""
    raw, answer = answer, _known(answer)
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
        peers_line=of_servers.finding(parts.get("peers")),
        doubts=doubts(answer),
        sections=_sections(parts),
        machine=_machine(answer),
        where=_where(answer),
        peers=[{word: one.get(word) or "" for word in _PEER}
               for one in (parts.get("peers") or {}).get("peers") or ()],
        setting=(parts.get("peers") or {}).get("setting") or (),
        undrawn=[name for name in parts if name not in PARTS],
        answer=raw,
    )  # fmt: skip


def _known(value: Any) -> Any:
    """What is null is not there. Ends of an interval are: they are in a list."""
    if isinstance(value, Mapping):
        return {key: _known(one) for key, one in value.items() if one is not None}
    if isinstance(value, list):
        return [_known(one) for one in value]
    return value


def _sections(parts: Mapping[str, Any]) -> list[Section]:
    """The most important first."""
    ladder = of_ladder.sections(parts.get("ladder"))
    servers = of_servers.sections(*(parts.get(name) for name in ("load", "peers", "article")))
    *most, latencies = servers
    return [*ladder, *most, of_model.section(parts.get("model")), latencies]


def _where(answer: Mapping[str, Any]) -> list[str]:
    """In short: the table of the machine has all."""
    facts = answer.get("machine") or {}
    found = [facts.get(name) for name in ("cpu", "kernel", "python")]
    return [str(one) for one in (*found, answer.get("date")) if one]


def _machine(answer: Mapping[str, Any]) -> Table | None:
    """And with which settings; None: nothing is known."""
    facts = dict(answer.get("machine") or {})
    if not facts:
        return None
    facts["run"] = "quick" if answer.get("quick") else "full"
    for name, part in (answer.get("parts") or {}).items():
        if blocks := _blocks(part):
            facts[f"blocks of {name}"] = blocks
    rows = tuple((forms.text(_FACTS.get(name, name.replace("_", " "))), _fact(value))
                 for name, value in facts.items())  # fmt: skip
    return Table("Machine, kernel, versions, settings", ("what", "is"), rows)


_FACTS = {"cpu": "CPU", "cpus": "CPUs", "memory_mb": "memory, MB",
          "ticks_for_cpu_accounting": "ticks for CPU accounting"}  # fmt: skip


def _fact(value: Any) -> forms.Cell:
    if isinstance(value, int) and not isinstance(value, bool):
        return replace(forms.plain(value), is_number=False)  # in a column of words
    return forms.text(", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value)


def _blocks(part: Mapping[str, Any]) -> int:
    """A ladder has a list of walls for each rung; loads have blocks by server, by load. 0: they are
    not kept."""
    kept = part.get("blocks") or {}
    runs = kept.get("walls") or {
        (load, server): each for load, servers in kept.items() for server, each in servers.items()
    }
    return max(map(len, runs.values()), default=0)


def _text(environment: jinja2.Environment, name: str) -> str:
    return _LOADER.get_source(environment, name)[0]
