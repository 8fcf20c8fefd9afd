"""Distances within and between classes, vectorised in NumPy.

Definitions as in the authors' code, so that numbers compare with the published ones. Class means
are exact here (sums over counts). The authors' code averages the means of batches, which gives NaN
as soon as one batch misses a class.
"""

from __future__ import annotations

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


def intra_class_distance(
    batches: Iterable[tuple[np.ndarray, np.ndarray]], means: np.ndarray
) -> float:
    """Mean over the classes of the mean Euclidean distance of their samples to the class mean.

    Classes without samples do not count.

    Args:
      batches: an iterable of (embeddings float [n, dim], labels int [n]).
      means: float64 [classes, dim].
    """
    distances = ClassSums(len(means))
    for embeddings, labels in batches:
        distances.add(np.linalg.norm(embeddings - means[labels], axis=1)[:, None], labels)
    return float(np.mean(distances.means()[distances.counts > 0]))


def inter_class_distance(means: np.ndarray, counts: np.ndarray, limit: int = 2000) -> float:
    """Mean Euclidean distance over all pairs of class means; 0 for fewer than two classes.

    Args:
      means: float64 [classes, dim].
      counts: int [classes], the samples of each class; classes without samples do not count.
      limit: of more classes than this, so many are taken, evenly spaced: all pairs of a million
        classes would take days.
    """
    present = np.flatnonzero(counts)
    present = means[present[evenly_spaced(len(present), limit)]]
    total = sum(
        float(np.linalg.norm(present[i + 1 :] - present[i], axis=1).sum())
        for i in range(len(present) - 1)
    )
    return total / max(len(present) * (len(present) - 1) / 2, 1)


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
