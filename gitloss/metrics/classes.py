"""Distances within and between classes, vectorised in NumPy.

Definitions as in the authors' code, so that numbers compare with the published ones. Class means
are exact here (sums over counts). The authors' code averages the means of batches, which gives NaN
as soon as one batch misses a class.
"""

from __future__ import annotations

import math
from typing import Iterable

import numpy as np


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """Indices of at most `limit` of `count` items, evenly spaced: int64, increasing.

    Every class of a set sorted by class is represented.
    """
    return np.linspace(0, count - 1, min(limit, count)).astype(np.int64)


class ClassSums:
    """Sums per class over a stream of batches, in O(classes x dim) memory.

    Args:
      num_classes: number of classes.

    Attributes:
      counts: int64 [num_classes], the samples of each class so far.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros(num_classes, np.int64)
        self._sums = np.zeros((num_classes, 0))

    def add(self, values: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch: values float [n, dim], labels int [n] in [0, num_classes).

        The cost does not depend on num_classes.
        """
        if not self._sums.size:
            self._sums = np.zeros((len(self.counts), values.shape[1]), np.float64)
        order = np.argsort(labels, kind='stable')
        present, first = np.unique(labels[order], return_index=True)
        self._sums[present] += np.add.reduceat(values[order], first, axis=0, dtype=np.float64)
        self.counts[present] += np.diff(np.append(first, len(labels)))

    def means(self) -> np.ndarray:
        """float64 [num_classes, dim]; zeros for a class without samples."""
        return self._sums / np.maximum(self.counts, 1)[:, None]


def class_spreads(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], means: np.ndarray
) -> np.ndarray:
    """Mean Euclidean distance of the samples of each class to the class mean: float64 [k], of the
    classes with samples.

    Args:
      batches: an iterable of (embeddings float [n, dim], labels int [n]).
      means: float64 [classes, dim].
    """
    distances = ClassSums(len(means))
    for embeddings, labels in batches:
        distances.add(np.linalg.norm(embeddings - means[labels], axis=1)[:, None], labels)
    return distances.means()[distances.counts > 0].ravel()


def intra_class_distance(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], means: np.ndarray
) -> float:
    """The mean of `class_spreads`, in which each class with samples counts once."""
    return float(np.mean(class_spreads(batches, means)))


def inter_class_distance(means: np.ndarray, counts: np.ndarray, limit: int = 2000) -> float:
    """Mean Euclidean distance over all pairs of class means; 0 for fewer than two classes.

    Args:
      means: float64 [classes, dim].
      counts: int [classes], the samples of each class; classes without samples do not count.
      limit: of more classes than this, so many are taken, evenly spaced: all pairs of a million
        classes would take days.
    """
    present = np.flatnonzero(counts)
    return mean_pair_distance(means[present[evenly_spaced(len(present), limit)]])[0]


def mean_pair_distance(points: np.ndarray, population: int = 0) -> tuple[float, float]:
    """Mean Euclidean distance over all pairs of n points, and its standard error as an estimate of
    the same over a `population` of which the points are a random sample without replacement.

    The mean is a U-statistic U. Its error is that of the jackknife (Arvesen, Annals of Mathematical
    Statistics 40, 1969): with the mean distance h_i of point i to the others, leaving it out gives
    U_i = (n U - 2 h_i) / (n - 2), and the variance is (n - 1) / n sum_i (U_i - U)^2, here times the
    finite-population correction 1 - n / population (Nandi and Sen, Calcutta Statistical Association
    Bulletin 12, 1963).

    Args:
      points: float64 [n, dim].
      population: number of points of the population; not more than n: there is no error.

    Returns:
      (mean, 0 for fewer than two points; error, NaN for a sample of fewer than three).
    """
    n = len(points)
    sums, rows = np.zeros(n), []
    for i in range(n - 1):
        distances = np.linalg.norm(points[i + 1 :] - points[i], axis=1)
        rows.append(float(distances.sum()))
        sums[i] += rows[-1]
        sums[i + 1 :] += distances
    mean = sum(rows) / max(n * (n - 1) / 2, 1)
    if population <= n:
        return mean, 0.0
    if n < 3:
        return mean, math.nan
    left_out = (n * mean - 2 * sums / (n - 1)) / (n - 2)
    variance = (n - 1) / n * float(np.sum((left_out - mean) ** 2)) * (1 - n / population)
    return mean, math.sqrt(variance)


def standard_error(values: np.ndarray, population: int) -> float:
    """The standard error of the mean of n values as an estimate of the mean of a `population` of
    which they are a random sample without replacement: s sqrt((1 - n / population) / n)  (Cochran,
    Sampling Techniques, chapter 2). NaN for a sample of one.
    """
    n = len(values)
    if population <= n:
        return 0.0
    return (
        float(np.std(values, ddof=1)) * math.sqrt((1 - n / population) / n) if n > 1 else math.nan
    )


def pair_distances(
    embeddings: np.ndarray, labels: np.ndarray, limit: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances of all pairs among at most `limit` samples, evenly spaced.

    Args:
      embeddings: float [n, dim].
      labels: int [n].
      limit: bounds the work: limit * (limit - 1) / 2 pairs.

    Returns:
      (genuine float64 [k], the pairs of one class; impostor float64 [l], the pairs of two).
    """
    sample = evenly_spaced(len(labels), limit)
    points, labels = np.asarray(embeddings, np.float64)[sample], np.asarray(labels)[sample]
    points = points - points.mean(axis=0)  # near the origin the expansion below cancels least
    norms = np.sum(points**2, axis=1)
    squared = norms[:, None] + norms[None, :] - 2.0 * points.dot(points.T)
    first, second = np.triu_indices(len(points), 1)
    distances = np.sqrt(np.maximum(squared[first, second], 0.0))
    same = labels[first] == labels[second]
    return distances[same], distances[~same]
