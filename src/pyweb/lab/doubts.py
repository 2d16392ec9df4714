"""What should make a reader doubt a report: of all its parts, said on top. Not here: its looks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .statistics import QUIET, estimate, is_quiet
from .tell import NOT_PINNED

PARTS = ("ladder", "model", "load", "peers", "article")

# What makes it another machine, or another program.
_IDENTITY = ("cpu", "cpus", "kernel", "python", "pyweb")


@dataclass(frozen=True)
class Doubts:
    """`lines`: none, and it was quiet. `void`: of runs that are in no figure, each with its part;
    `lines` has how many they are. `same`: the A/A of each part, in words."""

    lines: tuple[str, ...]
    void: tuple[str, ...]
    same: tuple[str, ...]


def doubts(answer: Mapping[str, Any]) -> Doubts:
    parts = answer.get("parts") or {}
    lines, void, same = [], [], []
    if answer.get("quick"):
        lines.append("A quick run: few blocks, wide intervals.")
    if (answer.get("machine") or {}).get("pinned") == NOT_PINNED:
        lines.append("Not pinned: servers and clients moved between CPUs, so phases overlap and"
                     " say less.")  # fmt: skip
    lines += [f"Not measured: {line}" for line in answer.get("missing") or ()]
    for name in PARTS:
        part = parts.get(name)
        if not part:
            if not any(line.startswith(f"Not measured: {name}") for line in lines):
                lines.append(f"Not measured: {name}")
            continue
        if part.get("quick") and not answer.get("quick"):
            lines.append(f"{name}: a quick run")
        lines += _other_machine(name, part, answer)
        said, is_bad = _same(part)
        same.append(f"{name} {said}")
        if is_bad:
            lines.append(f"{name}: A/A {said}")
        lines += [f"{name}, failed runs under {line}" for line in _failed(part)]
        lines += [f"{name}, missing: {line}" for line in part.get("missing") or ()]
        if count := len(thrown := part.get("void") or ()):
            lines.append(f"{name}: {count} {'run was' if count == 1 else 'runs were'} void, and not"
                         " counted")  # fmt: skip
        void += [f"{name}, void run: {line}" for line in thrown]
        lines += [f"{name}, left out: {line}" for line in part.get("skipped") or ()]
    return Doubts(tuple(lines), tuple(void), tuple(same))


def _other_machine(name: str, part: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """Parts of several runs may have been put together."""
    here, there = (dict(one.get("machine") or {}) for one in (answer, part))
    names = [what for what in _IDENTITY if there and here.get(what) != there.get(what)]
    return [f"{name}: from elsewhere, {what} {there.get(what)}" for what in names]


def _same(part: Mapping[str, Any]) -> tuple[str, bool]:
    found = estimate(part.get("aa"))
    low, high = QUIET
    if found is None:
        return "not known: noise was not measured", True
    said = f"{found.value:.3f}"
    if not found.is_bounded:
        return f"{said} [?]: fewer than 6 blocks, so no intervals and no word on noise", True
    said += f" [{found.low:.3f}, {found.high:.3f}]"
    if is_quiet(found):
        return said, False
    return f"{said}, may be {low} to {high}: noisy, believe no small difference", True


def _failed(part: Mapping[str, Any]) -> Iterator[str]:
    """By load: of which server how many. What went wrong is said in its table."""
    for load, found in (part.get("loads") or {}).items():
        counts = {server: len(lines) for server, row in (found.get("rows") or {}).items()
                  if (lines := row.get("failures"))}  # fmt: skip
        if counts:
            yield f"{load}: {', '.join(f'{server} {count}' for server, count in counts.items())}"
