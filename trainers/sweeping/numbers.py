"""Numbers with their deviations, with as many decimals as the declared metric shows."""

from __future__ import annotations

import math

from gitloss.metrics import Metric
from gitloss.metrics.statistics import Paired, Summary


def _fixed(metric: Metric, like: float, value: float, sign: str = '') -> str:
    """`value` with the decimals that the metric shows of `like`."""
    shown = metric.text(like)
    if 'e' in shown:
        return format(value, f'{sign}.2e')
    return format(value, f'{sign}.{len(shown.partition(".")[2])}f')


def mean_text(metric: Metric, found: Summary, between: str = ' ± ') -> str:
    """mean ± standard deviation, or the only value; empty without one."""
    if not found.count:
        return ''
    mean = metric.text(found.mean)
    return mean if found.count == 1 else mean + between + _fixed(metric, found.mean, found.std)


def difference_text(metric: Metric, mean: float, difference: Paired) -> str:
    """mean ± standard deviation of differences.

    Args:
      mean: of the metric, whose decimals the differences have.
    """
    if not difference.count:
        return ''
    text = _fixed(metric, mean, difference.mean, '+')
    return text if difference.count == 1 else f'{text} ± {_fixed(metric, mean, difference.std)}'


def interval_text(metric: Metric, mean: float, difference: Paired) -> str:
    """The 95 % interval of differences, as `difference_text`; empty if it is not defined."""
    if math.isnan(difference.interval[0]):
        return ''
    return ' to '.join(_fixed(metric, mean, limit, '+') for limit in difference.interval)


def p_text(p: float) -> str:
    """A p value; empty if it is not defined."""
    return '' if math.isnan(p) else '< 0.001' if p < 0.001 else format(p, '.3f')
