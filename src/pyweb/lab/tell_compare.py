"""What a person sees of a comparison: what differs, what to doubt, and a table for each group.

Not here: what is compared, and when a change is one.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .compare import CHANGED, SAME, UNKNOWN, WITHIN_AA, Change, Comparison
from .figures import TIMES
from .statistics import QUIET, Estimate, is_quiet
from .tell import times, us

_STYLES = {CHANGED: "bold magenta", UNKNOWN: "dim", WITHIN_AA: "yellow", SAME: ""}
# A list of what is in one only must not be longer than the tables.
_MOST = 12


def tell(console: Console, found: Comparison) -> None:
    for line, style in (*_of_machines(found), *_doubts(found), _counted(found)):
        console.print(Text(line, style=style), soft_wrap=True)
    groups: dict[tuple[str, str], list[Change]] = {}
    for one in found.changes:
        groups.setdefault((one.section, one.a.group), []).append(one)
    for group in groups.values():
        console.print(_table(group))
    for line in _only(found):
        console.print(Text(line), soft_wrap=True)


Line = tuple[str, str]


def _of_machines(found: Comparison) -> Iterator[Line]:
    if not found.differs:
        yield "the same machine twice, by all that the answers tell", ""
    for name, (a, b) in found.differs.items():
        yield f"{name}: {a} -> {b}", "bold"
    if found.is_other_machine:
        yield _TWO_MACHINES, "yellow"


_TWO_MACHINES = (
    "two machines: what rungs and servers are in units of another of the same run (first below)"
    " says more than us and requests/s do"
)
_TWO_RUNS = (
    "Intervals know how blocks of one run differ, not how two runs of the same thing do:"
    " compare two of those first."
)


def _doubts(found: Comparison) -> Iterator[Line]:
    for name, pair in found.same.items():
        where = f" of {name}" if name else ""
        for side, same in zip("AB", pair, strict=True):
            yield from _doubt(side, where, same)
    yield _TWO_RUNS, "dim"


def _doubt(side: str, where: str, same: Estimate | None) -> Iterator[Line]:
    """Nothing of a run that was quiet."""
    if same is None:
        yield f"{side}: no A/A{where}: how noisy that run was is not known", "yellow"
    elif not same.is_bounded:
        yield f"{side}: A/A{where} {times(same)}: too few blocks to tell", "bold red"
    elif not is_quiet(same):
        low, high = QUIET
        yield f"{side}: A/A{where} {times(same)}, may be {low} to {high}: NOISY", "bold red"


def _counted(found: Comparison) -> Line:
    text = (
        f"{found.count(CHANGED)} of {found.told} figures changed; at 95 % about"
        f" {found.by_chance:.1f} would by chance alone"
    )
    if within := found.count(WITHIN_AA):
        text += f"; {within} more differ by less than A/A does"
    if unknown := found.count(UNKNOWN):
        text += f"; of {unknown} it can't be told"
    return text, "bold"


def _table(group: list[Change]) -> Table:
    first = group[0]
    title = ": ".join(filter(None, (first.section, first.a.group)))
    table = Table("figure", title=title)
    for name in ("unit", "A", "B", "B / A"):
        table.add_column(name, justify="right")
    table.add_column("")
    for one in sorted(group, key=lambda one: -one.size):
        unit = "" if one.a.unit == TIMES else one.a.unit
        shown = (_value(one, side) for side in (one.a.estimate, one.b.estimate))
        table.add_row(one.a.name, unit, *shown, _by(one), words(one), style=_STYLES[one.verdict])
    return table


def _value(one: Change, found: Estimate) -> str:
    return times(found) if one.a.unit == TIMES else us(found)


def _by(one: Change) -> str:
    if one.is_ratio:
        return times(one.by)
    return f"B - A: {_value(one, one.by)}"


def words(one: Change) -> str:
    """The verdict, and how far it goes."""
    if one.verdict == CHANGED:
        return f"changed: {_amount(one)} {'more' if one.delta > 0 else 'less'}"
    if one.verdict == WITHIN_AA:
        return "within what A/A differs"
    if one.verdict == UNKNOWN:
        return UNKNOWN
    return f"same within {_percent(one.within) if one.is_ratio else _plain(one, one.within)}"


def _amount(one: Change) -> str:
    return _percent(abs(one.by.value - 1)) if one.is_ratio else _plain(one, abs(one.delta))


def _percent(share: float) -> str:
    return f"{share * 100:.{1 if share < 0.1 else 0}f} %"


def _plain(one: Change, value: float) -> str:
    return f"{value:.{0 if value >= 100 else 1}f} {one.a.unit}"


def _only(found: Comparison) -> Iterator[str]:
    for side, lines in zip("AB", found.only_in, strict=True):
        yield from (f"only in {side}: {line}" for line in lines[:_MOST])
        if len(lines) > _MOST:
            yield f"only in {side}: and {len(lines) - _MOST} more"
