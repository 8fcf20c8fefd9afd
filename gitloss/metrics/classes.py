"""Distances within and between classes, in NumPy, vectorised.

Definitions as in the authors' program, so that numbers can be laid beside the published ones; class
means are exact here (sums over counts) where theirs average the means of batches, which is NaN as
soon as one batch misses a class.
"""

from __future__ import annotations

import numpy as np


def spread(count, most):
    """Numbers of `most` of `count` things at most, evenly spaced: of a sorted set they show all the
    classes. int64, rising.
    """
    return np.linspace(0, count - 1, min(most, count)).astype(np.int64)


class ClassSums:
    """Sums per class over a stream of batches, in O(classes x dim) memory however many samples
    come.

    Args:
      num_classes: number of classes.
    """

    def __init__(self, num_classes):
        self.counts = np.zeros(num_classes, np.int64)  # samples of each class so far
        self._sums = None

    def add(self, values, labels):
        """Adds a batch: values float [n, dim], labels int [n] in [0, num_classes). Its cost does
        not depend on num_classes.
        """
        if self._sums is None:
            self._sums = np.zeros((len(self.counts), values.shape[1]), np.float64)
        order = np.argsort(labels, kind='stable')
        present, first = np.unique(labels[order], return_index=True)
        self._sums[present] += np.add.reduceat(values[order], first, axis=0, dtype=np.float64)
        self.counts[present] += np.diff(np.append(first, len(labels)))

    def means(self):
        """float64 [num_classes, dim]; zeros for a class without samples."""
        return self._sums / np.maximum(self.counts, 1)[:, None]


def intra_class_distance(batches, means):
    """Mean over the classes present of the mean Euclidean distance of their samples to the class
    mean.

    Args:
      batches: an iterable of (embeddings float [n, dim], labels int [n]).
      means: float64 [classes, dim].
    """
    distances = ClassSums(len(means))
    for embeddings, labels in batches:
        distances.add(np.linalg.norm(embeddings - means[labels], axis=1)[:, None], labels)
    return float(np.mean(distances.means()[distances.counts > 0]))


def inter_class_distance(means, counts, most=2000):
    """Mean Euclidean distance over all pairs of means of the classes that have samples; 0 for fewer
    than two of them.

    Of more than `most` such classes as many are taken, evenly spaced by number: all pairs of a
    million classes would take days.
    """
    present = np.flatnonzero(counts)
    present = means[present[spread(len(present), most)]]
    if len(present) < 2:
        return 0.0
    total = sum(
        float(np.linalg.norm(present[i + 1 :] - present[i], axis=1).sum())
        for i in range(len(present) - 1)
    )
    return total / (len(present) * (len(present) - 1) / 2)


def pair_distances(embeddings, labels, most=1000):
    """Euclidean distances of all pairs among `most` samples, evenly spread.

    Args:
      embeddings: float [n, dim].
      labels: int [n].
      most: bounds the work: most * (most - 1) / 2 pairs.

    Returns:
      (genuine float64 [k], the pairs of one class; impostor float64 [l], the pairs of two).
    """
    rows = spread(len(labels), most)
    points, labels = np.asarray(embeddings, np.float64)[rows], np.asarray(labels)[rows]
    points = points - points.mean(axis=0)  # near the origin the expansion below cancels least
    norms = np.sum(points**2, axis=1)
    squared = norms[:, None] + norms[None, :] - 2.0 * points.dot(points.T)
    first, second = np.triu_indices(len(points), 1)
    found = np.sqrt(np.maximum(squared[first, second], 0.0))
    same = labels[first] == labels[second]
    return found[same], found[~same]
