"""A line through what forks cost: ns = a + b * mappings + c * private pages + d * descriptors.

Fitted by least squares of relative errors: the scatter grows with the cost (a fork of 1 GB takes
300 times as long as one of 1 MB, and misses the line by 300 times as many ns), and without weights
the largest processes alone would decide, and the small ones, which pyweb's master is like, would be
predicted by chance. Of each point the median over the blocks counts: weights from single values,
which are too low when the value is, would pull the line down.

Intervals: of a to d by drawing blocks anew (bootstrap); of a prediction by that, and by how far the
points lie from the line, for a new process will lie as far from it. So what is not linear makes
predictions wider, not wrong. Not here: which processes, and how they are measured (model.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .statistics import Estimate

# The same data give the same interval.
_SEED = 2
_ROUNDS = 1000
_TURNS = 4
_COEFFICIENTS = 4

_Array = NDArray[np.float64]


@dataclass(frozen=True)
class Point:
    """A process: its size, and what it took (ns), one value a block."""

    mappings: float
    pages: float
    descriptors: float
    ns: tuple[float, ...]


@dataclass(frozen=True)
class Model:
    """a: ns a fork; b, c, d: ns for each mapping, page, descriptor. `error`: by how much the points
    miss the line, the median of |measured / fitted - 1|. `r2`: the share of the points' variance
    that it explains, of logarithms, for as in the fit each point is to count."""

    a: Estimate
    b: Estimate
    c: Estimate
    d: Estimate
    error: float
    r2: float
    points: tuple[Point, ...]
    _line: _Array = field(repr=False, compare=False)
    _draws: _Array = field(repr=False, compare=False)  # rounds x 4
    _misses: _Array = field(repr=False, compare=False)  # of each round, relative
    _blocks: _Array = field(repr=False, compare=False)  # blocks x 4

    def predict(self, mappings: float, pages: float, descriptors: float) -> Estimate:
        """What one more process of this size takes (ns): the interval is that of the prediction,
        not only of the line."""
        return self._estimate(1, mappings, pages, descriptors)

    def predict_change(
        self, *, mappings: float = 0, pages: float = 0, descriptors: float = 0
    ) -> Estimate:
        """How much longer (ns) it takes when a process grows by this; as far off as points are,
        for what it grows by may miss the line as they do."""
        return self._estimate(0, mappings, pages, descriptors)

    def predict_by_block(
        self, mappings: float, pages: float, descriptors: float
    ) -> tuple[float, ...]:
        """The same from each block alone (ns): for comparison with what was measured in it."""
        return tuple((self._blocks @ _row(1, mappings, pages, descriptors)).tolist())

    def as_data(self) -> dict[str, Any]:
        """For JSON."""
        coefficients = {name: getattr(self, name).as_list() for name in "abcd"}
        points = [
            [p.mappings, p.pages, p.descriptors, float(np.median(p.ns)), self._at(p)]
            for p in self.points
        ]
        names = ["mappings", "pages", "descriptors", "median_ns", "fitted_ns"]
        table = [dict(zip(names, point, strict=True)) for point in points]
        return {**coefficients, "error": self.error, "r2": self.r2, "points": table}

    def _at(self, point: Point) -> float:
        return float(self._line @ _row(1, point.mappings, point.pages, point.descriptors))

    def _estimate(self, *row: float) -> Estimate:
        weights = _row(*row)
        return _estimate(float(self._line @ weights), self._draws @ weights * (1 + self._misses))


def fit(points: Sequence[Point]) -> Model:
    """ValueError: fewer points than a line needs, fewer than two blocks, or not as many values of
    each point."""
    if len(points) <= _COEFFICIENTS:
        raise ValueError(f"{len(points)} points for {_COEFFICIENTS} coefficients")
    rows = np.array([_row(1, p.mappings, p.pages, p.descriptors) for p in points])
    times = np.array([p.ns for p in points], dtype=float).T
    if len(times) < 2:
        raise ValueError("an interval needs two blocks")
    dice = np.random.default_rng(_SEED)
    typical = np.median(times, axis=0)
    line = _solve(rows, typical)
    picks = dice.integers(0, len(times), (_ROUNDS, len(times)))
    draws = np.array([_solve(rows, np.median(times[pick], axis=0)) for pick in picks])
    fitted = rows @ line
    misses = typical / fitted - 1
    # A line through few points lies closer to them than to the next one.
    widened = misses * np.sqrt(len(points) / (len(points) - _COEFFICIENTS))
    a, b, c, d = (_estimate(float(line[i]), draws[:, i]) for i in range(_COEFFICIENTS))
    return Model(
        a, b, c, d,
        error=float(np.median(np.abs(misses))),
        r2=_share_explained(typical, fitted),
        points=tuple(points),
        _line=line,
        _draws=draws,
        _misses=dice.choice(widened, _ROUNDS),
        _blocks=np.array([_solve(rows, block) for block in times]),
    )  # fmt: skip


def _row(*values: float) -> _Array:
    return np.array(values, dtype=float)


def _solve(rows: _Array, times: _Array) -> _Array:
    """The line that misses them by the least sum of squares of (time / line - 1).

    Found by turns, for the weights are the line's own. With 1 / time as weights one turn would do,
    but a time that chance made short would weigh more than one that it made long."""
    expected = times
    for _ in range(_TURNS):
        weighted = rows / expected[:, None]
        found, *_rest = np.linalg.lstsq(weighted, times / expected, rcond=None)
        # A line that runs near zero somewhere must not make that place the only one that counts.
        expected = np.clip(rows @ found, times / 2, times * 2)
    return np.asarray(found, dtype=float)


def _share_explained(times: _Array, fitted: _Array) -> float:
    """Of logarithms. A line that runs below zero explains nothing there: 0."""
    if np.any(fitted <= 0):
        return 0.0
    logs = np.log(times)
    return float(1 - np.sum((logs - np.log(fitted)) ** 2) / np.sum((logs - logs.mean()) ** 2))


def _estimate(value: float, draws: _Array) -> Estimate:
    low, high = np.percentile(draws, (2.5, 97.5))
    return Estimate(value, float(low), float(high))
