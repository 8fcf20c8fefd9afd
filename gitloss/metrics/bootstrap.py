"""Confidence intervals by a bootstrap over identities.

The pairs of one person are not independent of each other: intervals of a bootstrap over pairs are
too narrow. Here people are drawn with replacement, and each pair counts as often as its people.
"""

from __future__ import annotations

from typing import Any, Callable, Iterator, Mapping

import numpy as np

from gitloss.errors import check
from gitloss.metrics.verification import Roc

_LEVEL = 0.95
_FEWEST_DEFINED = 0.9  # of the samples: a figure that most samples lack has no interval


def identity_weights(identities: np.ndarray, samples: int, seed: int = 0) -> Iterator[np.ndarray]:
    """The weights of pairs in `samples` bootstrap samples.

    A pair of two people counts once for each pair of their drawings, a pair of one person once for
    each drawing.

    Args:
      identities: [n, 2], the two people of each pair.

    Yields:
      float64 [n].

    Raises:
      ValueError: `identities` is of another shape.
    """
    identities = np.asarray(identities)
    is_fit = identities.ndim == 2 and identities.shape[1] == 2
    check(is_fit, 'identities', '[n, 2]', list(identities.shape))
    people, places = np.unique(identities, return_inverse=True)
    first, second = places.reshape(-1, 2).T
    random = np.random.RandomState(seed)
    for _ in range(samples):
        drawn = np.bincount(random.randint(0, len(people), len(people)), minlength=len(people))
        yield np.where(first == second, drawn[first], drawn[first] * drawn[second]).astype(float)


def intervals(
    roc: Roc,
    identities: np.ndarray,
    statistics: Mapping[str, Callable[[Roc], float | None]],
    samples: int = 1000,
    seed: int = 0,
) -> dict[str, list[float] | None]:
    """95 % percentile intervals of statistics of a curve.

    Args:
      roc: the curve of n pairs.
      identities: [n, 2], the two people of each pair.
      statistics: {name: function of a Roc, None where it is not defined}.
      samples: number of bootstrap samples.
      seed: of the drawings.

    Returns:
      {name: [low, high], or None if the statistic is undefined in more than a tenth of the
      samples}.
    """
    found: dict[str, list[Any]] = {name: [] for name in statistics}
    for weights in identity_weights(identities, samples, seed):
        curve = roc.weighted(weights)
        for name, statistic in statistics.items():
            found[name].append(statistic(curve))
    tails = [50 * (1 - _LEVEL), 50 * (1 + _LEVEL)]
    result: dict[str, list[float] | None] = {}
    for name, values in found.items():
        defined = [value for value in values if value is not None]
        is_enough = len(defined) and len(defined) >= _FEWEST_DEFINED * len(values)
        result[name] = np.percentile(defined, tails).tolist() if is_enough else None
    return result
