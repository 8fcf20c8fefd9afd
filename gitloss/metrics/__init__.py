"""Metrics in NumPy, without TensorFlow."""

from gitloss.metrics.classes import (
    ClassSums,
    inter_class_distance,
    intra_class_distance,
    pair_distances,
    spread,
)

__all__ = ['ClassSums', 'inter_class_distance', 'intra_class_distance', 'pair_distances', 'spread']
