"""What a page is made of: sections, and in them pictures, tables and lines. Not here: HTML."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import NamedTuple

from .forms import Cell


@dataclass(frozen=True)
class Table:
    """`rows`: each as wide as `heads`; the first cell of a row is its name."""

    caption: str
    heads: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def numbers(self) -> tuple[bool, ...]:
        """Which columns are of figures."""
        columns = zip(*self.rows, strict=True)
        return tuple(any(cell.is_number for cell in column) for column in columns)

    @property
    def copied(self) -> str:
        """As TSV: an estimate has three columns."""
        widths = [max(len(cell.copied) for cell in column)
                  for column in zip(*self.rows, strict=True)]  # fmt: skip
        heads = [
            word
            for head, width in zip(self.heads, widths, strict=True)
            for word in ([head, f"{head} low", f"{head} high"] if width == 3 else [head])
        ]
        written = io.StringIO()
        writer = csv.writer(written, dialect="excel-tab", lineterminator="\n")
        writer.writerow(heads)
        for row in self.rows:
            cells = zip(row, widths, strict=True)
            writer.writerow([w for cell, n in cells for w in _filled(cell, n)])
        return written.getvalue()


def _filled(cell: Cell, width: int) -> tuple[str, ...]:
    return (*cell.copied, *[""] * (width - len(cell.copied)))


class Key(NamedTuple):
    """Of a legend. `symbol`: the mark that it is drawn with; none: a colour alone."""

    ink: str
    title: str
    symbol: str = ""


@dataclass(frozen=True)
class Section:
    """`absent`: a line that says what is not there; then the rest may be empty."""

    name: str
    title: str
    lead: str = ""
    absent: str = ""
    picture: str = ""
    legend: tuple[Key, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
