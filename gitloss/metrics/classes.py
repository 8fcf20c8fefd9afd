"""Distances within and between classes, in NumPy, vectorised.

Definitions as in the authors' program, so that the numbers compare with the published ones. Class
means are exact here (sums over counts); theirs average the means of batches, which is NaN as soon
as one batch misses a class.
"""

from __future__ import annotations

from typing import Iterable

import numpy as np


def evenly_spaced(count: int, limit: int) -> np.ndarray:
    """Indices of at most `limit` of `count` items, evenly spaced, rising: int64.

    Of a set that is sorted by class they reach all classes.
    """
    return np.linspace(0, count - 1, min(limit, count)).astype(np.int64)


class ClassSums:
    """Sums per class over a stream of batches, in O(classes x dim) memory.

    Args:
      num_classes: number of classes.

    Attributes:
      counts: int64 [num_classes], samples of each class so far.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros(num_classes, np.int64)
        self._sums: np.ndarray | None = None

    def add(self, values: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch, at a cost that does not depend on the number of classes.

        Args:
          values: float [n, dim].
          labels: int [n] in [0, num_classes).
        """
        if self._sums is None:
            self._sums = np.zeros((len(self.counts), values.shape[1]), np.float64)
        order = np.argsort(labels, kind='stable')
        present, first = np.unique(labels[order], return_index=True)
        self._sums[present] += np.add.reduceat(values[order], first, axis=0, dtype=np.float64)
        self.counts[present] += np.diff(np.append(first, len(labels)))

    def means(self) -> np.ndarray:
        """float64 [num_classes, dim]; zeros for a class without samples."""
        return self._sums / np.maximum(self.counts, 1)[:, None]


def intra_class_distance(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], means: np.ndarray
) -> float:
    """Mean over the classes present of the mean Euclidean distance of their samples to the class
    mean.

    Args:
      batches: (embeddings float [n, dim], labels int [n]) each.
      means: float64 [classes, dim].
    """
    distances = ClassSums(len(means))
    for embeddings, labels in batches:
        distances.add(np.linalg.norm(embeddings - means[labels], axis=1)[:, None], labels)
    return float(np.mean(distances.means()[distances.counts > 0]))


def inter_class_distance(means: np.ndarray, counts: np.ndarray, limit: int = 2000) -> float:
    """Mean Euclidean distance over all pairs of means of the classes present; 0 for fewer than two.

    Args:
      means: float64 [classes, dim].
      counts: int [classes], samples of each class.
      limit: of more classes this many are taken, evenly spaced: all pairs of a million classes
        would take days.
    """
    present = np.flatnonzero(counts)
    present = means[present[evenly_spaced(len(present), limit)]]
    if len(present) < 2:
        return 0.0
    total = sum(
        float(np.linalg.norm(present[i + 1 :] - present[i], axis=1).sum())
        for i in range(len(present) - 1)
    )
    return total / (len(present) * (len(present) - 1) / 2)


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
    rows = evenly_spaced(len(labels), limit)
    points, labels = np.asarray(embeddings, np.float64)[rows], np.asarray(labels)[rows]
    points = points - points.mean(axis=0)  # near the origin the expansion below cancels least
    norms = np.sum(points**2, axis=1)
    squared = norms[:, None] + norms[None, :] - 2.0 * points.dot(points.T)
    first, second = np.triu_indices(len(points), 1)
    found = np.sqrt(np.maximum(squared[first, second], 0.0))
    same = labels[first] == labels[second]
    return found[same], found[~same]
