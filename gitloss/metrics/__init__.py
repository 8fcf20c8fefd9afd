"""Metrics in NumPy, without TensorFlow, and their declarations."""

from gitloss.metrics.classes import (
    ClassSums,
    evenly_spaced,
    inter_class_distance,
    intra_class_distance,
    pair_distances,
)
from gitloss.metrics.declaration import Metric

__all__ = [
    'ClassSums',
    'Metric',
    'inter_class_distance',
    'intra_class_distance',
    'pair_distances',
    'evenly_spaced',
]
