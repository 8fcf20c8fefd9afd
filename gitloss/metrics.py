"""Distances within and between classes, in NumPy, vectorised.

Definitions as in the authors' program, so that numbers can be laid beside the published ones; class means are exact here (sums over
counts) where theirs average the means of batches, which is NaN as soon as one batch misses a class.
"""
from __future__ import annotations

import numpy as np


def class_means(embeddings, labels, num_classes):
    """Mean embedding of each class.

    Args:
      embeddings: float [n, dim].
      labels: int [n] in [0, num_classes).
      num_classes: number of rows wanted.

    Returns:
      (means float64 [num_classes, dim], counts int64 [num_classes]). A class without samples has count 0 and a mean of zeros.
    """
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.stack([np.bincount(labels, weights=column, minlength=num_classes) for column in np.asarray(embeddings).T], axis=1)
    return sums / np.maximum(counts, 1)[:, None], counts


def intra_class_distance(embeddings, labels, means):
    """Mean over the classes present of the mean Euclidean distance of their samples to the class mean."""
    counts = np.bincount(labels, minlength=len(means))
    distances = np.linalg.norm(np.asarray(embeddings, np.float64) - means[labels], axis=1)
    sums = np.bincount(labels, weights=distances, minlength=len(means))
    return float(np.mean(sums[counts > 0] / counts[counts > 0]))


def inter_class_distance(means, counts):
    """Mean Euclidean distance over all pairs of means of the classes that have samples; 0 for fewer than two of them."""
    present = means[counts > 0]
    if len(present) < 2:
        return 0.0
    total = sum(float(np.linalg.norm(present[i + 1:] - present[i], axis=1).sum()) for i in range(len(present) - 1))
    return total / (len(present) * (len(present) - 1) / 2)


def pair_distances(embeddings, labels, most=1000):
    """Euclidean distances of all pairs among the first `most` samples.

    Args:
      embeddings: float [n, dim].
      labels: int [n].
      most: bounds the work: most * (most - 1) / 2 pairs.

    Returns:
      (genuine float64 [k], the pairs of one class; impostor float64 [l], the pairs of two).
    """
    points, labels = np.asarray(embeddings[:most], np.float64), np.asarray(labels[:most])
    points = points - points.mean(axis=0)  # near the origin the expansion below cancels least
    norms = np.sum(points ** 2, axis=1)
    squared = norms[:, None] + norms[None, :] - 2.0 * points.dot(points.T)
    first, second = np.triu_indices(len(points), 1)
    found = np.sqrt(np.maximum(squared[first, second], 0.0))
    same = labels[first] == labels[second]
    return found[same], found[~same]
