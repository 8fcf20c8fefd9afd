"""Means and deviations over the seeds of a setting, and paired comparisons of two settings."""

from __future__ import annotations

import dataclasses
import math
from importlib.util import find_spec
from typing import Sequence

import numpy as np

from gitloss.errors import check

LEVEL = 0.95  # of the intervals
INSTALL = 'intervals and p values need scipy: pip install "scipy>=1.5"'
# Equal differences of values near 1 differ by this much in float64: 0.3 - 0.2 and 0.2 - 0.1.
_ROUNDING = 1e-12


@dataclasses.dataclass(frozen=True)
class Summary:
    """The values of one setting.

    mean: NaN without values.
    std: their standard deviation, with divisor count - 1; NaN for less than two.
    count: their number.
    """

    mean: float
    std: float
    count: int


@dataclasses.dataclass(frozen=True)
class Paired:
    """The differences of pairs of values.

    mean, std, count: as in Summary, of the differences.
    interval: 95 % confidence interval of the mean difference, (low, high).
    p: of the paired t-test that the mean difference is 0, two-sided.

    Interval and p are NaN where they are not defined: without scipy, for one pair, and if all
    differences are equal and not 0, which says nothing of how they vary.
    """

    mean: float
    std: float
    count: int
    interval: tuple[float, float]
    p: float


def has_scipy() -> bool:
    """Whether there will be intervals and p values. If not, `INSTALL` says what to do."""
    return find_spec('scipy') is not None


def _finite(name: str, values: Sequence[float]) -> np.ndarray:
    rows = np.asarray(values, np.float64)
    check(rows.ndim == 1 and np.isfinite(rows).all(), name, 'finite numbers', list(values))
    return rows


def summary(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and number of values.

    Raises:
      ValueError: a value is not finite.
    """
    rows = _finite('values', values)
    mean = float(rows.mean()) if len(rows) else math.nan
    return Summary(mean, float(rows.std(ddof=1)) if len(rows) > 1 else math.nan, len(rows))


def paired(values: Sequence[float], baseline: Sequence[float]) -> Paired:
    """Compares values with a baseline, pair by pair: the paired t-test (Student 1908).

    Pairs of equal seeds share what the seed decides, so that their differences vary less than the
    values.

    Args:
      values, baseline: of the same seeds, in the same order.

    Raises:
      ValueError: they are not of one length, or a value is not finite.
    """
    rows, others = _finite('values', values), _finite('baseline', baseline)
    check(len(rows) == len(others), 'baseline', f'{len(rows)} values', len(others))
    found = summary(rows - others)
    mean, std, count = found.mean, found.std, found.count
    undefined = Paired(mean, std, count, (math.nan, math.nan), math.nan)
    if count < 2:
        return undefined
    if std <= _ROUNDING * max(np.abs(rows).max(), np.abs(others).max()):
        if abs(mean) <= _ROUNDING * np.abs(rows).max():
            return dataclasses.replace(undefined, mean=0.0, std=0.0, p=1.0)
        return dataclasses.replace(undefined, std=0.0)
    if not has_scipy():
        return undefined
    from scipy import stats

    half = float(stats.t.ppf((1 + LEVEL) / 2, count - 1)) * std / math.sqrt(count)
    p = float(stats.ttest_rel(rows, others).pvalue)
    return Paired(mean, std, count, (mean - half, mean + half), p)


def holm(values: Sequence[float]) -> list[float]:
    """p values of several comparisons, adjusted so that the probability of one false finding among
    all of them stays below the level (Holm 1979, "A simple sequentially rejective multiple test
    procedure").

    The i-th smallest of m is multiplied by m - i + 1, and is at least the one before and at most 1.
    NaN, a comparison that was not made, stays NaN and does not count.
    """
    adjusted, largest = [math.nan] * len(values), 0.0
    places = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    for rank, (p, place) in enumerate(places):
        largest = max(largest, min(1.0, (len(places) - rank) * p))
        adjusted[place] = largest
    return adjusted
